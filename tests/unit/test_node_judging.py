"""Judgements through a real fork server: remembered, in time, and with their reasons."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from seccomp_floor.abi import this_machine
from seccomp_floor.bpf.compile import compile_profile
from seccomp_floor.bpf.program import encode
from seccomp_floor.confine import TooSlow
from seccomp_floor.errors import SeccompFloorError
from seccomp_floor.floor import Floor, Mode, Policy
from seccomp_floor.node.forkserver import ForkServer
from seccomp_floor.node.judging import Judging
from seccomp_floor.node.state import State
from seccomp_floor.nri.translate import as_runtime_will_see
from seccomp_floor.profile import Action, Arg, Operator, Profile, Syscall

NATIVE = this_machine()
POLICY = Policy()
OPEN = Profile(Action.ALLOW)
ENDLESS = Profile(
    Action.ALLOW,
    syscalls=tuple(
        Syscall(("socket",), Action.ERRNO, 1, (Arg(0, 0, Operator.GE), Arg(index, value, Operator.EQ)))
        for index, value in ((1, 1), (2, 5))
    ),
)
"""libseccomp never returns from adding the second rule."""

T = TypeVar("T")


def judged(scenario: Callable[[Judging, State], Awaitable[T]]) -> T:
    """Run it with a server of its own."""

    async def run() -> T:
        server, state = ForkServer(), State()
        server.start()
        try:
            async with asyncio.timeout(60):
                return await scenario(Judging(server, NATIVE, state), state)
        finally:
            server.stop()

    return asyncio.run(run())


def test_a_section_is_judged_once() -> None:
    """And then remembered, for its profile and for what the policy says of it."""

    async def scenario(judging: Judging, state: State) -> None:
        first = await judging.section(OPEN, POLICY)
        assert first.changes
        assert await judging.section(OPEN, POLICY) is first
        assert state.proofs["proven"] == 1
        await judging.section(OPEN, Policy(floor=Floor(families=("AF_ALG",))))
        assert state.proofs["proven"] == 2

    judged(scenario)


def test_what_was_handed_out_is_closed_when_it_comes_back() -> None:
    """As the runtime will see it; nothing is proven again."""

    async def scenario(judging: Judging, state: State) -> None:
        section = (await judging.section(None, POLICY)).section
        assert section is not None
        await judging.require_closed(as_runtime_will_see(section), POLICY)
        assert state.proofs["proven"] == 1

    judged(scenario)


@pytest.mark.parametrize("section", [OPEN, None])
def test_what_is_open_is_refused_with_the_door(section: Profile | None) -> None:
    """The same answer for an open section and for none at all; remembered as well."""

    async def scenario(judging: Judging, state: State) -> None:
        for _ in range(2):
            with pytest.raises(SeccompFloorError, match=r"socket.*AF_ALG"):
                await judging.require_closed(section, POLICY)
        assert state.proofs["refuted"] == 1

    judged(scenario)


def test_a_floor_that_denies_nothing_needs_no_section() -> None:
    """Then a container without a profile stays without."""

    async def scenario(judging: Judging, _state: State) -> None:
        nothing = Policy(floor=Floor(families=()))
        assert (await judging.section(None, nothing)).section is None
        await judging.require_closed(None, nothing)

    judged(scenario)


def test_what_takes_too_long_is_refused_in_time_and_then_at_once() -> None:
    """Each try holds up the node, so after the second one there is none for a while."""

    async def scenario(judging: Judging, state: State) -> None:
        assert (await judging.section(None, POLICY)).section is not None  # the server has started
        judging.set_request_timeout(0.4)
        for tries in (1, 2, 2):
            with pytest.raises(TooSlow, match="not judged within"):
                await judging.section(ENDLESS, POLICY)
            assert state.proofs["too-slow"] == tries
        judging.set_request_timeout(0)  # the runtime names none: its default
        assert (await judging.section(OPEN, POLICY)).section is not None

    judged(scenario)


def test_filters_of_a_process() -> None:
    """Judged as a stack: one that is closed closes it; a floor that only watches is held by a filter that logs."""

    async def scenario(judging: Judging, _state: State) -> None:
        section = (await judging.section(None, POLICY)).section
        assert section is not None
        closed, everything = (encode(compile_profile(profile, NATIVE)) for profile in (section, OPEN))
        assert (await judging.filters((everything, closed), POLICY)).closed
        watching = Policy(mode=Mode.LOG, floor=Floor(action=Action.LOG))
        logged = (await judging.section(None, watching)).section
        assert logged is not None
        found = await judging.filters((encode(compile_profile(logged, NATIVE)),), watching)
        assert (found.holds, found.closed) == (True, False)
        assert not (await judging.filters((), watching)).holds
        with pytest.raises(SeccompFloorError):
            await judging.filters((b"not a filter",), POLICY)

    judged(scenario)
