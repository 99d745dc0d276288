"""The doctor where it is hard to see: beside a containerd with other files than one's own, and with a pod's privileges."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from testnode import UNCONFINED, Daemon, Node
from testnode.containerd import toml
from testnode.daemon import COMMAND
from testnode.waiting import standing, until

pytestmark = pytest.mark.node

TOLERATION = "tolerate.example.com"
POD_CAPABILITIES = ("sys_ptrace", "sys_admin", "kill", "setuid", "setgid", "audit_read")
"""As deploy/kubernetes/base/daemonset.yaml has them."""
HIDE = """
for path in $HIDDEN; do
    if [ -d "$path" ]; then mount -t tmpfs none "$path"; else mount --bind /dev/null "$path"; fi
done
exec "$@"
"""


def elsewhere(*hidden: Path) -> list[str]:
    """Words before a command that is to run in a mount namespace in which these directories and files are empty."""
    names = " ".join(map(str, hidden))
    return ["env", f"HIDDEN={names}", "unshare", "--mount", "--propagation", "private", "sh", "-ec", HIDE, "sh"]


def confined(*capabilities: str) -> list[str]:
    """Words before a command that is to have no other capabilities than these."""
    listed = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    return ["setpriv", f"--bounding-set={listed}", f"--inh-caps={listed}", "--no-new-privs"]


@dataclass(frozen=True)
class Answer:
    """What the doctor said."""

    code: int
    findings: list[dict[str, str]]

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings))

    def about(self, subject: str, level: str = "") -> list[str]:
        """The texts of its findings on a subject, of one level or of all."""
        return [each["text"] for each in self.findings if each["subject"] == subject and level in ("", each["level"])]

    @property
    def wrong(self) -> list[dict[str, str]]:
        """Errors and warnings."""
        return [each for each in self.findings if each["level"] in ("error", "warning")]


def ask(node: Node, daemon: Daemon, *prefix: str | Path) -> Answer:
    """`seccomp-floor doctor`, with words before it that make it run elsewhere."""
    sockets: list[str | Path] = [
        "--containerd-socket",
        node.containerd.socket,
        "--control-socket",
        daemon.control_socket,
    ]
    done = subprocess.run(
        [*prefix, COMMAND, "doctor", *sockets, "--config", daemon.config, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return Answer(done.returncode, json.loads(done.stdout))


@pytest.fixture(scope="module")
def drop_ins() -> Iterator[Path]:
    """A directory that containerd imports drop-ins from, and where nobody but it finds them."""
    path = Path("/run/seccomp-floor-test-drop-ins")
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    yield path
    shutil.rmtree(path)


def drop_in(path: Path, nri: Mapping[str, Any]) -> None:
    """A drop-in with settings of NRI."""
    path.write_text(toml({"version": 3, "plugins": {"io.containerd.nri.v1.nri": nri}}))


VALIDATOR = {"enable": True, "required_plugins": ["seccomp-floor"], "tolerate_missing_plugins_annotation": TOLERATION}


@pytest.fixture(scope="module")
def node(new_node: Callable[..., Node], drop_ins: Path) -> Node:
    """A node that fails closed by a drop-in, which is found in containerd's mount namespace only."""
    drop_in(drop_ins / "50.toml", {"default_validator": VALIDATOR})
    return new_node(imports=[drop_ins / "*.toml"])


@pytest.fixture
def daemon(node: Node) -> Iterator[Daemon]:
    """A daemon that is ready."""
    with node.daemon() as daemon:
        until(daemon, lambda status: status.node.ready and status.node.runtimes)
        yield daemon


def in_a_pod(node: Node, *hidden: Path) -> list[str]:
    """Words before a command that is to run with the privileges of the daemon's pod, where containerd's files are not."""
    return [*elsewhere(node.scratch.path / "containerd.toml", *hidden), *confined(*POD_CAPABILITIES)]


def test_it_sees_what_containerd_sees_with_a_pod_s_privileges(node: Node, daemon: Daemon, drop_ins: Path) -> None:
    """The drop-in in force and nothing wrong, though its file is not there for the doctor."""
    answer = ask(node, daemon, *in_a_pod(node, drop_ins))
    assert answer.about("fail closed", "ok") == ["nothing is created while the daemon is down"], answer
    assert answer.wrong == []
    assert answer.code == 0


def test_it_says_the_same_from_either_side(node: Node, daemon: Daemon, drop_ins: Path) -> None:
    ours = ask(node, daemon)
    assert ours.findings == ask(node, daemon, *elsewhere(drop_ins)).findings
    assert ours.findings == ask(node, daemon, *in_a_pod(node, drop_ins)).findings


@pytest.mark.parametrize("missing", ["sys_ptrace", "sys_admin"])
def test_what_it_cannot_see_it_does_not_judge(node: Node, daemon: Daemon, drop_ins: Path, missing: str) -> None:
    left = [name for name in POD_CAPABILITIES if name != missing]
    answer = ask(node, daemon, *elsewhere(drop_ins), *confined(*left))
    assert answer.about("fail closed") == []
    [said] = answer.about("NRI settings", "warning")
    assert said.startswith("not examined")


