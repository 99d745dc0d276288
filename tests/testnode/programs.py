"""containerd, its shim, ctr and runc: from PATH where they are new enough, else built once from their Go modules.

The cache is ``$SECCOMP_FLOOR_CACHE``, or ``~/.cache/seccomp-floor``, with a directory for each program and version.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

CONTAINERD = "v2.3.4"
CONTAINERD_BEFORE = "v2.2.1"
"""The generation that applies a seccomp adjustment but does not show the container's profile to plugins."""
RUNC = "v1.4.0"
GO_NEEDED = (1, 26, 3)

DEBIAN_PACKAGES = ("busybox-static", "gcc", "git", "libc6-dev", "libseccomp-dev", "pkg-config", "systemd", "util-linux")


class SetupError(Exception):
    """What is missing on this machine, in one line."""


@dataclass(frozen=True, slots=True)
class Module:
    """A Go module to build programs from."""

    name: str
    path: str
    version: str
    commands: tuple[str, ...]
    """Packages below `path`; the last element names the program. Empty: the module itself."""
    flags: tuple[str, ...] = ()
    cgo: bool = False

    @property
    def directory(self) -> Path:
        """Where the programs of this version are kept."""
        return cache() / f"{self.name}-{self.version}"

    @property
    def programs(self) -> tuple[str, ...]:
        """Names of the files that the build leaves there."""
        return tuple(command.rpartition("/")[2] for command in self.commands) or (self.name,)


def containerd_module(version: str = CONTAINERD) -> Module:
    """containerd, its runc shim and its debugging client."""
    path = "github.com/containerd/containerd/v2"
    commands = tuple(f"cmd/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr"))
    return Module("containerd", path, version, commands, ("-ldflags", f"-s -w -X {path}/version.Version={version}"))


def runc_module() -> Module:
    """runc with seccomp; it links this machine's libseccomp."""
    flags = ("-tags", "seccomp", "-ldflags", f"-s -w -X main.version={RUNC.removeprefix('v')}")
    return Module("runc", "github.com/opencontainers/runc", RUNC, (), flags, cgo=True)


def cache() -> Path:
    """The directory of everything that is built once and kept."""
    return Path(os.environ.get("SECCOMP_FLOOR_CACHE", "~/.cache/seccomp-floor")).expanduser()


def say(text: str) -> None:
    """One line about what is being done, where the user of a long step looks for it."""
    print(f"==> {text}", file=sys.stderr, flush=True)


def version_of(program: str) -> tuple[int, ...]:
    """The version that `program --version` names first; () where there is none."""
    path = shutil.which(program)
    if path is None:
        return ()
    answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\bv?(\d+)\.(\d+)\.(\d+)", answer)
    return tuple(map(int, found.groups())) if found else ()


def containerd_directory(version: str = CONTAINERD) -> Path:
    """Directory with containerd, shim and ctr of that version, built if need be; the newest may come from PATH."""
    found = shutil.which("containerd")
    if found and version == CONTAINERD and version_of("containerd") >= (2, 3) and shutil.which("ctr"):
        directory = Path(found).resolve().parent
        if all((directory / program).exists() for program in containerd_module().programs):
            return directory
    return built(containerd_module(version))


def runc() -> Path:
    """A runc 1.2 or newer that knows seccomp, from PATH or built."""
    found = shutil.which("runc")
    if found and version_of("runc") >= (1, 2):
        answer = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
        if "libseccomp:" in answer:
            return Path(found)
    return built(runc_module()) / "runc"


def built(module: Module) -> Path:
    """The directory of the module's programs; builds them first where they are missing."""
    if not module.directory.is_dir():
        module.directory.parent.mkdir(parents=True, exist_ok=True)
        with (module.directory.parent / f"{module.directory.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not module.directory.is_dir():  # somebody else may have built it while we waited
                build(module)
    return module.directory


def build(module: Module) -> None:
    """``go install`` into a directory that gets its name only when it is complete."""
    need_go()
    part = module.directory.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    packages = [f"{module.path}/{command}" for command in module.commands] or [module.path]
    command = ["go", "install", "-v", "-trimpath", *module.flags, *(f"{name}@{module.version}" for name in packages)]
    environment = {**os.environ, "GOBIN": str(part), "CGO_ENABLED": str(int(module.cgo)), "GOFLAGS": "-buildvcs=false"}
    run_with_progress(f"building {module.name} {module.version} from its Go module", command, environment)
    missing = [name for name in module.programs if not (part / name).exists()]
    if missing:
        raise SetupError(f"the build of {module.name} {module.version} left no {', '.join(missing)}")
    part.rename(module.directory)


def need_go() -> None:
    """Raise `SetupError` without a Go new enough."""
    go = shutil.which("go")
    if go is None:
        raise SetupError("no Go on PATH; containerd and runc are built from their Go modules, with Go 1.26.3 or newer")
    answer = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout
    found = tuple(map(int, re.findall(r"\d+", answer)))
    if found < GO_NEEDED:
        raise SetupError(f"Go {'.'.join(map(str, GO_NEEDED))} or newer is needed, found {answer.strip()} at {go}")


def run_with_progress(what: str, command: Iterable[str], environment: Mapping[str, str]) -> None:
    """Run a long command that prints a line for each bit of its work; show how far it is, and all of it if it fails."""
    say(what)
    started = shown = time.monotonic()
    lines: list[str] = []
    pipe = subprocess.PIPE
    with subprocess.Popen(list(command), env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if time.monotonic() - shown > 5:
                shown = time.monotonic()
                say(f"    {shown - started:3.0f} s, {len(lines)} steps, now {line.strip()[:80]}")
    if process.returncode != 0:
        sys.stderr.writelines(lines)
        raise SetupError(f"{what}: exit code {process.returncode}, its output is above")
    say(f"    done in {time.monotonic() - started:.0f} s")


def install_debian_packages(packages: Iterable[str] = DEBIAN_PACKAGES) -> None:
    """Install what is missing, with apt; on other systems, say what is needed if it is not there."""
    if shutil.which("dpkg-query") is None:
        needed = [
            program for program in ("gcc", "git", "pkg-config", "busybox", "unshare") if not shutil.which(program)
        ]
        if needed:
            raise SetupError(f"not a Debian; please install {', '.join(needed)} and libseccomp's headers")
        return
    missing = [name for name in packages if not installed(name)]
    if not missing:
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run_with_progress("refreshing the lists of Debian packages", ["apt-get", "update"], environment)
    apt = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    run_with_progress(f"installing {', '.join(missing)}", apt, environment)


def installed(package: str) -> bool:
    """Whether dpkg has the package installed."""
    command = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout == "installed"
