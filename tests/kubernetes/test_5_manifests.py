"""What is not applied in the other tests: each overlay and component builds, and is what the API server takes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from testcluster import Cluster, programs
from testcluster.daemon_image import ROOT
from testcluster.manifests import KUSTOMIZATIONS, write_overlay

pytestmark = pytest.mark.kubernetes

OVERLAYS = sorted(path.name for path in (KUSTOMIZATIONS / "overlays").iterdir())
COMPONENTS = sorted(path.name for path in (KUSTOMIZATIONS / "components").iterdir())
CHART = ROOT / "deploy" / "helm" / "seccomp-floor"
CRDS = {"PodMonitor", "PrometheusRule"}
"""Kinds that only a cluster with the Prometheus operator knows."""

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
    command = [str(programs.directory() / "kubectl"), "kustomize", str(directory)]
    return objects(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def helm(*arguments: str) -> Objects:
    """What Helm makes of the chart."""
    command = [str(programs.helm()), "template", "it", str(CHART), "--namespace=kube-system", *arguments]
    return objects(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def accept(cluster: Cluster, found: Objects) -> None:
    """Have the API server check every object against its schema, strictly."""
    documents = [each for (kind, _), each in found.items() if kind not in CRDS and kind != "Namespace"]
    cluster.kubectl(
        "apply", "--dry-run=server", "--validate=strict", "--filename=-", given=yaml.safe_dump_all(documents)
    )


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_overlay_is_accepted(cluster: Cluster, name: str) -> None:
    found = built(KUSTOMIZATIONS / "overlays" / name)
    accept(cluster, found)
    daemonset = found["DaemonSet", "seccomp-floor"]
    [name_of_policy] = [
        volume["configMap"]["name"]
        for volume in daemonset["spec"]["template"]["spec"]["volumes"]
        if "configMap" in volume
    ]
    policy = found["ConfigMap", "seccomp-floor-policy"]
    assert (policy["metadata"]["name"], policy["immutable"]) == (name_of_policy, True)


@pytest.mark.parametrize("name", COMPONENTS)
def test_every_component_is_accepted_on_an_overlay(cluster: Cluster, tmp_path: Path, name: str) -> None:
    overlay = write_overlay(tmp_path / "it", "overlays/enforce", image="any/image:1", host_paths={}, components=[name])
    accept(cluster, built(overlay))


@pytest.fixture(scope="module", autouse=True)
def home(cluster: Cluster) -> None:
    """The daemon's namespace: without it the API server would take nothing that is to go there."""
    [document] = yaml.safe_load_all((KUSTOMIZATIONS / "base" / "namespace.yaml").read_text())
    cluster.kubectl.apply(document)


def test_a_new_policy_is_a_new_config_map(tmp_path: Path) -> None:
    """And so a new pod template, which the DaemonSet rolls out."""
    names = []
    for number, policy in enumerate(("version: 1\n", "version: 1\nmode: log\n")):
        overlay = write_overlay(tmp_path / str(number), "base", image="any/image:1", host_paths={}, policy=policy)
        names.append(built(overlay)["ConfigMap", "seccomp-floor-policy"]["metadata"]["name"])
    assert names[0] != names[1]


def test_the_chart_renders_the_objects_of_the_base() -> None:
    ours, theirs = built(KUSTOMIZATIONS / "base"), helm()
    for found in (ours, theirs):
        policy = found["ConfigMap", "seccomp-floor-policy"]
        found["DaemonSet", "seccomp-floor"] = renamed(
            found["DaemonSet", "seccomp-floor"], policy["metadata"].pop("name")
        )
        policy["metadata"].pop("annotations", None)
    assert theirs == ours


def renamed(daemonset: dict[str, Any], policy: str) -> dict[str, Any]:
    """With the policy's ConfigMap, which must be the one mounted, called the same whatever its hash."""
    for volume in daemonset["spec"]["template"]["spec"]["volumes"]:
        if "configMap" in volume:
            assert volume["configMap"]["name"] == policy
            volume["configMap"]["name"] = "it"
    return daemonset


def test_the_chart_s_values_count(cluster: Cluster) -> None:
    values = ["image=mine:2", "policy.mode=log", "hostPaths.containerd=/run/k3s/containerd", "runtimeClass=floored"]
    found = helm(*(f"--set={value}" for value in values))
    accept(cluster, found)
    pod = found["DaemonSet", "seccomp-floor"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "mine:2"
    assert "/run/k3s/containerd" in [volume.get("hostPath", {}).get("path") for volume in pod["volumes"]]
    assert yaml.safe_load(found["ConfigMap", "seccomp-floor-policy"]["data"]["policy.yaml"]) == {"mode": "log"}
    assert found["RuntimeClass", "floored"]["handler"] == "floored"
