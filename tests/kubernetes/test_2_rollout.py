"""From a node without the daemon to one with it: nothing starts unprotected, and what waited starts by itself."""

from __future__ import annotations

import pytest

from testcluster import Cluster, KubectlError
from testcluster.deployment import DAEMONSET, Deployment, until
from testcluster.doors import left_open, read_doors
from testcluster.manifests import NAMESPACE, TOLERATION, pod

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]


def events(cluster: Cluster, name: str, namespace: str = "default") -> list[str]:
    """What the user reads in ``kubectl describe pod``."""
    selector = f"--field-selector=involvedObject.name={name}"
    found = cluster.kubectl.get("events", f"--namespace={namespace}", selector)["items"]
    return [event["message"] for event in found]


@pytest.fixture(scope="module", autouse=True)
def no_daemon(deployment: Deployment) -> None:
    """Nothing of ours runs on the node yet."""
    deployment.apply()  # the admission policies, without which nobody may carry the toleration
    deployment.kubectl("delete", DAEMONSET, "--ignore-not-found")
    until("the daemon is away", lambda: not deployment.cluster.kubectl.get("pods", f"--namespace={NAMESPACE}")["items"])


def test_without_the_daemon_a_pod_waits_and_its_events_say_for_what(cluster: Cluster) -> None:
    cluster.kubectl.apply(pod("early"))
    until(
        "an event",
        lambda: any('required plugin "seccomp-floor" not present' in text for text in events(cluster, "early")),
    )

    def shown() -> bool:
        [status] = cluster.kubectl.get("pod", "early")["status"]["containerStatuses"]
        return bool(status["state"]["waiting"]["reason"] == "CreateContainerError")

    until("the pod's status shows it", shown)


def test_a_pod_that_tolerates_it_runs_unprotected(cluster: Cluster) -> None:
    """The very doors that are closed later stand open, as the probe sees them."""
    cluster.kubectl.apply(pod("before", "may-tolerate", annotations={TOLERATION: "true"}))
    cluster.kubectl.wait_for("pod/before", "Ready", "--namespace=may-tolerate")
    assert read_doors(cluster.kubectl, "before", "may-tolerate").opened()


def test_a_daemon_that_cannot_register_is_alive_and_not_ready(deployment: Deployment) -> None:
    """The DaemonSet's readiness means: this node is protected. Here the pod looks for containerd where there is none."""
    empty = deployment.cluster.scratch.path / "empty"
    empty.mkdir()
    deployment.apply(host_paths={"nri": empty})
    found = until("its pod runs", lambda: [each for each in deployment.pods() if each["status"]["phase"] == "Running"])
    name = found[0]["metadata"]["name"]

    def health(kind: str) -> bool:
        try:
            deployment.kubectl("exec", name, "--", "seccomp-floor", "status", "--health", kind)
        except KubectlError:
            return False
        return True

    until("it is alive", lambda: health("alive"))
    assert not health("ready")
    [status] = deployment.pods()[0]["status"]["containerStatuses"]
    assert (status["ready"], status["restartCount"]) == (False, 0)
    deployment.kubectl("delete", DAEMONSET)


def test_once_the_daemon_is_ready_the_pod_that_waited_runs_under_the_floor(deployment: Deployment) -> None:
    deployment.apply()
    deployment.wait()
    assert deployment.status()["node"]["ready"]
    kubectl = deployment.cluster.kubectl
    kubectl.wait_for("pod/early", "Ready")
    assert left_open(read_doors(kubectl, "early")) == []


def test_what_ran_before_the_daemon_is_shown_for_what_it_is(deployment: Deployment) -> None:
    """It was read from the kernel, and is open."""

    def audited() -> bool:
        return protection(deployment, "before") == "breached"

    until("the pod that runs unprotected is called so", audited)
    deployment.cluster.kubectl("delete", "pod/before", "--namespace=may-tolerate")


def protection(deployment: Deployment, name: str) -> str:
    """What `status` says of a pod."""
    found = [row["protection"] for row in deployment.status()["containers"] if row["pod"] == name]
    return str(found[0]) if found else ""
