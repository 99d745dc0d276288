"""`make demo` as its user sees it: the last screen, and what is left when it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

pytestmark = pytest.mark.node

MARK = "SECCOMP_FLOOR_DEMO_TEST"


def start(mark: str) -> subprocess.Popen[str]:
    """The demo, on a narrow terminal without colours; `mark` is in its environment and in its children's."""
    tests = str(Path(__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": tests, "COLUMNS": "80", MARK: mark}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-m", "demo"], env=environment, stdout=pipe, stderr=pipe, text=True)


def carriers(mark: str) -> list[str]:
    """Command lines of the processes that have the mark in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_text())
        except OSError:
            continue
    return found


def test_the_last_screen() -> None:
    """It ends well, and the table says what the floor did."""
    mark = uuid.uuid4().hex
    with start(mark) as demo:
        output, errors = demo.communicate(timeout=120)
    assert demo.returncode == 0, output + errors
    last = output[output.rindex("Seccomp Floor:") :]
    rows = {cells[0]: cells[1:] for cells in map(table_cells, last.splitlines()) if cells}
    assert rows["x86_64 socket (high)"] == ["OPEN", "OPEN", "closed", "closed", "OPEN"]
    assert rows["i386 socketcall socket"] == ["OPEN", "OPEN", "closed", "closed", "OPEN"]
    assert rows["x86_64 io_uring"] == ["closed", "OPEN", "closed", "closed", "OPEN"]
    assert carriers(mark) == []


def table_cells(line: str) -> list[str]:
    """A door and its five cells; [] for a line that has fewer words."""
    words = line.strip("│ ").split()
    return [" ".join(words[:-5]), *words[-5:]] if len(words) > 5 else []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_it_leaves_nothing(number: signal.Signals) -> None:
    """In the middle, with pods running."""
    mark = uuid.uuid4().hex
    with start(mark) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "Before:" in line:
                break
        time.sleep(0.3)
        assert len(carriers(mark)) > 2
        demo.send_signal(number)
        demo.communicate(timeout=60)
    assert demo.returncode in {130, -signal.SIGKILL}
    deadline = time.monotonic() + 30
    while carriers(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert carriers(mark) == []
