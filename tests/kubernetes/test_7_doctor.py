"""The doctor where operators run it: in the daemon's pod, with its privileges and without the host's files."""

from __future__ import annotations

import json

import pytest

from testcluster.deployment import DAEMONSET, POLICY, Deployment, until

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

DOCTOR = "seccomp-floor doctor --json || true"


@pytest.fixture(scope="module")
def enforcing(deployed: Deployment) -> Deployment:
    """The deployment as it is meant to be, whatever tests before have made of it; its runtimes are tried."""
    deployed.base, deployed.policy = "overlays/enforce", POLICY
    deployed.apply()
    deployed.wait()

    def tried() -> bool:
        node = deployed.status()["node"]
        return bool(node["mode"] == "enforce" and node["runtimes"] and not node["standing_by"])

    until("its runtimes are tried", tried)
    return deployed


def test_it_finds_the_node_fail_closed_and_nothing_wrong_with_its_runtime(enforcing: Deployment) -> None:
    """The drop-in's files are on the host; the pod sees neither them nor containerd's program."""
    findings = json.loads(enforcing.kubectl("exec", DAEMONSET, "--", "sh", "-c", DOCTOR))
    said = {(each["subject"], each["level"]): each["text"] for each in findings}
    assert said["fail closed", "ok"] == "nothing is created while the daemon is down", findings
    assert [each for each in findings if each["level"] in ("error", "warning") and not about_containers(each)] == []


def about_containers(finding: dict[str, str]) -> bool:
    """Whether it counts containers, which other tests have left here in every state."""
    return finding["subject"].endswith(" containers")


def test_it_says_so_to_people(enforcing: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each finding; shown for whoever reads the output of the tests."""
    text = enforcing.kubectl("exec", DAEMONSET, "--", "sh", "-c", DOCTOR.replace(" --json", ""))
    with capsys.disabled():
        print(f"\n{text}")
    assert "ok    fail closed: nothing is created while the daemon is down" in text.splitlines()