def test_all_that_is_wrong_with_the_settings(new_node: Callable[..., Node], tmp_path: Path) -> None:
    """Each with its remedy, from a pod as well; the plugins that containerd launches, and a node that does not fail closed."""
    plugins, file = tmp_path / "plugins", tmp_path / "drop-in.toml"
    plugins.mkdir()
    shutil.copy("/bin/true", plugins / "10-neighbour")
    file.write_text("version = 3\n")
    node = new_node(imports=[file])
    wrong = {
        "disable_connections": True,  # with which the test node would not start
        "plugin_request_timeout": "500ms",
        "plugin_path": str(plugins),
        "default_validator": {"enable": True, "reject_custom_seccomp_adjustment": True},
    }
    drop_in(file, wrong)
    with node.daemon(wait=False) as daemon:
        answer = ask(node, daemon, *in_a_pod(node, tmp_path))
        shutil.copy("/bin/true", plugins / "90-seccomp-floor")
        launched = ask(node, daemon, *in_a_pod(node, tmp_path))
    errors = "\n".join(answer.about("NRI settings", "error"))
    assert "disable_connections" in errors, answer
    assert "reject_custom_seccomp_adjustment: the validator" in errors
    assert any("plugin_request_timeout is 500ms" in said for said in answer.about("NRI settings", "warning"))
    assert "10-neighbour" in answer.about("other plugins")[0]
    assert answer.about("fail closed", "warning")
    assert all(each["remedy"] for each in answer.wrong)
    assert "disable_connections" not in str(launched.about("NRI settings")), (
        "one that containerd launches need not connect"
    )
    assert "90-seccomp-floor" not in launched.about("other plugins")[0]


def test_a_drop_in_without_a_restart_is_not_in_force(new_node: Callable[..., Node], tmp_path: Path) -> None:
    """What the files say by now is not what containerd does."""
    node = new_node(imports=[tmp_path / "*.toml"])
    time.sleep(2.5)  # what was written when containerd was started, it may have read
    drop_in(tmp_path / "50.toml", {"default_validator": VALIDATOR})
    with node.daemon() as daemon:
        answer = ask(node, daemon)
        assert answer.about("fail closed", "ok") == []
        [said] = answer.about("NRI settings", "warning")
        assert str(tmp_path / "50.toml") in said
        node.containerd.restart()
        daemon.wait_for("registered", 2)
        assert ask(node, daemon).about("fail closed", "ok")


def test_handlers_and_restores(new_node: Callable[..., Node], tmp_path: Path) -> None:
    """A runtime that is not known to load sections, and checkpoints that bring filters of their own."""
    runtime = {
        "enable_experimental_restore_via_create": True,
        "containerd": {"runtimes": {"kata": {"runtime_type": "io.containerd.kata.v2"}}},
    }
    plugins = {"io.containerd.cri.v1.runtime": runtime}
    (tmp_path / "drop-in.toml").write_text(toml({"version": 3, "plugins": plugins}))
    node = new_node(imports=[tmp_path / "drop-in.toml"])
    with node.daemon() as daemon:
        answer = ask(node, daemon, *in_a_pod(node, tmp_path))
    assert "io.containerd.kata.v2 is not known to load" in answer.about("handler kata", "warning")[0], answer
    assert answer.about("handler runc", "ok")
    assert any("restores checkpoints" in each["text"] for each in answer.wrong)
    assert all(each["remedy"] for each in answer.wrong)


def test_containers_beside_cri_are_named(node: Node, daemon: Daemon) -> None:
    """Of Docker, nerdctl, ctr; in CRI's own namespace too. The kubelet's are not among them."""
    node.run(UNCONFINED)
    ctr = node.containerd.directory / "ctr"
    created = [("moby", "docker-1"), ("default", "nerdctl-1"), ("default", "nerdctl-2"), ("k8s.io", "loose")]
    for namespace, name in created:
        command: list[str | Path] = [
            ctr,
            "--address",
            node.containerd.socket,
            "--namespace",
            namespace,
            "containers",
            "create",
        ]
        subprocess.run([*command, "--rootfs", node.scratch.path, name], check=True)
    try:
        answer = ask(node, daemon)
        assert "Docker" in answer.about("containerd namespace moby", "warning")[0]
        assert answer.about("containerd namespace default", "warning")[0].endswith(": 2")
        assert answer.about("containerd namespace k8s.io", "warning")[0].endswith(": 1")
        assert all(each["remedy"] for each in answer.wrong)
    finally:
        for namespace, name in created:
            command = [ctr, "--address", node.containerd.socket, "--namespace", namespace, "containers", "rm"]
            subprocess.run([*command, name], check=True)


def test_containers_that_are_open_are_counted(node: Node) -> None:
    """One that was created without the daemon, which the doctor does not know but the daemon does."""
    container = node.run(UNCONFINED, annotations={f"{TOLERATION}/pod": "true"})
    with node.daemon() as daemon:
        standing(daemon, container.id, "breached")
        answer = ask(node, daemon)
        [said] = answer.about("breached containers", "error")
        assert said.startswith("1 ")
        assert answer.code == 1
    container.pod.remove()
