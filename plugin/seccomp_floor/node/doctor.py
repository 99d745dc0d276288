"""Is this node able to enforce? Each check looks at one thing and says what it found, and what to do where that is not right.

Nothing here connects to the NRI socket: the runtime lets plugins in one at a time, and one that does not register holds up the
others for five seconds.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from seccomp_floor.abi import Abi, abis_of_machine
from seccomp_floor.errors import SeccompFloorError
from seccomp_floor.floor import Mode, Policy

__all__ = ["Finding", "Level", "Node", "examine"]


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. ``remedy``: what to do, empty where there is nothing to do."""

    level: Level
    subject: str
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """Where to look."""

    policy: Policy
    native: Abi
    containerd_socket: Path
    control_socket: Path


Check = Callable[[Node], Iterator[Finding]]


def examine(node: Node) -> Iterator[Finding]:
    """Make every check; one that fails to make sense of what it sees is a finding, too."""
    from seccomp_floor.node.doctor_containerd import CHECKS

    for check in (*_CHECKS, *CHECKS):
        try:
            yield from check(node)
        except SeccompFloorError as error:
            yield Finding(Level.ERROR, check.__name__.strip("_").replace("_", " "), str(error))


def _kernel(node: Node) -> Iterator[Finding]:
    from seccomp_floor.node.audit import why_not_readable

    subject = f"kernel {os.uname().release}"
    available = _words("/proc/sys/kernel/seccomp/actions_avail")
    missing = [action for action in ("errno", "kill_process") if action not in available]
    if missing:
        yield Finding(
            Level.ERROR, subject, f"seccomp filters cannot answer {', '.join(missing)}", "a kernel from 4.14 on"
        )
        return
    yield Finding(Level.OK, subject, "takes seccomp filters")
    reason = why_not_readable()
    if reason:
        yield Finding(
            Level.WARNING,
            subject,
            f"filters cannot be read back, so containers are not audited: {reason}",
            "root with CAP_SYS_ADMIN and CAP_SYS_PTRACE, no seccomp filter, and a kernel with CONFIG_CHECKPOINT_RESTORE",
        )
    else:
        yield Finding(Level.OK, subject, "shows the filters that it enforces")
    if "log" not in _words("/proc/sys/kernel/seccomp/actions_logged"):
        level = Level.ERROR if node.policy.mode is Mode.LOG else Level.NOTE
        yield Finding(
            level,
            subject,
            "does not log SCMP_ACT_LOG, so that mode: log would see nothing",
            "add log to /proc/sys/kernel/seccomp/actions_logged, on a kernel with CONFIG_AUDIT",
        )


def _libseccomp(_node: Node) -> Iterator[Finding]:
    from seccomp_floor.bpf.libseccomp import library

    version = library().version
    text = ".".join(map(str, version))
    if version < (2, 5, 0):
        yield Finding(
            Level.ERROR, f"libseccomp {text}", "older than what is known to work", "libseccomp 2.5.4 or later"
        )
    elif version > (2, 6, 1):
        yield Finding(
            Level.NOTE,
            f"libseccomp {text}",
            "newer than what this version was tried with; what it compiles is proven all the same",
        )
    else:
        yield Finding(
            Level.OK,
            f"libseccomp {text}",
            "its known faults (a lost load, lost rules, endless loops) are worked around and proven",
        )


