"""Generated profiles and floors: whatever comes in, what goes out is proven, is the meet, and stays when it comes in again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

from hypothesis import event, example, given
from hypothesis import strategies as st

from floored import X86_64, allowed, arg, profile
from oracles.generate import examples
from seccomp_floor.abi import ABIS, Abi, abi_named
from seccomp_floor.bpf.compile import CRUN, RUNC, CompileError, RuntimeModel, compile_profile
from seccomp_floor.bpf.libseccomp import resolve
from seccomp_floor.bpf.machine import SeccompData, run
from seccomp_floor.bpf.program import RET_ALLOW, RET_ERRNO, RET_LOG, Program, effect, rank, strictest
from seccomp_floor.confine import TooSlow, confined
from seccomp_floor.doors import doors, floor_answer
from seccomp_floor.floor import Floor, Policy
from seccomp_floor.judge import Judgement, Unprovable, Way, judge
from seccomp_floor.profile import Action, Arg, Operator, Profile, Syscall
from seccomp_floor.reconcile import open_profile
from seccomp_floor.reconcile.says import Answer, default_answer

SECONDS = 3.0
"""Time for one case; what takes longer makes libseccomp loop, which a few of the generated profiles do."""
ERRNOS = (None, 1, 13, 38, 97)
ABOUT_DOORS = ("socket", "socketpair", "socketcall", "io_uring_setup", "io_uring_enter")
UNRELATED = ("read", "write", "openat2", "clone3", "getpid", "bind", "connect", "semop", "ipc", "no_such_call")
EVERYDAY = ("read", "write", "close", "execve", "exit_group", "mmap", "futex", "clone", "openat2", "bind", "connect")
MORE_THAN_32 = (
    "open", "stat", "fstat", "lstat", "poll", "lseek", "mprotect", "munmap", "brk", "ioctl", "pread64", "pwrite64", "readv",
    "writev", "access", "pipe", "select", "mremap", "msync", "mincore", "madvise", "dup", "dup2", "pause", "nanosleep",
)  # fmt: skip
HIGH = 1 << 32
VALUES = (
    0,
    1,
    2,
    3,
    8,
    10,
    16,
    38,
    39,
    40,
    41,
    45,
    46,
    HIGH - 1,
    HIGH,
    HIGH | 1,
    HIGH | 38,
    5 * HIGH | 40,
    (1 << 64) - 1,
)
MASKS = (HIGH - 1, 0xFF, 1, 0xFFFF, (1 << 64) - 1, (1 << 64) - 32, 0)

MACHINES: dict[str, list[tuple[str, ...]]] = {
    "x86_64": [("X86_64", "X86", "X32"), (), ("X86_64",), ("X86_64", "X86"), ("X86",)],
    "aarch64": [("ARM", "AARCH64"), ()],
    "s390x": [("S390", "S390X")],
    "ppc64le": [()],
    "mipsel64": [("MIPSEL", "MIPSEL64", "MIPSEL64N32")],
    "riscv64": [("RISCV64",)],
    "x86": [()],
    "arm": [("ARM",)],
}

FLOORS = (
    Floor(),
    Floor(io_uring=False),
    Floor(socketcall=False),
    Floor(io_uring=False, socketcall=False),
    Floor(action=Action.LOG),
    Floor(syscalls=(("clone3", 38), ("openat2", 1))),
    Floor(syscalls=(("bind", 13), ("socketcall", 13))),
    Floor(families=("AF_UNIX",)),
    Floor(families=("AF_TIPC", "AF_ALG"), io_uring=False),
    Floor(families=("AF_ALG",), family_errno=38),
    Floor(families=(), syscalls=(("ptrace", 1),)),
)

Case = tuple[Profile | None, Abi]


@st.composite
def args(draw: st.DrawFn) -> Arg:
    """A condition, mostly on a family or a call's number."""
    op = draw(st.sampled_from(list(Operator)))
    value = draw(st.one_of(st.sampled_from(VALUES), st.integers(0, (1 << 64) - 1)))
    if op is Operator.MASKED_EQ:
        mask = draw(st.sampled_from(MASKS))
        return Arg(draw(st.sampled_from((0, 0, 0, 1, 5))), mask, op, value & mask)
    return Arg(draw(st.sampled_from((0, 0, 0, 1, 2, 5))), value, op)


