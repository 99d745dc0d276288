"""What the daemon concludes from filters: only what was judged open is open, and only what was to be closed is a breach.

The filters are real and are judged as the daemon judges; what is ours is only where they come from.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from seccomp_floor.abi import this_machine
from seccomp_floor.bpf.compile import compile_profile
from seccomp_floor.bpf.program import encode
from seccomp_floor.confine import ConfinedError
from seccomp_floor.decide import Decision, Reason
from seccomp_floor.errors import SeccompFloorError
from seccomp_floor.floor import Policy, policy_digest
from seccomp_floor.judge import judge
from seccomp_floor.node import auditor as module
from seccomp_floor.node.audit import Reading
from seccomp_floor.node.auditor import Auditor
from seccomp_floor.node.forkserver import ForkServer
from seccomp_floor.node.judging import Judging
from seccomp_floor.node.policy_store import PolicyStore
from seccomp_floor.node.ptrace import Filters, PtraceError
from seccomp_floor.node.records import Protection, Record
from seccomp_floor.node.state import State
from seccomp_floor.pb.nri_pb2 import Container, PodSandbox

NATIVE = this_machine()
ALLOW = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
STRICTER = "version: 1\nfloor: {syscalls: {mkdir: EPERM, mkdirat: EPERM}}\n"
NONSENSE = b"\xff" * 8
"""No program: whoever is asked about it cannot judge."""


def section() -> bytes:
    """The filter of a container without a profile, under the default policy."""
    made = judge(None, Policy(), NATIVE).section
    assert made is not None
    return encode(compile_profile(made, NATIVE))


CLOSED = section()


@dataclass
class World:
    """An auditor, and the filters that it will read: of this process, which stands for every container's."""

    auditor: Auditor
    state: State
    policies: PolicyStore
    path: Path
    stacks: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    reads: int = 0

    def add(self, identity: str, *stack: bytes, **changes: object) -> Record:
        """A container that runs."""
        pod, container = (
            PodSandbox(name="pod", namespace="default"),
            Container(id=identity, name=identity, pid=os.getpid()),
        )
        record = Record.of(pod, container, Decision(True, Reason.SELECTED, ""), Protection.UNVERIFIED)
        record = replace(record, policy=policy_digest(self.policies.policy))
        record = replace(record, **changes)  # type: ignore[arg-type]
        self.state.records.put(record)
        self.stacks[identity] = stack
        return record

    def stands(self, identity: str) -> Record:
        """Its record."""
        found = self.state.records.get(identity)
        assert found is not None
        return found

    async def policy(self, text: str) -> None:
        """Another one takes over."""

        async def accept(_policy: Policy) -> None:
            pass

        self.path.write_text(text)
        await self.policies.reload(accept)
        assert self.policies.error is None
        await self.auditor.rejudge()


Story = Callable[[World], Coroutine[None, None, None]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Story], None]:
    """Live a story in a world of its own."""
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\nonBreach: kill\n")
    monkeypatch.setattr(module, "GENTLE_SECONDS", 0.0)

    def live(story: Story) -> None:
        async def lived() -> None:
            state, policies, server = State(), PolicyStore(path), ForkServer()
            server.start()
            now: list[str] = []

            def read(_tid: int) -> Filters:
                world.reads += 1
                return Filters(world.stacks[now[-1]], 0.0001)

            def by_container(identities: list[str]) -> dict[str, list[int]]:
                return {identity: [os.getpid()] for identity in identities}

            def container_of(_pid: int, identities: tuple[str, ...]) -> str:
                now.append(identities[0])
                return identities[0]

            async def kill(_self: Auditor, record: Record) -> None:
                world.state.records.update(record.id, detail="killed")

            monkeypatch.setattr(module, "by_container", by_container)
            monkeypatch.setattr(module, "container_of", container_of)
            monkeypatch.setattr(Auditor, "_kill", kill)
            world = World(Auditor(policies, Judging(server, NATIVE, state), state, read), state, policies, path)
            try:
                await story(world)
            finally:
                server.stop()

        asyncio.run(lived())

    return live


def test_closed_open_and_unjudged(run: Callable[[Story], None]) -> None:
    """Three containers that the policy would kill if they were open; one is."""

    async def story(world: World) -> None:
        for identity, stack in (("closed", CLOSED), ("open", ALLOW), ("unjudged", NONSENSE)):
            world.add(identity, stack)
        await world.auditor.audit_found(["closed", "open", "unjudged"])
        assert world.stands("closed").protection is Protection.PROTECTED
        assert (world.stands("open").protection, world.stands("open").detail) == (Protection.BREACHED, "killed")
        found = world.stands("unjudged")
        assert (found.protection, found.audited_at) == (Protection.UNVERIFIED, None)
        assert "cannot be judged" in found.detail
        assert dict(world.state.audits) == {"closed": 1, "open": 1, "unjudged": 1}
        assert world.state.breaches == 1

    run(story)