def _own_kernel_agrees(node: Node) -> Iterator[Finding]:
    """Load the section of a container without a profile into a throw-away process, and try the doors."""
    from seccomp_floor.bpf.compile import compile_profile
    from seccomp_floor.bpf.libseccomp import resolve
    from seccomp_floor.doors import doors
    from seccomp_floor.judge import judge
    from seccomp_floor.node.kernel_probe import knock

    subject = "this kernel under our section"
    if node.policy.mode is Mode.LOG:
        yield Finding(Level.NOTE, subject, "not tried: mode is log, which leaves the doors open")
        return
    section = judge(None, node.policy, node.native).section
    if section is None:
        yield Finding(Level.NOTE, subject, "not tried: the floor denies nothing")
        return
    entries = [door for abi in abis_of_machine(node.native) for door in doors(node.policy.floor, abi, resolve)]
    try:
        knocks = knock(compile_profile(section, node.native), entries, node.native)
    except OSError as error:
        yield Finding(
            Level.ERROR,
            subject,
            f"it does not take the filter: {error.strerror}",
            "a kernel with CONFIG_SECCOMP_FILTER that is not kept from it by another filter",
        )
        return
    reached = [str(knock) for knock in knocks if not knock.closed]
    if reached:
        yield Finding(
            Level.ERROR, subject, f"a door is open: {'; '.join(reached)}", "report this: it should have been proven"
        )
    else:
        yield Finding(Level.OK, subject, f"{len(knocks)} doors tried, all closed")


def _daemon(node: Node) -> Iterator[Finding]:
    from seccomp_floor.node.control import ControlError, ask_status
    from seccomp_floor.node.state import PROVEN

    try:
        status = ask_status(node.control_socket)
    except ControlError as error:
        yield Finding(Level.ERROR, "daemon", str(error), "start seccomp-floor run, or name its --control-socket")
        return
    if not status.node.ready:
        yield Finding(Level.ERROR, "daemon", f"not ready: {status.node.not_ready_because}", "see its log")
    else:
        yield Finding(Level.OK, "daemon", f"registered with {status.node.runtime}")
    if status.node.standing_by:
        yield Finding(
            Level.WARNING,
            "daemon",
            "stands by: another daemon serves this runtime as well, and its policy is in force",
            "where this is no upgrade in progress, end one of them",
        )
    if status.node.policy_error:
        yield Finding(
            Level.ERROR, "daemon", f"a policy is not in force: {status.node.policy_error}", "mend the policy file"
        )
    if status.node.cannot_audit_because:
        yield Finding(
            Level.WARNING,
            "daemon",
            f"audits no container: {status.node.cannot_audit_because}",
            "see that its reader runs, as root with CAP_SYS_ADMIN and CAP_SYS_PTRACE and without a seccomp filter",
        )
    if status.node.mode and status.node.mode != Mode.ENFORCE:
        yield Finding(
            Level.NOTE, "daemon", f"mode is {status.node.mode}: nothing is denied", "mode: enforce, once you have seen"
        )
    for handler, found in sorted(status.node.runtimes.items()):
        if found != PROVEN:
            remedy = "a runtime that loads seccomp sections as they are; until then its containers are refused at their start"
            yield Finding(Level.ERROR, f"handler {handler}", found, remedy)
    counts = Counter(row.protection for row in status.containers)
    for protection, (level, text, remedy) in _STANDING.items():
        if count := counts[protection]:
            yield Finding(level, f"{protection} containers", f"{count} {text}", remedy)


_STANDING = {
    "breached": (Level.ERROR, "run with doors open", "see seccomp-floor status for which; restart them"),
    "admitted": (
        Level.ERROR,
        "run though no section could be proven for them",
        "see seccomp-floor status for why; onUnprovable: reject keeps such containers from starting",
    ),
    "outdated": (Level.WARNING, "hold what an earlier policy asked, and not what is asked now", "restart them"),
    "unverified": (
        Level.WARNING,
        "should be under the floor, and nobody has looked",
        "see seccomp-floor status for why; restart them",
    ),
    "unsupported": (
        Level.WARNING,
        "have a runtime that is not known to load seccomp sections",
        "a RuntimeClass whose runtime does, or one that apply.runtimeHandlers leaves out",
    ),
}
"""What to say of containers that stand so."""

_CHECKS: tuple[Check, ...] = (_kernel, _libseccomp, _own_kernel_agrees, _daemon)


def _words(path: str) -> list[str]:
    try:
        return Path(path).read_text().split()
    except OSError:
        return []


def mapping(value: object) -> Mapping[str, Any]:
    """A table of a configuration, or an empty one."""
    return value if isinstance(value, dict) else {}
