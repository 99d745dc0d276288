"""What the daemon has to say of itself: the one place that status, health and metrics are read from."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from seccomp_floor.node.records import Record, Records
from seccomp_floor.nri.errors import NriError
from seccomp_floor.nri.handlers import Runtime

__all__ = ["BUCKETS", "NOT_TRIED", "PROVEN", "Latency", "State"]

PROVEN = "as proven, read from the kernel"
"""What a runtime handler's throw-away container shows where all is well."""
NOT_TRIED = "not tried"
"""How it begins where there is nothing to show."""

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
"""Upper bounds, in seconds, of the classes that answers to the runtime are counted in. It waits 2 s by default."""


@dataclass(slots=True)
class Latency:
    """How long answers took. ``counts``: by class of :data:`BUCKETS`, the last for longer ones."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """One answer."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds


class State:
    """Counters only grow, for as long as the daemon lives.

    ``self_test``: None until it has been made, then what it found wrong, "" for nothing. ``auditing``: why filters cannot be read
    here, "" where they can. ``standing_by``: whether another daemon acts in this one's place.
    """

    def __init__(self, standing_by: Callable[[], bool] = lambda: False) -> None:
        self.standing_by = standing_by
        self.started = time.time()
        self.records = Records()
        self.runtime: Runtime | None = None
        self.connected = False
        self.sessions = 0
        self.lost: str = ""
        self.self_test: str | None = None
        self.auditing: str = ""
        self.decisions: Counter[tuple[str, str]] = Counter()  # by protection and reason
        self.refusals = 0
        self.proofs: Counter[str] = Counter()  # by result
        self.audits: Counter[str] = Counter()  # by result
        self.breaches = 0
        self.uses: Counter[tuple[str, str]] = Counter()  # logged uses of doors, by namespace and pod
        self.unsupporting: frozenset[str] = frozenset()  # handlers whose runtime is not known to load sections
        self.late: frozenset[str] = frozenset()  # handlers whose runtime loads a filter after everybody was asked
        self.runtimes: dict[str, str] = {}  # by handler: what its throw-away container has shown
        self.runtime_versions: dict[str, str] = {}  # by handler: what its runtime says of itself and its libseccomp
        self.latency: dict[str, Latency] = {}

    @property
    def ready(self) -> str:
        """Why the node is not protected; "" where it is: registered, policy loaded, and a section proven under it."""
        if not self.connected:
            return self.lost or "not yet registered with the runtime"
        if self.self_test is None:
            return "the self-test is not finished"
        return self.self_test

    def registered(self, runtime: Runtime) -> None:
        """A session has begun."""
        self.runtime, self.connected, self.lost = runtime, True, ""
        self.sessions += 1

    def disconnected(self, reason: NriError | None) -> None:
        """A session has ended."""
        self.connected = False
        self.lost = str(reason) if reason else "stopped"

    def unsupported(self, handler: str) -> bool:
        """Whether the handler's runtime is one that does not load seccomp sections."""
        return handler in self.unsupporting

    def loads_late(self, handler: str) -> bool:
        """Whether the handler's runtime, of a container with noNewPrivileges, loads the filter after it was held for its start."""
        return handler in self.late

    def count_decision(self, record: Record) -> None:
        """A creation was answered."""
        self.decisions[record.protection.value, record.reason] += 1

    def forget_uses(self, gone: Record) -> None:
        """A container has gone; its pod's uses go with the pod's last container, or they would pile up."""
        pod = gone.namespace, gone.pod
        if pod in self.uses and not any((record.namespace, record.pod) == pod for record in self.records):
            del self.uses[pod]

    def count_refusal(self) -> None:
        """An operation was refused."""
        self.refusals += 1

    @contextmanager
    def request(self, method: str) -> Iterator[None]:
        """Measure the answer to a request of the runtime's."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.latency.setdefault(method, Latency()).observe(time.perf_counter() - begun)
