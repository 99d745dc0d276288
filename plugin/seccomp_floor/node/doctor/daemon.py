"""What the daemon says of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from seccomp_floor.floor import Mode
from seccomp_floor.node.doctor.finding import Check, Finding, Level, Node

__all__ = ["CHECKS"]


def _daemon(node: Node) -> Iterator[Finding]:
    from seccomp_floor.node.control import ControlError, ask_status
    from seccomp_floor.node.state import NOT_TRIED, PROVEN

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
        if found.startswith(NOT_TRIED):
            remedy = "see that its program is there and starts; each of its containers is looked at at its own start all the same"
            yield Finding(Level.WARNING, f"handler {handler}", found, remedy)
        elif found != PROVEN:
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


CHECKS: tuple[Check, ...] = (_daemon,)