@st.composite
def rules(draw: st.DrawFn) -> Syscall:
    """A rule about anything, mostly about doors, mostly allowing."""
    names = draw(st.lists(st.sampled_from((*ABOUT_DOORS, *ABOUT_DOORS, *UNRELATED)), min_size=1, max_size=4))
    action = draw(st.sampled_from([*[Action.ALLOW] * 3, *[Action.ERRNO] * 2, *Action]))
    errno = draw(st.sampled_from(ERRNOS)) if action in (Action.ERRNO, Action.TRACE) else None
    return Syscall(tuple(names), action, errno, tuple(draw(st.lists(args(), max_size=3))))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A profile, or none, and the machine that it is for."""
    native = draw(st.sampled_from(tuple(MACHINES)))
    if draw(st.integers(0, 19)) == 0:
        return None, abi_named(native)
    architectures = tuple(f"SCMP_ARCH_{name}" for name in draw(st.sampled_from(MACHINES[native])))
    default = draw(st.sampled_from([*[Action.ERRNO] * 3, *[Action.ALLOW] * 2, *Action]))
    errno = draw(st.sampled_from(ERRNOS)) if default in (Action.ERRNO, Action.TRACE) else None
    syscalls = draw(st.lists(rules(), max_size=6))
    if draw(st.booleans()):
        syscalls.insert(0, Syscall(EVERYDAY + tuple(draw(st.sets(st.sampled_from(ABOUT_DOORS)))), Action.ALLOW))
    if draw(st.integers(0, 4)) == 0:
        syscalls.append(Syscall(MORE_THAN_32, Action.ALLOW))
    return Profile(default, errno, architectures, syscalls=tuple(syscalls)), abi_named(native)


def judged_twice(
    profile: Profile | None, floor: Floor, native: Abi, runtime: RuntimeModel, way: Way
) -> tuple[Judgement, Judgement]:
    """A judgement, and the judgement of what arrives of its section."""
    policy = Policy(floor=floor)
    first = judge(profile, policy, native, way=way, runtime=runtime)
    return first, judge(arrival(profile, first, way), policy, native, runtime=runtime)


def arrival(profile: Profile | None, judgement: Judgement, way: Way) -> Profile | None:
    """What is in the specification in the end: a section that is the profile is not sent at all."""
    section = judgement.section
    return section if section is None or section == profile else way.arrives(section)


LOSES_ITS_DEFAULT = Profile(
    Action.ERRNO,
    13,
    ("SCMP_ARCH_S390", "SCMP_ARCH_S390X"),
    syscalls=(
        Syscall(("socket",), Action.ALLOW),
        Syscall(("connect",), Action.ERRNO),  # EPERM: as the default, once NRI has lost its errno
        Syscall(("open", "stat", "fstat"), Action.ALLOW),
    ),
)


@examples(800)
@given(
    cases(), st.sampled_from(FLOORS), st.sampled_from((RUNC, CRUN)), st.sampled_from(list(Way)), st.integers(0, 1 << 16)
)
@example((LOSES_ITS_DEFAULT, abi_named("s390x")), FLOORS[0], RUNC, Way.NRI, 1)
@example((None, X86_64), FLOORS[0], RUNC, Way.NRI, 1)
@example((profile(allowed("read write socket", arg(0, "NE", 40))), X86_64), FLOORS[0], CRUN, Way.NRI, 1)
def test_whatever_comes_in(case: Case, floor: Floor, runtime: RuntimeModel, way: Way, seed: int) -> None:
    profile, native = case
    try:
        judgement, again = confined(judged_twice, profile, floor, native, runtime, way, seconds=SECONDS)
    except CompileError:
        event("refused: the runtime would refuse the profile itself")
        return
    except TooSlow:
        event("refused: libseccomp does not come to an end")
        return
    except Unprovable:
        event("refused: nothing could be proven")
        return
    event("exact" if not judgement.differences else "not exact, and said")
    assert judgement.proof.holds
    arrived = arrival(profile, judgement, way)
    if arrived is None:
        assert profile is None
        return
    assert again.section == arrived  # a section that comes in again stays
    assert not again.changes

    if profile is not None:
        assert (arrived.architectures, arrived.flags) == (profile.architectures, profile.flags)
        said_anyway = {default_answer(profile), default_answer(arrived)}  # NRI loses the errno of the default
        left = iter(untouched(arrived, said_anyway))
        assert all(rule in left for rule in untouched(profile, said_anyway))  # still there, and in their order

    before = None if profile is None else compile_profile(profile, native, runtime=runtime)
    after = compile_profile(arrived, native, runtime=runtime)
    for abi, data in calls(profile or open_profile(native), floor, native, Random(seed)):
        if any(different.abi == abi and within(data.nr, different.numbers) for different in judgement.differences):
            continue
        assert effect(returned(after, abi, data)) == effect(meet(before, floor, abi, data)), (abi.short, data)


def untouched(profile: Profile, defaults: set[Answer]) -> list[Syscall]:
    """The rules about nothing that a floor may deny, without the names that it may, and without those that say what these defaults
    say."""
    deniable = {
        *ABOUT_DOORS,
        "io_uring_register",
        "clone3",
        "openat2",
        "bind",
        "ptrace",
        "ipc",
        "getpid",
        "read",
        "write",
    }
    found = []
    for rule in profile.syscalls:
        names = tuple(name for name in rule.names if name not in deniable)
        if names and Answer.of(rule.action, rule.errno_ret) not in defaults:
            found.append(replace(rule, names=names))
    return found


def calls(profile: Profile, floor: Floor, native: Abi, random: Random) -> Iterator[tuple[Abi, SeccompData]]:
    """Calls that are likely to go wrong: of each ABI, at each door, with the values that the profile asks for and those beside."""
    asked = [value for rule in profile.syscalls for arg in rule.args for value in (arg.value, arg.value_two)]
    values = [*VALUES, *asked, *(value + 1 for value in asked if value < (1 << 64) - 1)]
    for abi in dict.fromkeys((native, *(ABIS[name] for name in profile.architectures))):
        numbers = [door.number for door in doors(floor, abi, resolve)]
        numbers += [number for name in UNRELATED if (number := resolve(name, abi)) is not None]
        for number in [*numbers * 4, *(abi.base + random.randrange(500) for _ in range(20))]:
            yield abi, SeccompData(number, abi.audit_arch, args=tuple(random.choice(values) for _ in range(6)))


def returned(program: Program, abi: Abi, data: SeccompData) -> int:
    """What a program returns for a call of this ABI."""
    return run(program, data, little_endian=abi.little_endian)


def meet(before: Program | None, floor: Floor, abi: Abi, data: SeccompData) -> int:
    """What profile and floor give together, worked out call by call."""
    value = RET_ALLOW if before is None else returned(before, abi, data)
    code = floor_answer(doors(floor, abi, resolve), data.nr, data.args)
    answer = RET_ALLOW if code is None else RET_LOG if floor.action is Action.LOG else RET_ERRNO | code
    return value if rank(value) <= rank(answer) else strictest((value, answer))


def within(number: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    """Whether a number is in one of the ranges."""
    return any(first <= number <= last for first, last in ranges)
