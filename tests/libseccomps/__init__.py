"""Other versions of libseccomp than the installed one: what a filter does must not depend on which one compiles it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

__all__ = ["VERSIONS", "SetupError", "directory", "find", "install"]

VERSIONS = {"2.6.0": "trixie", "2.6.1": "sid"}
"""Versions that there are besides Debian 12's 2.5.4, by the Debian suite that has them."""


class SetupError(Exception):
    """A version cannot be had; the text says why."""


def directory(version: str) -> Path:
    """Where a version is kept."""
    cache = os.environ.get("SECCOMP_FLOOR_CACHE") or Path.home() / ".cache" / "seccomp-floor"
    return Path(cache) / f"libseccomp-{version}"


def find(version: str) -> str | None:
    """The path of a version's shared object, None where it is not set up."""
    return next((str(path) for path in sorted(directory(version).glob("libseccomp.so.2.*"))), None)


def install(version: str) -> str:
    """Get a version from its Debian suite, through apt with lists and a cache of its own: nothing of the host's is changed.

    :raises SetupError: this is not Debian, or its archive does not have the version any more
    """
    found = find(version)
    if found:
        return found
    suite = VERSIONS[version]
    with tempfile.TemporaryDirectory(prefix="libseccomp-") as scratch_name:
        scratch = Path(scratch_name)
        for name in ("lists/partial", "archives/partial", "unpacked"):
            (scratch / name).mkdir(parents=True)
        (scratch / "sources.list").write_text(f"deb {_archive()} {suite} main\n")
        apt = [
            "apt-get", "-qq",
            "-o", f"Dir::Etc::SourceList={scratch}/sources.list", "-o", "Dir::Etc::SourceParts=-",
            "-o", f"Dir::State::Lists={scratch}/lists", "-o", f"Dir::Cache={scratch}",
            "-o", "APT::Sandbox::User=root", "-o", "APT::Get::List-Cleanup=false",
        ]  # fmt: skip
        _run([*apt, "update"], scratch)
        _run([*apt, "download", f"libseccomp2={version}*"], scratch)
        for package in scratch.glob("libseccomp2_*.deb"):
            _run(["dpkg", "-x", str(package), str(scratch / "unpacked")], scratch)
        made = [path for path in (scratch / "unpacked").rglob("libseccomp.so.2.*") if not path.is_symlink()]
        if not made:
            raise SetupError(f"Debian's {suite} has no libseccomp {version}")
        target = directory(version)
        target.mkdir(parents=True, exist_ok=True)
        half = target / f".{os.getpid()}"
        shutil.copy(made[0], half)
        half.rename(target / made[0].name)
    return find(version) or ""


def _archive() -> str:
    """Debian's archive as this machine reaches it."""
    targets = _run(["apt-get", "indextargets", "--format", "$(ORIGIN) $(CODENAME) $(REPO_URI)"], Path.cwd())
    for line in targets.splitlines():
        origin, codename, uri = line.split()
        if origin == "Debian" and "-" not in codename:
            return uri
    raise SetupError("this machine has no Debian archive among its apt sources")


def _run(command: list[str], where: Path) -> str:
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetupError(f"{' '.join(command[:1])}: {done.stderr.strip().splitlines()[-1:] or done.returncode}")
    return done.stdout
