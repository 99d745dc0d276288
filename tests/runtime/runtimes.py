"""Runtimes called as engines call them, bare or behind the wrapper, and bundles for them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from runtime import debian
from runtime.installation import install
from testnode import probe, programs
from testnode.scratch import Scratch

UNIFIED = Path("/sys/fs/cgroup/unified")
SECONDS = 120

ENTER = ("unshare", "--mount", "sh", "-ec")

HIDE_UNIFIED = f"if mountpoint -q {UNIFIED}; then umount {UNIFIED}; fi"
"""In a mount namespace: crun refuses cgroup v1 with an empty version 2 mounted beside it."""


@dataclass(frozen=True)
class Runtime:
    """A runtime's command line. ``program``: what is called; ``path``: its PATH, on which the wrapper finds the real one."""

    scratch: Scratch
    name: str
    program: Path
    path: str
    before: tuple[str, ...] = ()

    def run(
        self,
        *arguments: str | Path,
        check: bool = True,
        cwd: Path | None = None,
        stdout: IO[str] | int = subprocess.PIPE,
        stderr: IO[str] | int = subprocess.PIPE,
    ) -> subprocess.CompletedProcess[str]:
        """One call, with its state under the scratch directory.

        What a container inherits stays open as long as it lives: one that goes on must not have a pipe of ours.
        """
        command = [*self.before, self.program, "--root", self.scratch.path / f"state-{self.name}", *arguments]
        return subprocess.run(
            [str(word) for word in command],
            check=check,
            cwd=cwd,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
            timeout=SECONDS,
        )

    @property
    def environment(self) -> dict[str, str]:
        """As a service manager leaves it: a PATH, and where the wrapper's cache is to be for these tests."""
        return {
            "PATH": self.path,
            "XDG_CACHE_HOME": str(self.scratch.path / "cache"),
            "SECCOMP_FLOOR_SCRATCH": str(self.scratch.path),
        }


def runtimes(scratch: Scratch) -> dict[str, tuple[Runtime, Runtime]]:
    """Each runtime, bare and behind the wrapper."""
    installed = install(scratch)
    runc, crun = installed / "seccomp-floor-runc", installed / "seccomp-floor-crun"
    newest = f"{programs.runc().parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    before = (*ENTER, f'{HIDE_UNIFIED}; exec "$@"', "sh")
    return {
        f"runc {programs.RUNC}": (
            Runtime(scratch, "runc", programs.runc(), newest),
            Runtime(scratch, "runc", runc, newest),
        ),
        "Debian's runc": (
            Runtime(scratch, "debian-runc", debian.program("runc"), debian.path()),
            Runtime(scratch, "debian-runc", runc, debian.path()),
        ),
        "Debian's crun": (
            Runtime(scratch, "debian-crun", debian.program("crun"), debian.path(), before),
            Runtime(scratch, "debian-crun", crun, debian.path(), before),
        ),
    }


def laid_over_etc(directory: Path) -> str:
    """A script that lays a directory over /etc, in a mount namespace."""
    return f"mount -t overlay -o lowerdir={directory}:/etc overlay /etc"


def rootfs(scratch: Scratch) -> Path:
    """A root file system of busybox and the probe."""
    root = scratch.path / "rootfs"
    if not root.exists():
        for directory in ("bin", "dev", "proc", "sys", "tmp"):
            (root / directory).mkdir(parents=True)
        shutil.copy("/bin/busybox", root / "bin" / "busybox")
        for command in ("cat", "sh", "sleep", "true"):
            (root / "bin" / command).symlink_to("busybox")
        probe.build(root / "probe")
    return root


def bundle(
    scratch: Scratch,
    name: str,
    *,
    args: Sequence[str] = ("/probe", "sleep"),
    section: Mapping[str, Any] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Path:
    """A bundle with the configuration that ``runc spec`` writes, on the host's network, in the scratch directory's cgroup."""
    path = scratch.path / "bundles" / name
    path.mkdir(parents=True)
    subprocess.run([programs.runc(), "spec"], cwd=path, check=True)
    spec = json.loads((path / "config.json").read_text())
    spec["ociVersion"] = "1.0.2"  # which older runtimes know as well
    spec["process"] |= {"terminal": False, "args": list(args)}
    spec["root"] = {"path": str(rootfs(scratch)), "readonly": True}
    linux = spec["linux"]
    linux["namespaces"] = [space for space in linux["namespaces"] if space["type"] not in ("cgroup", "network")]
    linux["cgroupsPath"] = f"/{scratch.cgroup}/{name}"
    if section is not None:
        linux["seccomp"] = section
    if annotations is not None:
        spec["annotations"] = annotations
    (path / "config.json").write_text(json.dumps(spec, indent="\t"))
    return path
