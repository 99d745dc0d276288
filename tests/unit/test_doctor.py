"""What the doctor makes of what the daemon says of itself, and of containerd's durations and files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from seccomp_floor.abi import this_machine
from seccomp_floor.floor import Policy
from seccomp_floor.node.doctor import Finding, Node, containerd, daemon, host
from seccomp_floor.node.state import PROVEN
from seccomp_floor.pb import control_pb2 as pb

SOUND: dict[str, Any] = {"ready": True, "mode": "enforce", "runtimes": {"runc": PROVEN}}


def findings(tmp_path: Path, status: pb.StatusResponse) -> list[Finding]:
    """What is said of a daemon that says that."""
    node = Node(Policy(), this_machine(), tmp_path / "none", tmp_path / "control.sock")
    answer: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
        lambda _request, _context: status.SerializeToString()
    )
    server = grpc.server(ThreadPoolExecutor(1))
    service = grpc.method_handlers_generic_handler("seccomp_floor.control.v1.Control", {"Status": answer})
    server.add_generic_rpc_handlers([service])
    server.add_insecure_port(f"unix:{node.control_socket}")
    server.start()
    try:
        return list(daemon._daemon(node))
    finally:
        server.stop(None).wait()


def test_a_sound_daemon(tmp_path: Path) -> None:
    rows = [pb.Container(protection=word) for word in ("protected", "proven", "exempt")]
    found = findings(tmp_path, pb.StatusResponse(node=pb.Node(**SOUND), containers=rows))
    assert [each.level for each in found] == ["ok"]


@pytest.mark.parametrize(
    ("level", "said", "node"),
    [
        ("error", "not ready: the self-test", {"ready": False, "not_ready_because": "the self-test is not finished"}),
        ("warning", "audits no container: no reader", {"cannot_audit_because": "no reader"}),
        ("warning", "stands by", {"standing_by": True}),
        ("error", "a policy is not in force: no such key", {"policy_error": "no such key"}),
        ("note", "mode is log", {"mode": "log"}),
    ],
)
def test_what_the_daemon_says_of_itself(tmp_path: Path, level: str, said: str, node: dict[str, object]) -> None:
    found = findings(tmp_path, pb.StatusResponse(node=pb.Node(**{**SOUND, **node})))
    [each] = [each for each in found if each.text.startswith(said)]
    assert each.level == level
    assert each.remedy


@pytest.mark.parametrize(
    ("protection", "level"),
    [
        ("breached", "error"),
        ("admitted", "error"),
        ("unverified", "warning"),
        ("outdated", "warning"),
        ("unsupported", "warning"),
    ],
)
def test_containers_without_the_floor_are_counted(tmp_path: Path, protection: str, level: str) -> None:
    rows = [pb.Container(protection=word) for word in ("protected", protection, protection)]
    found = findings(tmp_path, pb.StatusResponse(node=pb.Node(**SOUND), containers=rows))
    [each] = [each for each in found if each.subject == f"{protection} containers"]
    assert (each.level, each.text.split()[0]) == (level, "2")
    assert each.remedy


@pytest.mark.parametrize(
    ("text", "count", "remedy"),
    [
        ("2s", 10, None),
        ("5s", 2500, None),
        ("1m30s", 10_000, None),
        ("500ms", 10, "5s"),
        ("1.5s", 10, "5s"),
        ("2s", 1200, "5s"),
        ("5s", 4000, "8s"),
        ("0s", 10, None),  # containerd keeps its default
        ("", 10, None),
        ("soon", 10, None),
    ],
)
def test_the_time_that_a_synchronisation_needs(text: str, count: int, remedy: str | None) -> None:
    found = list(containerd._timeout(text, count))
    assert [each.remedy for each in found] == ([] if remedy is None else [f"plugin_request_timeout = '{remedy}'"])


def test_no_containerd_is_one_finding(tmp_path: Path) -> None:
    node = Node(Policy(), this_machine(), tmp_path / "none", tmp_path / "control.sock")
    [each] = [each for check in containerd.CHECKS for each in check(node)]
    assert (each.level, each.subject) == ("error", "containerd")
    assert each.remedy


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (["containerd"], "/etc/containerd/config.toml"),
        (["containerd", "--config", "/a"], "/a"),
        (["containerd", "--log-level", "debug", "-c", "/a"], "/a"),
        (["containerd", "--config=/a"], "/a"),
        (["containerd", "-config=/a"], "/a"),
        (["containerd", "--config"], "/etc/containerd/config.toml"),
        (["containerd", "--log-level", "c"], "/etc/containerd/config.toml"),
    ],
)
def test_the_configuration_that_a_command_line_names(words: list[str], path: str) -> None:
    assert host._config(words) == path


def test_the_files_that_a_configuration_comes_from(tmp_path: Path) -> None:
    """As containerd resolves imports: relative to the file, patterns, imports of imports, and no circle."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "config.toml").write_text("imports = ['conf.d/*.toml', 'one.toml', 'none.toml']")
    (tmp_path / "one.toml").write_text(f"imports = ['{tmp_path}/two.toml', 'config.toml']")
    (tmp_path / "two.toml").write_text("this is no TOML")
    (tmp_path / "conf.d" / "10.toml").write_text("version = 3")
    (tmp_path / "conf.d" / "10.txt").write_text("")
    names = ["config.toml", "conf.d", "conf.d/10.toml", "one.toml", "none.toml", "two.toml"]
    assert list(host._files(tmp_path / "config.toml")) == [tmp_path / name for name in names]
