"""Who shares a PID namespace with whom: a process of one container can trace another's, and act through it.

So the floor of a container is that of the weakest process that it can trace (docs/threat-model.md).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from seccomp_floor.node.records import HOST_PIDS, Protection, Record

__all__ = ["limits"]

WITH_HOST = "host PID namespace: shared with processes that are not under the floor"
WITH_PAUSE = "shared PID namespace: the pause container in it is not under the floor"

_HOLDS = (Protection.PROTECTED, Protection.PROVEN)


def limits(records: Iterable[Record]) -> dict[str, tuple[str, ...]]:
    """What a container's PID namespace means for its floor, in words, by the container's id; those without such limits are left
    out.

    A pod's shared namespace is its pause container's. That of a debug container is its target's, whose own record says nothing of
    it: the two are found by the target's process.
    """
    spaces: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        space = record.pid_namespace or (f"/proc/{record.pid}/ns/pid" if record.pid else "")
        if space and record.protection is not Protection.ENDED:
            spaces[space].append(record)
    found: dict[str, tuple[str, ...]] = {}
    for space, members in spaces.items():
        if space == HOST_PIDS:
            found.update((record.id, (WITH_HOST,)) for record in members)
            continue
        pause = (WITH_PAUSE,) if all(record.pid_namespace for record in members) else ()
        weak = [record for record in members if record.protection not in _HOLDS]
        for record in members:
            names = sorted(other.name for other in weak if other.id != record.id)
            others = (f"PID namespace shared with {', '.join(names)}: not under the floor",) if names else ()
            if said := pause + others:
                found[record.id] = said
    return found