def test_what_a_workload_adds_to_its_filter_opens_nothing(run: Callable[[Story], None]) -> None:
    """And cannot keep anybody from seeing that the first one is closed; of an open one, it may be what closes it."""

    async def story(world: World) -> None:
        world.add("added", CLOSED, NONSENSE)
        world.add("later", ALLOW, CLOSED)
        await world.auditor.audit_found(["added", "later"])
        assert world.stands("added").protection is Protection.PROTECTED
        assert world.stands("later").protection is Protection.PROTECTED

    run(story)


def test_a_container_that_cannot_be_judged_holds_up_no_new_policy(run: Callable[[Story], None]) -> None:
    """It is unverified; those after it are judged anew, and so is it under the policy after that."""

    async def story(world: World) -> None:
        world.add("first", NONSENSE)
        world.add("second", CLOSED)
        await world.auditor.audit_found(["first", "second"])
        reads = world.reads
        await world.policy(STRICTER)
        assert world.stands("first").protection is Protection.UNVERIFIED
        assert world.stands("second").protection is Protection.OUTDATED
        await world.policy("version: 1\n")
        assert world.stands("first").protection is Protection.UNVERIFIED
        assert world.stands("second").protection is Protection.PROTECTED
        assert world.state.breaches == 0
        assert world.reads == reads, "nobody is stopped again for a policy"

    run(story)


def test_a_breach_outlives_a_policy(run: Callable[[Story], None]) -> None:
    """But not one that the container is closed enough for."""

    async def story(world: World) -> None:
        await world.policy(STRICTER)
        world.add("open", CLOSED)
        await world.auditor.audit_found(["open"])
        await world.policy(STRICTER + "optOut: {namespaces: [lab]}\n")
        assert world.stands("open").protection is Protection.BREACHED
        await world.policy("version: 1\n")
        assert world.stands("open").protection is Protection.PROTECTED

    run(story)


