"""Metrics, alerts and the dashboard, judged by Prometheus' own promtool: what the daemon serves is what the alerts hear."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from runtime import debian
from seccomp_floor.decide import Decision, Reason
from seccomp_floor.floor import policy_digest
from seccomp_floor.node.metrics import StateCollector
from seccomp_floor.node.policy_store import PolicyStore
from seccomp_floor.node.records import Protection, Record
from seccomp_floor.node.state import PROVEN, State
from seccomp_floor.nri.handlers import Runtime
from seccomp_floor.nri.version import RuntimeVersion
from seccomp_floor.pb.nri_pb2 import Container, PodSandbox
from seccomp_floor.policy_file import parse_policy

MONITORING = Path(__file__).parents[2] / "deploy" / "kubernetes" / "components" / "monitoring"
TARGET = {"job": "seccomp-floor/seccomp-floor", "node": "a", "namespace": "seccomp-floor", "pod": "seccomp-floor-x1"}
"""What the PodMonitor makes of one daemon."""
CHANGE = 60
"""The minute in which a node that was well becomes what a scene makes of it."""
LONG = 25 * 60
"""Minutes in which every alert has had its time."""


class Daemon:
    """A daemon's state, and what it serves of it."""

    def __init__(self, directory: Path) -> None:
        """It is well: registered, tested, and with containers."""
        (directory / "policy.yaml").write_text("version: 1\n")
        self.policies = PolicyStore(directory / "policy.yaml")
        self.standing_by = False
        self.state = State(lambda: self.standing_by)
        self.state.registered(Runtime("containerd", RuntimeVersion.parse("v2.3.4"), "0.12", "", 5, 2))
        self.state.self_test = ""
        self.state.runtimes = {"runc": PROVEN}
        for protection in QUIET:
            self.add(protection)
        self.answer(0.001)

    def add(self, protection: str, pause: float | None = None) -> None:
        """A container that stands so to the floor."""
        identity, decision = f"{protection}-{len(self.state.records)}", Decision(True, Reason.SELECTED, "")
        record = Record.of(PodSandbox(name="p"), Container(id=identity), decision, Protection(protection))
        self.state.records.put(record)
        self.state.records.update(identity, pause=pause)

    def answer(self, seconds: float) -> None:
        """The runtime has asked."""
        with self.state.request("CreateContainer"):
            pass
        self.state.latency["CreateContainer"].observe(seconds)

    def refuse(self, times: int) -> None:
        """As many creations."""
        for _ in range(times):
            self.state.count_refusal()

    @property
    def text(self) -> str:
        """As Prometheus reads it."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(StateCollector(self.state, self.policies, ("1.0", "2.6.0")))
        return generate_latest(registry).decode()

    @property
    def samples(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Values by name and labels."""
        return {
            (sample.name, tuple(sorted({**TARGET, **sample.labels}.items()))): sample.value
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
        }


QUIET = ("protected", "exempt", "watched", "reported")
"""What nobody is called for: it is well, or somebody has chosen it."""

Scene = Callable[[Daemon], object]

SCENES: dict[str, Scene] = {
    "SeccompFloorBreached": lambda daemon: daemon.add("breached"),
    "SeccompFloorUnprotected": lambda daemon: daemon.add("admitted"),
    "SeccompFloorNotAudited": lambda daemon: daemon.add("proven"),
    "SeccompFloorOutdated": lambda daemon: daemon.add("outdated"),
    "SeccompFloorNotReady": lambda daemon: daemon.state.disconnected(None),
    "SeccompFloorFiltersUnreadable": lambda daemon: setattr(daemon.state, "auditing", "no CAP_SYS_ADMIN"),
    "SeccompFloorAuditsFail": lambda daemon: daemon.state.audits.update({"unreadable": 1}),
    "SeccompFloorRuntimeNotProven": lambda daemon: daemon.state.runtimes.update({"runc": "not tried: no image"}),
    "SeccompFloorStandingBy": lambda daemon: setattr(daemon, "standing_by", True),
    "SeccompFloorPolicyNotAccepted": lambda daemon: setattr(daemon.policies, "error", "unknown key"),
    "SeccompFloorRefuses": lambda daemon: daemon.refuse(20),
    "SeccompFloorSlow": lambda daemon: daemon.answer(1.5),
}
"""What makes each alert fire. Counters go on growing as they have grown in the scene, each minute."""

OTHERS: dict[str, dict[str, str]] = {
    "SeccompFloorAway": {'up{job="seccomp-floor/seccomp-floor",node="a"}': f"1x59 0x{LONG}"},
    "SeccompFloorUnknown": {'up{job="seccomp-floor/seccomp-floor",node="a"}': "1x59 stale"},
    "SeccompFloorNodesWithoutDaemon": {
        'kube_daemonset_status_number_unavailable{namespace="seccomp-floor",daemonset="seccomp-floor"}': f"0x59 2x{LONG}"
    },
    "SeccompFloorPoliciesDiffer": {
        'seccomp_floor_policy_info{node="b",mode="log",digest="another"}': f"_x60 1x{LONG}",
    },
}
"""What is told by others than one daemon: series as promtool writes them."""


