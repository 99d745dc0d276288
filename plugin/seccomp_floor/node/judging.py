"""Judgements for the daemon: off the event loop, within the runtime's deadline, and only once for the same question.

Nearly all containers of a node come with one of a handful of profiles, and so with one of a handful of filters. What was judged is
kept; a container whose profile was seen before costs a look into a table.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Generic, TypeVar

from seccomp_floor.abi import Abi
from seccomp_floor.confine import ConfinedError, TooSlow
from seccomp_floor.errors import SeccompFloorError
from seccomp_floor.floor import Floor, Policy
from seccomp_floor.node.audit import Finding, judge_filters
from seccomp_floor.node.forkserver import ForkServer
from seccomp_floor.node.state import State
from seccomp_floor.nri.translate import as_runtime_will_see
from seccomp_floor.profile import Profile

__all__ = ["Judged", "Judging", "Table", "digest"]

MOST_KEPT = 64
"""Answers that are kept, the least recently used given up first. A section of containerd's default size takes some 100 KB, the
largest that is judged 2 MB."""

DEFAULT_TIMEOUT = 2.0
"""containerd's request timeout where it has not named one."""
SHARE = 0.5
"""The part of that timeout that a judgement may take. The session answers for us at three quarters; before that the refusal must
be on its way."""
TOO_SLOW_SECONDS, TOO_SLOW_TRIES = 60.0, 2
"""How long a profile that took too long is refused without another try, since each try holds up every creation on the node; and
how often in a row it has to be, since the daemon may have been stopped."""
BURNT = 0.5
"""The part of its time that a judgement must have been computing, for it to count: on a busy node any profile is late."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Judged:
    """A section that was proven. ``section``: None where the container needs none. ``changes``: in how many places it differs from
    the profile. ``inexact``: where it answers otherwise than profile and floor together would; empty as a rule."""

    section: Profile | None
    changes: int
    inexact: str = ""


class Table(Generic[T]):
    """Answers by question, errors included; bounded."""

    def __init__(self) -> None:
        self._answers: OrderedDict[Hashable, tuple[T | SeccompFloorError, float]] = OrderedDict()

    def get(self, question: Hashable) -> T | None:
        """The answer, if there is one yet.

        :raises SeccompFloorError: that was the answer"""
        found = self._answers.get(question)
        if found is None or found[1] < time.monotonic():
            return None
        self._answers.move_to_end(question)
        if isinstance(found[0], SeccompFloorError):
            raise found[0].with_traceback(None)
        return found[0]

    def put(self, question: Hashable, answer: T | SeccompFloorError, seconds: float = float("inf")) -> None:
        """Keep it for so long, if nothing that is asked for more often needs the room."""
        self._answers[question] = answer, time.monotonic() + seconds
        self._answers.move_to_end(question)
        if len(self._answers) > MOST_KEPT:
            self._answers.popitem(last=False)


class Judging:
    """Asks a confined process, and remembers."""

    def __init__(self, server: ForkServer, native: Abi, state: State) -> None:
        self._server = server
        self._native = native
        self._state = state
        self._timeout = DEFAULT_TIMEOUT
        self._sections: Table[Judged] = Table()
        self._closed: Table[bool] = Table()
        self._findings: Table[Finding] = Table()
        self._slow: OrderedDict[Hashable, int] = OrderedDict()
        self._unhurried = asyncio.Lock()

    def set_request_timeout(self, seconds: float) -> None:
        """The runtime has named its deadline."""
        self._timeout = seconds if seconds > 0 else DEFAULT_TIMEOUT

    async def section(self, profile: Profile | None, policy: Policy) -> Judged:
        """The proven section for a container with this profile.

        :raises SeccompFloorError: there is none; the text names the door, or what is wrong with the profile
        """
        question = digest(profile), _relevant(policy)
        found = self._sections.get(question)
        if found is None:
            found = await self._ask(self._sections, question, judge_profile, profile, policy, self._native)
            # What was proven is a section as the runtime will see it. Handed out, it comes back for validation.
            if found.section is not None:
                self._closed.put((digest(as_runtime_will_see(found.section)), policy.floor), True)
        return found

    async def require_closed(self, section: Profile | None, policy: Policy) -> None:
        """Judge a section as it stands, whoever made it.

        :raises SeccompFloorError: it leaves a door open, and which
        """
        question = digest(section), policy.floor
        if self._closed.get(question) is None:
            await self._ask(self._closed, question, judge_section, section, policy.floor, self._native)

    async def filters(self, stack: tuple[bytes, ...], policy: Policy, seconds: float | None = None) -> Finding:
        """Judge filters that were read from the kernel, oldest first.

        :param seconds: how long it may take where nobody waits; None: the runtime does. Of such work there is one piece at a time,
            so that it takes the place of nobody who is waited for
        :raises SeccompFloorError: they cannot be judged
        """
        question = digest(stack), policy.floor
        found = self._findings.get(question)
        if found is None:
            work = judge_stack, stack, policy.floor, self._native
            if seconds is None:
                found = await self._ask(self._findings, question, *work)
            else:
                async with self._unhurried:
                    found = await self._ask(self._findings, question, *work, seconds=seconds)
        return found

    async def _ask(
        self,
        table: Table[T],
        question: Hashable,
        function: Callable[..., T],
        *arguments: object,
        seconds: float | None = None,
    ) -> T:
        limit = self._timeout * SHARE if seconds is None else seconds
        try:
            answer = await self._server.confined(function, *arguments, seconds=limit)
        except TooSlow as error:
            self._state.proofs["too-slow"] += 1
            late = TooSlow(
                f"its seccomp profile was not judged within {limit:g} s: too intricate, or the node too busy"
            )
            intricate = error.burnt > limit * BURNT
            tries = self._slow[question] = self._slow.pop(question, 0) + intricate
            if tries >= TOO_SLOW_TRIES:
                table.put(question, late, TOO_SLOW_SECONDS)
            if len(self._slow) > MOST_KEPT:
                self._slow.popitem(last=False)
            raise late from error
        except ConfinedError:
            self._state.proofs["failed"] += 1
            raise
        except SeccompFloorError as error:
            self._state.proofs["refuted"] += 1
            table.put(question, error)
            raise
        self._slow.pop(question, None)
        self._state.proofs["proven"] += 1
        table.put(question, answer)
        return answer


# What the children of the server do. They have loaded what it takes; the daemon itself never does. So they cannot answer with
# errors of classes that it does not know, and answer with the text.


class UnjudgedError(SeccompFloorError):
    """There is no section, or no proof: the text says why."""


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except SeccompFloorError as error:
        raise UnjudgedError(str(error)) from error


def judge_profile(profile: Profile | None, policy: Policy, native: Abi) -> Judged:
    """:raises UnjudgedError: no section can be proven for this profile."""
    from seccomp_floor.judge import Way, judge

    with _in_words():
        judgement = judge(profile, policy, native, way=Way.NRI)
    return Judged(judgement.section, len(judgement.changes), "; ".join(map(str, judgement.differences[:3])))


def judge_section(section: Profile | None, floor: Floor, native: Abi) -> bool:
    """:raises UnjudgedError: the section does not do what the floor asks, and which door it leaves open."""
    from seccomp_floor.bpf.libseccomp import resolve
    from seccomp_floor.bpf.prove import prove
    from seccomp_floor.judge import examine
    from seccomp_floor.node.audit import summary

    with _in_words():
        proof = prove([], floor, resolve, native=native) if section is None else examine(section, floor, native)
    found = summary(proof)
    if not found.holds:
        what = "it has no seccomp section" if section is None else "its seccomp section leaves a door open"
        raise UnjudgedError(f"{what}: {found.text.removeprefix('open: ')}")
    return found.holds


def judge_stack(stack: tuple[bytes, ...], floor: Floor, native: Abi) -> Finding:
    """:raises UnjudgedError: the filters cannot be judged."""
    with _in_words():
        return judge_filters(stack, floor, native)


def digest(value: object) -> bytes:
    """Stands for a value in the tables, so that what strangers send is not kept for as long as its answer."""
    return sha256(repr(value).encode()).digest()


def _relevant(policy: Policy) -> Hashable:
    """What of a policy a section depends on."""
    return policy.floor, policy.apply.no_profile
