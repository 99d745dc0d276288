"""The promise on a real node: each profile in a real container, without the daemon and with it.

Every door that the floor denies is closed; everything else is as it was, down to the errno of every system call number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from testnode import NONE, RUNTIME_DEFAULT, UNCONFINED, Daemon, Node, Seccomp
from testnode.agent import Agent
from testnode.reading import LEGEND, Reading, table

pytestmark = pytest.mark.node

PROFILES = {path.stem: path for path in sorted((Path(__file__).parent / "profiles").glob("*.json"))}
NAMES = ["RuntimeDefault", "Unconfined", "none", *PROFILES]

IO_URING = {f"{abi} {number}" for abi in ("x86_64", "i386", "x32") for number in (425, 426, 427)}
"""io_uring_setup, io_uring_enter and io_uring_register: doors, and so not among what must stay the same."""

STAYS = {"i386 socketcall socketpair", "i386 socketcall socketpair, high half"}
"""No family that is denied implements socketpair: no socket comes out of this door. The family stands behind a
pointer, so closing it would take AF_UNIX pairs from 32-bit programs: it leads to the kernel, as it did."""


INEXACT = {
    "default-enosys": "NRI does not carry defaultErrnoRet (containerd/nri, AdjustSeccompPolicy): ENOSYS becomes EPERM",
    "socket-greater": "AF_ALG is refused by the profile, but not with a high half: the floor's errno stands for both",
    "type-and-protocol": "AF_ALG is refused by the profile with a high half, but not without: likewise",
}
"""Closed like all others; but of these the daemon may say that not every errno could be kept."""
ADMITTED: dict[str, bool] = {}
"""Of which it does."""


@pytest.fixture(scope="module")
def profiles(node: Node) -> Iterator[Mapping[str, Seccomp]]:
    """What each name stands for in a container's security context."""
    with Agent(node.scratch.path / "agent.sock") as agent:
        named = {"RuntimeDefault": RUNTIME_DEFAULT, "Unconfined": UNCONFINED, "none": NONE}
        for name, path in PROFILES.items():
            section: dict[str, Any] = json.loads(path.read_text())
            if "listenerPath" in section:
                section["listenerPath"] = str(agent.path)
            named[name] = node.write_profile(name, section)
        yield named


def read(node: Node, seccomp: Seccomp) -> Reading:
    """In a container that is gone afterwards."""
    container = node.run(seccomp)
    reading = Reading.of(container)
    container.pod.remove()
    return reading


@pytest.fixture(scope="module")
def before(node: Node, profiles: Mapping[str, Seccomp]) -> dict[str, Reading]:
    """Readings without the daemon."""
    return {name: read(node, seccomp) for name, seccomp in profiles.items()}


@pytest.fixture(scope="module")
def daemon(node: Node, before: dict[str, Reading]) -> Iterator[Daemon]:  # noqa: ARG001 (which come first)
    """The daemon, with the policy it has built in."""
    with node.daemon() as daemon:
        yield daemon


@pytest.fixture(scope="module")
def after(node: Node, profiles: Mapping[str, Seccomp], daemon: Daemon) -> dict[str, Reading]:
    """Readings with the daemon; and whether it said that one is not exact."""
    readings = {}
    for name, seccomp in profiles.items():
        said = len(daemon.log)
        readings[name] = read(node, seccomp)
        ADMITTED[name] = "not exact" in daemon.log[said:]
    return readings


@pytest.mark.parametrize("name", NAMES)
def test_doors_stand_open_without_the_floor(before: dict[str, Reading], name: str) -> None:
    """Or there would be nothing to show, and the probe might be blind."""
    assert before[name].opened()


def test_the_hardened_default_profile_leaves_two_doors_open(before: dict[str, Reading]) -> None:
    """containerd's own profile denies AF_VSOCK by `socket`'s first argument, all 64 bits of it, and by no other way in."""
    assert before["RuntimeDefault"].opened() == [
        "x86_64 socket, high half",
        "i386 socketcall socket",
        "i386 socketcall socket, high half",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_door_is_closed(after: dict[str, Reading], name: str) -> None:
    """By the filter, and seen to be so."""
    for door in after[name].doors:
        if door.name in STAYS:
            assert door.kind != "opened", door
        else:
            assert door.kind in {"closed-by-filter", "abi-missing"}, door


@pytest.mark.parametrize("name", NAMES)
def test_everything_else_is_as_it_was(before: dict[str, Reading], after: dict[str, Reading], name: str) -> None:
    """Sockets of other families, the answer to each system call number of three ABIs, and how the profile itself
    refuses what it refuses: all the same, or the daemon has said that they are not, of a profile known to be so."""
    assert len(before[name].unrelated) == len(after[name].unrelated) > 1500
    changed = changes(before[name], after[name])
    if ADMITTED[name]:
        assert name in INEXACT, changed
    else:
        assert not changed


def changes(before: Reading, after: Reading) -> dict[str, tuple[str, str]]:
    """What answers differently, by its name, and how it answered before and does now."""
    changed = {
        call: (result, after.unrelated[call])
        for call, result in before.unrelated.items()
        if result != after.unrelated[call]
    }
    for call in IO_URING & changed.keys():
        if changed[call][1] == "ENOSYS":
            del changed[call]
    for was, now in zip(before.doors, after.doors, strict=True):
        if was.kind == "closed-by-filter" and was.result != now.result:
            changed[f"{was.name}, family {was.family}"] = was.result, now.result
    return changed


def test_the_table(before: dict[str, Reading], after: dict[str, Reading], capsys: pytest.CaptureFixture[str]) -> None:
    """For whoever reads the output of the tests."""
    with capsys.disabled():
        console = Console(width=260)
        for title, readings in (("Without the floor", before), ("With the floor", after)):
            columns = {name.replace("-", "\n"): reading for name, reading in readings.items()}
            console.print(f"\n{title}: AF_ALG and AF_VSOCK, the worse of both")
            console.print(table(columns))
        console.print(LEGEND)
    assert before.keys() == after.keys() == set(NAMES)
