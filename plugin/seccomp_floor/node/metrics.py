"""The daemon's state for Prometheus, read when it is asked for (prometheus_client's custom collectors)."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from socketserver import TCPServer, ThreadingMixIn
from threading import BoundedSemaphore, Thread, Timer
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from seccomp_floor.errors import SeccompFloorError
from seccomp_floor.floor import policy_digest
from seccomp_floor.node.state import BUCKETS, PROVEN, State

if TYPE_CHECKING:
    from seccomp_floor.node.policy_store import PolicyStore

__all__ = ["StateCollector", "serve_metrics"]

MOST_SCRAPES, SCRAPE_SECONDS = 8, 5.0
"""How many connections there may be to the metrics' port, and for how long each."""

# Results that are there from the start, with 0: what begins with 1 shows no increase.
_PROOFS = ("proven", "refuted", "failed", "too-slow")
_AUDITS = ("closed", "watched", "open", "unreadable", "unjudged")


class StateCollector(Collector):
    """Runs in the thread of the HTTP server: it takes copies, each of which is made in one step."""

    def __init__(self, state: State, policies: PolicyStore, versions: tuple[str, str]) -> None:
        self._state = state
        self._policies = policies
        self._versions = versions

    def collect(self) -> Iterator[Metric]:
        yield from self._daemon()
        yield from self._policy()
        yield from self._containers()
        yield from self._runtimes()
        yield from self._work()

    def _daemon(self) -> Iterator[Metric]:
        state = self._state
        own, libseccomp = self._versions
        build = InfoMetricFamily(
            "seccomp_floor_build", "Versions of the daemon and of the libseccomp that it proves with."
        )
        build.add_metric([], {"version": own, "libseccomp": libseccomp})
        yield build
        runtime = InfoMetricFamily("seccomp_floor_runtime", "The runtime that the daemon is registered with.")
        if state.runtime is not None:
            runtime.add_metric([], {"name": state.runtime.name, "version": str(state.runtime.version)})
        yield runtime
        yield _whether(
            "seccomp_floor_ready",
            "1 if the daemon is registered and a section was proven under its policy, else 0. What that does to containers that "
            "are created now is the policy's mode: only in mode enforce are they protected.",
            not state.ready,
        )
        yield _whether(
            "seccomp_floor_standing_by",
            "1 while another daemon serves the runtime as well and its policy is in force, else 0.",
            state.standing_by(),
        )
        yield _whether(
            "seccomp_floor_filters_readable",
            "1 if filters can be read from the kernel here, else 0: no container is audited then.",
            not state.auditing,
        )
        yield _count("seccomp_floor_sessions", "Sessions with the runtime that were begun.", state.sessions)

    def _policy(self) -> Iterator[Metric]:
        policies = self._policies
        policy = InfoMetricFamily(
            "seccomp_floor_policy", "The daemon's policy: its mode, and a digest of all that it says."
        )
        policy.add_metric([], {"mode": str(policies.policy.mode), "digest": policy_digest(policies.policy)})
        yield policy
        yield _whether(
            "seccomp_floor_policy_stale",
            "1 if the policy file has content that is not in force, else 0.",
            policies.error is not None,
        )
        yield GaugeMetricFamily(
            "seccomp_floor_policy_generation",
            "The policies that the daemon has taken into force since its start, the first one included.",
            value=policies.generation,
        )

    def _containers(self) -> Iterator[Metric]:
        state = self._state
        records = tuple(state.records)
        containers = GaugeMetricFamily(
            "seccomp_floor_containers", "Containers on the node.", labels=["protection", "reason"]
        )
        yield _by(containers, Counter((str(record.protection), record.reason) for record in records))
        yield GaugeMetricFamily(
            "seccomp_floor_longest_audit_pause_seconds",
            "The longest that reading its filters has made a container wait, of those that are on the node.",
            value=max((record.pause or 0.0 for record in records), default=0.0),
        )
        uses = state.uses.copy()
        unattributed = uses.pop(("", ""), 0)
        attributed = CounterMetricFamily(
            "seccomp_floor_door_uses",
            "Calls through doors that the kernel has logged (mode: log).",
            labels=["namespace", "pod"],
        )
        yield _by(attributed, uses)
        # Apart: labels without a value count for Prometheus as none, and it would put the daemon's own pod there.
        yield _count(
            "seccomp_floor_unattributed_door_uses",
            "Such calls by processes that had ended when their record was read.",
            unattributed,
        )

    def _runtimes(self) -> Iterator[Metric]:
        state = self._state
        shown, unsupporting = state.runtimes.copy(), state.unsupporting
        programs = InfoMetricFamily(
            "seccomp_floor_oci_runtime",
            "What each runtime handler's OCI runtime says of itself and of its libseccomp.",
            labels=["handler"],
        )
        for handler, versions in state.runtime_versions.copy().items():
            programs.add_metric([handler], {"versions": versions})
        yield programs
        proven = GaugeMetricFamily(
            "seccomp_floor_runtime_proven",
            "1 if a throw-away container of this runtime handler had the filter that was proven, else 0.",
            labels=["handler"],
        )
        yield _by(proven, {(handler,): int(found == PROVEN) for handler, found in shown.items()})
        unsupported = GaugeMetricFamily(
            "seccomp_floor_runtime_unsupported",
            "1 if this runtime handler's runtime ignores seccomp sections, or is not known to load them, else 0.",
            labels=["handler"],
        )
        yield _by(unsupported, {(handler,): int(handler in unsupporting) for handler in {*shown, *unsupporting}})

    def _work(self) -> Iterator[Metric]:
        state = self._state
        yield _by(
            CounterMetricFamily("seccomp_floor_decisions", "Creations answered.", labels=["protection", "reason"]),
            state.decisions.copy(),
        )
        yield _count("seccomp_floor_refusals", "Creations and starts refused.", state.refusals)
        yield _count(
            "seccomp_floor_breaches",
            "Containers whose filter in the kernel left a denied door open: found running, or refused at their start for it.",
            state.breaches,
        )
        for name, help_text, results, counts in (
            ("seccomp_floor_proofs", "Judgements made, those from memory not counted.", _PROOFS, state.proofs),
            (
                "seccomp_floor_audits",
                "Filters read from the kernel and judged, or not to be read.",
                _AUDITS,
                state.audits,
            ),
        ):
            family = CounterMetricFamily(name, help_text, labels=["result"])
            found = {**dict.fromkeys(results, 0), **dict(counts.copy())}
            yield _by(family, {(result,): number for result, number in found.items()})
        latency = HistogramMetricFamily(
            "seccomp_floor_request_duration_seconds", "Time to answer the runtime.", labels=["method"]
        )
        for method, observed in state.latency.copy().items():
            total, buckets = 0, []
            for bound, number in zip([*map(str, BUCKETS), "+Inf"], observed.counts, strict=True):
                total += number
                buckets.append((bound, float(total)))
            latency.add_metric([method], buckets, observed.total)
        yield latency


