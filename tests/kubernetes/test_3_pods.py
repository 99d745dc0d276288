"""The promise, pod by pod: what the user asked for, which doors that leaves, and what `status` says of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from rich.console import Console

from testcluster import Cluster
from testcluster.deployment import Deployment, until
from testcluster.doors import left_open, read_doors
from testcluster.manifests import OPT_OUT, container, pod
from testnode import probe
from testnode.reading import FAMILIES, LEGEND, Reading, table

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

PROFILE = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdirat"], "action": "SCMP_ACT_ERRNO"}]}
"""A Localhost profile that has an opinion on something else."""
RUNTIME_DEFAULT, UNCONFINED = {"type": "RuntimeDefault"}, {"type": "Unconfined"}
LOCALHOST = {"type": "Localhost", "localhostProfile": "permissive.json"}
OPT_OUT_CONTAINER = f"{OPT_OUT.rpartition('/')[0]}/container.probe"
PRIVILEGED = {"securityContext": {"privileged": True}}
INIT = container("init", command=["/probe", "doors", *map(str, FAMILIES)])


@dataclass(frozen=True)
class Case:
    """A pod, and what is promised of its container `probe`."""

    reason: str
    namespace: str = "default"
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def floored(self) -> bool:
        """Whether the floor applies."""
        return self.reason in {"selected", "opt-out-not-honoured"}


UNDER, NOT_SELECTED, OPTED_OUT = "selected", "handler-not-selected", "opted-out"
CASES = {
    "nothing said": Case(UNDER),
    "RuntimeDefault": Case(UNDER, fields={"seccomp": RUNTIME_DEFAULT}),
    "Unconfined": Case(UNDER, fields={"seccomp": UNCONFINED}),
    "Localhost": Case(UNDER, fields={"seccomp": LOCALHOST}),
    "privileged": Case(UNDER, fields={"container_fields": PRIVILEGED}),
    "hostPID": Case(UNDER, fields={"hostPID": True}),
    "init container": Case(UNDER, fields={"initContainers": [INIT]}),
    "sidecar": Case(UNDER, fields={"initContainers": [container("sidecar", restartPolicy="Always")]}),
    "RuntimeClass floored": Case(UNDER, fields={"runtimeClassName": "floored"}),
    "RuntimeClass plain": Case(NOT_SELECTED, fields={"runtimeClassName": "plain"}),
    "plain, RuntimeDefault": Case(NOT_SELECTED, fields={"runtimeClassName": "plain", "seccomp": RUNTIME_DEFAULT}),
    "opted out": Case(OPTED_OUT, "may-opt-out", {"annotations": {OPT_OUT: "true"}}),
    "opted out, its container": Case(OPTED_OUT, "may-opt-out", {"annotations": {OPT_OUT_CONTAINER: "true"}}),
    "opted out, another container": Case(
        UNDER, "may-opt-out", {"annotations": {f"{OPT_OUT.rpartition('/')[0]}/container.other": "true"}}
    ),
    "opt-out false": Case(UNDER, fields={"annotations": {OPT_OUT: "false"}}),
}
NAMES = {case: f"case-{number}" for number, case in enumerate(CASES)}


@pytest.fixture(scope="module")
def readings(deployed: Deployment) -> dict[str, Reading]:
    """Every pod at once, then their doors one by one."""
    cluster = deployed.cluster
    (cluster.profiles / "permissive.json").write_text(json.dumps(PROFILE))
    cluster.kubectl.apply(*(pod(NAMES[name], case.namespace, **case.fields) for name, case in CASES.items()))
    found = {}
    for name, case in CASES.items():
        cluster.kubectl.wait_for(f"pod/{NAMES[name]}", "Ready", f"--namespace={case.namespace}")
        found[name] = read_doors(cluster.kubectl, NAMES[name], case.namespace)
    return found


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.floored])
def test_under_the_floor_every_door_is_closed(readings: dict[str, Reading], name: str) -> None:
    assert left_open(readings[name]) == []


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.floored])
def test_elsewhere_the_doors_stand_as_they_did(readings: dict[str, Reading], name: str) -> None:
    assert readings[name].opened()


@pytest.mark.parametrize("name", CASES)
def test_status_says_so_and_why(deployed: Deployment, readings: dict[str, Reading], name: str) -> None:
    assert readings
    rows = [row for row in deployed.status()["containers"] if row["pod"] == NAMES[name] and row["name"] == "probe"]
    [row] = rows
    case = CASES[name]
    assert (row["reason"], row["floored"]) == (case.reason, case.floored)
    assert row["protection"] == ("protected" if case.floored else "exempt")
    assert ("audited_at" in row) == case.floored, "protected is what was read from the kernel"


def test_init_containers_run_under_the_floor(cluster: Cluster, readings: dict[str, Reading]) -> None:
    assert readings
    said = cluster.kubectl("logs", NAMES["init container"], "--container=init")
    assert left_open(Reading(tuple(probe.doors(lambda _: said, *FAMILIES)), {})) == []


def test_sidecars_run_under_the_floor(cluster: Cluster, readings: dict[str, Reading]) -> None:
    assert readings
    assert left_open(read_doors(cluster.kubectl, NAMES["sidecar"], container="sidecar")) == []


@pytest.mark.parametrize("target", [(), ("--target=probe",)], ids=["beside", "in its PID namespace"])
def test_debug_containers_run_under_the_floor(
    cluster: Cluster, readings: dict[str, Reading], target: tuple[str, ...]
) -> None:
    """`kubectl debug`, whose ephemeral containers may have a profile of their own, and privileges."""
    assert readings
    name = f"debug-{len(target)}"
    arguments = ["--image=localhost/probe:1", "--image-pull-policy=Never", "--profile=sysadmin", f"--container={name}"]
    cluster.kubectl("debug", NAMES["RuntimeDefault"], *arguments, *target, "--", "/probe", "sleep")

    def running() -> bool:
        states = cluster.kubectl.get("pod", NAMES["RuntimeDefault"])["status"].get("ephemeralContainerStatuses", [])
        return any(state["name"] == name and "running" in state["state"] for state in states)

    until("the debug container runs", running)
    assert left_open(read_doors(cluster.kubectl, NAMES["RuntimeDefault"], container=name)) == []


def test_an_annotation_that_makes_no_sense_is_refused_with_the_reason(deployed: Deployment) -> None:
    kubectl = deployed.cluster.kubectl
    kubectl.apply(pod("nonsense", "may-opt-out", annotations={OPT_OUT: "perhaps"}))
    selector = ("--namespace=may-opt-out", "--field-selector=involvedObject.name=nonsense")

    def said() -> bool:
        return any('"true" or "false"' in event["message"] for event in kubectl.get("events", *selector)["items"])

    until("an event says what was expected", said)
    kubectl("delete", "pod/nonsense", "--namespace=may-opt-out")


def test_an_opt_out_that_the_api_server_allows_counts_only_where_the_policy_agrees(deployed: Deployment) -> None:
    """The label on the namespace is not enough: the node's policy does not name it."""
    kubectl = deployed.cluster.kubectl
    kubectl("label", "namespace/ordinary", "seccomp-floor.nri.io/may-opt-out=true")
    try:

        def created() -> bool:
            kubectl.apply(pod("hopeful", "ordinary", annotations={OPT_OUT: "true"}))
            return True

        until("the label is known", created)
        kubectl.wait_for("pod/hopeful", "Ready", "--namespace=ordinary")
        assert left_open(read_doors(kubectl, "hopeful", "ordinary")) == []
        [row] = [row for row in deployed.status()["containers"] if row["pod"] == "hopeful"]
        assert row["reason"] == "opt-out-not-honoured"
    finally:
        kubectl("label", "namespace/ordinary", "seccomp-floor.nri.io/may-opt-out-")


def test_the_daemon_s_own_pod_is_exempt_and_nobody_else_s_of_that_name(deployed: Deployment) -> None:
    """Whoever reads filters must have none; a pod of another namespace with the same names is under the floor."""
    [row] = [row for row in deployed.status()["containers"] if row["namespace"] == "seccomp-floor"]
    assert (row["protection"], row["reason"]) == ("exempt", "own-pod")
    kubectl = deployed.cluster.kubectl
    kubectl.apply(pod("seccomp-floor", hostPID=True, container_fields={"name": "seccomp-floor"}))
    kubectl.wait_for("pod/seccomp-floor", "Ready")
    assert left_open(read_doors(kubectl, "seccomp-floor", container="seccomp-floor")) == []


def test_the_table(readings: dict[str, Reading], capsys: pytest.CaptureFixture[str]) -> None:
    """For whoever reads the output of the tests."""
    with capsys.disabled():
        console = Console(width=260)
        console.print()
        columns = {name.replace(" ", "\n"): reading for name, reading in readings.items()}
        console.print("Pods of a cluster with the floor: AF_ALG and AF_VSOCK, the worse of both")
        console.print(table(columns))
        console.print(LEGEND)
    assert readings.keys() == CASES.keys()
