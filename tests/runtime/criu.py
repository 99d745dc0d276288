"""CRIU, with which runc checkpoints and restores; of Debian's newer suite, since bookworm's knows no kernel with a second area of
vDSO data (Linux 6.13). It brings its own libc, so it is run by that one's loader."""

from __future__ import annotations

import subprocess
from pathlib import Path

from runtime.debian import NEWER_SUITE, _unpacked
from testnode import programs

PACKAGES = (
    "criu", "libbsd0", "libc6", "libcompel1", "libffi8", "libgcc-s1", "libgmp10", "libgnutls30t64", "libhogweed6t64", "libidn2-0",
    "libjansson4", "libmd0", "libmnl0", "libnet1", "libnettle8t64", "libnftables1", "libnftnl11", "libnl-3-200", "libp11-kit0",
    "libprotobuf-c1", "libtasn1-6", "libunistring5", "libuuid1", "libxtables12",
)  # fmt: skip
LAUNCHER = """\
#!/bin/sh
exec {root}/usr/lib64/ld-linux-x86-64.so.2 --library-path {root}/usr/lib/x86_64-linux-gnu {root}/usr/sbin/criu "$@"
"""


def install(directory: Path) -> None:
    """Put `criu` into a directory, and runc beside it: where that is first on PATH, a node's containerd and runc find both."""
    root = _unpacked(f"debian-{NEWER_SUITE}-criu", PACKAGES, NEWER_SUITE)
    launcher = directory / "criu"
    launcher.write_text(LAUNCHER.format(root=root))
    launcher.chmod(0o755)
    (directory / "runc").symlink_to(programs.runc())


def why_not(directory: Path) -> str:
    """What this kernel lacks for it, "" for nothing."""
    answer = subprocess.run([directory / "criu", "check"], capture_output=True, text=True, check=False)
    return "" if answer.returncode == 0 else answer.stderr.strip() or answer.stdout.strip()
