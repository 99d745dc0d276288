"""CRIU, with which runc checkpoints and restores. It brings its own libc, so it is run by that one's loader."""

from __future__ import annotations

import subprocess
from pathlib import Path

from runtime import debian
from testnode import programs

LAUNCHER = """\
#!/bin/sh
exec {root}/usr/lib64/ld-linux-x86-64.so.2 --library-path {root}/usr/lib/x86_64-linux-gnu {root}/usr/sbin/criu "$@"
"""


def install(directory: Path) -> None:
    """Put `criu` into a directory, and runc beside it: where that is first on PATH, a node's containerd and runc find both."""
    root = debian.criu()
    launcher = directory / "criu"
    launcher.write_text(LAUNCHER.format(root=root))
    launcher.chmod(0o755)
    (directory / "runc").symlink_to(programs.runc())


def why_not(directory: Path) -> str:
    """What this kernel lacks for it, "" for nothing."""
    answer = subprocess.run([directory / "criu", "check"], capture_output=True, text=True, check=False)
    return "" if answer.returncode == 0 else answer.stderr.strip() or answer.stdout.strip()
