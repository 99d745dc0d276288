"""What happens on a Tuesday: restarts, upgrades, mistakes. Nothing runs unprotected, and the node recovers by itself."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread

import pytest
from rich.console import Console
from rich.table import Table

from testcluster import Cluster, KubectlError
from testcluster.daemon_image import ImageBuilder
from testcluster.deployment import DAEMONSET, POLICY, Deployment, until
from testcluster.doors import left_open, read_doors
from testcluster.manifests import pod

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(900)]

GAP_SECONDS = 1.0
"""Between two pods that are created during a fault."""


@dataclass
class Outcome:
    """What a fault did to the pods that were created while it lasted."""

    fault: str
    pods: int = 0
    refused: list[str] = field(default_factory=list)
    """Why containerd refused creations, one line each; the kubelet tries again."""
    recovery: float = 0.0
    """Seconds from the fault's beginning until a pod that was created after it ran."""


OUTCOMES: list[Outcome] = []


@dataclass
class Churn:
    """Pods that are created one after another in the background."""

    cluster: Cluster
    prefix: str
    names: list[str] = field(default_factory=list)
    _enough: Event = field(default_factory=Event)
    _errors: list[Exception] = field(default_factory=list)

    def run(self) -> None:
        """Until `stop`; the API server itself may be away for a while."""
        while not self._enough.wait(GAP_SECONDS):
            name = f"{self.prefix}-{len(self.names)}"
            try:
                self.cluster.kubectl.apply(pod(name))
            except KubectlError as error:
                self._errors.append(error)
            else:
                self.names.append(name)

    def stop(self) -> None:
        """No more pods."""
        self._enough.set()


@contextmanager
def fault(deployment: Deployment, name: str, recovered: Callable[[], None] | None = None) -> Iterator[Outcome]:
    """Pods come all the time while the fault is made; afterwards each runs, under the floor.

    `recovered` returns when the node is as it should be again; by default when the DaemonSet is.
    """
    kubectl, prefix = deployment.cluster.kubectl, f"fault-{len(OUTCOMES)}"
    outcome = Outcome(name)
    churn = Churn(deployment.cluster, prefix)
    worker = Thread(target=churn.run)
    worker.start()
    try:
        time.sleep(GAP_SECONDS)
        begun = time.monotonic()
        yield outcome
        (recovered or deployment.wait)()
        kubectl.apply(pod(f"{prefix}-after"))
        kubectl.wait_for(f"pod/{prefix}-after", "Ready")
        outcome.recovery = time.monotonic() - begun
    finally:
        churn.stop()
        worker.join()
    names = [*churn.names, f"{prefix}-after"]
    outcome.pods = len(names)
    for each in names:
        kubectl.wait_for(f"pod/{each}", "Ready")
    open_doors = {each: left_open(read_doors(kubectl, each)) for each in names}
    assert {each: doors for each, doors in open_doors.items() if doors} == {}
    outcome.refused = refusals(deployment.cluster, prefix)
    OUTCOMES.append(outcome)
    kubectl("delete", "--wait=false", *(f"pod/{each}" for each in names))


def refusals(cluster: Cluster, prefix: str) -> list[str]:
    """Creations that the runtime refused for the sake of the floor, as the pods' events tell them."""
    found = cluster.kubectl.get("events", "--field-selector=reason=Failed")["items"]
    mine = [event for event in found if event["involvedObject"]["name"].startswith(prefix)]
    return [event["message"] for event in mine for _ in range(event.get("count", 1))]


def started_at(deployment: Deployment) -> float:
    """When the daemon that answers has begun."""
    return float(deployment.status()["node"]["started_at"])


