"""What there is to say about the machine: its kernel, its libseccomp, and what the one makes of the other's filters."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from seccomp_floor.abi import abis_of_machine
from seccomp_floor.floor import Mode
from seccomp_floor.node.doctor.finding import Check, Finding, Level, Node

__all__ = ["CHECKS"]


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


def _words(path: str) -> list[str]:
    try:
        return Path(path).read_text().split()
    except OSError:
        return []


CHECKS: tuple[Check, ...] = (_kernel, _libseccomp, _own_kernel_agrees)
