"""The node's answers to the runtime: what becomes of each container that is created, judged and started.

A container passes four times. At its *creation* it is decided about, and gets its section. At the *validation*, when every plugin
has had its say, the sum is judged: not by who set what, but by whether it is closed. *Made*, it is on the record. At its *start*
the OCI runtime holds the process with its filters loaded and none of the user's code run: the filters are read from the kernel,
and what is open is not started.

Where several daemons serve the runtime, one decides about a container, and the others keep their records and look at what is
started (:mod:`~seccomp_floor.node.succession`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from seccomp_floor.decide import Decision, Reason, decide
from seccomp_floor.errors import InputError, SeccompFloorError
from seccomp_floor.floor import Mode, OnUnprovable, Policy, policy_digest
from seccomp_floor.node.auditor import OpenError
from seccomp_floor.node.judging import Judged, Judging, Table, digest
from seccomp_floor.node.logs import event, printable
from seccomp_floor.node.records import Protection, Record, Records, subject_of
from seccomp_floor.node.succession import MARK
from seccomp_floor.nri.errors import NriError, Refused
from seccomp_floor.nri.handlers import Handlers, Runtime
from seccomp_floor.nri.translate import adjustment, from_nri, section_after
from seccomp_floor.nri.version import remedy
from seccomp_floor.pb import nri_pb2 as nri
from seccomp_floor.profile import Profile

if TYPE_CHECKING:
    from seccomp_floor.node.auditor import Auditor
    from seccomp_floor.node.policy_store import PolicyStore
    from seccomp_floor.node.state import State
    from seccomp_floor.node.succession import Succession

__all__ = ["REPLACES_SECTION", "NodePlugin"]

REPLACES_SECTION = "run.oci.seccomp_bpf_data"
"""An annotation with a compiled filter that crun loads in place of the section (crun.1): nothing that we answer would count."""

RESTORED = "restored"
"""An annotation, with the value ``true``, by which containerd tells that the container comes from a checkpoint (its CRI plugin,
``CRImportCheckpoint``): with the filters that it had then, whatever section it is given, and past everybody who would look."""

_PROVEN_AS = {Mode.ENFORCE: Protection.PROVEN, Mode.LOG: Protection.WATCHED, Mode.REPORT: Protection.REPORTED}

_SAID = {
    Protection.PROVEN: "container under the floor",
    Protection.WATCHED: "container watched: the floor's doors are open and logged",
    Protection.REPORTED: "container left as it is: mode report",
    Protection.EXEMPT: "container not under the floor",
    Protection.UNVERIFIED: "container that nobody can look at before it runs",
    Protection.ADMITTED: "container let through with its doors open: no section can be proven for it",
}

LARGEST_SECTION = 192 << 10
"""Bytes of a section's message that are read at all: some ten times containerd's default, and a tenth of a second's work. The
runtime takes 4 MiB, which take longer than it waits for an answer, and while they are read nobody else gets one."""

log = logging.getLogger(__name__)


class TooLargeError(SeccompFloorError):
    """A section that is not read, since that would keep every other container of the node waiting."""


class ForgedError(SeccompFloorError):
    """A container that says of itself what only a daemon may say of it."""


class UnseenError(SeccompFloorError):
    """A container that will run with filters that cannot be read before."""


class NodePlugin(Handlers):
    """The handlers of the daemon. All state is in what it is given."""

    def __init__(
        self,
        policies: PolicyStore,
        judging: Judging,
        auditor: Auditor,
        state: State,
        succession: Succession,
        on_registered: Callable[[], None],
    ) -> None:
        self._policies = policies
        self._judging = judging
        self._auditor = auditor
        self._state = state
        self._succession = succession
        self._records: Records = state.records
        self._on_registered = on_registered
        self._answers: Table[tuple[Judged, nri.ContainerAdjustment | None]] = Table()
        self._closed: Table[bool] = Table()
        self._background: set[asyncio.Task[None]] = set()

    # The session

    async def configure(self, runtime: Runtime) -> None:
        refusal = remedy(runtime.name, runtime.version)
        if refusal is not None:
            raise Refused(refusal)
        self._judging.set_request_timeout(runtime.request_timeout)

    async def synchronize(
        self, pods: Sequence[nri.PodSandbox], containers: Sequence[nri.Container]
    ) -> Sequence[nri.ContainerUpdate]:
        self._succession.enter()
        sandboxes = {pod.id: pod for pod in pods}
        self._auditor.find_own_pod(sandboxes, containers)
        for gone in self._records.keep_only(container.id for container in containers):
            self._forget(gone)
        unseen = []
        for container in containers:
            pod = sandboxes.get(container.pod_sandbox_id, nri.PodSandbox(id=container.pod_sandbox_id))
            self._records.made(container.id)  # we may have missed the word that it was
            record = self._records.get(container.id)
            if record is None:
                record = self._found(pod, container, "it was there before the daemon")
                self._records.put(record)
            if container.state == nri.CONTAINER_STOPPED:
                self._ended(record)
            elif container.state in (nri.CONTAINER_RUNNING, nri.CONTAINER_PAUSED) and not record.audited_at:
                self._records.update(record.id, pid=container.pid)
                unseen.append(container.id)
        self._spawn(self._auditor.audit_found(unseen))
        return ()

    def registered(self, runtime: Runtime) -> None:
        self._state.registered(runtime)
        event(
            log,
            logging.INFO,
            f"registered with {printable(runtime.name)} {runtime.version}",
            containers=len(self._records),
            policy=self._policies.source,
            mode=str(self._policies.policy.mode),
        )
        self._on_registered()

    def disconnected(self, reason: NriError | None) -> None:
        self._succession.leave()
        self._state.disconnected(reason)

    # A container's way

    async def create_container(self, pod: nri.PodSandbox, container: nri.Container) -> nri.ContainerAdjustment | None:
        with self._state.request("CreateContainer"):
            if MARK in container.annotations:
                self._succession.decided(by_another=True)
                record = self._found(pod, container, "another daemon has decided about it")
                self._expect(replace(record, deferred=True), self._policies.policy)
                return None
            self._succession.decided(by_another=False)
            policy = self._policies.policy
            decision = self._decide(pod, container, policy)
            if not decision.floored:
                self._expect(Record.of(pod, container, decision, Protection.EXEMPT), policy)
                return _marked(policy)
            restored = container.annotations.get(RESTORED) == "true"
            try:
                self._refuse_replaced(container.annotations)
                if restored and policy.mode is Mode.ENFORCE and policy.on_unprovable is not OnUnprovable.ADMIT:
                    raise UnseenError(
                        "it is restored from a checkpoint, with filters that nobody can look at before it runs"
                    )
                judged, answer = await self._section(container, policy)
            except SeccompFloorError as error:
                self._unprovable(pod, container, decision, policy, error)
                return _marked(policy)
            protection = _PROVEN_AS[policy.mode]
            record = Record.of(pod, container, decision, protection)
            record = replace(record, proven_at=time.time(), changes=judged.changes)
            if judged.inexact:
                record = replace(record, detail=printable(f"closed, but not exact: {judged.inexact}"))
            if policy.mode is Mode.REPORT:
                would = (
                    f"the section would change in {judged.changes} places" if judged.changes else "nothing would change"
                )
                self._expect(replace(record, detail=would), policy)
                return None
            if restored:
                detail = "restored from a checkpoint, with the filters that it had then"
                record = replace(record, protection=Protection.UNVERIFIED, detail=detail)
            self._expect(record, policy)
            return answer

    async def validate_container_adjustment(self, request: nri.ValidateContainerAdjustmentRequest) -> None:
        with self._state.request("ValidateContainerAdjustment"):
            policy = self._policies.policy
            pod, container = request.pod, request.container
            record = self._records.get(container.id)
            if policy.mode is not Mode.ENFORCE:
                return
            if record is not None and record.deferred:
                if MARK not in request.adjust.annotations:
                    self._refuse(pod, container, ForgedError(f"annotation {MARK} is for the daemon to make: remove it"))
                return
            if not self._decide(pod, container, policy).floored:
                return
            try:
                self._refuse_replaced(request.adjust.annotations)
                self._refuse_replaced(container.annotations)
                await self._require_closed(request, policy)
            except SeccompFloorError as error:
                if record is None or not self._admitted(record, policy):
                    self._refuse(pod, container, error)

    async def post_create_container(self, pod: nri.PodSandbox, container: nri.Container) -> None:  # noqa: ARG002
        self._records.made(container.id)

    async def start_container(self, pod: nri.PodSandbox, container: nri.Container) -> None:
        with self._state.request("StartContainer"):
            self._records.made(container.id)
            record = self._records.get(container.id)
            if record is None:  # created while we were away
                record = self._found(pod, container, "it was created while the daemon was away")
                self._records.put(record)
            self._records.update(record.id, pid=container.pid)
            policy = self._policies.policy
            if not record.floored or policy.mode is Mode.REPORT or self._admitted(record, policy):
                return
            try:
                await self._auditor.audit_held(record, container.pid)
            except SeccompFloorError as error:
                self._not_as_it_should_be(pod, container, record, error)

    def _not_as_it_should_be(
        self, pod: nri.PodSandbox, container: nri.Container, record: Record, error: SeccompFloorError
    ) -> None:
        """Of a container that is about to start: put it on the record, and refuse it where the policy says so.

        :raises Refused: it does"""
        policy = self._policies.policy
        if policy.mode is not Mode.ENFORCE:
            self._auditor.unverified(record.id, str(error))
            return
        inherited = record.inherited(policy)
        if not isinstance(error, OpenError):
            self._records.update(record.id, protection=Protection.UNVERIFIED, detail=printable(str(error)))
        elif inherited:
            self._auditor.outdated(record.id, str(error))
            error = OpenError(f"it was created under another policy, and lacks what the one in force asks: {error}")
        else:
            error = OpenError(f"the filter that the kernel holds for it is not what was proven: {error}")
            self._auditor.breached(record.id, str(error))
        another_s = record.deferred and inherited  # proven by its policy, by which it looks at it as well
        if policy.on_unprovable is not OnUnprovable.ADMIT and not another_s:
            self._refuse(pod, container, error)

    async def post_start_container(self, pod: nri.PodSandbox, container: nri.Container) -> None:  # noqa: ARG002
        record = self._records.get(container.id)
        if record is not None and record.audited_at is None:
            self._spawn(self._auditor.audit_started(container.id, container.pid))

    async def stop_container(self, pod: nri.PodSandbox, container: nri.Container) -> Sequence[nri.ContainerUpdate]:  # noqa: ARG002
        if (record := self._records.get(container.id)) is not None:
            self._ended(record)
        return ()

    async def remove_container(self, pod: nri.PodSandbox, container: nri.Container) -> None:  # noqa: ARG002
        gone = self._records.get(container.id)
        self._records.remove(container.id)
        if gone is not None:
            self._forget(gone)

    # What they share

    async def _section(self, container: nri.Container, policy: Policy) -> tuple[Judged, nri.ContainerAdjustment | None]:
        """The container's section, as a judgement and as an answer. The message itself is the key to what was answered before: to
        take a profile apart takes longer than all the rest.

        :raises SeccompFloorError: there is none that could be proven, or the profile is none
        """
        question = digest(_message(container)), policy
        answered = self._answers.get(question)
        if answered is None:
            profile = _profile(container)
            judged = await self._judging.section(profile, policy)
            # A section that is right already is left alone: two plugins that set it fail the creation.
            answer = _marked(policy, None if judged.section == profile else judged.section)
            answered = judged, answer
            self._answers.put(question, answered)
        return answered

    async def _require_closed(self, request: nri.ValidateContainerAdjustmentRequest, policy: Policy) -> None:
        """:raises SeccompFloorError: what the container will have is open, or cannot be judged"""
        question = digest((_message(request.adjust), _message(request.container))), policy.floor
        if not self._closed.get(question):
            await self._judging.require_closed(section_after(request), policy)
            self._closed.put(question, True)

    def _decide(self, pod: nri.PodSandbox, container: nri.Container, policy: Policy) -> Decision:
        """:raises Refused: the container's annotation makes no sense"""
        try:
            return self._decision(pod, container, policy)
        except InputError as error:
            if policy.mode is not Mode.ENFORCE:
                return Decision(True, Reason.SELECTED, f"it would be refused: {error}")
            self._refuse(pod, container, error)

    def _decision(self, pod: nri.PodSandbox, container: nri.Container, policy: Policy) -> Decision:
        """:raises InputError: the container's annotation makes no sense"""
        if self._auditor.is_own(pod, container):
            return Decision(False, Reason.OWN_POD, "the daemon's own pod: who reads filters must have none")
        return decide(policy, subject_of(pod, container))

    def _found(self, pod: nri.PodSandbox, container: nri.Container, why: str) -> Record:
        """The record of a container that others have made, or let be made. ``why`` it is unverified, in words."""
        policy = self._policies.policy
        try:
            decision = self._decision(pod, container, policy)
        except InputError as error:
            decision = Decision(True, Reason.SELECTED, str(error))
        mark = container.annotations.get(MARK)
        if not decision.floored:
            stands = Protection.EXEMPT
        else:
            stands = Protection.REPORTED if policy.mode is Mode.REPORT else Protection.UNVERIFIED
        if decision.floored and policy.mode is Mode.ENFORCE:
            return replace(Record.of(pod, container, decision, stands), detail=why, policy=mark)
        # Nothing is asked of it, so that another policy can only find it lacking.
        record = Record.of(pod, container, decision, stands)
        return replace(record, detail=record.detail or why, policy=mark or policy_digest(policy))

    def _admitted(self, record: Record, policy: Policy) -> bool:
        """Whether it was let through though nothing could be proven, and may be still."""
        admits = policy.on_unprovable is OnUnprovable.ADMIT or policy.mode is Mode.LOG
        return record.protection is Protection.ADMITTED and admits

    def _ended(self, record: Record) -> None:
        if record.protection is not Protection.ENDED:
            detail = f"{record.protection}: {record.detail}" if record.detail else f"it was {record.protection}"
            self._records.update(record.id, protection=Protection.ENDED, detail=printable(detail))

    def _forget(self, gone: Record) -> None:
        """A container has been removed."""
        self._auditor.forget(gone.id)
        self._state.forget_uses(gone)

    def _unprovable(
        self,
        pod: nri.PodSandbox,
        container: nri.Container,
        decision: Decision,
        policy: Policy,
        error: SeccompFloorError,
    ) -> None:
        if policy.mode is Mode.REPORT:
            record = Record.of(pod, container, decision, Protection.REPORTED)
            self._expect(replace(record, detail=printable(f"it would be refused: {error}")), policy)
        elif policy.on_unprovable is OnUnprovable.ADMIT or policy.mode is Mode.LOG:
            record = Record.of(pod, container, decision, Protection.ADMITTED)
            self._expect(replace(record, detail=printable(str(error))), policy, logging.ERROR)
        else:
            self._refuse(pod, container, error)

    def _refuse(self, pod: nri.PodSandbox, container: nri.Container, error: SeccompFloorError) -> NoReturn:
        """Say no, in words that the pod's owner finds in its events."""
        record = Record.of(pod, container, Decision(True, Reason.SELECTED, ""), Protection.EXEMPT)
        text = printable(str(error), 800)
        self._state.count_refusal()
        event(log, logging.WARNING, "container refused", **record.label, reason=text)
        raise Refused(f"seccomp-floor refuses container {record.name}: {text}") from error

    def _refuse_replaced(self, annotations: Mapping[str, str]) -> None:
        if REPLACES_SECTION in annotations:
            raise Refused(
                f"annotation {REPLACES_SECTION} would replace the seccomp section that holds the floor: remove it"
            )

    def _expect(self, record: Record, policy: Policy, level: int = logging.INFO) -> None:
        """A creation was answered, by that policy."""
        self._records.expect(record if record.deferred else replace(record, policy=policy_digest(policy)))
        self._state.count_decision(record)
        event(
            log,
            level,
            "container left to the daemon that has decided about it" if record.deferred else _SAID[record.protection],
            **record.label,
            handler=record.handler,
            reason=record.reason,
            detail=record.detail or None,
            changes=record.changes,
        )

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _marked(policy: Policy, section: Profile | None = None) -> nri.ContainerAdjustment | None:
    """Our decision about a container, as the runtime and other daemons get it: the mark, and a section where it needs one. A policy
    that only reports leaves no trace."""
    if policy.mode is Mode.REPORT:
        return None
    made = adjustment(section) if section is not None else nri.ContainerAdjustment()
    made.annotations[MARK] = policy_digest(policy)
    return made


def _message(holder: nri.Container | nri.ContainerAdjustment) -> bytes | None:
    """The section that it carries, as it came.

    :raises TooLargeError: it would take the event loop's time to read
    """
    if not holder.linux.HasField("seccomp_policy"):
        return None
    message = holder.linux.seccomp_policy.SerializeToString()
    if len(message) > LARGEST_SECTION:
        raise TooLargeError(
            f"its seccomp profile takes {len(message)} bytes, more than the {LARGEST_SECTION} that are judged"
        )
    return message


def _profile(container: nri.Container) -> Profile | None:
    """The container's profile as it stands, other plugins' changes included; None: it has none.

    :raises InputError: it is not what runtime-spec says
    """
    if not container.linux.HasField("seccomp_policy"):
        return None
    return from_nri(container.linux.seccomp_policy, "its seccomp profile")
