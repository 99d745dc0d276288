"""Every overlay with every choice of components builds to what their names say."""

from __future__ import annotations

import subprocess
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from seccomp_floor.floor import Mode, OnUnprovable, Policy
from seccomp_floor.policy_file import parse_policy
from testcluster import programs
from testcluster.manifests import KUSTOMIZATIONS, write_overlay

OVERLAYS = sorted(path.name for path in (KUSTOMIZATIONS / "overlays").iterdir())
COMPONENTS = sorted(path.name for path in (KUSTOMIZATIONS / "components").iterdir())
CHOICES = list(chain.from_iterable(combinations(COMPONENTS, number) for number in range(len(COMPONENTS) + 1)))
NAME = "seccomp-floor"

Objects = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="session")
def kustomize() -> list[str]:
    """The command."""
    return programs.kustomize()


def built(kustomize: list[str], directory: Path) -> Objects:
    """What it makes of a directory, by kind and name."""
    text = subprocess.run([*kustomize, str(directory)], capture_output=True, text=True, check=True).stdout
    return {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(text)}


def pod_of(found: Objects) -> dict[str, Any]:
    """The DaemonSet's pod."""
    pod: dict[str, Any] = found["DaemonSet", NAME]["spec"]["template"]["spec"]
    return pod


def policy_of(found: Objects) -> Policy:
    """The policy that the pod mounts, of the one ConfigMap that holds one."""
    [mounted] = [volume["configMap"]["name"] for volume in pod_of(found)["volumes"] if "configMap" in volume]
    [held] = [name for kind, name in found if kind == "ConfigMap" and name.startswith(f"{NAME}-policy-")]
    assert mounted == held
    assert found["ConfigMap", held]["immutable"] is True
    return parse_policy(found["ConfigMap", held]["data"]["policy.yaml"].encode(), held)


@pytest.mark.parametrize("components", CHOICES, ids="+".join)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_what_it_says_whatever_is_added(
    kustomize: list[str], tmp_path: Path, overlay: str, components: tuple[str, ...]
) -> None:
    directory = write_overlay(
        tmp_path, f"overlays/{overlay}", image="any/image:1", host_paths={}, components=components
    )
    found = built(kustomize, directory)
    policy = policy_of(found)
    watching, some = overlay.startswith("watch"), overlay.endswith("-floored")
    assert policy.mode is (Mode.LOG if watching else Mode.ENFORCE)
    assert policy.on_unprovable is (OnUnprovable.ADMIT if watching else OnUnprovable.REJECT)
    assert policy.apply.runtime_handlers == (("floored",) if some else ("*",))
    assert [each["handler"] for (kind, _), each in found.items() if kind == "RuntimeClass"] == ["floored"] * some

    monitoring = "monitoring" in components
    [container] = pod_of(found)["containers"]
    assert any(argument.startswith("--metrics") for argument in container["args"]) == monitoring
    for kind, name in (("PodMonitor", NAME), ("PrometheusRule", NAME), ("ConfigMap", f"{NAME}-dashboard")):
        assert ((kind, name) in found) == monitoring
    paths = {volume["name"]: volume["hostPath"]["path"] for volume in pod_of(found)["volumes"] if "hostPath" in volume}
    assert paths["containerd"] == ("/run/k3s/containerd" if "k3s" in components else "/run/containerd")
    assert any(kind == "ResourceQuota" for kind, _ in found) == ("gke" in components)


def test_all_overlays_are_there() -> None:
    assert OVERLAYS == ["enforce", "enforce-floored", "watch", "watch-floored"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_builds_as_it_stands(kustomize: list[str], overlay: str) -> None:
    """As ``kubectl apply -k`` takes it."""
    policy_of(built(kustomize, KUSTOMIZATIONS / "overlays" / overlay))


def test_the_overlays_for_some_pods_differ_from_those_for_all_in_nothing_else(kustomize: list[str]) -> None:
    for overlay in ("watch", "enforce"):
        every, some = (
            policy_of(built(kustomize, KUSTOMIZATIONS / "overlays" / name)) for name in (overlay, f"{overlay}-floored")
        )
        assert (every.mode, every.floor, every.opt_out, every.on_unprovable, every.on_breach) == (
            some.mode,
            some.floor,
            some.opt_out,
            some.on_unprovable,
            some.on_breach,
        )


def test_no_component_has_a_policy() -> None:
    """It would take the place of the overlay's, whole and without a word."""
    for path in (KUSTOMIZATIONS / "components").rglob("*.yaml"):
        assert "seccomp-floor-policy" not in path.read_text(), path
    assert not list((KUSTOMIZATIONS / "components").rglob("policy.yaml"))


def test_the_quota_is_for_the_daemon_s_priority(kustomize: list[str], tmp_path: Path) -> None:
    directory = write_overlay(tmp_path, "overlays/enforce", image="any/image:1", host_paths={}, components=["gke"])
    found = built(kustomize, directory)
    [quota] = [each for (kind, _), each in found.items() if kind == "ResourceQuota"]
    [scope] = quota["spec"]["scopeSelector"]["matchExpressions"]
    assert scope == {
        "scopeName": "PriorityClass", "operator": "In", "values": [pod_of(found)["priorityClassName"]]
    }  # fmt: skip
    assert quota["metadata"]["namespace"] == NAME
