"""The node daemon with crun, which loads a filter later than runc does: of a container with noNewPrivileges only at its start."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import debian
from runtime.runtimes import ENTER, HIDE_UNIFIED
from testnode import RUNTIME_DEFAULT, UNCONFINED, CriError, Handler, Node
from testnode.probe import AF_VSOCK, doors
from testnode.waiting import row, standing, status, until

pytestmark = [pytest.mark.node, pytest.mark.runtimes]


CRUN = """\
#!/bin/sh
# Debian's crun knows no runtime-spec after 1.0, but all that is asked of it here.
for argument; do
    test "$previous" = --bundle && sed -i 's/"ociVersion":"[^"]*"/"ociVersion":"1.0.2"/' "$argument/config.json"
    previous=$argument
done
exec {command} "$@"
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Its default handler is runc, another crun."""
    crun: Path = tmp_path_factory.mktemp("crun") / "crun"
    command = shlex.join([*ENTER, f'{HIDE_UNIFIED}; exec {debian.program("crun")} "$@"', "sh"])
    crun.write_text(CRUN.format(command=command))
    crun.chmod(0o755)
    with Node(handlers=(Handler(), Handler(name="crun", binary=crun))) as node:
        yield node


@pytest.mark.parametrize("seccomp", [UNCONFINED, RUNTIME_DEFAULT], ids=["unconfined", "runtime-default"])
@pytest.mark.parametrize("no_new_privileges", [False, True])
def test_its_containers_are_under_the_floor(node: Node, seccomp: object, no_new_privileges: bool) -> None:
    """Read from the kernel before their start, or right after it where the filter is not there before."""
    with node.daemon() as daemon:
        until(daemon, lambda status: status.node.runtimes.get("crun") == "as proven, read from the kernel")
        pod = node.create_pod(handler="crun")
        container = node.create_container(pod, seccomp=seccomp, no_new_privileges=no_new_privileges)
        container.start()
        found = row(status(daemon), container.id)
        assert found is not None
        if not no_new_privileges:
            assert found.protection == "protected"
        standing(daemon, container.id, "protected")
        assert [door.name for door in doors(container.output, AF_VSOCK) if door.kind == "opened"] == []
        pod.remove()


def test_until_a_runtime_has_shown_that_it_is_late_nothing_is_believed(node: Node) -> None:
    """The daemon has no containerd to try runtimes with: crun's filter that is not there yet might never come."""
    nowhere = node.scratch.path / "nowhere.sock"
    with node.daemon(arguments=["--containerd-socket", str(nowhere)]) as daemon:
        pod = node.create_pod(handler="crun")
        early = node.create_container(pod, seccomp=UNCONFINED, no_new_privileges=True)
        with pytest.raises(CriError, match="seccomp-floor refuses"):
            early.start()
        plain = node.create_container(pod, seccomp=UNCONFINED, name="plain")
        plain.start()
        standing(daemon, plain.id, "protected")
        pod.remove()