def test_what_was_created_under_another_policy_is_no_breach(run: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        world.add("other", ALLOW, policy="another")
        await world.auditor.audit_found(["other"])
        assert world.stands("other").protection is Protection.OUTDATED
        assert world.state.breaches == 0

    run(story)


def test_the_policy_in_force_at_the_end_of_a_judgement_counts(
    run: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new one may come while a container is judged by the old one: it must not stand as protected by that."""

    async def story(world: World) -> None:
        world.add("slow", CLOSED)
        asked = Judging.filters
        turned = False

        async def filters(self: Judging, *arguments: object) -> object:
            nonlocal turned
            answer = await asked(self, *arguments)  # type: ignore[arg-type]
            if not turned:
                turned = True
                await world.policy(STRICTER)
            return answer

        monkeypatch.setattr(Judging, "filters", filters)
        await world.auditor.audit_found(["slow"])
        assert world.stands("slow").protection is not Protection.PROTECTED

    run(story)


def test_what_has_gone_while_it_was_read_is_not_kept(run: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        record = world.add("gone", CLOSED)
        world.state.records.remove("gone")
        await world.auditor.audit_held(record, os.getpid())
        assert world.auditor._stacks == {}

    run(story)


def test_who_has_opted_out_under_a_new_policy_is_exempt(run: Callable[[Story], None]) -> None:
    """And comes back under the floor with the next one."""

    async def story(world: World) -> None:
        record = world.add("lab", CLOSED)
        subject = replace(record.subject, annotations={"opt-out.seccomp-floor.nri.io/pod": "true"})
        world.state.records.update("lab", subject=subject)
        await world.auditor.audit_found(["lab"])
        assert world.stands("lab").protection is Protection.PROTECTED
        await world.policy("version: 1\noptOut: {namespaces: [default]}\n")
        assert (world.stands("lab").protection, world.stands("lab").reason) == (Protection.EXEMPT, "opted-out")
        await world.policy("version: 1\n")
        found = world.stands("lab")
        assert (found.protection, found.reason) == (Protection.PROTECTED, "opt-out-not-honoured")

    run(story)


def test_a_held_container_that_nobody_can_judge_is_not_called_open(run: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        record = world.add("held", NONSENSE)
        with pytest.raises(SeccompFloorError) as caught:
            await world.auditor.audit_held(record, os.getpid())
        assert not isinstance(caught.value, module.OpenError)

    run(story)


def test_what_happens_while_a_container_is_judged_anew_stands(
    run: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may end, and then it is not protected; another may be found open, and then it is not outdated."""

    async def story(world: World) -> None:
        for identity in ("ends", "opens"):
            world.add(identity, CLOSED)
        await world.auditor.audit_found(["ends", "opens"])
        asked = Judging.filters

        async def filters(self: Judging, *arguments: object) -> object:
            world.state.records.update("ends", protection=Protection.ENDED)
            world.state.records.update("opens", protection=Protection.BREACHED)
            return await asked(self, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(Judging, "filters", filters)
        await world.policy(STRICTER)
        assert world.stands("ends").protection is Protection.ENDED
        assert world.stands("opens").protection is Protection.BREACHED

    run(story)


def test_a_container_in_the_making_is_decided_about_anew(run: Callable[[Story], None]) -> None:
    """It was exempt when it was created, and is not when it starts: it must not slip through between the two."""

    async def story(world: World) -> None:
        made = world.add("nascent", ALLOW, protection=Protection.EXEMPT, floored=False, policy="earlier")
        world.state.records.remove("nascent")
        world.state.records.expect(replace(made, pid=0))
        await world.policy("version: 1\nmode: enforce\nonUnprovable: admit\n")
        found = world.stands("nascent")
        assert (found.floored, found.protection) == (True, Protection.UNVERIFIED)
        assert found.inherited(world.policies.policy)

    run(story)


def test_what_is_open_is_open_whatever_the_rest_is(run: Callable[[Story], None]) -> None:
    """A thread with a filter that nobody can judge hides no other one."""

    async def story(world: World) -> None:
        record = world.add("mixed", ALLOW)
        readings = [Reading(1, 1, (NONSENSE,), 0.0), Reading(1, 2, (ALLOW,), 0.0)]
        assert await world.auditor._conclude(record, readings, whole=True)
        assert world.stands("mixed").protection is Protection.BREACHED

    run(story)


def test_a_judgement_that_is_made_up_for_is_as_good_as_the_first(
    run: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that was too busy to judge it is no reason to call an open container anything else."""

    async def story(world: World) -> None:
        asked = Judging.filters

        async def busy(_self: Judging, *_arguments: object) -> object:
            raise ConfinedError("the daemon was held up")

        world.add("open", ALLOW)
        monkeypatch.setattr(Judging, "filters", busy)
        await world.auditor.audit_found(["open"])
        assert world.stands("open").protection is Protection.UNVERIFIED
        monkeypatch.setattr(Judging, "filters", asked)
        monkeypatch.setattr(module, "AGAIN_SECONDS", 0.05)
        looking = asyncio.create_task(world.auditor.look_again())
        async with asyncio.timeout(10):
            while world.stands("open").protection is Protection.UNVERIFIED:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        looking.cancel()
        assert (world.stands("open").protection, world.stands("open").detail) == (Protection.BREACHED, "killed")

    run(story)


def test_a_part_says_nothing_of_the_whole(run: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """One process cannot be read: the others are closed, and the container is not protected for that, at the second look either."""

    async def story(world: World) -> None:
        world.add("part", CLOSED)
        real = world.auditor._read

        def traced(tid: int) -> Filters:
            if tid == 1:
                raise PtraceError("another tracer holds it")
            return real(tid)

        world.auditor._read = traced
        monkeypatch.setattr(module, "by_container", lambda identities: {key: [1, os.getpid()] for key in identities})
        await world.auditor.audit_found(["part"])
        assert world.stands("part").protection is Protection.UNVERIFIED
        assert "another tracer" in world.stands("part").detail
        await world.policy(STRICTER)
        await world.policy("version: 1\n")
        assert world.stands("part").protection is Protection.UNVERIFIED

    run(story)


def test_what_cannot_be_judged_again_stays_what_it_was_found_to_be(
    run: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A breach, on a node that is too busy to judge it by a new policy."""

    async def story(world: World) -> None:
        world.add("open", ALLOW)
        await world.auditor.audit_found(["open"])

        async def busy(_self: Judging, *_arguments: object) -> object:
            raise ConfinedError("the daemon was held up")

        monkeypatch.setattr(Judging, "filters", busy)
        await world.policy(STRICTER)
        assert world.stands("open").protection is Protection.BREACHED

    run(story)
