"""What the daemon knows of each container, and never more than it has verified."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from seccomp_floor.decide import Decision, Reason, Subject
from seccomp_floor.floor import Policy, policy_digest
from seccomp_floor.node.logs import printable
from seccomp_floor.node.processes import in_own_namespace
from seccomp_floor.pb.nri_pb2 import Container, PodSandbox

__all__ = ["HOST_PIDS", "Protection", "Record", "Records", "detail_of", "subject_of"]

HOST_PIDS = "host"
"""The host's PID namespace, which is the daemon's as well."""

MOST_NASCENT = 1024
"""Containers between creation's start and its success that are remembered; the oldest is forgotten, should their ends be lost."""


class Protection(StrEnum):
    """How a container stands to the floor. Stable words, for JSON and metrics."""

    PROTECTED = "protected"
    """The filter that the kernel enforces on it was read and proven."""
    PROVEN = "proven"
    """Its section was proven and handed to the runtime; the kernel's filter has not been read yet."""
    UNVERIFIED = "unverified"
    """It should be under the floor, and what it holds is not known, or not what was asked: ``detail`` says why."""
    OUTDATED = "outdated"
    """It was created under another policy, and does not hold what the one in force asks: it has to be created anew."""
    BREACHED = "breached"
    """Its filter was read, and a door is open."""
    ADMITTED = "admitted"
    """No section could be proven for it, and the policy lets such containers run (``onUnprovable: admit``, ``mode: log``)."""
    WATCHED = "watched"
    """``mode: log``: doors are open and their uses logged."""
    REPORTED = "reported"
    """``mode: report``: nothing was changed."""
    EXEMPT = "exempt"
    """The floor does not apply to it: not selected, opted out, or the daemon's own."""
    UNSUPPORTED = "unsupported"
    """Its runtime ignores seccomp sections."""
    ENDED = "ended"
    """It runs no more; the runtime has not removed it yet."""


@dataclass(frozen=True, slots=True)
class Record:
    """One container. Times are seconds since the epoch, None where it has not happened; ``pause`` is the time in seconds that
    reading its filters made it wait.

    ``detail`` says in a sentence why it stands as it does; ``limits`` what the floor cannot keep from it, as its processes show;
    ``open_doors`` names the doors that the policy leaves open in its filter; ``uses`` counts the
    calls through doors that the kernel has logged of it. ``policy``: the digest of the one that was in force when a daemon decided
    about it, None where none did; ``deferred``: it was another daemon.

    ``pid``: of its first process, 0 before there is one. ``pid_namespace``: where its PID namespace is, as the runtime names it
    (``/proc/PID/ns/pid``); "" for one of its own, ``HOST_PIDS`` for the host's.
    """

    id: str
    name: str
    pod: str
    namespace: str
    handler: str
    pod_id: str
    subject: Subject
    floored: bool
    reason: str
    detail: str
    protection: Protection
    pid: int = 0
    pid_namespace: str = ""
    policy: str | None = None
    deferred: bool = False
    changes: int = 0
    proven_at: float | None = None
    audited_at: float | None = None
    pause: float | None = None
    limits: tuple[str, ...] = ()
    open_doors: tuple[str, ...] = ()
    uses: int = 0

    @classmethod
    def of(cls, pod: PodSandbox, container: Container, decision: Decision, protection: Protection) -> Record:
        """A record whose texts are bounded and printable, whatever the pod's author has written."""
        return cls(
            id=container.id,
            name=printable(container.name, 64),
            pod=printable(pod.name),
            namespace=printable(pod.namespace, 64),
            handler=printable(pod.runtime_handler, 64),
            pod_id=printable(pod.id, 64),
            subject=subject_of(pod, container),
            pid=container.pid,
            pid_namespace=_pid_namespace(container),
            floored=decision.floored,
            reason=str(decision.reason),
            detail=detail_of(decision),
            protection=protection,
        )

    def inherited(self, policy: Policy) -> bool:
        """Whether it was created under another policy than this one, so that what it lacks is nobody's fault."""
        return self.policy is not None and self.policy != policy_digest(policy)

    @property
    def label(self) -> dict[str, str]:
        """The fields that say in a log which container is meant."""
        return {"pod": f"{self.namespace}/{self.pod}", "container": self.name, "id": self.id[:12]}


class Records:
    """All containers of the node that the runtime has told us of.

    A container is *nascent* from our answer to its creation until the runtime says that it was made; one whose creation failed
    elsewhere never leaves that state, and is forgotten.
    """

    def __init__(self) -> None:
        self._containers: dict[str, Record] = {}
        self._nascent: OrderedDict[str, Record] = OrderedDict()

    def __iter__(self) -> Iterator[Record]:
        return iter(tuple(self._containers.values()))  # a copy: metrics are read from another thread

    def identities(self) -> list[str]:
        """Of all containers, nascent ones too."""
        return [*self._containers, *self._nascent]

    def __len__(self) -> int:
        return len(self._containers)

    def get(self, identity: str) -> Record | None:
        """The record of a container, nascent or made."""
        return self._containers.get(identity) or self._nascent.get(identity)

    def expect(self, record: Record) -> None:
        """A creation that we have answered."""
        self._nascent[record.id] = record
        self._nascent.move_to_end(record.id)
        if len(self._nascent) > MOST_NASCENT:
            self._nascent.popitem(last=False)

    def made(self, identity: str) -> None:
        """The runtime has made the container."""
        if (record := self._nascent.pop(identity, None)) is not None:
            self._containers[identity] = record

    def put(self, record: Record) -> None:
        """A container that exists, as it stands now."""
        self._nascent.pop(record.id, None)
        self._containers[record.id] = record

    def update(self, identity: str, **changes: object) -> Record | None:
        """Change the record of a container, if there is one."""
        for table in (self._containers, self._nascent):
            if (record := table.get(identity)) is not None:
                table[identity] = record = replace(record, **changes)  # type: ignore[arg-type]
                return record
        return None

    def replace(self, record: Record) -> Record:
        """The same container, as it stands now; nothing, if it has gone."""
        for table in (self._containers, self._nascent):
            if record.id in table:
                table[record.id] = record
        return record

    def remove(self, identity: str) -> None:
        """The container has gone."""
        self._containers.pop(identity, None)
        self._nascent.pop(identity, None)

    def keep_only(self, identities: Iterable[str]) -> list[Record]:
        """The runtime has told all that exists: what is not among it has gone unheard, and is returned."""
        known = set(identities)
        gone = [record for identity, record in self._containers.items() if identity not in known]
        for record in gone:
            del self._containers[record.id]
        return gone


def subject_of(pod: PodSandbox, container: Container) -> Subject:
    """What is decided about."""
    return Subject.of(container.name, pod.runtime_handler, pod.namespace, pod.annotations)


def detail_of(decision: Decision) -> str:
    """What a decision has to say; that the floor applies goes without saying."""
    return "" if decision.reason is Reason.SELECTED else printable(decision.detail)


def _pid_namespace(container: Container) -> str:
    found = next((namespace for namespace in container.linux.namespaces if namespace.type == "pid"), None)
    if found is None or in_own_namespace(found.path):
        return HOST_PIDS
    return printable(found.path)
