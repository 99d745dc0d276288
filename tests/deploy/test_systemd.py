"""systemd's own reading of the unit."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "seccomp-floor.service"

pytestmark = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Both of its outputs as one."""
    command = ["systemd-analyze", "--no-pager", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    """Of the unit as it is, but for the place of the program, which is not installed there."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/seccomp-floor/bin/seccomp-floor", sys.executable))
    outcome = analyze("verify", "--man=no", unit)
    assert (outcome.returncode, outcome.stdout) == (0, "")


def test_exposure(capsys: pytest.CaptureFixture[str]) -> None:
    """As low as it gets without a seccomp filter, which alone accounts for most of what is left."""
    outcome = analyze("security", "--offline=true", UNIT)
    found = re.search(r"Overall exposure level for \S+: (\d+\.\d+)", outcome.stdout)
    assert found, outcome.stdout
    with capsys.disabled():
        print(f"\nsystemd-analyze security: exposure {found[1]} of 10")
    assert float(found[1]) <= 6.7
