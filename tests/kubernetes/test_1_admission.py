"""Who may carry which annotation: the API server's answer, before any runtime sees the pod."""

from __future__ import annotations

from functools import partial

import pytest

from testcluster import Cluster, KubectlError
from testcluster.deployment import Deployment, until
from testcluster.manifests import OPT_OUT, TOLERATION, pod

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

BARE = {key: key.rpartition("/")[0] for key in (OPT_OUT, TOLERATION)}
FORMS = [
    form
    for key in (OPT_OUT, TOLERATION)
    for form in (BARE[key], key, f"{BARE[key]}/container.probe", f"{BARE[key]}/container.other")
]
PLACES = {OPT_OUT: "may-opt-out", TOLERATION: "may-tolerate"}


@pytest.fixture(scope="module")
def admission(deployment: Deployment) -> Cluster:
    """The cluster with the policies in force, which takes the API server a moment."""
    deployment.apply()
    kubectl = deployment.cluster.kubectl
    for key in (OPT_OUT, TOLERATION):

        def refused(key: str = key) -> bool:
            try:
                kubectl.create(pod("first", "ordinary", annotations={key: "true"}), dry_run=True)
            except KubectlError as error:
                return "ValidatingAdmissionPolicy" in str(error)
            return False

        until("the admission policies are in force", refused)
    return deployment.cluster


def test_the_expressions_fit_what_they_are_for(admission: Cluster) -> None:
    """The API server checks the types of each expression, and warns where a field is not there."""
    for policy in admission.kubectl.get("validatingadmissionpolicies")["items"]:
        checked = until("types are checked", partial(type_checked, admission, policy["metadata"]["name"]))
        assert "expressionWarnings" not in checked, checked


def type_checked(cluster: Cluster, name: str) -> dict[str, object] | None:
    """The outcome of checking a policy's types, once there is one."""
    policy = cluster.kubectl.get("validatingadmissionpolicy", name)
    checking: dict[str, object] | None = policy.get("status", {}).get("typeChecking")
    done = policy.get("status", {}).get("observedGeneration") == policy["metadata"]["generation"]
    return (checking or {"done": True}) if done else None


@pytest.mark.parametrize("key", FORMS)
def test_no_ordinary_pod_is_created_with_it(admission: Cluster, key: str) -> None:
    for place in ("ordinary", PLACES[TOLERATION if key.startswith("opt-out") else OPT_OUT]):
        with pytest.raises(KubectlError, match=r"may not (leave the floor|start while).*" + key):
            admission.kubectl.create(pod("with", place, annotations={key: "true"}), dry_run=True)


@pytest.mark.parametrize("key", FORMS)
def test_where_the_namespace_s_label_allows_it_it_is_created(admission: Cluster, key: str) -> None:
    place = PLACES[OPT_OUT if key.startswith("opt-out") else TOLERATION]
    admission.kubectl.create(pod("with", place, annotations={key: "true"}), dry_run=True)


def test_static_pods_of_the_system_may_start_without_the_daemon(admission: Cluster) -> None:
    admission.kubectl.create(pod("with", "kube-system", annotations={TOLERATION: "true"}), dry_run=True)


@pytest.mark.parametrize("key", FORMS)
def test_false_asks_for_nothing(admission: Cluster, key: str) -> None:
    admission.kubectl.create(pod("with", "ordinary", annotations={key: "false"}), dry_run=True)


def test_a_pod_of_a_workload_is_refused_and_the_workload_s_events_say_why(admission: Cluster) -> None:
    template = pod("any", annotations={OPT_OUT: "true"})
    template["metadata"]["labels"] = {"app": "sly"}
    replicas = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "sly", "namespace": "ordinary"},
        "spec": {
            "selector": {"matchLabels": {"app": "sly"}},
            "template": {"metadata": {k: v for k, v in template["metadata"].items() if k in {"labels", "annotations"}}}
            | {"spec": template["spec"]},
        },
    }
    admission.kubectl.create(replicas)
    command = ("events", "--namespace=ordinary", "--field-selector=involvedObject.name=sly")

    def said() -> bool:
        return any("may not leave the floor" in event["message"] for event in admission.kubectl.get(*command)["items"])

    until("an event says why", said)
    assert not admission.kubectl.get("pods", "--namespace=ordinary", "--selector=app=sly")["items"]
    admission.kubectl("delete", "replicaset/sly", "--namespace=ordinary")


@pytest.mark.parametrize("key", [OPT_OUT, TOLERATION])
def test_it_cannot_be_slipped_in_later(admission: Cluster, key: str) -> None:
    """By a change of the pod, of its status, nor by whoever binds it to a node, whose annotations become the pod's."""
    kubectl = admission.kubectl
    waits = pod("waits", "ordinary", schedulerName="nobody")
    kubectl.apply(waits)
    add = f'{{"metadata": {{"annotations": {{"{key}": "true"}}}}}}'
    try:
        for subresource in ((), ("--subresource=status",)):
            with pytest.raises(KubectlError, match="may not"):
                kubectl("patch", "pod/waits", "--namespace=ordinary", "--type=merge", "--patch", add, *subresource)
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": "waits", "namespace": "ordinary", "annotations": {key: "true"}},
            "target": {"apiVersion": "v1", "kind": "Node", "name": "localhost"},
        }
        for path in ("bindings", "pods/waits/binding"):
            with pytest.raises(KubectlError, match="may not"):
                kubectl.post(f"/api/v1/namespaces/ordinary/{path}", binding)
    finally:
        kubectl("delete", "pod/waits", "--namespace=ordinary")


@pytest.mark.parametrize("key", [OPT_OUT, TOLERATION])
def test_a_pod_that_has_it_already_can_be_changed_and_deleted(admission: Cluster, key: str) -> None:
    """The namespace has lost its label since: what was allowed stays, and only what is new is judged."""
    kubectl, place = admission.kubectl, PLACES[key]
    label = "seccomp-floor.nri.io/may-opt-out" if key == OPT_OUT else "seccomp-floor.nri.io/may-tolerate-missing"
    kubectl.apply(pod("old", place, annotations={key: "true"}, schedulerName="nobody"))
    kubectl("label", f"namespace/{place}", f"{label}-")
    try:

        def refused() -> bool:
            try:
                kubectl.create(pod("new", place, annotations={key: "true"}), dry_run=True)
            except KubectlError:
                return True
            return False

        until("the label's loss is known", refused)
        kubectl("annotate", "pod/old", f"--namespace={place}", "note=changed")
        kubectl("delete", "pod/old", f"--namespace={place}")
    finally:
        kubectl("label", f"namespace/{place}", f"{label}=true", "--overwrite")

        def allowed() -> bool:
            kubectl.create(pod("new", place, annotations={key: "true"}), dry_run=True)
            return True

        until("the label is known again", allowed)
