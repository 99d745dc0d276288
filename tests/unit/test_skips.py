"""In continuous integration a skipped test is a failure: a missing tool must not look like a passing test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parent.parent / "conftest.py"
KINDS = {
    "in the test": "import pytest\ndef test_it(): pytest.skip('no tool')\n",
    "by a mark": "import pytest\n@pytest.mark.skip(reason='no tool')\ndef test_it(): pass\n",
    "in a fixture": "import pytest\n@pytest.fixture\ndef tool(): pytest.skip('no tool')\ndef test_it(tool): pass\n",
    "of the module": "import pytest\npytest.skip('no tool', allow_module_level=True)\n",
}


def run(directory: Path, code: str, ci: str) -> subprocess.CompletedProcess[str]:
    """pytest on one file beside our conftest."""
    shutil.copy(CONFTEST, directory)
    (directory / "test_it.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--rootdir={directory}", str(directory)]
    environment = {**os.environ, "CI": ci}
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("code", KINDS.values(), ids=KINDS)
def test_a_skip_fails_in_ci(tmp_path: Path, code: str) -> None:
    """With its reason."""
    answer = run(tmp_path, code, "true")
    assert answer.returncode in {1, 2}, answer.stdout
    assert "not allowed where CI=true" in answer.stdout
    assert "no tool" in answer.stdout


@pytest.mark.parametrize("code", KINDS.values(), ids=KINDS)
def test_a_skip_is_a_skip_elsewhere(tmp_path: Path, code: str) -> None:
    """On a contributor's machine it only says so."""
    answer = run(tmp_path, code, "")
    assert "1 skipped" in answer.stdout, answer.stdout


def test_an_expected_failure_stays_one_in_ci(tmp_path: Path) -> None:
    """xfail is no skip."""
    code = "import pytest\n@pytest.mark.xfail(reason='known')\ndef test_it(): assert False\n"
    answer = run(tmp_path, code, "true")
    assert answer.returncode == 0, answer.stdout
    assert "1 xfailed" in answer.stdout
