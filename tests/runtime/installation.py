"""The package as a user has it: a wheel, built from this tree, in a virtual environment that everybody may read."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from testnode.scratch import Scratch

ROOT = Path(__file__).parents[2]
SOURCES = ("plugin", "proto", "LICENSE", "README.md", "hatch_build.py", "pyproject.toml")
DEBIAN_PYTHON = Path("/usr/bin/python3")


def install(scratch: Scratch) -> Path:
    """The directory of the installed programs. Dependencies are those of the tests' own environment, found by a ``.pth`` file;
    ``seccomp-floor-crun`` is linked as the documentation says.
    """
    directory = scratch.path / "opt"
    programs = directory / "bin"
    if programs.exists():
        return programs
    source, wheels = scratch.path / "source", scratch.path / "wheels"
    for name in SOURCES:  # a build writes into its tree
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__", "pb"))
        else:
            source.mkdir(exist_ok=True)
            shutil.copy(path, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(source)]
    subprocess.run([*pip, *build], check=True)
    subprocess.run([python(), "-m", "venv", "--without-pip", directory], check=True)
    wheel = next(wheels.iterdir())
    subprocess.run(
        [*pip, "--python", str(programs / "python3"), "install", "--no-index", "--no-deps", str(wheel)], check=True
    )
    packages = next((directory / "lib").glob("python3*/site-packages"))
    (packages / "dependencies.pth").write_text(f"{Path(yaml.__file__).parents[1]}\n")
    (programs / "seccomp-floor-crun").symlink_to("seccomp-floor-runc")
    scratch.path.chmod(0o711)  # users without root pass through
    return programs


def python() -> Path:
    """An interpreter that is not in somebody's home, where there is one."""
    question = [str(DEBIAN_PYTHON), "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    if DEBIAN_PYTHON.exists() and subprocess.run(question, check=False).returncode == 0:
        return DEBIAN_PYTHON
    return Path(sys.executable)
