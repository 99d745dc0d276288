"""systemd's own reading of the units."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.unit_file import DAEMON, READER

pytestmark = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Both of its outputs as one."""
    command = ["systemd-analyze", "--no-pager", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    """Of the units as they are, but for the place of the program, which is not installed there."""
    units = []
    for each in (DAEMON, READER):
        unit = tmp_path / each.name
        unit.write_text(each.read_text().replace("/opt/seccomp-floor/bin/seccomp-floor", sys.executable))
        units.append(unit)
    outcome = analyze("verify", "--man=no", *units)
    assert (outcome.returncode, outcome.stdout) == (0, "")


@pytest.mark.parametrize(
    ("unit", "most"),
    [
        pytest.param(DAEMON, 2.3, id="the daemon: whatever does not read filters"),
        pytest.param(READER, 5.7, id="the reader: as low as it gets without a seccomp filter"),
    ],
)
def test_exposure(capsys: pytest.CaptureFixture[str], unit: Path, most: float) -> None:
    outcome = analyze("security", "--offline=true", unit)
    found = re.search(r"Overall exposure level for \S+: (\d+\.\d+)", outcome.stdout)
    assert found, outcome.stdout
    with capsys.disabled():
        print(f"\nsystemd-analyze security: {unit.name}: exposure {found[1]} of 10")
    assert float(found[1]) <= most
