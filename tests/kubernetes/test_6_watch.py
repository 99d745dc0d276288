"""The first step of a roll-out: nothing is denied, and who uses the doors is known."""

from __future__ import annotations

from typing import Any

import pytest

from testcluster.deployment import Deployment, until
from testcluster.doors import read_doors
from testcluster.manifests import pod

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def watching(deployed: Deployment) -> Deployment:
    """The overlay `watch` in place of what was there, with the policy that it brings."""
    deployed.base, deployed.policy = "overlays/watch", None
    deployed.apply()
    deployed.wait()
    assert deployed.status()["node"]["mode"] == "log"
    return deployed


def row(deployment: Deployment, name: str) -> dict[str, Any]:
    """What `status` says of a pod's container."""
    [found] = [each for each in deployment.status()["containers"] if each["pod"] == name]
    return dict(found)


def test_the_doors_stand_open_and_each_use_is_counted(watching: Deployment) -> None:
    kubectl = watching.cluster.kubectl
    kubectl.apply(pod("user"), pod("bystander"))
    for name in ("user", "bystander"):
        kubectl.wait_for(f"pod/{name}", "Ready")
    assert row(watching, "user")["protection"] == "watched"
    assert read_doors(kubectl, "user").opened()
    until("its uses are counted", lambda: row(watching, "user")["uses"] > 0)
    assert row(watching, "bystander")["uses"] == 0
    assert any("a container uses a door" in line and "default/user" in line for line in watching.logs().splitlines())
