"""What is said in several files of deploy/ is the same in all, and what the daemon understands: no cluster needed."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from seccomp_floor.commands.audit import command as audit_command
from seccomp_floor.commands.doctor import command as doctor_command
from seccomp_floor.commands.run import command as run_command
from seccomp_floor.commands.status import command as status_command
from seccomp_floor.decide import ANNOTATION
from seccomp_floor.floor import Mode, Policy
from seccomp_floor.node.daemon import IDENTITY
from seccomp_floor.node.metrics import StateCollector
from seccomp_floor.node.policy_store import PolicyStore
from seccomp_floor.node.state import State
from seccomp_floor.policy_file import load_policy

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
UNIT = DEPLOY / "systemd" / "seccomp-floor.service"
READER_UNIT = DEPLOY / "systemd" / "seccomp-floor-reader.service"


def documents(path: Path) -> list[dict[str, Any]]:
    """All objects of a YAML file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


@pytest.fixture(scope="module")
def daemonset() -> dict[str, Any]:
    """The DaemonSet's pod template."""
    [document] = documents(KUBERNETES / "base" / "daemonset.yaml")
    template: dict[str, Any] = document["spec"]["template"]
    return template


@pytest.fixture(scope="module")
def validator() -> dict[str, Any]:
    """What the drop-in says of containerd's own validator."""
    drop_in = tomllib.loads((DEPLOY / "containerd" / "50-seccomp-floor.toml").read_text())
    settings: dict[str, Any] = drop_in["plugins"]["io.containerd.nri.v1.nri"]["default_validator"]
    return settings


def test_containerd_waits_for_the_name_under_which_the_daemon_registers(validator: dict[str, Any]) -> None:
    assert validator["required_plugins"] == [IDENTITY.name]


def test_the_toleration_is_spelled_alike_everywhere(validator: dict[str, Any], daemonset: dict[str, Any]) -> None:
    key = validator["tolerate_missing_plugins_annotation"]
    assert daemonset["metadata"]["annotations"][f"{key}/pod"] == "true"
    policy = (KUBERNETES / "base" / "toleration.yaml").read_text()
    assert f"key == '{key}'" in policy
    assert f"key.startsWith('{key}/')" in policy


def test_the_opt_out_is_spelled_as_the_daemon_reads_it() -> None:
    policy = (KUBERNETES / "base" / "opt-out.yaml").read_text()
    assert f"key == '{ANNOTATION}'" in policy
    assert f"key.startsWith('{ANNOTATION}/')" in policy


def understood(command: click.Command, arguments: list[str]) -> dict[str, Any]:
    """What a command makes of its arguments; raises if it does not take them."""
    return command.make_context("it", arguments).params


def test_the_daemonset_s_arguments_are_the_daemon_s(daemonset: dict[str, Any]) -> None:
    [container] = daemonset["spec"]["containers"]
    assert container["args"][0] == "run"
    params = understood(run_command, container["args"][1:])
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    for option in ("nri_socket", "containerd_socket", "control_socket", "config"):
        assert str(params[option].parent) in mounts, option
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        program, name, *arguments = container[probe]["exec"]["command"]
        assert (program, name) == ("seccomp-floor", "status")
        assert understood(status_command, arguments)["control_socket"] == params["control_socket"], probe


def test_every_command_finds_its_way_in_the_daemon_s_pod(daemonset: dict[str, Any]) -> None:
    """With no word about sockets: a person who executes one there, in a hurry, has to know none."""
    [container] = daemonset["spec"]["containers"]
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    run = understood(run_command, container["args"][1:])
    for command in (doctor_command, audit_command, status_command):
        defaults = {option.name: option.default for option in command.params if str(option.name).endswith("_socket")}
        assert defaults, command.name
        assert defaults == {name: str(run[name]) for name in defaults}
    for name in ("nri_socket", "containerd_socket"):
        assert mounts[str(run[name].parent)]["readOnly"], name


def test_no_port_is_declared(daemonset: dict[str, Any]) -> None:
    """On the host's network a declared port is a host port: the scheduler would never put a successor beside its daemon."""
    [container] = daemonset["spec"]["containers"]
    assert daemonset["spec"]["hostNetwork"]
    assert "ports" not in container


def test_who_reads_filters_is_not_filtered(daemonset: dict[str, Any]) -> None:
    """A process with a seccomp filter cannot read those of others; no setting that systemd makes one of is in the reader's unit."""
    [container] = daemonset["spec"]["containers"]
    assert container["securityContext"]["seccompProfile"] == {"type": "Unconfined"}
    protect = ("ProtectClock", "ProtectHostname", "ProtectKernel")
    filtering = ("SystemCall", "Restrict", "MemoryDenyWriteExecute", "LockPersonality", "PrivateDevices", *protect)
    lines = [line for line in READER_UNIT.read_text().splitlines() if not line.startswith("#")]
    assert not [line for line in lines if line.startswith(filtering)]


def test_the_unit_s_command_line_is_the_daemon_s() -> None:
    [command] = re.findall(r"^ExecStart=(.*)$", UNIT.read_text(), re.MULTILINE)
    _, name, *arguments = shlex.split(command)
    assert name == "run"
    params = understood(run_command, arguments)
    assert params["control_socket"].parent == Path("/run/seccomp-floor")  # RuntimeDirectory=


POLICIES = sorted(DEPLOY.rglob("policy.yaml"))


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_every_policy_is_one(path: Path) -> None:
    load_policy(path)


def test_the_base_enforces_the_built_in_policy_and_the_first_step_denies_nothing() -> None:
    assert load_policy(KUBERNETES / "base" / "policy.yaml") == Policy()
    assert load_policy(KUBERNETES / "overlays" / "watch" / "policy.yaml").mode is Mode.LOG


def test_the_image_installs_what_was_tested() -> None:
    """Each pin of the image's lock is, hashes included, one of the tests' lock."""

    def pins(path: Path) -> set[str]:
        return set(re.split(r"\n(?=\S)", re.sub(r"\n\s+#.*", "", path.read_text().strip())))

    assert pins(ROOT / "requirements" / "run.lock") <= pins(ROOT / "requirements" / "test.lock")


def test_the_dashboard_is_valid_json_without_two_panels_of_one_id() -> None:
    dashboard = json.loads((KUBERNETES / "components" / "monitoring" / "dashboard.json").read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids)) > 0


MONITORING = KUBERNETES / "components" / "monitoring"


def test_alerts_and_dashboard_ask_for_metrics_that_there_are(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\n")
    state = State()
    with state.request("CreateContainer"):  # a histogram has no samples before its first observation
        pass
    registry = CollectorRegistry()
    registry.register(StateCollector(state, PolicyStore(policy), ("1", "2")))
    served = set(re.findall(r"^(seccomp_floor_\w+)", generate_latest(registry).decode(), re.MULTILINE))
    families = {name for metric in registry.collect() for name in (metric.name, f"{metric.name}_total")}
    for file in ("alerts.yaml", "dashboard.json"):
        asked = set(re.findall(r"seccomp_floor_\w+", (MONITORING / file).read_text()))
        assert asked
        assert asked <= served | families, file
