"""What there is to say about containerd: version, handlers, NRI's settings in effect, and what goes past NRI."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from seccomp_floor.node.containerd import Containerd, ContainerdError, Handler
from seccomp_floor.node.doctor import Check, Finding, Level, Node, mapping
from seccomp_floor.node.plugin import REPLACES_SECTION
from seccomp_floor.nri.version import RuntimeVersion, remedy

__all__ = ["CHECKS"]

PLUGIN = "seccomp-floor"
DROP_IN = (
    "install deploy/containerd's drop-in, see that the main configuration imports its directory, and restart containerd"
)
DUMP_SECONDS = 10
_UCRED = struct.Struct("=iII")  # struct ucred (unix(7))


def _containerd(node: Node) -> Iterator[Finding]:
    with Containerd(node.containerd_socket) as containerd:
        version = RuntimeVersion.parse(containerd.version())
        subject = f"containerd {version}"
        refusal = remedy("containerd", version)
        if refusal is not None:
            yield Finding(Level.ERROR, subject, refusal)
            return
        yield Finding(Level.OK, subject, "shows profiles to plugins and applies their sections")
        if containerd.pid_namespace() not in (0, Path("/proc/self/ns/pid").stat().st_ino):
            yield Finding(
                Level.ERROR,
                subject,
                "runs in another PID namespace: the containers' processes cannot be found from here",
                "hostPID: true for the daemon's pod",
            )
        nri = containerd.plugins("type==io.containerd.nri.v1")
        broken = next((plugin.init_err.message for plugin in nri if plugin.init_err.code), None)
        if not nri or broken is not None:
            yield Finding(Level.ERROR, subject, f"NRI is not loaded: {broken or 'no such plugin'}", DROP_IN)
        yield from _handlers(node, containerd)
        configuration = containerd.cri_configuration()
        if configuration.get("enableExperimentalRestoreViaCreate"):
            yield Finding(
                Level.WARNING,
                subject,
                "restores checkpoints: CRIU puts back the filters of the image, and we are not asked",
                "enable_experimental_restore_via_create = false, or treat what status shows as unverified",
            )
    yield from _bypasses()


def _handlers(node: Node, containerd: Containerd) -> Iterator[Finding]:
    handlers, default = containerd.handlers()
    named = [name for name in node.policy.apply.runtime_handlers if name not in ("*", "")]
    for name in named:
        if name not in handlers:
            yield Finding(
                Level.ERROR,
                f"handler {name}",
                "apply.runtimeHandlers names it, and containerd has none of that name",
                f"one of {', '.join(sorted(handlers))}",
            )
    if "" in node.policy.apply.runtime_handlers and default and default not in named:
        yield Finding(
            Level.WARNING,
            f"handler {default}",
            'the policy selects the default handler as "" only: a RuntimeClass that names it goes past the floor',
            f'add "{default}" to apply.runtimeHandlers',
        )
    for name, handler in sorted(handlers.items()):
        selected = node.policy.apply.runtime_handlers
        if "*" in selected or name in selected or (name == default and "" in selected):
            yield from _handler(containerd, handler)


def _handler(containerd: Containerd, handler: Handler) -> Iterator[Finding]:
    subject = f"handler {handler.name}"
    if not handler.honours_sections:
        yield Finding(
            Level.WARNING,
            subject,
            f"{handler.runtime or 'its runtime'} is not known to load seccomp sections: shown as unsupported",
            "see its documentation (Kata: disable_guest_seccomp=false; gVisor: --oci-seccomp)",
        )
        return
    passed = [
        pattern
        for pattern in handler.annotations
        if pattern in ("*", REPLACES_SECTION) or pattern.startswith("run.oci")
    ]
    if passed:
        yield Finding(
            Level.NOTE,
            subject,
            f"passes annotations on to the runtime ({', '.join(passed)}); containers with {REPLACES_SECTION} are refused",
        )
    try:
        _, features = containerd.runtime_features(handler)
    except ContainerdError as error:
        yield Finding(Level.NOTE, subject, f"cannot be asked for its features: {error}")
        return
    seccomp = mapping(mapping(features.get("linux")).get("seccomp"))
    if not seccomp.get("enabled"):
        yield Finding(
            Level.ERROR, subject, "its runtime was built without seccomp", "a runc built with the tag seccomp"
        )
        return
    operators = seccomp.get("operators")
    if isinstance(operators, list) and "SCMP_CMP_MASKED_EQ" not in operators:
        yield Finding(Level.ERROR, subject, "its runtime does not know SCMP_CMP_MASKED_EQ", "runc 1.1 or later")
        return
    annotations = mapping(features.get("annotations"))
    library = annotations.get("io.github.seccomp.libseccomp.version", "unknown")
    yield Finding(Level.OK, subject, f"{handler.runtime}, seccomp by libseccomp {library}")


def _settings(node: Node) -> Iterator[Finding]:
    """NRI's settings in effect: containerd has no API for them, but prints what it makes of its files."""
    configuration = mapping(_effective(node.containerd_socket).get("plugins"))
    nri = mapping(configuration.get("io.containerd.nri.v1.nri"))
    if not nri:
        yield Finding(Level.WARNING, "NRI settings", "cannot be read: containerd's configuration has no such section")
        return
    if nri.get("disable"):
        yield Finding(Level.ERROR, "NRI settings", "NRI is disabled", "disable = false in io.containerd.nri.v1.nri")
    if nri.get("disable_connections"):
        yield Finding(
            Level.ERROR,
            "NRI settings",
            "plugins may not connect (disable_connections)",
            "disable_connections = false, or let containerd launch seccomp-floor from plugin_path",
        )
    validator = mapping(nri.get("default_validator"))
    required = validator.get("required_plugins") or []
    if not validator.get("enable") or PLUGIN not in required:
        yield Finding(
            Level.WARNING, "fail closed", "while the daemon is down, containers are created without the floor", DROP_IN
        )
    else:
        annotation = validator.get("tolerate_missing_plugins_annotation") or ""
        yield Finding(Level.OK, "fail closed", "nothing is created while the daemon is down")
        if not annotation:
            yield Finding(
                Level.WARNING,
                "fail closed",
                "no toleration annotation: the daemon's own pod cannot start without the daemon",
                "tolerate_missing_plugins_annotation, unless the daemon runs outside of pods",
            )
    rejecting = [key for key, value in validator.items() if key.endswith("_seccomp_adjustment") and value]
    if rejecting:
        yield Finding(
            Level.ERROR,
            "NRI settings",
            f"{', '.join(rejecting)}: the validator refuses our sections",
            f"{rejecting[0]} = false",
        )
    others = _launched(str(nri.get("plugin_path") or "/opt/nri/plugins"))
    if others:
        yield Finding(
            Level.NOTE,
            "other plugins",
            f"containerd launches {', '.join(others)}: one that sets seccomp policies as well would make creations fail",
        )


