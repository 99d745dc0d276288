"""Work in a child: whatever it does, there is one answer in time, and nothing is left of it."""

from __future__ import annotations

import json
import os
import pickle
import pkgutil
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hostile
import seccomp_floor
from seccomp_floor import plain
from seccomp_floor.abi import ABIS
from seccomp_floor.bpf.program import Instruction
from seccomp_floor.confine import MOST_ANSWER, ConfinedError, TooSlow, confined, error_answer, read_answer
from seccomp_floor.errors import InputError, SeccompFloorError
from seccomp_floor.floor import Policy
from seccomp_floor.profile import Action, Arg, Operator, Profile, Syscall

LONG = 60.0  # nothing here takes that long unless it hangs


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """Neither a child, dead or alive, nor a descriptor stays."""
    before = sorted(hostile.descriptors())
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert sorted(hostile.descriptors()) == before


PROFILE = Profile(
    Action.ERRNO,
    38,
    ("SCMP_ARCH_X86_64",),
    (),
    syscalls=(Syscall(("socket",), Action.ALLOW, args=(Arg(0, (1 << 64) - 1, Operator.MASKED_EQ, 40),)),),
)


def test_values_go_there_and_back() -> None:
    values = (
        PROFILE,
        Policy(),
        tuple(ABIS.values()),
        Instruction(6, 0, 0, 0x7FFF0000),
        {"a": [1, None], 2: (True, 1.5)},
        b"\0\xff",
        "\ud800\n",
    )
    answer = confined(hostile.echo, *values, seconds=LONG)
    assert answer == values
    assert [type(value) for value in answer] == [type(value) for value in values]


def test_errors_come_back_as_they_were() -> None:
    with pytest.raises(InputError) as caught:
        confined(hostile.mistaken, seconds=LONG)
    assert str(caught.value) == "linux.seccomp: expected an object, got 5"
    assert (caught.value.where, caught.value.expected) == ("linux.seccomp", "an object")


def _errors() -> Iterator[type[SeccompFloorError]]:
    for module in pkgutil.walk_packages(seccomp_floor.__path__, "seccomp_floor."):
        if not module.name.startswith(("seccomp_floor.pb.", "seccomp_floor.runtime.__main__")):
            import_module(module.name)
    seen = [SeccompFloorError]
    for kind in seen:
        if kind.__module__.startswith("seccomp_floor."):
            yield kind
        seen += kind.__subclasses__()


def test_every_error_class_can_come_back() -> None:
    """Whatever its constructor asks for: an error is made from its text and its attributes."""
    for kind in _errors():
        error = kind.__new__(kind)
        Exception.__init__(error, "one line")
        error.__dict__["detail"] = PROFILE
        with pytest.raises(kind) as caught:
            read_answer(error_answer(error))
        assert type(caught.value) is kind
        assert str(caught.value) == "one line"
        assert vars(caught.value) == {"detail": PROFILE}


@pytest.mark.parametrize("work", [hostile.endless, hostile.stopped])
def test_late_work_is_killed(work: Callable[[], object]) -> None:
    with pytest.raises(TooSlow, match=r"not done after 0\.2 s"):
        confined(work, seconds=0.2)


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (hostile.wrong, "ZeroDivisionError: three by nothing"),
        (hostile.recursing, "RecursionError|SystemError"),
        (hostile.greedy, "MemoryError"),
        (hostile.unspeakable, "a object cannot be handed back"),
        (hostile.strange, "ended without an answer"),
        (hostile.crashing, "ended without an answer"),
        (hostile.leaving, "ended without an answer"),
        (hostile.vanishing, "ended without an answer"),
        (hostile.deaf, "ended without an answer"),
        (hostile.babbling, "ended without an answer"),
    ],
)
def test_work_that_fails_is_said_to_have_failed(work: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfinedError, match=said):
        confined(work, seconds=LONG)


def test_an_answer_has_a_largest_size() -> None:
    half = MOST_ANSWER // 2 - 100  # bytes are written as two digits each
    assert confined(hostile.long_winded, half, seconds=LONG) == bytes(half)
    with pytest.raises(ConfinedError):
        confined(hostile.long_winded, half + 200, seconds=LONG)