@pytest.fixture(scope="session")
def promtool() -> str:
    """Prometheus' own."""
    if shutil.which("dpkg") is None and shutil.which("promtool") is None:
        pytest.skip("needs promtool")
    return shutil.which("promtool") or str(debian.promtool())


def ask(promtool: str, *arguments: str | Path, given: str | None = None) -> str:
    """What promtool prints; fails with that where it does not like what it sees."""
    answer = subprocess.run([promtool, *arguments], input=given, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout + answer.stderr


def alerts() -> dict[str, dict[str, Any]]:
    """The alerts by name."""
    groups = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["spec"]["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rules as Prometheus reads them."""
    path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load((MONITORING / "alerts.yaml").read_text())["spec"]))
    return path


def series(daemon: Daemon, scene: Scene) -> dict[str, str]:
    """Each series of a daemon that is well, and then what the scene makes of it."""
    before = daemon.samples
    scene(daemon)
    after, written = daemon.samples, {}
    for (name, labels), value in {**before, **after}.items():
        shown = ",".join(f"{key}={json.dumps(text)}" for key, text in labels)
        old, new = before.get((name, labels)), after.get((name, labels))
        first = f"_x{CHANGE}" if old is None else f"{old}+0x{CHANGE - 1}"
        growth = (new or 0) - (old or 0) if re.search(r"_(total|bucket|count|sum)$", name) else 0
        then = f"_x{LONG}" if new is None else f"{value}+{growth}x{LONG}"
        written[f"{name}{{{shown}}}"] = f"{first} {then}"
    return written


def fires(promtool: str, rules: Path, given: Mapping[str, str], expected: Mapping[int, tuple[str, ...]]) -> None:
    """Fail unless at each of these minutes exactly these alerts fire."""
    tests = [
        {
            "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
            "eval_time": f"{minute}m",
            "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in names],
        }
        for minute, names in expected.items()
    ]
    sources = [{"series": name, "values": values} for name, values in given.items()]
    document = {
        "rule_files": [str(rules)],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": sources, "promql_expr_test": tests}],
    }
    path = rules.parent / "tests.yaml"
    path.write_text(yaml.safe_dump(document))
    ask(promtool, "test", "rules", path)


def up(values: str = f"1x{LONG}") -> dict[str, str]:
    """What Prometheus itself says of the daemon."""
    return {'up{job="seccomp-floor/seccomp-floor",node="a"}': values}


def minutes(duration: str) -> int:
    """A rule's `for`."""
    return int(duration[:-1]) * {"m": 1, "h": 60}[duration[-1]]


def test_the_rules_are_valid(promtool: str, rules: Path) -> None:
    assert f"{len(alerts())} rules found" in ask(promtool, "check", "rules", rules)


def test_there_is_a_scene_for_each_alert() -> None:
    assert alerts().keys() == SCENES.keys() | OTHERS.keys()


@pytest.mark.parametrize("name", [*SCENES, *OTHERS])
def test_an_alert_fires_after_its_time_and_no_other_does(promtool: str, rules: Path, tmp_path: Path, name: str) -> None:
    given = up() | series(Daemon(tmp_path), SCENES.get(name, lambda _: None)) | OTHERS.get(name, {})
    pending = minutes(alerts()[name].get("for", "0m"))
    last_quiet = CHANGE + pending - 1
    fires(promtool, rules, given, {CHANGE - 1: (), last_quiet: (), CHANGE + pending + 1: (name,)})


def test_a_node_that_is_well_is_quiet_for_a_day(promtool: str, rules: Path, tmp_path: Path) -> None:
    given = up() | series(Daemon(tmp_path), lambda _: None)
    fires(promtool, rules, given, dict.fromkeys((CHANGE, LONG), ()))


@pytest.mark.parametrize("protection", [each.value for each in Protection])
def test_each_word_for_a_container_is_heard_or_means_that_all_is_well(
    promtool: str, rules: Path, tmp_path: Path, protection: str
) -> None:
    """A word that is new is not well until somebody says so."""
    given = up() | series(Daemon(tmp_path), lambda daemon: daemon.add(protection))
    own = {"breached": "Breached", "proven": "NotAudited", "outdated": "Outdated"}
    quiet = protection in {*QUIET, "ended"}
    name = f"SeccompFloor{own.get(protection, 'Unprotected')}"
    if quiet:
        fires(promtool, rules, given, {CHANGE + 180: ()})
    else:
        fires(promtool, rules, given, {CHANGE + minutes(alerts()[name].get("for", "0m")) + 1: (name,)})


