"""Who is named as a weak neighbour, of whom."""

from __future__ import annotations

from dataclasses import replace

from seccomp_floor.decide import Decision, Reason
from seccomp_floor.node.neighbours import WITH_HOST, WITH_PAUSE, limits
from seccomp_floor.node.records import HOST_PIDS, Protection, Record
from seccomp_floor.pb.nri_pb2 import Container, PodSandbox

PROTECTED, EXEMPT, ENDED = Protection.PROTECTED, Protection.EXEMPT, Protection.ENDED


def record(name: str, space: str = "", pid: int = 0, protection: Protection = PROTECTED) -> Record:
    """A container whose PID namespace the runtime names so."""
    made = Record.of(PodSandbox(), Container(id=name, name=name), Decision(True, Reason.SELECTED, ""), protection)
    return replace(made, pid_namespace=space, pid=pid)


def test_a_namespace_of_its_own_is_no_limit() -> None:
    assert limits([record("a", pid=1), record("b", pid=2, protection=EXEMPT)]) == {}


def test_the_host_s() -> None:
    assert limits([record("a", HOST_PIDS), record("b", pid=2)]) == {"a": (WITH_HOST,)}


def test_a_pod_s_shared_one_has_the_pause_container() -> None:
    shared = "/proc/7/ns/pid"
    assert limits([record("a", shared, 8), record("b", shared, 9)]) == {"a": (WITH_PAUSE,), "b": (WITH_PAUSE,)}


def test_a_member_without_the_floor_is_named_to_the_others() -> None:
    shared = "/proc/7/ns/pid"
    found = limits([record("a", shared, 8), record("b", shared, 9, EXEMPT), record("c", shared, 10, ENDED)])
    weak = "PID namespace shared with b: not under the floor"
    assert found == {"a": (WITH_PAUSE, weak), "b": (WITH_PAUSE,)}


def test_a_debug_container_and_its_target() -> None:
    """The target's record does not say that anybody has joined it."""
    target, debug = record("target", pid=7, protection=EXEMPT), record("debug", "/proc/7/ns/pid", 8)
    assert limits([target, debug]) == {"debug": ("PID namespace shared with target: not under the floor",)}
    target, debug = record("target", pid=7), record("debug", "/proc/7/ns/pid", 8, EXEMPT)
    assert limits([target, debug]) == {"target": ("PID namespace shared with debug: not under the floor",)}
    assert limits([record("target", pid=7), record("debug", "/proc/7/ns/pid", 8)]) == {}


def test_containers_that_have_not_started_share_nothing() -> None:
    assert limits([record("a", protection=EXEMPT), record("b")]) == {}