def _effective(containerd_socket: Path) -> Mapping[str, Any]:
    """What ``containerd config dump`` prints, of the very containerd that listens, with its very options."""
    pid = _peer(containerd_socket)
    command = [f"/proc/{pid}/exe", *_config_option(pid), "config", "dump"]
    root = f"/proc/{pid}/root"
    try:
        os.stat(command[0])  # noqa: PTH116 (a link that need not resolve by name)
        dump = subprocess.run(command, capture_output=True, check=True, timeout=DUMP_SECONDS, cwd=root).stdout
        return tomllib.loads(dump.decode())
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise ContainerdError(f"cannot have containerd (process {pid}) print its configuration: {error}") from error


def _peer(path: Path) -> int:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except OSError as error:
            raise ContainerdError(f"{path}: {error.strerror}") from error
        pid: int = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[0]
    return pid


def _config_option(pid: int) -> list[str]:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="surrogateescape").split("\0")
    except OSError:
        return []
    for number, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in ("--config", "-config", "-c"):
            return ["--config", value if equals else arguments[number + 1]]
    return []


def _launched(path: str) -> list[str]:
    try:
        names = sorted(entry.name for entry in Path(path).iterdir() if entry.is_file() and os.access(entry, os.X_OK))
    except OSError:
        return []
    return [name for name in names if not name.endswith(f"-{PLUGIN}")]


def _bypasses() -> Iterator[Finding]:
    """Engines beside CRI: NRI hears of CRI's containers only."""
    for name, path in (
        ("Docker", "/run/docker.sock"),
        ("Podman", "/run/podman/podman.sock"),
        ("BuildKit", "/run/buildkit/buildkitd.sock"),
        ("CRI-O", "/run/crio/crio.sock"),
    ):
        if Path(path).exists():
            yield Finding(
                Level.WARNING,
                name,
                "makes containers here that NRI does not hear of, nor the fail-closed settings",
                "put the OCI runtime wrapper (seccomp-floor runc) in front of its runtime",
            )


CHECKS: tuple[Check, ...] = (_containerd, _settings)