def test_a_node_s_daemons_of_an_upgrade_are_not_added_up(promtool: str, rules: Path, tmp_path: Path) -> None:
    """Two pods with one address: Prometheus has each series twice."""
    given = series(Daemon(tmp_path), lambda daemon: daemon.add("breached"))
    twice = given | {name.replace('pod="seccomp-floor-x1"', 'pod="seccomp-floor-x2"'): given[name] for name in given}
    document = {
        "rule_files": [str(rules)],
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in (up() | twice).items()],
                "alert_rule_test": [
                    {
                        "eval_time": f"{CHANGE + 1}m",
                        "alertname": "SeccompFloorBreached",
                        "exp_alerts": [
                            {
                                "exp_labels": {"severity": "critical", "node": "a"},
                                "exp_annotations": {
                                    "summary": "a: 1 containers run with a denied door open",
                                    "description": alerts()["SeccompFloorBreached"]["annotations"]["description"],
                                },
                            }
                        ],
                    }
                ],
            }
        ],
    }
    path = tmp_path / "tests.yaml"
    path.write_text(yaml.safe_dump(document))
    ask(promtool, "test", "rules", path)


def test_the_metrics_are_as_prometheus_would_have_them(promtool: str, tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.state.unsupporting = frozenset({"kata"})
    daemon.state.uses["default", "user"] += 1
    assert ask(promtool, "check", "metrics", given=daemon.text) == ""


def test_what_the_metrics_say_of_a_node(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.state.unsupporting = frozenset({"kata"})
    daemon.state.uses.update({("default", "user"): 3, ("", ""): 2})
    daemon.state.runtime_versions = {"runc": "runc 1.4.0, libseccomp 2.5.4"}
    daemon.add("protected", pause=0.25)
    lines = daemon.text.splitlines()
    for line in (
        f'seccomp_floor_policy_info{{digest="{policy_digest(daemon.policies.policy)}",mode="enforce"}} 1.0',
        "# TYPE seccomp_floor_policy_generation gauge",
        "seccomp_floor_filters_readable 1.0",
        "seccomp_floor_longest_audit_pause_seconds 0.25",
        'seccomp_floor_runtime_unsupported{handler="kata"} 1.0',
        'seccomp_floor_runtime_unsupported{handler="runc"} 0.0',
        'seccomp_floor_audits_total{result="unreadable"} 0.0',
        'seccomp_floor_oci_runtime_info{handler="runc",versions="runc 1.4.0, libseccomp 2.5.4"} 1.0',
        'seccomp_floor_door_uses_total{namespace="default",pod="user"} 3.0',
        "seccomp_floor_unattributed_door_uses_total 2.0",
    ):
        assert line in lines
    assert 'pod=""' not in daemon.text  # for Prometheus that would be the daemon's own


def test_a_policy_s_digest_is_of_what_it_says() -> None:
    same = {
        policy_digest(parse_policy(text, "it"))
        for text in (b"version: 1", b"# such\nversion: 1\n", b"{mode: enforce, onBreach: report}")
    }
    others = {
        policy_digest(parse_policy(text, "it")) for text in (b"mode: log", b"apply: {runtimeHandlers: [floored]}")
    }
    assert len(same) == 1
    assert len(others - same) == 2
    assert all(re.fullmatch("[0-9a-f]{12}", each) for each in same | others)


def test_the_dashboard_asks_what_prometheus_understands(promtool: str, tmp_path: Path) -> None:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    asked = [target["expr"].replace("$node", ".*") for panel in dashboard["panels"] for target in panel["targets"]]
    recorded = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(asked)]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    ask(promtool, "check", "rules", path)


def test_whose_pod_a_label_means_is_left_to_the_daemon() -> None:
    """A container's, where a metric has one; without this Prometheus puts the daemon's there and renames the other."""
    [endpoint] = yaml.safe_load((MONITORING / "podmonitor.yaml").read_text())["spec"]["podMetricsEndpoints"]
    assert endpoint["honorLabels"] is True


@pytest.mark.parametrize(
    ("address", "expected"), [("10.1.2.3", "10.1.2.3:9477"), ("2001:db8::a", "[2001:db8::a]:9477")]
)
def test_the_pod_monitor_makes_an_address_of_either_family(
    promtool: str, tmp_path: Path, address: str, expected: str
) -> None:
    """Its relabelings, as the operator hands them on, done by Prometheus."""
    monitor = yaml.safe_load((MONITORING / "podmonitor.yaml").read_text())
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    relabelings = [
        {re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", key): value for key, value in step.items()}
        for step in endpoint["relabelings"]
    ]
    found = {"__meta_kubernetes_pod_ip": address, "__meta_kubernetes_pod_node_name": "a"}
    job = {
        "job_name": "it",
        "static_configs": [{"targets": ["none:1"], "labels": found}],
        "relabel_configs": relabelings,
    }
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump({"scrape_configs": [job]}))
    answer = ask(promtool, "check", "service-discovery", "--timeout=1s", tmp_path / "prometheus.yaml", "it")
    [target] = json.loads(answer)
    assert (target["labels"]["__address__"], target["labels"]["node"]) == (expected, "a")
