"""A directory, a cgroup and the processes that belong to them: all gone at the end, however the end comes.

A *keeper*, a process of its own session, waits for the owner to close a pipe; a normal end, Ctrl-C, SIGTERM, a
crash and even SIGKILL all close it, so there is one way of cleaning up, and every run takes it. Should the keeper
die as well, the next `Scratch` sees that nobody holds the directory's lock and cleans up what was left.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

MARK = "SECCOMP_FLOOR_SCRATCH"
"""In the environment of every process of a scratch directory, and so of containerd's shims too, which daemonise."""
PARENT = Path("/tmp")
"""Not TMPDIR: the path of a unix socket has at most 107 characters."""
PREFIX = "seccomp-floor-node-"
STARTING_SECONDS = 60
"""A directory without a lock that is younger than this may belong to somebody who is about to take it."""


class Scratch:
    """A fresh directory under /tmp; as a context manager, or closed by `close`."""

    def __init__(self) -> None:
        """Clean up what dead owners left, then make the directory and start its keeper."""
        sweep()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=PARENT))
        self.environment = {**os.environ, MARK: str(self.path)}
        self._children: list[subprocess.Popen[bytes]] = []
        lock = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", __file__, self.path],
            stdin=subprocess.PIPE,
            pass_fds=[lock],  # the lock lives as long as the keeper
            start_new_session=True,
        )
        os.close(lock)

    @property
    def cgroup(self) -> str:
        """Name of the cgroup, below the root of each hierarchy, that containers are to be put under."""
        return self.path.name

    def spawn(
        self, command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process that belongs here, out of reach of Ctrl-C, which is for the tests; its output goes to `log`."""
        with log.open("ab") as output:
            child = subprocess.Popen(
                command,
                env={**self.environment, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._children.append(child)
        return child

    def close(self) -> None:
        """End everything that belongs to the directory, and remove it."""
        if self._keeper.stdin is not None:
            self._keeper.stdin.close()
        self._keeper.wait()
        for child in self._children:
            child.wait()

    def __enter__(self) -> Self:
        """Nothing to do: the directory is there."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As `close`."""
        self.close()


def sweep() -> None:
    """Clean up every scratch directory whose owner and keeper are dead."""
    for path in PARENT.glob(f"{PREFIX}*"):
        try:
            lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            with contextlib.suppress(FileNotFoundError):
                if path.is_dir() and time.time() - path.stat().st_mtime > STARTING_SECONDS:
                    clean(path)
            continue
        except NotADirectoryError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            clean(path)
        finally:
            os.close(lock)


def clean(path: Path) -> None:
    """Kill the processes, unmount, and remove the cgroups and the directory; idempotent."""
    while processes := members(path):
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)  # until the dead are gone from /proc and their mount namespaces with them
    for mount in reversed(mounts_under(path)):
        subprocess.run(["umount", "--lazy", mount], check=False)
    for group in cgroups(path.name):
        for directory, _, _ in os.walk(group, topdown=False):
            remove_cgroup(Path(directory))
    shutil.rmtree(path, ignore_errors=True)


def members(path: Path) -> set[int]:
    """Processes (not zombies) that carry the mark, name the directory or sit in the cgroup, with all their descendants."""
    parents: dict[int, int] = {}
    found: set[int] = set()
    mark = f"{MARK}={path}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if state in "ZX":
                continue
            parents[int(entry.name)] = int(parent)
            words, environment = ((entry / name).read_bytes() for name in ("cmdline", "environ"))
            if mark in environment.split(b"\0") or f"{path}/".encode() in words:
                found.add(int(entry.name))
        except OSError:  # it ended meanwhile, or is not ours to look at
            continue
    for group in cgroups(path.name):
        for directory, _, _ in os.walk(group):
            with contextlib.suppress(OSError):
                found |= parents.keys() & set(map(int, (Path(directory) / "cgroup.procs").read_text().split()))
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def mounts_under(path: Path) -> list[str]:
    """Mount points below `path` in this mount namespace, in the order of mounting."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [point for line in lines if (point := line.split()[4]).startswith(f"{path}/")]


def cgroups(name: str) -> list[Path]:
    """The cgroup of that name in every hierarchy that has it, of version 1 and 2 alike."""
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    roots = [Path(point) for _, point, kind, *_ in mounts if kind in {"cgroup", "cgroup2"}]
    return [group for root in roots if (group := root / name).is_dir()]


def remove_cgroup(path: Path) -> None:
    """A cgroup can be removed a moment after its last process has gone; ten seconds are a long moment."""
    for _ in range(500):
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.02)
        else:
            return


def keep(path: Path) -> None:
    """The keeper: wait for the owner's end of the pipe to close, whatever signals arrive, and clean up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    clean(path)


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
