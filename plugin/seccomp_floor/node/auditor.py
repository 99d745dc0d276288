"""The audits that the daemon makes: when, of whom, and what follows from them.

A container is read when it starts, while the OCI runtime holds it and nothing can notice. One that ran before the daemon came is
read once, gently, since its processes might notice (:mod:`~seccomp_floor.node.ptrace`). What was read is kept: a new policy is
judged against it, and nobody is stopped again.

What cannot be read or judged is not known to be open: a container that has not started is refused for it, one that runs is shown
as unverified and looked at again. And what lacks something is a *breach* only where it was to have it: of a container that was
created under another policy the runtime enforces just what it was given.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from seccomp_floor.decide import Decision, Reason, decide
from seccomp_floor.errors import InputError, SeccompFloorError
from seccomp_floor.floor import Mode, OnBreach, Policy
from seccomp_floor.node.audit import Finding, Read, Reading, read_processes
from seccomp_floor.node.judging import Judging
from seccomp_floor.node.logs import event, printable
from seccomp_floor.node.policy_store import PolicyStore
from seccomp_floor.node.processes import by_container, container_of, in_own_namespace, limits
from seccomp_floor.node.ptrace import GoneError, PtraceError, thread_seccomp
from seccomp_floor.node.records import Protection, Record, detail_of
from seccomp_floor.node.state import State
from seccomp_floor.pb.nri_pb2 import Container, PodSandbox

__all__ = ["Auditor", "OpenError"]

GENTLE_SECONDS = 0.05
"""The rest between two containers that run, so that a node with a thousand of them has the CPU for itself."""
PATIENT_SECONDS = 10.0
"""How long a judgement may take that nobody waits for."""
AGAIN_SECONDS = 60.0
"""How often those are looked for that nobody has looked at, or could: restored from a checkpoint, not readable, not judged."""
SETTLE_SECONDS, SETTLE_TRIES = 5.0, 50
"""How long a container may take from its start until the runtime has loaded its filter, and how often it is looked at till then."""

KILL_PASSES, KILL_LOOKS = 100, 3
"""Looks for processes of a container that is being killed: one that forks as fast as it can is soon through with that, since all it
has are killed at each. It has gone when nobody was seen for so many looks."""

IGNORES = "its runtime does not load seccomp sections, or is not known to"
LATE = "its runtime loads the filter when nobody can ask any more; audited right after the start"

Stacks = tuple[tuple[bytes, ...], ...]

log = logging.getLogger(__name__)


class OpenError(SeccompFloorError):
    """Filters were read and judged, and a door is open: the text names it."""


class Auditor:
    """Reads filters, has them judged, and puts the outcome on the record."""

    def __init__(self, policies: PolicyStore, judging: Judging, state: State, read: Read) -> None:
        """:param read: reads a thread's filters; it is called in other threads than this one"""
        self._read = read
        self._policies = policies
        self._judging = judging
        self._state = state
        self._records = state.records
        self._stacks: dict[str, Stacks] = {}
        self._interned: dict[Stacks, Stacks] = {}
        self._own: tuple[str, str] | None = None

    # The daemon's own pod: it must run without a filter, or its reader could not read any.

    def find_own_pod(self, pods: Mapping[str, PodSandbox], containers: Iterable[Container]) -> None:
        """Look among the node's containers for the one that this process runs in."""
        pids = {container.pid: container for container in containers if container.pid}
        pid = os.getpid()
        while pid > 1 and pid not in pids:
            pid = _parent(pid)
        container = pids.get(pid)
        if container is None or container_of(os.getpid(), (container.id,)) is None:
            return
        pod = pods.get(container.pod_sandbox_id)
        if pod is not None:
            self._own = (pod.namespace, container.name)

    def is_own(self, pod: PodSandbox, container: Container) -> bool:
        """Whether this is a container of the daemon's, its successor's say: of the same name, in the same namespace, and in the
        same PID namespace. Only who may create such pods in that namespace can make one, and could run anything on the host."""
        if self._own != (pod.namespace, container.name):
            return False
        return all(in_own_namespace(space.path) for space in container.linux.namespaces if space.type == "pid")

    # At the start

    async def audit_held(self, record: Record, pid: int) -> None:
        """Audit a container that the OCI runtime holds before its start.

        :raises OpenError: it must not be started: it holds less than it should
        :raises SeccompFloorError: it must not be started: nobody can tell what it holds
        """
        if self._state.auditing:
            return
        if self._state.unsupported(record.handler):
            self._records.update(record.id, protection=Protection.UNSUPPORTED, detail=IGNORES)
            return
        if container_of(pid, (record.id,)) is None:
            raise PtraceError(f"its process {pid} cannot be found, so that its filters cannot be read")
        status = thread_seccomp(pid)
        if status.mode == 0 and status.no_new_privileges and self._state.loads_late(record.handler):
            self._records.update(record.id, detail=LATE)
            return
        # The runtime's init has helper threads, which end with its execve: only its first thread becomes the container's.
        filters = await asyncio.to_thread(self._read, pid)
        finding, _ = await self._judge(record.id, (Reading(pid, pid, filters.programs, filters.pause),))
        self._state.audits[_result(finding)] += 1
        if not finding.holds:
            raise OpenError(finding.text)
        if (now := self._records.get(record.id)) is not None:
            self._verified(now, finding, filters.pause, limits(pid))

    async def audit_started(self, identity: str, pid: int) -> None:
        """Audit a container whose filter was not there yet when its runtime held it."""
        record = self._records.get(identity)
        if record is None or record.audited_at is not None or not _to_be_audited(record):
            return
        with suppress(GoneError):
            for _ in range(SETTLE_TRIES):
                if thread_seccomp(pid).mode != 0:
                    break
                await asyncio.sleep(SETTLE_SECONDS / SETTLE_TRIES)
        await self._audit_running(identity, [pid])

    # Of what runs

    async def audit_found(self, containers: Sequence[str]) -> None:
        """Audit containers that run already, one after another."""
        if self._state.auditing or not containers:
            return
        processes = await asyncio.to_thread(by_container, containers)
        for identity in containers:
            await self._audit_running(identity, processes.get(identity, []))
            await asyncio.sleep(GENTLE_SECONDS)

    async def look_again(self) -> None:
        """For ever: find containers that run and were never looked at, as one that was restored from a checkpoint, which passes by
        everybody (not at once: while it is being restored, its filters are not there yet); and judge what could not be judged
        before."""
        while True:
            await asyncio.sleep(AGAIN_SECONDS)
            before = time.time() - AGAIN_SECONDS
            waiting = [
                record for record in self._records if _to_be_audited(record) and (record.proven_at or 0) < before
            ]
            for record in waiting:
                if record.id in self._stacks:
                    await self._rejudge(record.id)
            await self.audit_found([record.id for record in waiting if record.id not in self._stacks])

    async def _audit_running(self, identity: str, pids: Sequence[int]) -> None:
        record = self._records.get(identity)
        pids = [pid for pid in pids if container_of(pid, (identity,))]  # a while has passed: numbers are used anew
        if record is None or not _to_be_audited(record) or not pids:
            return
        if self._state.unsupported(record.handler):
            self._records.update(identity, protection=Protection.UNSUPPORTED, detail=IGNORES)
            return
        first: list[Sequence[int]] = [pids]

        def listed() -> Sequence[int]:
            return first.pop() if first else by_container([identity]).get(identity, [])

        readings, trouble = await asyncio.to_thread(read_processes, listed, self._read)
        is_open = False
        if readings:
            is_open = await self._conclude(record, readings, whole=trouble is None)
        if trouble is not None and not is_open:
            self._state.audits["unreadable"] += 1
            self._stacks.pop(identity, None)  # a part says nothing of the whole, now or later
            self._unknown(identity, f"it cannot be audited: {trouble}")

    async def _conclude(self, record: Record, readings: Sequence[Reading], *, whole: bool) -> bool:
        """Judge a running container, and do what the policy says. ``whole``: these are all that there are to judge.

        :returns: whether it is open"""
        try:
            finding, policy = await self._judge(record.id, readings, PATIENT_SECONDS)
        except SeccompFloorError as error:
            self._state.audits["unjudged"] += 1
            self._unknown(record.id, f"its filters cannot be judged: {error}")
            return False
        if whole or not finding.holds:
            self._state.audits[_result(finding)] += 1
            pause = max(reading.pause for reading in readings)
            await self._stand(record.id, finding, policy, pause, limits(readings[0].pid))
        return not finding.holds

    async def _stand(
        self,
        identity: str,
        finding: Finding,
        policy: Policy,
        pause: float | None = None,
        found_limits: tuple[str, ...] | None = None,
    ) -> None:
        """Put on the record what a judgement means for a container that runs, and do what the policy says where it is open."""
        record = self._records.get(identity)  # as it is now: it may have ended meanwhile
        if record is None or record.protection is Protection.ENDED:
            return
        if finding.holds:
            self._verified(record, finding, pause, found_limits)
        elif policy.mode is Mode.REPORT:
            self._records.update(record.id, protection=Protection.REPORTED, detail=printable(f"it is {finding.text}"))
        elif policy.mode is Mode.LOG:
            self.unverified(record.id, finding.text)
        elif record.protection is Protection.BREACHED:
            pass  # no policy mends that
        elif record.inherited(policy):
            self.outdated(record.id, finding.text)
        else:
            self.breached(record.id, finding.text)
            if policy.on_breach is OnBreach.KILL:
                await self._kill(record)

    # Outcomes

    def breached(self, identity: str, why: str) -> None:
        """What the kernel holds is not what was proven."""
        self._state.breaches += 1
        found = self._records.update(
            identity, protection=Protection.BREACHED, detail=printable(why), audited_at=time.time()
        )
        if found is not None:
            event(log, logging.ERROR, "a container's filter is open", **found.label, reason=found.detail)

    def outdated(self, identity: str, why: str) -> None:
        """What the kernel holds is not what the policy in force asks, and the container was created under another."""
        detail = printable(f"created under another policy: create it anew. {why}")
        found = self._records.update(identity, protection=Protection.OUTDATED, detail=detail, audited_at=time.time())
        if found is not None:
            event(log, logging.INFO, "a container does not hold what this policy asks", **found.label, detail=detail)

    def unverified(self, identity: str, why: str) -> None:
        """It does not hold what is asked, where the policy denies nothing yet."""
        self._records.update(identity, protection=Protection.UNVERIFIED, detail=printable(why), audited_at=time.time())

    def _unknown(self, identity: str, why: str) -> None:
        """Nobody can tell what it holds; it is looked at again. What is known already stays."""
        record = self._records.get(identity)
        if record is None or record.protection in (Protection.ENDED, Protection.BREACHED):
            return
        found = self._records.update(identity, protection=Protection.UNVERIFIED, detail=printable(why), audited_at=None)
        if found is not None:
            event(log, logging.WARNING, "nobody can tell what a container holds", **found.label, reason=found.detail)

    def _verified(
        self, record: Record, finding: Finding, pause: float | None, found_limits: tuple[str, ...] | None
    ) -> None:
        stands = _verified_as(finding)
        proven = record.protection in (Protection.PROVEN, stands) and record.detail != LATE
        self._records.update(
            record.id,
            protection=stands,
            detail=record.detail if proven else "",
            audited_at=record.audited_at or time.time(),
            pause=record.pause if pause is None else pause,
            limits=record.limits if found_limits is None else found_limits,
            open_doors=finding.open_doors,
        )

    # Under a new policy

    async def rejudge(self) -> None:
        """A new policy is in force: decide about each container anew, and judge by it what was read under an earlier one. Nothing
        that was right is a breach for that."""
        unread = []
        for identity in self._records.identities():
            before = self._records.get(identity)
            if before is None or before.protection is Protection.ENDED or before.reason == Reason.OWN_POD:
                continue
            decided = self._redecided(before)
            if decided.floored and identity in self._stacks:
                await self._rejudge(identity)
            elif _to_be_audited(decided) and decided.pid and decided.protection is not before.protection:
                unread.append(identity)
        await self.audit_found(unread)

    def _redecided(self, record: Record) -> Record:
        """The record as the policy in force has it, as far as that can be told without the filters."""
        policy = self._policies.policy
        try:
            decision = decide(policy, record.subject)
        except InputError as error:
            decision = Decision(True, Reason.SELECTED, str(error))
        changed = replace(record, floored=decision.floored, reason=str(decision.reason))
        if not decision.floored:
            changed = replace(changed, protection=Protection.EXEMPT, detail=detail_of(decision))
        elif record.audited_at is not None:
            pass  # what was read of it will tell
        elif policy.mode is Mode.REPORT:
            changed = replace(changed, protection=Protection.REPORTED)
        elif record.protection not in (Protection.ADMITTED, Protection.UNSUPPORTED, Protection.BREACHED):
            detail = "created under another policy, and nobody has looked at it under this one"
            changed = replace(changed, protection=Protection.UNVERIFIED, detail=detail)
        return self._records.replace(changed)

    async def _rejudge(self, identity: str) -> None:
        """By what was read of it before."""
        try:
            finding, policy = await self._judge_stacks(self._stacks[identity], PATIENT_SECONDS)
        except SeccompFloorError as error:
            self._unknown(identity, f"its filters cannot be judged: {error}")
        else:
            await self._stand(identity, finding, policy)

    # What they share

    async def _judge(
        self, identity: str, readings: Sequence[Reading], seconds: float | None = None
    ) -> tuple[Finding, Policy]:
        stacks = tuple(dict.fromkeys(reading.filters for reading in readings))
        if self._records.get(identity) is not None:  # it may have gone while it was read
            self._stacks[identity] = stacks = self._interned.setdefault(stacks, stacks)
        return await self._judge_stacks(stacks, seconds)

    async def _judge_stacks(self, stacks: Stacks, seconds: float | None) -> tuple[Finding, Policy]:
        """The worst of what is found, by the policy that is in force when it is found: what is open is so whatever the rest is.

        :raises SeccompFloorError: nothing is open, and not all could be judged
        """
        while True:
            policy = self._policies.policy
            worst: Finding | None = None
            unjudged: SeccompFloorError | None = None
            for stack in stacks:
                try:
                    finding = await self._judge_stack(stack, policy, seconds)
                except SeccompFloorError as error:
                    unjudged = error
                    continue
                if worst is None or not finding.holds:
                    worst = finding
                if not finding.holds:
                    break
            if self._policies.policy is not policy:
                continue
            if worst is None or (worst.holds and unjudged is not None):
                raise unjudged or SeccompFloorError("there is nothing to judge")
            return worst, policy

    async def _judge_stack(self, stack: tuple[bytes, ...], policy: Policy, seconds: float | None) -> Finding:
        """What the runtime has loaded comes first, and is one of a few on a node. What a workload has added to it since may be
        anything, and can only make it stricter (seccomp(2)): where the first is closed, nobody need look at the rest."""
        if len(stack) > 1:
            with suppress(SeccompFloorError):
                first = await self._judging.filters(stack[:1], policy, seconds)
                if first.closed:
                    return first
        return await self._judging.filters(stack, policy, seconds)

    def forget(self, identity: str) -> None:
        """The container has gone."""
        self._stacks.pop(identity, None)
        if len(self._interned) > 2 * len(self._stacks) + 64:
            self._interned = {stacks: stacks for stacks in self._stacks.values()}

    async def _kill(self, record: Record) -> None:
        """End every process of the container, those too that it starts meanwhile; by descriptors, so that a pid that is used anew
        is not hit."""
        seen = 0
        for _ in range(KILL_PASSES):
            processes = await asyncio.to_thread(by_container, [record.id])
            seen = 0 if processes else seen + 1
            if seen == KILL_LOOKS:
                break
            for pid in processes.get(record.id, ()):
                with suppress(OSError):
                    process = os.pidfd_open(pid)
                    try:
                        if container_of(pid, (record.id,)) is not None:
                            signal.pidfd_send_signal(process, signal.SIGKILL)
                    finally:
                        os.close(process)
            await asyncio.sleep(GENTLE_SECONDS)
        else:
            event(log, logging.ERROR, "an open container cannot be killed", **record.label)
            return
        event(log, logging.ERROR, "an open container was killed: onBreach is kill", **record.label)


def _to_be_audited(record: Record) -> bool:
    """Whether the floor should hold it, and nobody has looked, or could tell what there was to see."""
    return record.audited_at is None and record.protection in (
        Protection.PROVEN,
        Protection.UNVERIFIED,
        Protection.WATCHED,
    )


def _verified_as(finding: Finding) -> Protection:
    return Protection.PROTECTED if finding.closed else Protection.WATCHED


def _result(finding: Finding) -> str:
    return "closed" if finding.closed else "watched" if finding.holds else "open"


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0