def daemon_pid(deployment: Deployment) -> int:
    """The daemon's process, as its pod and we see it alike: the pod uses the host's PID namespace."""
    [found] = deployment.pods()
    identity = found["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    listing = deployment.cluster.containerd.ctr("tasks", "list").stdout.splitlines()
    return next(int(line.split()[1]) for line in listing if line.startswith(identity))


def test_the_daemon_s_pod_is_deleted(deployed: Deployment) -> None:
    [old] = deployed.pods()
    with fault(deployed, "pod deleted"):
        deployed.kubectl("delete", f"pod/{old['metadata']['name']}")
    [new] = deployed.pods()
    assert new["metadata"]["uid"] != old["metadata"]["uid"]


def test_the_daemon_is_killed(deployed: Deployment) -> None:
    before = started_at(deployed)

    def back() -> None:
        until("the daemon is back", lambda: started_at(deployed) > before and deployed.status()["node"]["ready"])

    with fault(deployed, "daemon killed (SIGKILL)", back):
        os.kill(daemon_pid(deployed), signal.SIGKILL)


def test_the_daemon_stands_still(deployed: Deployment) -> None:
    """It misses the runtime's deadline, and is dropped; awake again, it comes back by itself."""
    pid = daemon_pid(deployed)

    def back() -> None:
        until("the daemon is registered again", lambda: deployed.status()["node"]["ready"])

    with fault(deployed, "daemon stopped (SIGSTOP) for 10 s", back):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(10)
        os.kill(pid, signal.SIGCONT)


def test_a_new_image_is_rolled_out(deployed: Deployment, builder: ImageBuilder) -> None:
    """The successor registers before the predecessor leaves."""
    image = "localhost/seccomp-floor:2"
    deployed.cluster.containerd.import_image(builder.build(image, ["release=2"]))
    deployed.image = image
    with fault(deployed, "new image rolled out") as outcome:
        deployed.apply()
    [found] = deployed.pods()
    assert found["spec"]["containers"][0]["image"] == image
    assert len(outcome.refused) <= 1, outcome.refused


def test_a_new_policy_is_rolled_out_and_taken_back(deployed: Deployment) -> None:
    """Two daemons with different floors: the older decides until it leaves, and neither has to be refused for that."""
    old, deployed.policy = deployed.policy, POLICY + "floor: {syscalls: {mkdirat: EPERM, mkdir: EPERM}}\n"
    with fault(deployed, "new policy rolled out") as outcome:
        deployed.apply()
    assert len(outcome.refused) <= 1, outcome.refused
    kubectl = deployed.cluster.kubectl
    kubectl.apply(pod("strict"))
    kubectl.wait_for("pod/strict", "Ready")
    with pytest.raises(KubectlError, match="Operation not permitted"):
        kubectl.exec("strict", ["/bin/busybox", "mkdir", "/tmp/new"])
    with fault(deployed, "policy taken back (rollout undo)") as outcome:
        deployed.kubectl("rollout", "undo", DAEMONSET)
    assert len(outcome.refused) <= 1, outcome.refused
    kubectl.apply(pod("lenient"))
    kubectl.wait_for("pod/lenient", "Ready")
    kubectl.exec("lenient", ["/bin/busybox", "mkdir", "/tmp/new"])
    kubectl("delete", "--wait=false", "pod/strict", "pod/lenient")
    deployed.policy = old


def test_a_policy_with_a_mistake_never_takes_over(deployed: Deployment) -> None:
    """Its pod does not become ready, says why, and the one before it stays."""
    [old] = deployed.pods()
    good, deployed.policy = deployed.policy, POLICY + "mode: enforced\n"

    def undone() -> None:
        deployed.kubectl("rollout", "undo", DAEMONSET)
        deployed.wait()

    with fault(deployed, "policy with a mistake, taken back", undone):
        deployed.apply()
        until("the new daemon says what is wrong", lambda: "enforced" in newest_logs(deployed, old["metadata"]["name"]))
        assert old["metadata"]["name"] in [each["metadata"]["name"] for each in deployed.pods()]
    deployed.policy = good
    [now] = deployed.pods()
    assert now["metadata"]["uid"] == old["metadata"]["uid"]


def newest_logs(deployment: Deployment, old: str) -> str:
    """What the pods that came after `old` have said."""
    names = [each["metadata"]["name"] for each in deployment.pods()]
    return "".join(deployment.kubectl("logs", name) for name in names if name != old)


def test_containerd_restarts(deployed: Deployment) -> None:
    """The daemon's process lives on, and comes back by itself."""
    before = started_at(deployed)

    def back() -> None:
        until("the daemon is registered again", lambda: deployed.status()["node"]["ready"])

    with fault(deployed, "containerd restarted", back):
        deployed.cluster.containerd.restart()
    assert started_at(deployed) == before


def test_the_kubelet_restarts(deployed: Deployment) -> None:
    before = started_at(deployed)
    with fault(deployed, "kubelet restarted"):
        deployed.cluster.kubelet.stop()
        deployed.cluster.kubelet.start()
        deployed.cluster.kubelet.wait()
    assert started_at(deployed) == before


def test_the_node_reboots(deployed: Deployment) -> None:
    """As far as that can be shown: everything is stopped, no process is left, and everything is started again."""
    cluster = deployed.cluster
    kubectl = cluster.kubectl
    kubectl.apply(pod("survivor"))
    kubectl.wait_for("pod/survivor", "Ready")
    cluster.power_cycle()

    def back() -> bool:
        [status] = kubectl.get("pod", "survivor")["status"]["containerStatuses"]
        return bool(status["ready"]) and int(status["restartCount"]) > 0

    until("its pods run again", back)
    deployed.wait()
    assert left_open(read_doors(kubectl, "survivor")) == []
    assert deployed.status()["node"]["ready"]
    kubectl("delete", "--wait=false", "pod/survivor")


def test_the_table(deployed: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    """For whoever reads the output of the tests."""
    assert deployed
    view = Table("fault", "pods created meanwhile", "refused, tried again", "unprotected", "recovered after")
    for each in OUTCOMES:
        view.add_row(each.fault, str(each.pods), str(len(each.refused)), "0", f"{each.recovery:.1f} s")
    with capsys.disabled():
        Console(width=140).print("\n", view)
    assert OUTCOMES
