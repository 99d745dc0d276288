"""What is not applied in the other tests: each overlay and component is what the API server takes, and the chart is the same."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from testcluster import Cluster, KubectlError, programs
from testcluster.daemon_image import ROOT
from testcluster.deployment import DAEMONSET, Deployment, until
from testcluster.manifests import KUSTOMIZATIONS, NAMESPACE, write_overlay

pytestmark = pytest.mark.kubernetes

OVERLAYS = sorted(path.name for path in (KUSTOMIZATIONS / "overlays").iterdir())
COMPONENTS = sorted(path.name for path in (KUSTOMIZATIONS / "components").iterdir())
CHART = ROOT / "deploy" / "helm" / "seccomp-floor"

Objects = dict[tuple[str, str], dict[str, Any]]


def objects(text: str) -> Objects:
    """By kind and name; a ConfigMap by its name without the hash of its content."""
    found: Objects = {}
    for each in yaml.safe_load_all(text):
        if each:
            name = each["metadata"]["name"]
            if each["kind"] == "ConfigMap" and each.get("immutable"):
                name = name.rpartition("-")[0]
            found[each["kind"], name] = each
    return found


def built(directory: Path) -> Objects:
    """What kustomize makes of a directory."""
    command = [*programs.kustomize(), str(directory)]
    return objects(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def helm(*arguments: str) -> Objects:
    """What Helm makes of the chart."""
    answer = rendered(*arguments)
    assert answer.returncode == 0, answer.stderr
    return objects(answer.stdout)


def rendered(*values: str) -> subprocess.CompletedProcess[str]:
    """Helm's answer about the chart with these values."""
    command = [str(programs.helm()), "template", "it", str(CHART), "--namespace=kube-system"]
    command += [f"--set={value}" for value in values]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def accept(cluster: Cluster, found: Objects) -> None:
    """Have the API server check every object against its schema, strictly."""
    documents = [each for (kind, _), each in found.items() if kind != "Namespace"]
    cluster.kubectl(
        "apply", "--dry-run=server", "--validate=strict", "--filename=-", given=yaml.safe_dump_all(documents)
    )


@pytest.fixture(scope="module")
def home(cluster: Cluster) -> Cluster:
    """A cluster with the daemon's namespace, without which the API server would take nothing that is to go there, and with the
    Prometheus operator's kinds."""
    [document] = yaml.safe_load_all((KUSTOMIZATIONS / "base" / "namespace.yaml").read_text())
    cluster.kubectl.apply(document)
    for path in programs.monitoring_definitions():
        cluster.kubectl("apply", "--server-side", "--filename", path)
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "--filename", path)
    return cluster


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_overlay_is_accepted(home: Cluster, name: str) -> None:
    accept(home, built(KUSTOMIZATIONS / "overlays" / name))


@pytest.mark.parametrize("name", COMPONENTS)
def test_every_component_is_accepted_on_an_overlay(home: Cluster, tmp_path: Path, name: str) -> None:
    overlay = write_overlay(tmp_path / "it", "overlays/enforce", image="any/image:1", host_paths={}, components=[name])
    accept(home, built(overlay))


@pytest.mark.parametrize("kind", ["PodMonitor", "PrometheusRule"])
def test_a_field_that_the_operator_does_not_know_is_refused(home: Cluster, tmp_path: Path, kind: str) -> None:
    """So that what is accepted has been looked at."""
    overlay = write_overlay(tmp_path, "base", image="any/image:1", host_paths={}, components=["monitoring"])
    found = built(overlay)[kind, "seccomp-floor"]
    with pytest.raises(KubectlError, match="unknown field"):
        accept(home, {(kind, "it"): {**found, "spec": {**found["spec"], "nonsense": 1}}})


