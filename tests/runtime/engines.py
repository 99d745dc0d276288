"""Podman and Docker of one's own, with everything under the scratch directory and the settings that docs/runtimes.md shows."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from runtime import debian
from runtime.installation import install
from runtime.runtimes import ENTER, HIDE_UNIFIED, SECONDS, laid_over_etc, rootfs
from testnode.scratch import MARK, Scratch

DOCUMENT = Path(__file__).parents[2] / "docs" / "runtimes.md"
INSTALLED = "/opt/seccomp-floor/bin"
IMAGE = "localhost/probe:1"
NOBODY = 65534
START_SECONDS = 60

PRIVATE_CONTAINERD = 'mkdir -p /run/containerd && mount -t tmpfs -o mode=0711 tmpfs /run/containerd && exec "$@"'
"""The runc shim has its sockets there, whatever the settings say."""


def documented(scratch: Scratch, heading: str, language: str) -> str:
    """The first block of this language under this heading of the document, with our installation for the one that it assumes."""
    section = re.split(rf"^#+ {re.escape(heading)}$", DOCUMENT.read_text(), flags=re.MULTILINE)[1]
    block = re.search(rf"^```{language}\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    assert block is not None
    assert INSTALLED in block[1]
    return block[1].replace(INSTALLED, str(install(scratch)))


def archive(scratch: Scratch) -> Path:
    """The probe's root file system as a tar archive."""
    path = scratch.path / "rootfs.tar"
    if not path.exists():
        subprocess.run(["tar", "-C", rootfs(scratch), "--owner=0", "--group=0", "-cf", path, "."], check=True)
    return path


class EngineError(Exception):
    """An engine said no; the message is its own."""


def call(
    command: Sequence[str | Path], environment: Mapping[str, str], cwd: Path, *, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """One command of an engine's client. :raises EngineError: it failed, if that is to be checked"""
    done = subprocess.run(
        list(map(str, command)), check=False, capture_output=True, cwd=cwd, env=environment, text=True, timeout=SECONDS
    )
    if check and done.returncode:
        raise EngineError(done.stderr)
    return done


def with_settings(scratch: Scratch) -> str:
    """A script for a mount namespace: /etc/seccomp-floor, with the real runtimes in it, and a /var/cache of its own.

    Podman's conmon calls the runtime with hardly any environment.
    """
    settings = scratch.path / "etc" / "seccomp-floor"
    if not settings.exists():
        (settings / "runtimes").mkdir(parents=True)
        for name in ("runc", "crun"):
            (settings / "runtimes" / name).symlink_to(programs_for_all(scratch) / name)
    caches = scratch.path / "var-cache"
    caches.mkdir(exist_ok=True)
    return f"{laid_over_etc(settings.parent)}; mount --bind {caches} /var/cache"


def programs_for_all(scratch: Scratch) -> Path:
    """Debian's programs, where users without root may read them."""
    copy = scratch.path / "debian"
    if not copy.exists():
        copy.mkdir()
        for name in ("conmon", "crun", "podman", "runc"):
            shutil.copy(debian.program(name), copy)
    return copy


class Podman:
    """Debian's Podman, for root or for a user without root, who has but one user id."""

    def __init__(self, scratch: Scratch, name: str, *, rootless: bool = False, hides_unified: bool = False) -> None:
        """Make its home, and import the image. :param hides_unified: for crun, see there"""
        self.scratch = scratch
        self.home = scratch.path / name  # Podman's directories may have at most 50 characters
        self.rootless = rootless
        script = f'{HIDE_UNIFIED if hides_unified else ":"}; {with_settings(scratch)}; exec "$@"'
        self.before = [*ENTER, script, "sh"]
        if rootless:
            self.before += ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        self.home.mkdir()
        (self.home / "run").mkdir(mode=0o700)
        configuration = self.home / "containers.conf"
        configuration.write_text(documented(scratch, "Podman", "toml"))
        self.programs = programs_for_all(scratch)
        image = self.home / "image.tar"
        image.write_bytes(archive(scratch).read_bytes())
        if rootless:
            for path in (self.home, *self.home.iterdir()):
                os.chown(path, NOBODY, NOBODY)
        self.run("import", image, IMAGE)

    def run(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """One command of Podman's."""
        home = self.home
        options: list[str | Path] = ["--root", home / "root", "--runroot", home / "runroot", "--tmpdir", home / "tmp"]
        options += ["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]
        options += ["--conmon", self.programs / "conmon"]
        if self.rootless:
            options += ["--storage-opt", "vfs.ignore_chown_errors=true"]
        environment = {
            "PATH": f"{self.programs}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(home / "run"),
            "CONTAINERS_CONF": str(home / "containers.conf"),
            MARK: str(self.scratch.path),
        }
        command = [*self.before, self.programs / "podman", *options, *arguments]
        return call(command, environment, home, check=check)

    def container(self, command: Sequence[str], *options: str, runtime: str = "") -> str:
        """What a command puts out in a container of its own."""
        chosen = ["--runtime", runtime] if runtime else []
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"]  # root without CAP_SYS_RESOURCE
        place = ["--cgroup-parent", f"/{self.scratch.cgroup}"]
        few = [] if self.rootless else [*limits, *place]
        return self.run(*chosen, "run", "--rm", "--network", "host", *few, *options, IMAGE, *command).stdout


class Docker:
    """Debian's dockerd, with a containerd that it starts itself, in a mount namespace of its own."""

    def __init__(self, scratch: Scratch, name: str, *, default: bool) -> None:
        """Start it and import the image. :param default: whether the wrapper is its default runtime"""
        self.scratch = scratch
        self.home = scratch.path / name
        self.home.mkdir()
        configuration = json.loads(documented(scratch, "Docker", "json"))
        if not default:
            del configuration["default-runtime"]
        (self.home / "daemon.json").write_text(json.dumps(configuration))
        self.environment = {**scratch.environment, "PATH": debian.path(), "XDG_CACHE_HOME": str(scratch.path / "cache")}
        command = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", PRIVATE_CONTAINERD, "sh"]
        command += [str(debian.program("dockerd")), "--config-file", str(self.home / "daemon.json")]
        command += ["--host", self.host, "--pidfile", str(self.home / "pid")]
        command += ["--data-root", str(self.home / "root"), "--exec-root", str(self.home / "exec")]
        command += ["--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs"]
        command += ["--cgroup-parent", f"/{scratch.cgroup}"]
        log = self.home / "log"
        with log.open("w") as file:
            self.process = subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while self.run("version", check=False).returncode:
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        self.run("import", archive(scratch), IMAGE)

    @property
    def host(self) -> str:
        """Its socket."""
        return f"unix://{self.home}/docker.sock"

    def run(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """One command of Docker's."""
        return call(
            [debian.program("docker"), "--host", self.host, *arguments], self.environment, self.home, check=check
        )

    def container(self, command: Sequence[str], *options: str) -> str:
        """What a command puts out in a container of its own."""
        return self.run("run", "--rm", "--network", "host", *options, IMAGE, *command).stdout

    def stop(self) -> None:
        """As a service manager would."""
        self.process.terminate()
        self.process.wait(START_SECONDS)
