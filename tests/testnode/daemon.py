"""`seccomp-floor run` as a child process of the tests."""

from __future__ import annotations

import itertools
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from testnode.containerd import Containerd
from testnode.scratch import Scratch

COMMAND = Path(sys.executable).parent / "seccomp-floor"
WAIT_SECONDS = 30
_numbers = itertools.count(1)


class DaemonError(Exception):
    """The daemon ended or did not say what was waited for; the message has its log."""


class Daemon:
    """The node daemon; registered when the constructor returns, unless told not to wait."""

    def __init__(
        self,
        scratch: Scratch,
        containerd: Containerd,
        policy: str | None = None,
        *,
        arguments: Sequence[str] = (),
        wait: bool = True,
    ) -> None:
        """Start it, with `policy` (YAML) as its configuration; without one, with an empty policy."""
        number = next(_numbers)
        self.config = scratch.path / f"policy-{number}.yaml"
        self.config.write_text(policy if policy is not None else "version: 1\n")
        self.control_socket = scratch.path / f"control-{number}.sock"
        self.log_file = scratch.path / f"daemon-{number}.log"
        command = [str(COMMAND), "run", "--config", str(self.config), "--nri-socket", str(containerd.nri_socket)]
        command += ["--containerd-socket", str(containerd.socket), "--control-socket", str(self.control_socket)]
        self.process = scratch.spawn([*command, *arguments], self.log_file)
        if wait:
            self.wait_for("registered")

    @property
    def log(self) -> str:
        """Everything that it has said so far."""
        return self.log_file.read_text(errors="replace")

    def wait_for(self, text: str, times: int = 1, seconds: float = WAIT_SECONDS) -> None:
        """Return when it has said `text` that often; `DaemonError` if it ends or does not."""
        deadline = time.monotonic() + seconds
        while self.log.count(text) < times:
            if self.process.poll() is not None and self.log.count(text) < times:
                raise DaemonError(f"ended with {self.process.returncode} before it said '{text}':\n{self.log}")
            if time.monotonic() > deadline:
                raise DaemonError(f"did not say '{text}' within {seconds} s:\n{self.log}")
            time.sleep(0.02)

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        return self.signal(signal.SIGTERM)

    def kill(self) -> int:
        """SIGKILL, as a crash would look to containerd."""
        return self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> int:
        """Send a signal that ends it, and wait for the end."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(WAIT_SECONDS)

    def __enter__(self) -> Self:
        """It is running already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As `stop`; after an error as `kill`, since who knows what state it is in."""
        if error is None:
            self.stop()
        else:
            self.kill()