def test_in_the_daemon_s_pod_each_command_works_without_a_word_about_sockets(deployed: Deployment) -> None:
    """Through read-only mounts: containerd's socket and the daemon's own answer, and containers are read."""

    def asked(command: str) -> Any:
        return json.loads(deployed.kubectl("exec", DAEMONSET, "--", "sh", "-c", f"{command} --json || test $? = 1"))

    audited = asked("seccomp-floor audit --all")
    assert f"{NAMESPACE}/" in "".join(answer["container"] for answer in audited)
    assert [answer for answer in audited if answer["verdict"] == "unreadable"] == []
    levels = {finding["subject"].partition(" ")[0]: finding["level"] for finding in asked("seccomp-floor doctor")}
    assert (levels["daemon"], levels["containerd"]) == ("ok", "ok"), levels
    [container] = deployed.pods()[0]["spec"]["containers"]
    mounts = {mount["name"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    assert (mounts["nri"], mounts["containerd"]) == (True, True)


def test_with_component_monitoring_the_node_s_address_answers(
    home: Cluster, deployed: Deployment, tmp_path: Path
) -> None:
    """Where the PodMonitor sends Prometheus."""
    where = {"nri": home.containerd.nri_socket.parent, "containerd": home.containerd.socket.parent}
    overlay = write_overlay(
        tmp_path,
        deployed.base,
        image=deployed.image,
        host_paths=where,
        policy=deployed.policy,
        components=["monitoring"],
    )
    home.kubectl("apply", "--kustomize", overlay)
    deployed.wait()
    [address] = {pod["status"]["hostIP"] for pod in deployed.pods()}

    def served() -> str:
        try:
            with urllib.request.urlopen(f"http://{address}:9477/metrics", timeout=10) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    text = until("metrics are served", served)
    assert "seccomp_floor_ready 1.0" in text.splitlines()
    assert 'mode="enforce"' in text
    deployed.apply()
    deployed.wait()


def test_a_new_policy_is_a_new_config_map(tmp_path: Path) -> None:
    """And so a new pod template, which the DaemonSet rolls out."""
    names = []
    for number, policy in enumerate(("version: 1\n", "version: 1\nmode: log\n")):
        overlay = write_overlay(tmp_path / str(number), "base", image="any/image:1", host_paths={}, policy=policy)
        names.append(built(overlay)["ConfigMap", "seccomp-floor-policy"]["metadata"]["name"])
    assert names[0] != names[1]


K3S = "hostPaths.containerd=/run/k3s/containerd"
SAME: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "enforce": ([], []),
    "watch": (["mode=log"], []),
    "enforce-floored": (["runtimeClass=floored"], []),
    "watch-floored": (["mode=log", "runtimeClass=floored"], []),
    "enforce+gke": (["mode=enforce", "criticalPodsQuota=true"], ["gke"]),
    "enforce+k3s": ([K3S], ["k3s"]),
    "enforce+monitoring": (["monitoring=true"], ["monitoring"]),
    "watch-floored+all": (
        ["mode=log", "runtimeClass=floored", "monitoring=true", "criticalPodsQuota=true", K3S],
        COMPONENTS,
    ),
}
"""Overlays with components, and the chart's values that ask for the same."""


@pytest.mark.parametrize("name", SAME)
def test_the_chart_renders_the_same_objects(tmp_path: Path, name: str) -> None:
    values, components = SAME[name]
    base = f"overlays/{name.partition('+')[0]}"
    ours = built(write_overlay(tmp_path, base, image="seccomp-floor:0.1.0", host_paths={}, components=components))
    theirs = helm(*values)
    for found in (ours, theirs):
        policy = found["ConfigMap", "seccomp-floor-policy"]
        found["DaemonSet", "seccomp-floor"] = renamed(
            found["DaemonSet", "seccomp-floor"], policy["metadata"].pop("name")
        )
        policy["metadata"].pop("annotations", None)
        policy["data"] = {key: yaml.safe_load(text) for key, text in policy["data"].items()}
    assert theirs == ours


def renamed(daemonset: dict[str, Any], policy: str) -> dict[str, Any]:
    """With the policy's ConfigMap, which must be the one mounted, called the same whatever its hash."""
    for volume in daemonset["spec"]["template"]["spec"]["volumes"]:
        if "configMap" in volume:
            assert volume["configMap"]["name"] == policy
            volume["configMap"]["name"] = "it"
    return daemonset


def test_the_chart_s_values_count(home: Cluster) -> None:
    found = helm("image=mine:2", "policy.onBreach=kill", "monitoring=true", "criticalPodsQuota=true")
    accept(home, found)
    pod = found["DaemonSet", "seccomp-floor"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "mine:2"
    assert policy_of(found) == {"onBreach": "kill"}


def policy_of(found: Objects) -> Any:
    """What the chart has made of the values."""
    return yaml.safe_load(found["ConfigMap", "seccomp-floor-policy"]["data"]["policy.yaml"])


def test_a_runtime_class_of_another_name_is_in_the_policy() -> None:
    found = helm("runtimeClass=guarded")
    assert found["RuntimeClass", "guarded"]["handler"] == "guarded"
    assert policy_of(found)["apply"]["runtimeHandlers"] == ["guarded"]


@pytest.mark.parametrize("handlers", ["{guarded}", "{*}", "{runc,guarded}"])
def test_a_whole_policy_that_names_the_handler_is_taken_as_it_is(handlers: str) -> None:
    found = helm("runtimeClass=guarded", f"policy.apply.runtimeHandlers={handlers}")
    assert policy_of(found) == {"apply": {"runtimeHandlers": handlers.strip("{}").split(",")}}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["mode=watch"], 'mode is "watch", and not enforce, log or report'),
        (["mode=log", "policy.onBreach=kill"], 'mode is "log", and the policy\'s mode is "enforce"'),
        (["mode=enforce", "policy.mode=log"], 'mode is "enforce", and the policy\'s mode is "log"'),
        (["runtimeClass=guarded", "policy.mode=log"], "apply.runtimeHandlers does not name it"),
        (["runtimeClass=guarded", "policy.apply.runtimeHandlers={runc}"], "apply.runtimeHandlers does not name it"),
    ],
    ids=str,
)
def test_values_that_contradict_each_other_are_refused(values: Sequence[str], said: str) -> None:
    answer = rendered(*values)
    assert answer.returncode != 0
    assert said in answer.stderr
