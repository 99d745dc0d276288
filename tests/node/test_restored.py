"""Containers that are restored from a checkpoint: CRIU puts back the filters of the image, whatever section we gave, and the
runtime asks nobody before it lets them go on. They are looked for, and shown as what they are."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest

from runtime import criu
from seccomp_floor.pb import cri_pb2 as cri
from seccomp_floor.pb import nri_pb2 as nri
from testnode import UNCONFINED, Container, CriError, Daemon, Node
from testnode import daemon as daemons
from testnode.probe import AF_VSOCK, doors, take
from testnode.waiting import row, standing, status

pytestmark = pytest.mark.node

RESTORES = """\
version = 3
[plugins."io.containerd.cri.v1.runtime"]
enable_experimental_restore_via_create = true
"""
IMPATIENT = """\
#!{python}
from seccomp_floor.cli import main
from seccomp_floor.node import auditor

auditor.AGAIN_SECONDS = 3.0
main()
"""
"""The daemon, but that it looks every three seconds for those that nobody has looked at, and not every minute."""


@pytest.fixture(scope="module")
def restoring(new_node: Callable[..., Node], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that restores, which containerd leaves undone unless it is told."""
    directory = tmp_path_factory.mktemp("criu")
    criu.install(directory)
    if reason := criu.why_not(directory):
        pytest.skip(f"CRIU cannot work here: {reason}")
    drop_in = directory / "restore.toml"
    drop_in.write_text(RESTORES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "PATH", f"{directory}:{os.environ['PATH']}"
        )  # from where a node takes its runc, and that one its criu
        yield new_node(imports=[drop_in])


@pytest.fixture
def impatient(
    restoring: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], AbstractContextManager[Daemon]]:
    """Starts daemons that soon look for what was restored; the policy's lines beside its version."""
    program = tmp_path / "seccomp-floor"
    program.write_text(IMPATIENT.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setattr(daemons, "COMMAND", program)
    return lambda policy: restoring.daemon(f"version: 1\n{policy}\n")


def checkpoint(node: Node, container: Container) -> Path:
    """An archive of the container as it runs, as the kubelet's checkpoint API has it made."""
    archive = node.scratch.path / f"{container.id}.tar"
    # CheckpointContainerRequest (container_id = 1, location = 2), in a message of the same form; the reply is empty.
    request = nri.KeyValue(key=container.id, value=str(archive))
    node.cri.call("CheckpointContainer", request, cri.StopContainerResponse)
    return archive


def restored(node: Node, archive: Path) -> Container:
    """Running again, from where it was."""
    container = node.create_container(node.create_pod(), seccomp=UNCONFINED, image_name=str(archive))
    container.start()
    return container


def filters(container: Container) -> int:
    """How many the kernel holds for its first process."""
    text = Path(f"/proc/{container.info()['pid']}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("Seccomp_filters:")).split()[1])


@pytest.fixture(scope="module")
def open_archive(restoring: Node) -> Path:
    """Of a container that was never under the floor."""
    container = restoring.run(UNCONFINED)
    archive = checkpoint(restoring, container)
    container.pod.remove()
    return archive


def test_a_checkpoint_is_not_restored_where_nobody_can_look_at_it_first(restoring: Node, open_archive: Path) -> None:
    """The default: what cannot be proven before it runs does not run."""
    with restoring.daemon() as daemon:
        pod = restoring.create_pod()
        with pytest.raises(CriError, match="restored from a checkpoint"):
            restoring.create_container(pod, seccomp=UNCONFINED, image_name=str(open_archive))
        assert status(daemon).node.refusals == 1
        pod.remove()


def test_an_open_checkpoint_is_found_open(
    restoring: Node, open_archive: Path, impatient: Callable[[str], AbstractContextManager[Daemon]]
) -> None:
    """Its section is right, who enters it is filtered, and its own process has no filter: never shown as protected."""
    with impatient("onUnprovable: admit") as daemon:
        container = restored(restoring, open_archive)
        assert filters(container) == 0
        assert all(door.kind != "opened" for door in doors(container.output, AF_VSOCK)), "`exec` loads the section"
        taken = take(container.output, 1, AF_VSOCK)
        assert (taken.step, taken.domain) == ("taken", AF_VSOCK), "what the restored process can do"
        shown = row(status(daemon), container.id)
        assert shown is not None
        assert shown.protection in ("unverified", "breached")
        assert "x86_64 socket" in standing(daemon, container.id, "breached").detail
        assert status(daemon).node.breaches == 1
        container.pod.remove()


def test_an_open_checkpoint_is_killed_where_the_owner_says_so(
    restoring: Node, open_archive: Path, impatient: Callable[[str], AbstractContextManager[Daemon]]
) -> None:
    """`onBreach: kill`."""
    with impatient("onUnprovable: admit\nonBreach: kill") as daemon:
        pod = restoring.create_pod()
        container = restoring.create_container(pod, seccomp=UNCONFINED, image_name=str(open_archive))
        with suppress(CriError):  # it may be seen, and ended, before the restore has come to its end
            container.start()
        daemon.wait_for("was killed")
        with pytest.raises(CriError):
            container.output(["/bin/true"])
        pod.remove()


def test_a_checkpoint_of_a_floored_container_brings_its_filter(
    restoring: Node, impatient: Callable[[str], AbstractContextManager[Daemon]]
) -> None:
    """Read from the kernel and proven, like any other."""
    with impatient("onUnprovable: admit") as daemon:
        floored = restoring.run(UNCONFINED)
        archive = checkpoint(restoring, floored)
        floored.pod.remove()
        container = restored(restoring, archive)
        assert filters(container) == 1
        assert standing(daemon, container.id, "protected").audited_at
        assert take(container.output, 1, AF_VSOCK).result == "EAFNOSUPPORT"
        container.pod.remove()


def test_a_daemon_that_comes_later_finds_it(restoring: Node, open_archive: Path) -> None:
    """At its synchronisation, like everything that ran before it."""
    container = restored(restoring, open_archive)
    with restoring.daemon() as daemon:
        standing(daemon, container.id, "breached")
    container.pod.remove()