def test_descriptors_are_not_inherited(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as file:
        high = os.dup2(file.fileno(), os.sysconf("SC_OPEN_MAX") - 1)
        os.set_inheritable(file.fileno(), True)
        try:
            found = confined(hostile.descriptors, seconds=LONG)
        finally:
            os.close(high)
    assert len(found) == 1
    assert found[0].startswith("pipe:")


def test_no_privileges() -> None:
    status = confined(hostile.status, seconds=LONG)
    assert {status[key] for key in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    ids = {*status["Uid"].split(), *status["Gid"].split()}
    if os.geteuid() == 0:
        assert ids == {"65534"}
        assert status["Groups"] == ""
    else:
        assert "0" not in ids


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to be without")
def test_a_daemon_that_may_not_become_nobody_still_drops_its_capabilities() -> None:
    """As in a pod, or a unit, that has only the capabilities to read filters."""
    code = (
        "import hostile, json; from seccomp_floor.confine import confined\n"
        "print(json.dumps(confined(hostile.status, seconds=60)))"
    )
    setpriv = shutil.which("setpriv")
    assert setpriv, "util-linux is missing"
    done = subprocess.run(
        [setpriv, "--bounding-set=-all,+sys_admin,+sys_ptrace", "--no-new-privs", sys.executable, "-c", code],
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
        capture_output=True,
        check=True,
    )
    status = json.loads(done.stdout)
    assert {status[key] for key in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {"0" * 16}
    assert status["Uid"].split() == ["0"] * 4


def test_no_process_is_left_behind() -> None:
    with pytest.raises(ConfinedError, match="BlockingIOError"):
        confined(hostile.breeding, seconds=LONG)


class Interruption(Exception):  # noqa: N818
    """What a signal's handler raises here."""


def test_whoever_is_interrupted_leaves_no_child() -> None:
    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise Interruption

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Interruption):
            confined(hostile.endless, seconds=LONG)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_parent_that_ignores_its_children() -> None:
    """SIGCHLD may have been ignored by whoever started us: the kernel then reaps children itself."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert confined(hostile.echo, 1, seconds=LONG) == (1,)
        with pytest.raises(TooSlow):
            confined(hostile.endless, seconds=0.1)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_no_descriptor_left_to_start_a_child() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        with pytest.raises(ConfinedError, match="cannot start"):
            confined(hostile.echo, seconds=LONG)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def alive(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def wait_until(condition: Callable[[], bool]) -> None:
    """A guard against hanging, not a measure of time."""
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def test_a_child_dies_with_its_parent() -> None:
    code = "import hostile; from seccomp_floor.confine import confined; confined(hostile.endless, seconds=600)"
    with subprocess.Popen(
        [sys.executable, "-c", code], env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    ) as parent:
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        wait_until(lambda: bool(children.read_text().split()))
        child = int(children.read_text())
        # Confined, that is: before, it has not asked to die with its parent yet.
        wait_until(lambda: "NoNewPrivs:\t1" in Path(f"/proc/{child}/status").read_text())
        parent.kill()
    wait_until(lambda: not alive(child))


class Trap:
    """A pickle that runs a program when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.path}",)


def test_an_answer_is_never_executed(tmp_path: Path) -> None:
    for trap in (Trap(tmp_path / "sprung"), (None, Trap(tmp_path / "sprung"))):
        with pytest.raises(ConfinedError):
            read_answer(pickle.dumps(trap))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "answer",
    [
        ["made", "os", "system", "true"],
        ["made", "subprocess", "Popen", "true"],
        ["made", "seccomp_floor.confine", "os", "true"],
        ["made", "seccomp_floor.confine", "Child", ["made", "os", "system"], ["tuple", "true"], 1],
        ["made", "seccomp_floor.confine", "confined", "x"],
        ["made", "seccomp_floor.policy_file", "Path", "/"],
        ["made", "seccomp_floor.profile", "dataclass", None],
        ["made", "seccomp_floor.profile", "Profile"],
        ["made", "seccomp_floor.profile", "Profile", *[None] * 8],
        ["made", "seccomp_floor.errors", "InputError", "a", "b", "c"],
        ["made", "seccomp_floor.not_there", "Profile"],
        ["made", "seccomp_floor.floor", "Floor", ["tuple", "AF_NONE"], 97, True, True, ["tuple"], "x"],
        ["enum", "seccomp_floor.profile", "Action", "SCMP_ACT_NOTHING"],
        ["enum", "seccomp_floor.profile", "Profile", "SCMP_ACT_ALLOW"],
        ["enum", "signal", "Signals", 9],
        ["error", "builtins", "SystemExit"],
        ["error", "seccomp_floor.profile", "Profile"],
        ["tuple", {"a": 1}],
        ["dict", [["list"], 1]],
        ["bytes", "xyz"],
        ["bytes", "00", " "],
        ["nothing"],
        [],
        [[]],
        [["made"]],
        [None, 1],
    ],
)
def test_an_answer_makes_values_and_nothing_else(answer: object) -> None:
    text = json.dumps(answer).encode()
    with pytest.raises(ValueError, match=r"."):
        plain.load(text)
    with pytest.raises(ConfinedError):
        read_answer(text)


def test_what_a_module_of_ours_imports_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seccomp_floor.profile.Signals", signal.Signals, raising=False)
    with pytest.raises(ValueError, match="no class of ours"):
        plain.load(b'["enum", "seccomp_floor.profile", "Signals", 9]')


@pytest.mark.parametrize(
    "error",
    [
        "text",
        5,
        ("text", "text", {}),
        (Action.ALLOW, "text", {}),
        (PROFILE, "text", {}),
        ((), "text", {}),
        (None, "text", {}),
        (InputError, "text", 5),
        (InputError, "text"),
    ],
)
def test_what_is_raised_is_an_error_of_ours(error: object) -> None:
    with pytest.raises(ConfinedError):
        read_answer(plain.dump((error, None)))


def test_answers_of_hostile_depth_and_size() -> None:
    for text in (b"[" * 1_000_000, b'["list",' * 5_000 + b"1" + b"]" * 5_000, b"9" * 10_000, b"\xff", b""):
        with pytest.raises(ConfinedError):
            read_answer(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([*plain._KINDS, "seccomp_floor.profile", "Arg"]),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)  # fmt: skip


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_answer_at_all(text: bytes) -> None:
    with suppress(SeccompFloorError):
        read_answer(text)
