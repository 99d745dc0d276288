"""Debian's runtimes, engines and ``promtool``, unpacked into the cache: none is installed, none starts, none is on PATH.

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
from collections.abc import Sequence
from pathlib import Path

from testnode import programs

PACKAGES = ("conmon", "containerd", "crun", "docker.io", "podman", "runc")
CRIU = (
    "criu", "libbsd0", "libc6", "libcompel1", "libffi8", "libgcc-s1", "libgmp10", "libgnutls30t64", "libhogweed6t64", "libidn2-0",
    "libjansson4", "libmd0", "libmnl0", "libnet1", "libnettle8t64", "libnftables1", "libnftnl11", "libnl-3-200", "libp11-kit0",
    "libprotobuf-c1", "libtasn1-6", "libunistring5", "libuuid1", "libxtables12",
)  # fmt: skip
INSTALLED = (
    "golang-github-containers-common", "libdevmapper1.02.1", "libgpgme11", "libseccomp2", "libsubid4", "libyajl2",
    "strace", "uidmap",
)  # fmt: skip


SUITE = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
NEWER_SUITE = "trixie"
"""Its containerd is of the generation between bookworm's and what is built here, and runs on bookworm's libraries."""


def directory() -> Path:
    """The root of the unpacked packages; made where it is missing."""
    return _unpacked(f"debian-{SUITE}", PACKAGES, SUITE)


def newer_containerd() -> Path:
    """The directory of the newer suite's containerd."""
    return _unpacked(f"debian-{NEWER_SUITE}-containerd", ("containerd",), NEWER_SUITE) / "usr" / "bin"


def promtool() -> Path:
    """What judges metrics, and tries alerts; the server that comes with it stays where it is."""
    return _unpacked(f"debian-{SUITE}-prometheus", ("prometheus",), SUITE) / "usr" / "bin" / "promtool"


def criu() -> Path:
    """The root of the newer suite's CRIU and its libraries: bookworm's knows no kernel with a second area of vDSO data (Linux
    6.13)."""
    return _unpacked(f"debian-{NEWER_SUITE}-criu", CRIU, NEWER_SUITE)


def _unpacked(name: str, packages: Sequence[str], suite: str) -> Path:
    target = programs.cache() / name
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.is_dir():
                _unpack(target, packages, suite)
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


def _unpack(target: Path, packages: Sequence[str], suite: str) -> None:
    programs.say(f"unpacking {', '.join(packages)} of Debian {suite}")
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        apt = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root"]
        if suite != SUITE:
            apt += _lists_of(suite, Path(scratch))
        download = [*apt, "download", *packages]
        if subprocess.run(download, cwd=scratch, capture_output=True, check=False).returncode:
            subprocess.run([*apt, "update"], check=True)
            subprocess.run(download, cwd=scratch, capture_output=True, check=True)
        part = Path(scratch) / "root"
        for package in Path(scratch).glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, part], check=True)
        part.rename(target)


def _lists_of(suite: str, scratch: Path) -> list[str]:
    """Options for an apt that knows another suite, from where this machine has its own, and leaves the machine's lists alone."""
    etc = Path("/etc/apt")
    sources = [etc / "sources.list", etc / "sources.list.d" / "debian.sources"]
    known = next((path for path in sources if path.exists() and SUITE in path.read_text()), None)
    if known is None:
        raise programs.SetupError(f"none of {', '.join(map(str, sources))} names Debian's {SUITE}")
    (scratch / known.name).write_text(known.read_text().replace(SUITE, suite))
    for directory in ("lists/partial", "cache/archives/partial"):
        (scratch / directory).mkdir(parents=True)
    settings = {
        "Dir::Etc::sourcelist": scratch / known.name,
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": scratch / "lists",
        "Dir::Cache": scratch / "cache",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def main() -> int:
    """Exit code 2 and one line where that cannot be had."""
    if shutil.which("dpkg") is None:
        programs.say("not a Debian: the tests of other runtimes are left out")
        return 0
    try:
        programs.install_debian_packages(INSTALLED)
        programs.say(f"Debian's runtimes: {directory()}, {newer_containerd()}; {promtool()}, {criu()}")
    except (programs.SetupError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
