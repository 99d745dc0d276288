"""The audits that the daemon makes: when, of whom, and what follows from them.

A container is read when it starts, while the OCI runtime holds it and nothing can notice. One that ran before the daemon came is
read once, gently, since its processes might notice (:mod:`~seccomp_floor.node.ptrace`). What was read is kept: a new policy is
judged against it, and nobody is stopped again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from seccomp_floor.errors import SeccompFloorError
from seccomp_floor.floor import Mode, OnBreach, Policy
from seccomp_floor.node.audit import Finding, Read, Reading, read_processes
from seccomp_floor.node.judging import Judging
from seccomp_floor.node.logs import event, printable
from seccomp_floor.node.policy_store import PolicyStore
from seccomp_floor.node.processes import by_container, container_of, in_own_namespace, limits
from seccomp_floor.node.ptrace import GoneError, PtraceError, thread_seccomp
from seccomp_floor.node.records import Protection, Record
from seccomp_floor.node.state import State
from seccomp_floor.pb.nri_pb2 import Container, PodSandbox

__all__ = ["Auditor"]

GENTLE_SECONDS = 0.05
"""The rest between two containers that run, so that a node with a thousand of them has the CPU for itself."""
RESTORED_SECONDS = 60.0
SETTLE_SECONDS, SETTLE_TRIES = 5.0, 50
"""How long a container may take from its start until the runtime has loaded its filter, and how often it is looked at till then."""

IGNORES = "its runtime does not load seccomp sections, or is not known to"
LATE = "its runtime loads the filter when nobody can ask any more; audited right after the start"

Stacks = tuple[tuple[bytes, ...], ...]

log = logging.getLogger(__name__)


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

    # The daemon's own pod: it must run without a filter, or it could not read any.

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

    # Audits

    async def audit_held(self, record: Record, pid: int) -> None:
        """Audit a container that the OCI runtime holds before its start.

        :raises SeccompFloorError: it must not be started
        """
        if self._state.auditing:
            return
        if self._state.unsupported(record.handler):
            self._records.update(record.id, protection=Protection.UNSUPPORTED, detail=IGNORES)
            return
        if container_of(pid, (record.id,)) is None:
            raise PtraceError(f"its process {pid} cannot be found, so that its filters cannot be read")
        status = thread_seccomp(pid)
        if status.mode == 0 and status.no_new_privileges:
            # With noNewPrivileges a runtime may load the filter as late as it can, after this moment: crun does.
            self._records.update(record.id, detail=LATE)
            return
        # The runtime's init has helper threads, which end with its execve: only its first thread becomes the container's.
        filters = await asyncio.to_thread(self._read, pid)
        reading = Reading(pid, pid, filters.programs, filters.pause)
        policy = self._policies.policy
        finding = await self._judge(record.id, (reading,), policy)
        self._state.audits[_result(finding)] += 1
        if not finding.holds:
            raise SeccompFloorError(f"the filter that the kernel holds for it is not what was proven: {finding.text}")
        self._verified(record.id, finding, reading.pause, limits(pid))

    def breached(self, identity: str, why: str) -> None:
        """What the kernel holds is not what was proven."""
        self._state.breaches += 1
        found = self._records.update(
            identity, protection=Protection.BREACHED, detail=printable(why), audited_at=time.time()
        )
        if found is not None:
            event(log, logging.ERROR, "a container's filter is open", **found.label, reason=found.detail)

    def outdated(self, identity: str, why: str) -> None:
        """What the kernel holds is not what the policy in force asks, and was right when the container was created."""
        self._records.update(identity, protection=Protection.OUTDATED, detail=printable(why), audited_at=time.time())

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
        await self._audit_running(identity, [pid], started=True)

    async def audit_found(self, containers: Sequence[str]) -> None:
        """Audit containers that ran before we came, one after another."""
        if self._state.auditing or not containers:
            return
        processes = await asyncio.to_thread(by_container, containers)
        for identity in containers:
            await self._audit_running(identity, processes.get(identity, []))
            await asyncio.sleep(GENTLE_SECONDS)

    async def rejudge(self) -> None:
        """A new policy is in force: judge by it what was read under an earlier one. Nothing that was right is killed for that."""
        policy = self._policies.policy
        for record in self._records:
            stacks = self._stacks.get(record.id)
            if stacks is None or not record.floored:
                continue
            findings = [await self._judging.filters(stack, policy) for stack in stacks]
            worst = next((finding for finding in findings if not finding.holds), findings[0])
            if worst.holds:
                protection, detail = _verified_as(worst), ""
            else:
                protection = Protection.OUTDATED
                detail = f"created under an earlier policy: create it anew. {worst.text}"
            if protection is not record.protection:
                self._records.update(record.id, protection=protection, detail=printable(detail))
                event(log, logging.INFO, f"{protection} under the new policy", **record.label, detail=detail or None)

    async def look_for_restored(self) -> None:
        """Find, for ever, containers that run without ever having been started: the runtime restores a checkpoint so, and asks
        nobody."""
        while True:
            await asyncio.sleep(RESTORED_SECONDS)
            before = time.time() - RESTORED_SECONDS
            waiting = [
                record.id
                for record in self._records
                if record.audited_at is None and _to_be_audited(record) and (record.proven_at or 0) < before
            ]
            await self.audit_found(waiting)

    def forget(self, identity: str) -> None:
        """The container has gone."""
        self._stacks.pop(identity, None)
        if len(self._interned) > 2 * len(self._stacks) + 64:
            self._interned = {stacks: stacks for stacks in self._stacks.values()}

    async def _audit_running(self, identity: str, pids: Sequence[int], *, started: bool = False) -> None:
        record = self._records.get(identity)
        pids = [pid for pid in pids if container_of(pid, (identity,))]  # a while has passed: numbers are used anew
        if record is None or not _to_be_audited(record) or not pids:
            return
        if self._state.unsupported(record.handler):
            self._records.update(identity, protection=Protection.UNSUPPORTED, detail=IGNORES)
            return
        try:
            readings = await asyncio.to_thread(read_processes, pids, self._read)
        except PtraceError as error:
            self._state.audits["unreadable"] += 1
            self._records.update(identity, detail=printable(f"not audited: {error}"))
            event(log, logging.WARNING, f"a container cannot be audited: {error}", **record.label)
            return
        if readings:
            await self._conclude(record, readings, self._policies.policy, started=started)

    async def _conclude(self, record: Record, readings: Sequence[Reading], policy: Policy, *, started: bool) -> None:
        """Judge a running container, and do what the policy says where it is open. ``started``: just now."""
        pause = max(reading.pause for reading in readings)
        try:
            finding = await self._judge(record.id, readings, policy)
        except SeccompFloorError as error:
            finding = Finding(False, False, f"its filters cannot be judged: {error}")
        self._state.audits[_result(finding)] += 1
        if finding.holds:
            pid = next((reading.pid for reading in readings), 0)
            self._verified(record.id, finding, pause, limits(pid) if pid else ())
            return
        if policy.mode is not Mode.ENFORCE:
            self._records.update(record.id, protection=Protection.UNVERIFIED, detail=printable(finding.text))
            return
        standing_by = self._state.standing_by()
        if started and standing_by:
            self.outdated(record.id, f"created under another daemon's policy: create it anew. {finding.text}")
            return
        self.breached(record.id, finding.text)
        if policy.on_breach is OnBreach.KILL and not standing_by:  # it may be what the leader's policy asks for
            await self._kill(record)

    async def _judge(self, identity: str, readings: Sequence[Reading], policy: Policy) -> Finding:
        stacks = tuple(dict.fromkeys(reading.filters for reading in readings))
        if identity:
            self._stacks[identity] = self._interned.setdefault(stacks, stacks)
        findings = [await self._judging.filters(stack, policy) for stack in stacks]
        return next((finding for finding in findings if not finding.holds), findings[0])

    def _verified(self, identity: str, finding: Finding, pause: float, found_limits: tuple[str, ...]) -> None:
        record = self._records.get(identity)
        if record is None:
            return
        kept = dict.fromkeys(
            (*record.limits, *found_limits, *(f"{door}: open by policy" for door in finding.open_doors))
        )
        self._records.update(
            identity,
            protection=_verified_as(finding),
            detail="" if record.protection is Protection.UNVERIFIED or record.detail == LATE else record.detail,
            audited_at=time.time(),
            pause=pause,
            limits=tuple(kept),
        )

    async def _kill(self, record: Record) -> None:
        """End every process of the container; by descriptors, so that a pid that is used anew is not hit."""
        processes = await asyncio.to_thread(by_container, [record.id])
        for pid in processes.get(record.id, []):
            with suppress(ProcessLookupError):
                process = os.pidfd_open(pid)
                try:
                    if container_of(pid, (record.id,)) is not None:
                        signal.pidfd_send_signal(process, signal.SIGKILL)
                finally:
                    os.close(process)
        event(log, logging.ERROR, "an open container was killed: onBreach is kill", **record.label)


def _to_be_audited(record: Record) -> bool:
    """Whether the floor should hold it, and nobody has looked."""
    return record.protection in (Protection.PROVEN, Protection.UNVERIFIED, Protection.WATCHED)


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
