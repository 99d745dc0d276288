"""The node's runtimes: which load seccomp sections at all, and what each has shown that it makes of ours."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from seccomp_floor.errors import SeccompFloorError
from seccomp_floor.floor import Policy
from seccomp_floor.node.audit import Read
from seccomp_floor.node.containerd import Containerd, Handler
from seccomp_floor.node.judging import Judging
from seccomp_floor.node.logs import event, printable
from seccomp_floor.node.ptrace import Filters
from seccomp_floor.node.state import PROVEN
from seccomp_floor.node.trial import sweep, try_runtime
from seccomp_floor.profile import Profile

__all__ = ["ask", "try_all", "unsupporting"]

log = logging.getLogger(__name__)


def unsupporting(handlers: Mapping[str, Handler], default: str) -> frozenset[str]:
    """The handlers whose runtime is not known to load sections; the default one under its alias as well."""
    names = {name for name, handler in handlers.items() if not handler.honours_sections}
    return frozenset(names | ({""} if default in names else set()))


def ask(socket: Path) -> tuple[dict[str, Handler], str]:
    """CRI's handlers, and the default one's name. :raises ContainerdError: containerd does not say"""
    with Containerd(socket) as containerd:
        return containerd.handlers()


async def try_all(
    socket: Path, handlers: Iterable[Handler], section: Profile, policy: Policy, judging: Judging, read: Read
) -> dict[str, str]:
    """What a throw-away container of each handler shows, in words; :data:`~seccomp_floor.node.state.PROVEN` where all is well.

    An open one does not stop the daemon: each container of such a handler is found out at its own start.
    """

    def attempt(handler: Handler) -> Filters:
        with Containerd(socket) as containerd:  # the thread's own: it cleans up even when nobody waits for it any more
            sweep(containerd)
            return try_runtime(containerd, handler, section, read)

    shown = {}
    for handler in handlers:
        if not handler.honours_sections:
            continue
        try:
            filters = await asyncio.to_thread(attempt, handler)
            finding = await judging.filters(filters.programs, policy)
            shown[handler.name] = (
                PROVEN if finding.holds else f"does not load what was proven: {printable(finding.text)}"
            )
        except SeccompFloorError as error:
            shown[handler.name] = printable(f"not tried: {error}")
        if shown[handler.name] != PROVEN:
            event(
                log, logging.ERROR, "a runtime is not what was proven", handler=handler.name, found=shown[handler.name]
            )
    return shown
