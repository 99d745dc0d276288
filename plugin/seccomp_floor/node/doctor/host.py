"""The node as containerd sees it, from wherever the doctor runs: the settings that containerd makes of its files, the plugins that
it launches, and the sockets of other engines.

containerd has no API for NRI's settings, but prints what it makes of its files. In the daemon's pod those files are not there, nor
are its libraries: the pod has a mount namespace of its own. Joining the host's takes CAP_SYS_CHROOT, which the pod does not have;
looking through ``/proc/PID/root`` takes CAP_SYS_PTRACE, and a mount namespace of one's own CAP_SYS_ADMIN, which it does. So a
child, this module run as a program, moves to a root that consists of links into containerd's, and looks around there. It changes
nothing for anybody else, and all it leaves is what it prints.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from seccomp_floor.errors import SeccompFloorError

__all__ = ["Host", "HostError", "look"]

SECONDS = 20
DUMP_SECONDS = 10
GRACE_SECONDS = 2.0
"""containerd has read its files so long after it was started, and clocks agree that far."""
NRI = "io.containerd.nri.v1.nri"
PLUGIN_PATH = "/opt/nri/plugins"
DEFAULT_CONFIG = "/etc/containerd/config.toml"
ENGINES = {
    "Docker": "/run/docker.sock",
    "Podman": "/run/podman/podman.sock",
    "BuildKit": "/run/buildkit/buildkitd.sock",
    "CRI-O": "/run/crio/crio.sock",
}

_CLONE_NEWNS = 0x0002_0000  # include/uapi/linux/sched.h
_MS_BIND, _MS_REC, _MS_PRIVATE = 1 << 12, 1 << 14, 1 << 18  # include/uapi/linux/mount.h
_MNT_DETACH = 2
_STAGES = ("/tmp", "/run", "/mnt", "/dev")  # noqa: S108 (a directory to mount something on, where nobody else sees it)


class HostError(SeccompFloorError):
    """It cannot be seen from here; the text says why."""


@dataclass(frozen=True, slots=True)
class Host:
    """What was seen. ``nri``: NRI's settings, as containerd makes them of its files. ``changed``: which of these were written after
    containerd was started, so that the settings in force may be others. ``launched``: executables that it starts as plugins.
    ``engines``: others that make containers here."""

    nri: Mapping[str, Any] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    launched: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()


def look(pid: int) -> Host:
    """What containerd, which is that process, sees. :raises HostError: it cannot be had"""
    command = [sys.executable, "-P", "-m", __name__, str(pid)]  # -P: nothing of the working directory is run
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=SECONDS)
        answer = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError) as error:
        raise HostError(str(error)) from error
    except ValueError:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise HostError(said[-1] if said else f"exit code {done.returncode}") from None
    if "error" in answer:
        raise HostError(answer["error"])
    return Host(answer["nri"], *(tuple(answer[name]) for name in ("changed", "launched", "engines")))


def _main(pid: int) -> None:
    try:
        if _elsewhere(pid):
            _enter(pid)
        print(json.dumps(asdict(_survey(pid))))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        print(json.dumps({"error": _reason(error)}))


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        said = error.stderr.decode(errors="replace").strip().splitlines()
        return f"config dump: {said[-1] if said else f'exit code {error.returncode}'}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _elsewhere(pid: int) -> bool:
    """Whether paths mean something else to that process than to us."""
    pairs = (("/proc/self/ns/mnt", f"/proc/{pid}/ns/mnt"), ("/", f"/proc/{pid}/root"))
    return not all(os.path.samestat(os.stat(ours), os.stat(theirs)) for ours, theirs in pairs)  # noqa: PTH116 (links)


def _enter(pid: int) -> None:
    """Move to a root in which each name of that process' root is a link to it, so that absolute paths and links mean what they mean
    there. Only ``/proc`` is our own, since the links go through it."""
    root = f"/proc/{pid}/root"
    stage = next((path for path in _STAGES if Path(path).is_dir()), "/")
    libc = ctypes.CDLL(None, use_errno=True)
    names = [name for name in os.listdir(root) if name != "proc"]  # noqa: PTH208

    def call(name: str, *arguments: bytes | int | None) -> None:
        if getattr(libc, name)(*arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{name}: {os.strerror(number)}")

    call("unshare", _CLONE_NEWNS)
    call("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    call("mount", b"tmpfs", stage.encode(), b"tmpfs", 0, None)
    os.chdir(stage)
    for name in names:
        os.symlink(f"{root}/{name}", name)  # noqa: PTH211
    os.mkdir("proc")  # noqa: PTH102
    call("mount", b"/proc", b"proc", None, _MS_BIND | _MS_REC, None)
    call("pivot_root", b".", b".")
    call("umount2", b".", _MNT_DETACH)
    os.chdir("/")


def _survey(pid: int) -> Host:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="surrogateescape").split("\0")[:-1]
    with suppress(OSError):
        os.chdir(os.readlink(f"/proc/{pid}/cwd"))  # noqa: PTH115 (which a relative --config goes by)
    main = Path(_config(words))
    command = [words[0], "--config", str(main), "config", "dump"]
    # Under its own name: there are builds that go by it.
    done = subprocess.run(command, executable=f"/proc/{pid}/exe", capture_output=True, check=True, timeout=DUMP_SECONDS)
    nri = tomllib.loads(done.stdout.decode()).get("plugins", {}).get(NRI, {})
    since = _started(pid) + GRACE_SECONDS
    return Host(
        nri=nri,
        changed=tuple(str(path) for path in _files(main) if _changed(path) > since),
        launched=tuple(_executables(Path(str(nri.get("plugin_path") or PLUGIN_PATH)))),
        engines=tuple(name for name, path in ENGINES.items() if Path(path).exists()),
    )


def _config(words: list[str]) -> str:
    """The file that these words of a command line name, or the default one."""
    for number, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name.lstrip("-") in ("config", "c") and name.startswith("-"):
            return value if equals else words[number + 1] if number + 1 < len(words) else DEFAULT_CONFIG
    return DEFAULT_CONFIG


def _files(main: Path) -> Iterator[Path]:
    """The file, all that it imports, and the directories in which imports are looked for (containerd, ``resolveImports``)."""
    seen: set[Path] = set()
    pending = [main]
    while pending:
        path = pending.pop(0)
        if path in seen:
            continue
        seen.add(path)
        yield path
        if path.is_dir():
            continue
        try:
            imports = tomllib.loads(path.read_text()).get("imports", [])
        except (OSError, ValueError):
            continue
        for pattern in map(str, imports):
            place = path.parent / pattern  # which an absolute pattern replaces
            if "*" not in pattern:
                pending.append(place)
            elif "*" not in str(place.parent):
                pending += [place.parent, *sorted(place.parent.glob(place.name))]


def _changed(path: Path) -> float:
    """When its content or its name was changed last, as the kernel has it; 0 where there is none."""
    try:
        found = path.stat()
    except OSError:
        return 0.0
    return found.st_mtime if path.is_dir() else found.st_ctime


def _started(pid: int) -> float:
    """When the process was started, by today's clock."""
    ticks = int(
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    )  # the 22nd field (proc_pid_stat(5))
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")


def _executables(directory: Path) -> list[str]:
    """What containerd launches as plugins (nri, ``discoverPlugins``)."""
    try:
        return sorted(entry.name for entry in directory.iterdir() if entry.is_file() and entry.stat().st_mode & 0o111)
    except OSError:
        return []


if __name__ == "__main__":
    _main(int(sys.argv[1]))
