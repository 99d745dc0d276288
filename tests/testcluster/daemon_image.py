"""The daemon's image, from the repository's own Dockerfile and without an image registry.

Its base is a Debian made by debootstrap, kept in the cache; the wheels come from where pip gets them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from testnode.programs import cache, run_with_progress, say

ROOT = Path(__file__).parents[2]
SUITE, PYTHON = "bookworm", "3.11"
INCLUDED = ("libseccomp2", "python3", "python3-venv")
BASE = "localhost/seccomp-floor-base:1"


def base_archive() -> Path:
    """The base's root file system as a tar archive, made if need be."""
    target = cache() / f"base-{SUITE}.tar"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():  # somebody else may have made it while we waited
                make_base(target)
    return target


def make_base(target: Path) -> None:
    """Debian's smallest, with Python and libseccomp."""
    part = target.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(INCLUDED)}", SUITE, str(part)]
    run_with_progress(f"making a base image of Debian {SUITE} with debootstrap", command, os.environ)
    archive = target.with_suffix(".tar.part")
    outside = ("./dev/*", "./var/cache/apt/*", "./var/lib/apt/lists/*")
    excluded = [f"--exclude={pattern}" for pattern in outside]
    subprocess.run(["tar", "--create", "--file", archive, *excluded, "--directory", part, "."], check=True)
    shutil.rmtree(part)
    archive.rename(target)


class ImageBuilder:
    """buildah with a storage of its own, which goes with the scratch directory that it is put in."""

    def __init__(self, directory: Path) -> None:
        """Fetch and build the wheels, and take in the base."""
        self.directory = directory
        directory.mkdir()
        self._context = directory / "dist"
        subprocess.run([ROOT / "deploy" / "wheels", self._context / "wheels", PYTHON], check=True, cwd=ROOT)
        container = self._buildah("from", "scratch").stdout.strip()
        self._buildah("add", "--quiet", container, base_archive())
        self._buildah("commit", "--quiet", "--rm", container, BASE)

    def build(self, name: str, labels: Sequence[str] = ()) -> Path:
        """An archive of the image for ``ctr images import``, called `name`."""
        say(f"building {name}")
        arguments = ["--isolation", "chroot", "--layers", "--build-arg", f"BASE={BASE}", "--tag", name]
        arguments += [argument for label in labels for argument in ("--label", label)]
        self._buildah("bud", "--file", ROOT / "deploy" / "Dockerfile", *arguments, self._context)
        archive = self.directory / f"{name.replace('/', '-').replace(':', '-')}.tar"
        self._buildah("push", "--quiet", "--disable-compression", name, f"oci-archive:{archive}:{name}")
        return archive

    def _buildah(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        storage = (f"--root={self.directory}/storage", f"--runroot={self.directory}/run", "--storage-driver=overlay")
        done = subprocess.run(["buildah", *storage, *arguments], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"buildah {arguments[0]} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done