class _Handler(WSGIRequestHandler):
    timeout = SCRAPE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (http.server's signature)
        """Whoever asks, and what, is not for the log."""


class _Server(ThreadingMixIn, WSGIServer):
    """Anyone who reaches the port may connect, so that connections are few and short-lived: they would take the daemon's
    descriptors and threads, and with them the node's containers."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self._free = BoundedSemaphore(MOST_SCRAPES)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """As the base class, which then asks the name service what this host is called."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own, if one is to be had."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """What a thread does."""
        ended = Timer(SCRAPE_SECONDS, _hang_up, (request,))  # however slowly the other end sends
        ended.daemon = True
        ended.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            ended.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The other end has gone, or never spoke HTTP."""


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def serve_metrics(address: tuple[str, int], collector: Collector) -> Callable[[], None]:
    """Answer scrapes at that host and port; what is returned ends it.

    :raises SeccompFloorError: the address is not to be had
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    try:
        server = _Server(address)
    except OSError as error:
        raise SeccompFloorError(f"metrics on {address[0]}:{address[1]}: {error.strerror or error}") from error
    server.set_app(make_wsgi_app(registry))
    Thread(target=server.serve_forever, name="metrics", daemon=True).start()

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return stop


def _count(name: str, help_text: str, value: int) -> Metric:
    return CounterMetricFamily(name, help_text, value=value)


def _whether(name: str, help_text: str, holds: bool) -> Metric:
    return GaugeMetricFamily(name, help_text, value=int(holds))


def _by(family: CounterMetricFamily | GaugeMetricFamily, counts: Mapping[Any, int]) -> Metric:
    for labels, number in counts.items():
        family.add_metric(list(labels), number)
    return family
