"""What there is to say about containerd: version, handlers, NRI's settings in effect, and what goes past NRI."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from seccomp_floor.node.containerd import Containerd, ContainerdError, Handler
from seccomp_floor.node.doctor.finding import Check, Finding, Level, Node, mapping
from seccomp_floor.node.doctor.host import Host, HostError, look
from seccomp_floor.node.plugin import REPLACES_SECTION
from seccomp_floor.node.trial import NAMESPACE as TRIALS
from seccomp_floor.nri.version import RuntimeVersion, remedy

__all__ = ["CHECKS"]

PLUGIN = "seccomp-floor"
DROP_IN = (
    "install deploy/containerd's drop-in, see that the main configuration imports its directory, and restart containerd"
)
LEAST_TIMEOUT, USUAL_TIMEOUT = 2.0, 5.0
"""Seconds: containerd's default, and what deploy/containerd's drop-in has."""
SECONDS_EACH = 0.002
"""What a synchronisation may take for each container: four times what it took on two cores with nothing else to do."""
OWNERS = {"k8s.io": "ctr or nerdctl", "default": "ctr or nerdctl", "moby": "Docker", "buildkit": "BuildKit"}
"""By containerd namespace, who makes containers there as a rule."""
_PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def _containerd(node: Node) -> Iterator[Finding]:
    try:
        yield from _runtime(node)
        yield from _settings(node)
    except ContainerdError as error:
        yield Finding(
            Level.ERROR, "containerd", str(error), "see that it runs, ask as root, or name its --containerd-socket"
        )


def _runtime(node: Node) -> Iterator[Finding]:
    with Containerd(node.containerd_socket) as containerd:
        version = RuntimeVersion.parse(containerd.version())
        subject = f"containerd {version}"
        refusal = remedy("containerd", version)
        if refusal is not None:
            text, _, advice = refusal.partition(". ")
            yield Finding(Level.ERROR, subject, text, advice)
            return
        yield Finding(Level.OK, subject, "shows profiles to plugins and applies their sections")
        if containerd.process()[1] not in (0, _pid_namespace()):
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
        yield from _bypasses(containerd)


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
        yield Finding(Level.NOTE, subject, f"cannot be asked for its features: {error}", "runc 1.1 or later")
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
    """NRI's settings, by what containerd makes of its files; and what else is to be seen where containerd runs."""
    with Containerd(node.containerd_socket) as containerd:
        pid, namespace = containerd.process()
        count = len(containerd.containers())
    try:
        if namespace != _pid_namespace():
            raise HostError("containerd's process is not in this PID namespace")
        host = look(pid)
    except HostError as error:
        yield Finding(
            Level.WARNING,
            "NRI settings",
            f"not examined, and neither are other plugins and engines: they cannot be seen from here: {error}",
            "run doctor on the host itself, as root; the daemon's pod needs CAP_SYS_ADMIN, CAP_SYS_PTRACE and hostPID for it",
        )
        return
    if not host.nri:
        yield Finding(
            Level.WARNING,
            "NRI settings",
            "not examined: containerd's configuration has no such section",
            "see containerd config dump",
        )
    else:
        yield from _nri(host, count)
    yield from _engines(host)


def _nri(host: Host, count: int) -> Iterator[Finding]:
    nri = host.nri
    if host.changed:
        yield Finding(
            Level.WARNING,
            "NRI settings",
            f"written since containerd was started, so not known to be in force: {', '.join(host.changed)}",
            "restart containerd",
        )
    if nri.get("disable"):
        yield Finding(Level.ERROR, "NRI settings", "NRI is disabled", "disable = false in io.containerd.nri.v1.nri")
    ours = [name for name in host.launched if name.endswith(f"-{PLUGIN}")]
    if nri.get("disable_connections") and not ours:
        yield Finding(
            Level.ERROR,
            "NRI settings",
            "plugins may not connect (disable_connections)",
            "disable_connections = false, or let containerd launch seccomp-floor from plugin_path",
        )
    yield from _timeout(str(nri.get("plugin_request_timeout", "")), count)
    yield from _validator(mapping(nri.get("default_validator")), known=not host.changed)
    others = [name for name in host.launched if name not in ours]
    if others:
        yield Finding(
            Level.NOTE,
            "other plugins",
            f"containerd launches {', '.join(others)}: one that sets another seccomp section than ours makes creations fail",
            "of two plugins that set sections, one has to go",
        )


def _timeout(text: str, count: int) -> Iterator[Finding]:
    seconds, needed = _seconds(text), max(LEAST_TIMEOUT, count * SECONDS_EACH)
    if seconds is not None and 0 < seconds < needed:
        yield Finding(
            Level.WARNING,
            "NRI settings",
            f"plugin_request_timeout is {text}: on a busy node, a daemon that is told of {count} containers may be late, "
            "and is dropped",
            f"plugin_request_timeout = '{math.ceil(max(needed, USUAL_TIMEOUT))}s'",
        )


def _validator(validator: Mapping[str, Any], *, known: bool) -> Iterator[Finding]:
    required = validator.get("required_plugins") or []
    if not validator.get("enable") or PLUGIN not in required:
        yield Finding(
            Level.WARNING, "fail closed", "while the daemon is down, containers are created without the floor", DROP_IN
        )
    else:
        if known:
            yield Finding(Level.OK, "fail closed", "nothing is created while the daemon is down")
        if not validator.get("tolerate_missing_plugins_annotation"):
            yield Finding(
                Level.WARNING,
                "fail closed",
                "no toleration annotation: the daemon's own pod cannot start without the daemon",
                "tolerate_missing_plugins_annotation, unless the daemon runs outside of pods",
            )
    rejecting = [key for key, value in validator.items() if key.endswith("_seccomp_adjustment") and value]
    if validator.get("enable") and rejecting:
        yield Finding(
            Level.ERROR,
            "NRI settings",
            f"{', '.join(rejecting)}: the validator refuses our sections",
            "; ".join(f"{key} = false" for key in rejecting),
        )


def _engines(host: Host) -> Iterator[Finding]:
    """Engines beside CRI: NRI hears of CRI's containers only."""
    for name in host.engines:
        yield Finding(
            Level.WARNING,
            name,
            "makes containers here that NRI does not hear of, nor the fail-closed settings",
            "put the OCI runtime wrapper (seccomp-floor runc) in front of its runtime",
        )


def _bypasses(containerd: Containerd) -> Iterator[Finding]:
    """What containerd itself has for others than CRI."""
    for namespace, count in sorted(containerd.beside_cri().items()):
        if namespace != TRIALS:
            yield Finding(
                Level.WARNING,
                f"containerd namespace {namespace}",
                f"containers that {OWNERS.get(namespace, 'something else than the kubelet')} has made, and that NRI does not "
                f"hear of: {count}",
                "put the OCI runtime wrapper (seccomp-floor runc) in front of their runtime, or remove them",
            )


def _seconds(duration: str) -> float | None:
    """A duration as Go writes it (``1m30s``, ``500ms``)."""
    parts = _PART.findall(duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _pid_namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino


CHECKS: tuple[Check, ...] = (_containerd,)
