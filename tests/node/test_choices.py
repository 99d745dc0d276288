"""Who is under the floor: runtime handlers, opting out, and what is refused because it makes no sense."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from testnode import NONE, RUNTIME_DEFAULT, UNCONFINED, Container, CriError, Daemon, Handler, Node, Pod, localhost
from testnode.probe import AF_VSOCK, doors

pytestmark = pytest.mark.node

POLICY = """\
version: 1
apply: {runtimeHandlers: ["", floored]}
optOut: {namespaces: [lab]}
"""
OPT_OUT = "opt-out.seccomp-floor.nri.io"


@pytest.fixture(scope="module")
def node(new_node: Callable[..., Node]) -> Node:
    """Three handlers, of which the policy names two."""
    return new_node(handlers=(Handler(), Handler(name="floored"), Handler(name="other")))


@pytest.fixture(scope="module")
def daemon(node: Node) -> Iterator[Daemon]:
    """One daemon for all."""
    with node.daemon(POLICY) as daemon:
        yield daemon


@pytest.fixture(autouse=True)
def alive(daemon: Daemon, node: Node) -> Iterator[None]:
    """Whatever a test did: afterwards the daemon lives, has one session only, and protects."""
    yield
    assert daemon.process.poll() is None, daemon.log
    assert not is_open(node.run(UNCONFINED)), daemon.log


def open_doors(container: Container) -> list[str]:
    """Doors that give a socket."""
    return [door.name for door in doors(container.output, AF_VSOCK) if door.kind == "opened"]


def is_open(container: Container) -> bool:
    """Whether any does."""
    return bool(open_doors(container))


@pytest.mark.parametrize(("handler", "expected"), [("", False), ("floored", False), ("other", True)])
def test_the_policy_names_runtime_handlers(node: Node, handler: str, expected: bool) -> None:
    """The handler of the pod's RuntimeClass; "" is that of a pod without one."""
    assert is_open(node.run(UNCONFINED, handler=handler)) is expected


def test_a_pod_opts_out_where_it_may(node: Node) -> None:
    """By annotation, in a namespace that the policy names; the container comes as if there were no daemon."""
    container = node.run(RUNTIME_DEFAULT, namespace="lab", annotations={f"{OPT_OUT}/pod": "true"})
    assert "x86_64 socket, high half" in open_doors(container)
    assert is_open(node.run(UNCONFINED, namespace="lab", annotations={f"{OPT_OUT}/pod": "true"}))


def test_a_pod_does_not_opt_out_elsewhere(node: Node, daemon: Daemon) -> None:
    """The annotation is not honoured, and that is said."""
    said = len(daemon.log)
    container = node.run(UNCONFINED, namespace="default", annotations={f"{OPT_OUT}/pod": "true"})
    assert not is_open(container)
    assert OPT_OUT in daemon.log[said:]


def test_one_container_of_a_pod_opts_out(node: Node) -> None:
    """The form for a container wins over that for the pod."""
    annotations = {f"{OPT_OUT}/pod": "true", f"{OPT_OUT}/container.strict": "false"}
    pod = node.create_pod(namespace="lab", annotations=annotations)
    assert is_open(started(node, pod, "loose"))
    assert not is_open(started(node, pod, "strict"))


def started(node: Node, pod: Pod, name: str) -> Container:
    """An unconfined container of that name."""
    container = node.create_container(pod, seccomp=UNCONFINED, name=name)
    container.start()
    return container


@pytest.mark.parametrize("value", ["", "yes please", "truefalse", "1.0", "\N{SNOWMAN}", "t" * 10_000])
def test_an_annotation_that_is_no_boolean_is_refused(node: Node, value: str) -> None:
    """With the key, the value and what was expected; nothing is created."""
    with pytest.raises(CriError) as error:
        node.run(UNCONFINED, namespace="lab", annotations={f"{OPT_OUT}/pod": value})
    assert f"{OPT_OUT}/pod" in str(error.value)
    assert "true" in str(error.value)
    assert len(str(error.value)) < 2_000


def test_hostile_annotations_change_nothing(node: Node) -> None:
    """Hundreds of kilobytes, and the opt-out's name as text inside another annotation's value."""
    annotations = {f"example.com/a{number}": "x" * 2_500 for number in range(100)}
    annotations["kubectl.kubernetes.io/last-applied-configuration"] = f'{{"{OPT_OUT}/pod":"true"}}'
    assert not is_open(node.run(UNCONFINED, namespace="lab", annotations=annotations))


def test_a_privileged_container_is_under_the_floor(node: Node) -> None:
    """It comes without a profile; all its capabilities do not help it."""
    container = node.run(NONE, privileged=True)
    assert not is_open(container)


def rule(**condition: object) -> str:
    """A profile that allows `socket` on one condition."""
    allow = {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [condition]}
    return json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [allow]})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"defaultAction": "SCMP_ACT_MAYBE"}',
        '{"defaultAction": "SCMP_ACT_NOTIFY"}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_Z80"]}',
        rule(index=9, value=0, op="SCMP_CMP_EQ"),
        rule(index=0, value=0, op="SCMP_CMP_ALMOST"),
    ],
)
def test_an_invalid_profile_is_refused(node: Node, text: str) -> None:
    """By containerd, the daemon or runc, with a reason; no container comes of it."""
    path = node.scratch.path / "invalid.json"
    path.write_text(text)
    with pytest.raises(CriError):
        node.run(localhost(path))


def test_a_profile_that_hangs_libseccomp_is_refused(node: Node) -> None:
    """Adding these two rules in this order, libseccomp 2.5.4 to 2.6.1 never comes back; the node must."""
    first = [{"index": 0, "value": 0, "op": "SCMP_CMP_GE"}, {"index": 1, "value": 1, "op": "SCMP_CMP_EQ"}]
    second = [{"index": 0, "value": 0, "op": "SCMP_CMP_GE"}, {"index": 2, "value": 5, "op": "SCMP_CMP_EQ"}]
    section = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "args": first},
            {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "args": second},
        ],
    }
    with pytest.raises(CriError, match="seccomp-floor"):
        node.run(node.write_profile("hangs", section))


def test_a_profile_too_large_to_read_in_time_holds_up_nobody(node: Node) -> None:
    """Reading 80,000 rules takes longer than the runtime waits, and whoever is late is cut off: the next pod would start open."""
    rule = {"names": ["a"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_NE"}]}
    section = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] * 80_000}
    with pytest.raises(CriError, match=r"more than the .* that are judged"):
        node.create_container(node.create_pod(), seccomp=node.write_profile("large", section))
    assert not is_open(node.run(UNCONFINED))
