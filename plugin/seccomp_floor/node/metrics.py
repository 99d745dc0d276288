"""The daemon's state for Prometheus, read when it is asked for (prometheus_client's custom collectors)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from seccomp_floor.errors import SeccompFloorError
from seccomp_floor.node.state import BUCKETS, PROVEN, State

if TYPE_CHECKING:
    from seccomp_floor.node.policy_store import PolicyStore

__all__ = ["StateCollector", "serve_metrics"]


class StateCollector(Collector):
    """Runs in the thread of the HTTP server: it takes copies, each of which is made in one step."""

    def __init__(self, state: State, policies: PolicyStore, versions: tuple[str, str]) -> None:
        self._state = state
        self._policies = policies
        self._versions = versions

    def collect(self) -> Iterator[Metric]:
        state, policies = self._state, self._policies
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
        yield GaugeMetricFamily(
            "seccomp_floor_ready",
            "1 if containers that are created now are protected, else 0.",
            value=int(not state.ready),
        )
        yield GaugeMetricFamily(
            "seccomp_floor_standing_by",
            "1 while another daemon serves the runtime as well and its policy is in force, else 0.",
            value=int(state.standing_by()),
        )
        yield GaugeMetricFamily(
            "seccomp_floor_policy_stale", "1 if the policy file has content that is not in force, else 0.",
            value=int(policies.error is not None),
        )  # fmt: skip
        yield _count("seccomp_floor_policy_generation", "Policies taken into force.", policies.generation)
        yield _count("seccomp_floor_sessions", "Sessions with the runtime.", state.sessions)
        yield _count("seccomp_floor_refusals", "Creations and starts refused.", state.refusals)
        yield _count("seccomp_floor_breaches", "Containers found running with a denied door open.", state.breaches)
        yield _by(
            CounterMetricFamily("seccomp_floor_decisions", "Creations answered.", labels=["protection", "reason"]),
            state.decisions.copy(),
        )
        containers = GaugeMetricFamily(
            "seccomp_floor_containers", "Containers on the node.", labels=["protection", "reason"]
        )
        yield _by(containers, Counter((str(record.protection), record.reason) for record in state.records))
        proven = GaugeMetricFamily(
            "seccomp_floor_runtime_proven",
            "1 if a throw-away container of this runtime handler had the filter that was proven, else 0.",
            labels=["handler"],
        )
        yield _by(proven, {(handler,): int(found == PROVEN) for handler, found in state.runtimes.copy().items()})
        for name, help_text, counts in (
            ("seccomp_floor_proofs", "Judgements made, those from memory not counted.", state.proofs),
            ("seccomp_floor_audits", "Filters read from the kernel and judged.", state.audits),
        ):
            family = CounterMetricFamily(name, help_text, labels=["result"])
            yield _by(family, Counter({(result,): number for result, number in counts.copy().items()}))
        yield _by(
            CounterMetricFamily(
                "seccomp_floor_door_uses",
                "Calls through doors that the kernel has logged (mode: log).",
                labels=["namespace", "pod"],
            ),
            state.uses.copy(),
        )
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


def serve_metrics(address: tuple[str, int], collector: Collector) -> Callable[[], None]:
    """Answer scrapes at that host and port; what is returned ends it.

    :raises SeccompFloorError: the address is not to be had
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    try:
        server, _ = start_http_server(address[1], address[0], registry)
    except OSError as error:
        raise SeccompFloorError(f"metrics on {address[0]}:{address[1]}: {error.strerror or error}") from error

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return stop


def _count(name: str, help_text: str, value: int) -> Metric:
    return CounterMetricFamily(name, help_text, value=value)


def _by(family: CounterMetricFamily | GaugeMetricFamily, counts: Mapping[Any, int]) -> Metric:
    for labels, number in counts.items():
        family.add_metric(list(labels), number)
    return family
