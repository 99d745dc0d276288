"""Debian's runtimes and engines, unpacked into the cache: nothing is installed, nothing starts, nothing on PATH changes.

``python -m runtime.debian`` sets them up, and installs what they need: libraries, ``golang-github-containers-common`` (Podman's
configuration), ``uidmap`` (for its users without root) and ``strace``, with which the tests kill at a given system call.
"""

from __future__ import annotations

import fcntl
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from testnode import programs

PACKAGES = ("conmon", "containerd", "crun", "docker.io", "podman", "runc")
INSTALLED = (
    "golang-github-containers-common", "libdevmapper1.02.1", "libgpgme11", "libseccomp2", "libsubid4", "libyajl2",
    "strace", "uidmap",
)  # fmt: skip


def directory() -> Path:
    """The root of the unpacked packages; made where it is missing."""
    target = programs.cache() / f"debian-{platform.freedesktop_os_release()['VERSION_CODENAME']}"
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.is_dir():
                _unpack(target)
    return target


def program(name: str) -> Path:
    """One of their programs. :raises SetupError: there is none of that name"""
    for place in ("usr/sbin", "usr/bin"):  # as on PATH
        path = directory() / place / name
        if path.exists():
            return path
    raise programs.SetupError(f"no {name} among Debian's {', '.join(PACKAGES)}")


def path() -> str:
    """A PATH on which their programs come first."""
    root = directory()
    return f"{root}/usr/sbin:{root}/usr/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _unpack(target: Path) -> None:
    programs.say(f"unpacking Debian's {', '.join(PACKAGES)}")
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        download = ["apt-get", "-o", "APT::Sandbox::User=root", "download", *PACKAGES]
        if subprocess.run(download, cwd=scratch, capture_output=True, check=False).returncode:
            subprocess.run(["apt-get", "-qq", "update"], check=True)
            subprocess.run(download, cwd=scratch, capture_output=True, check=True)
        part = Path(scratch) / "root"
        for package in Path(scratch).glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, part], check=True)
        part.rename(target)


def main() -> int:
    """Exit code 2 and one line where that cannot be had."""
    if shutil.which("dpkg") is None:
        programs.say("not a Debian: the tests of other runtimes are left out")
        return 0
    try:
        programs.install_debian_packages(INSTALLED)
        programs.say(f"Debian's runtimes: {directory()}")
    except (programs.SetupError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
