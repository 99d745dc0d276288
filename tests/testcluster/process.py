"""A program of the cluster: started, waited for, ended."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from testnode import Scratch

READY_SECONDS = 120
STOP_SECONDS = 30
TAIL_LINES = 20


class ClusterError(Exception):
    """A part of the cluster did not do what was asked; the message ends in the last lines of its log."""


@dataclass(kw_only=True)
class Program:
    """One process; what it says is kept over all its starts."""

    scratch: Scratch
    command: Sequence[str | Path]
    log: Path
    ready: Callable[[], bool]
    """Whether it answers; asked until it does."""
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def name(self) -> str:
        """As its log is called."""
        return self.log.stem

    def start(self) -> None:
        """Start it; `wait` then tells when it answers."""
        self._process = self.scratch.spawn(self.command, self.log)

    def wait(self) -> None:
        """Return when it answers; `ClusterError` if it ends before, or does not."""
        assert self._process is not None
        deadline = time.monotonic() + READY_SECONDS
        while not self.ready():
            if self._process.poll() is not None:
                raise ClusterError(f"{self.name} ended with {self._process.returncode}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ClusterError(f"{self.name} did not answer within {READY_SECONDS} s:\n{self.tail()}")
            time.sleep(0.2)

    def stop(self) -> None:
        """End it as its service manager would."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def tail(self) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:])
