"""What is known of containers, and that it does not grow without end."""

from __future__ import annotations

from seccomp_floor.decide import Decision, Reason
from seccomp_floor.node.records import MOST_NASCENT, Protection, Record, Records
from seccomp_floor.pb.nri_pb2 import Container, PodSandbox


def record(identity: str = "a", protection: Protection = Protection.PROVEN) -> Record:
    """Of a plain container."""
    pod = PodSandbox(id="p", name="pod", namespace="default")
    return Record.of(
        pod, Container(id=identity, name="main"), Decision(True, Reason.SELECTED, "the floor applies"), protection
    )


def test_a_container_is_counted_once_it_is_made() -> None:
    """Its creation may still fail elsewhere."""
    records = Records()
    records.expect(record())
    assert list(records) == []
    assert records.get("a") is not None
    records.made("a")
    assert [found.id for found in records] == ["a"]
    records.remove("a")
    assert records.get("a") is None


def test_creations_whose_end_is_never_heard_of_are_forgotten() -> None:
    """The oldest first."""
    records = Records()
    for number in range(MOST_NASCENT + 10):
        records.expect(record(str(number)))
    assert records.get("9") is None
    assert records.get("10") is not None


def test_what_the_runtime_no_longer_has_is_dropped() -> None:
    """After a synchronisation."""
    records = Records()
    for identity in "abc":
        records.put(record(identity))
    assert [gone.id for gone in records.keep_only(["b"])] == ["a", "c"]
    assert [found.id for found in records] == ["b"]


def test_an_update_of_a_container_that_has_gone_is_none() -> None:
    """It may be removed while it is audited."""
    records = Records()
    assert records.update("a", protection=Protection.PROTECTED) is None
    records.put(record())
    changed = records.update("a", protection=Protection.PROTECTED)
    assert changed is not None
    assert next(iter(records)).protection is Protection.PROTECTED


def test_hostile_names_are_bounded_and_printable() -> None:
    """A record is shown on terminals, and there may be thousands."""
    text = "\x1b[2J\n" + "x" * 100_000
    pod = PodSandbox(id=text, name=text, namespace=text, runtime_handler=text)
    found = Record.of(pod, Container(id="a", name=text), Decision(False, Reason.OPTED_OUT, text), Protection.EXEMPT)
    for value in (found.pod, found.name, found.namespace, found.handler, found.detail):
        assert value.isprintable()
        assert len(value) < 400
