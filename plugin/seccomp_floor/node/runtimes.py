"""The node's runtimes: which load seccomp sections at all, and what each has shown that it makes of ours.

They are asked at every registration, under every new policy, and from time to time: a runtime may be replaced while containerd goes
on. Only where something has changed is each made to create a container that is thrown away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seccomp_floor.errors import SeccompFloorError
from seccomp_floor.floor import Mode
from seccomp_floor.node.audit import Read
from seccomp_floor.node.judging import Judging
from seccomp_floor.node.logs import event, printable
from seccomp_floor.node.policy_store import PolicyStore
from seccomp_floor.node.state import NOT_TRIED, PROVEN, State
from seccomp_floor.profile import Profile

if TYPE_CHECKING:
    from seccomp_floor.node.containerd import Containerd, Handler

__all__ = ["Runtimes"]

AGAIN_SECONDS = 300.0
"""How often runtimes are asked whether they are what they were: the shim's and the runtime's program are started for it once."""
FIRST_RETRY, LAST_RETRY = 1.0, 60.0
"""Seconds until the next attempt where an answer is missing, doubling from one to the other: containerd may still be starting."""

_VERSIONS = {
    "org.opencontainers.runc.version": "runc",
    "run.oci.crun.version": "crun",
    "io.github.seccomp.libseccomp.version": "libseccomp",
}
"""Annotations of what ``runc features`` and ``crun features`` print (runtime-spec, features.md)."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """What containerd says of its handlers. ``versions``: by handler, of its runtime and that one's libseccomp, as far as known;
    ``handlers``: those that load sections; ``others``: the names of those that are not known to."""

    versions: Mapping[str, str]
    handlers: tuple[Handler, ...]
    others: frozenset[str]
    default: str

    def and_alias(self, names: frozenset[str]) -> frozenset[str]:
        """The default handler goes by "" as well."""
        return names | ({""} if self.default in names else frozenset())


@dataclass(frozen=True, slots=True)
class Shown:
    """What a handler's throw-away container has shown, in words. ``question``: of what; ``late``: it loads filters late."""

    question: tuple[Handler, str, Profile]
    text: str
    late: bool


class Runtimes:
    """Keeps what the daemon's state says of them true."""

    def __init__(self, socket: Path, policies: PolicyStore, judging: Judging, state: State, read: Read) -> None:
        """:param read: reads a thread's filters; it is called in other threads than this one"""
        self._socket = socket
        self._policies = policies
        self._judging = judging
        self._state = state
        self._read = read
        self._wake = asyncio.Event()
        self._tried: dict[str, Shown] = {}  # by handler

    def look(self, *, anew: bool = False) -> None:
        """Something may have changed. ``anew``: at the other end, so that nothing of before counts."""
        if anew:
            self._tried.clear()
        self._wake.set()

    async def watch(self) -> None:
        """Look whenever it is time to, for ever; the first time when :meth:`look` has been called."""
        retry, told = FIRST_RETRY, ""
        await self._wake.wait()
        while True:
            self._wake.clear()
            try:
                complete = await self._look()
            except SeccompFloorError as error:
                complete = False
                if str(error) != told:
                    told = str(error)
                    event(log, logging.WARNING, f"cannot tell which runtimes there are: {error}")
            wait, retry = (AGAIN_SECONDS, FIRST_RETRY) if complete else (retry, min(retry * 2, LAST_RETRY))
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _look(self) -> bool:
        """Whether all has been found out. :raises SeccompFloorError: containerd does not say, or no section can be proven"""
        found = await asyncio.to_thread(_ask, self._socket)
        before, self._state.unsupporting = self._state.unsupporting, found.and_alias(found.others)
        self._state.runtime_versions = dict(found.versions)
        if found.others and before != self._state.unsupporting:
            names = ", ".join(sorted(self._state.unsupporting))
            event(log, logging.WARNING, "the floor cannot hold containers of some runtime handlers", handlers=names)
        policy = self._policies.policy
        section = (await self._judging.section(None, policy)).section
        if section is None or self._state.auditing or policy.mode is Mode.REPORT:
            return True
        return await self._try_all(found, section)

    async def _try_all(self, found: Found, section: Profile) -> bool:
        """Those that have not been tried as they are. One that is open does not stop the daemon: each container of such a handler
        is found out at its own start.

        :returns: whether all could be tried"""
        from seccomp_floor.node.trial import try_runtime

        shown: dict[str, str] = {}
        late: set[str] = set()
        for handler in found.handlers:
            name = handler.name
            question = handler, found.versions.get(name, ""), section
            if (known := self._tried.get(name)) is None or known.question != question:
                try:
                    tried = await asyncio.to_thread(try_runtime, self._socket, handler, section, self._read)
                    finding = await self._judging.filters(tried.filters.programs, self._policies.policy)
                except SeccompFloorError as error:
                    shown[name] = printable(f"{NOT_TRIED}: {error}")
                    if not self._state.runtimes.get(name, "").startswith(NOT_TRIED):
                        event(log, logging.WARNING, "a runtime could not be tried", handler=name, found=shown[name])
                    continue
                text = PROVEN if finding.holds else f"does not load what was proven: {printable(finding.text)}"
                if text not in (PROVEN, self._state.runtimes.get(name)):
                    event(log, logging.ERROR, "a runtime is not what was proven", handler=name, found=text)
                known = self._tried[name] = Shown(question, text, tried.late)
            shown[name] = known.text
            late |= {name} if known.late else set()
        self._state.runtimes, self._state.late = shown, found.and_alias(frozenset(late))
        return not any(text.startswith(NOT_TRIED) for text in shown.values())


def _ask(socket: Path) -> Found:
    """:raises ContainerdError: containerd does not say which handlers it has"""
    from seccomp_floor.node.containerd import Containerd, ContainerdError

    def version(containerd: Containerd, handler: Handler) -> str:
        try:
            _, features = containerd.runtime_features(handler)
        except ContainerdError:  # it need not know the question
            return ""
        annotations = features.get("annotations")
        said = annotations if isinstance(annotations, dict) else {}
        return printable(", ".join(f"{name} {said[key]}" for key, name in _VERSIONS.items() if key in said))

    with Containerd(socket) as containerd:
        handlers, default = containerd.handlers()
        loading = {name: handler for name, handler in handlers.items() if handler.honours_sections}
        versions = {name: text for name, handler in loading.items() if (text := version(containerd, handler))}
        return Found(versions, tuple(loading.values()), frozenset(handlers.keys() - loading.keys()), default)
