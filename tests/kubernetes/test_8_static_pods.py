"""Static pods, which a kubelet starts from files of its node, API server or not: who of them needs the daemon, and who waits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from testcluster import Cluster, KubectlError
from testcluster.cluster import NODE
from testcluster.deployment import DAEMONSET, POLICY, Deployment, until
from testcluster.doors import left_open, read_doors
from testcluster.manifests import TOLERATION, pod

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

NAMESPACE = "kube-system"
IN_IT = f"--namespace={NAMESPACE}"
TOLERATES = {TOLERATION: "true"}
NAMES = ("beside", "early", "late")


@pytest.fixture(scope="module")
def enforcing(deployed: Deployment) -> Deployment:
    """The overlay `enforce`, whatever was there before."""
    deployed.base, deployed.policy = "overlays/enforce", POLICY
    deployed.apply()
    deployed.wait()
    return deployed


@pytest.fixture(scope="module", autouse=True)
def gone_at_the_end(cluster: Cluster) -> Iterator[None]:
    """With its file a static pod goes, and with that what the API server shows of it."""
    yield
    for name in NAMES:
        (cluster.static_pods / f"{name}.json").unlink(missing_ok=True)
    pods = [f"pod/{name}-{NODE}" for name in NAMES]
    cluster.kubectl("wait", "--for=delete", *pods, IN_IT, "--timeout=120s")


def put(cluster: Cluster, name: str, annotations: dict[str, str]) -> str:
    """A file where the kubelet looks; the pod's name as the API server shows it."""
    manifest = pod(name, NAMESPACE, annotations=annotations)
    part = cluster.static_pods / f".{name}.part"
    part.write_text(json.dumps(manifest))
    part.rename(cluster.static_pods / f"{name}.json")
    return f"{name}-{NODE}"


def wait_until_ready(cluster: Cluster, name: str) -> None:
    """The pod runs; it may take the kubelet a moment to show it."""
    cluster.kubectl("wait", "--for=create", f"pod/{name}", IN_IT, "--timeout=60s")
    cluster.kubectl.wait_for(f"pod/{name}", "Ready", IN_IT)


def row(deployment: Deployment, name: str) -> dict[str, Any]:
    """What `status` says of the pod's container; empty while it does not know it."""
    rows = [row for row in deployment.status()["containers"] if (row["namespace"], row["pod"]) == (NAMESPACE, name)]
    return rows[-1] if rows else {}


def test_with_the_daemon_there_a_static_pod_is_under_the_floor(enforcing: Deployment) -> None:
    """To tolerate its absence is no opt-out."""
    cluster = enforcing.cluster
    name = put(cluster, "beside", TOLERATES)
    wait_until_ready(cluster, name)
    assert left_open(read_doors(cluster.kubectl, name, NAMESPACE)) == []
    assert row(enforcing, name)["protection"] == "protected"


def test_while_it_is_away_one_that_tolerates_that_starts_and_one_that_does_not_waits(enforcing: Deployment) -> None:
    """Or the control plane of a node that boots would wait for a daemon that the control plane has to bring. What started without
    the floor is shown as open; what waited starts with it."""
    cluster = enforcing.cluster
    kubectl = cluster.kubectl
    enforcing.kubectl("delete", DAEMONSET)
    until("the daemon is away", lambda: not kubectl.get("pods", "--namespace", "seccomp-floor")["items"])

    early, late = put(cluster, "early", TOLERATES), put(cluster, "late", {})
    wait_until_ready(cluster, early)
    assert read_doors(kubectl, early, NAMESPACE).opened()

    def told_why() -> bool:
        events = kubectl.get("events", IN_IT, f"--field-selector=involvedObject.name={late}")["items"]
        return any('required plugin "seccomp-floor" not present' in event["message"] for event in events)

    until("its events say why it waits", told_why)
    [waits] = kubectl.get("pod", late, IN_IT)["status"]["containerStatuses"]
    assert "waiting" in waits["state"]
    with pytest.raises(KubectlError):
        read_doors(kubectl, late, NAMESPACE)

    enforcing.apply()
    enforcing.wait()
    kubectl.wait_for(f"pod/{late}", "Ready", IN_IT)
    assert left_open(read_doors(kubectl, late, NAMESPACE)) == []
    assert row(enforcing, late)["protection"] == "protected"
    until("what started before it is found", lambda: row(enforcing, early).get("protection") == "breached")
