"""What a proof costs: time against the number of rules, beside libseccomp's own time for the same profile, in one run."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from seccomp_floor.abi import abi_named
from seccomp_floor.bpf.compile import compile_profile
from seccomp_floor.bpf.decisions import unfold
from seccomp_floor.bpf.equivalence import differences
from seccomp_floor.bpf.libseccomp import library, resolve
from seccomp_floor.bpf.program import Program
from seccomp_floor.bpf.prove import prove
from seccomp_floor.floor import Floor
from seccomp_floor.profile import Action, Arg, Operator, Profile, Syscall

X86_64 = abi_named("x86_64")
ALL_ABIS = ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32")
FLOOR = Floor()
ROUNDS = 5
MOST_NAMES = 350  # some 15 fewer than containerd's default has, so that every libseccomp knows enough
DOORS = {"socket", "socketpair", "socketcall", "io_uring_setup", "io_uring_enter", "io_uring_register"}


def profile(rules: int, condition: Callable[[int], int]) -> Profile:
    """A closed profile of so many rules: names first, for all ABIs of the machine; beyond MOST_NAMES, conditions on an argument
    of one call, for the native ABI only, since three of that would not fit into a filter."""
    names = [name for name in library().names(X86_64) if name not in DOORS | {"ptrace"}]
    plain = tuple(names[: min(rules, MOST_NAMES)])
    sockets = [
        Syscall((name,), Action.ALLOW, None, (Arg(0, family, Operator.EQ),))
        for name in ("socket", "socketpair")
        for family in (1, 2)
    ]
    conditions = [
        Syscall(("ptrace",), Action.ALLOW, None, (Arg(0, condition(n), Operator.EQ),))
        for n in range(rules - len(plain))
    ]
    abis = ALL_ABIS if not conditions else ALL_ABIS[:1]
    closed = Syscall(("socketcall",), Action.ERRNO, 38)
    return Profile(Action.ERRNO, None, abis, syscalls=(closed, Syscall(plain, Action.ALLOW), *sockets, *conditions))


def best(work: Callable[[], object]) -> float:
    """The least CPU time that it takes, in milliseconds, with nothing remembered from before."""
    times = []
    for _ in range(ROUNDS):
        unfold.cache_clear()
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times) * 1e3


def measure(title: str, sizes: tuple[int, ...], condition: Callable[[int], int]) -> None:
    """Print a line for each number of rules; every profile is closed, and equal to itself."""
    view = Table(title=f"{title}; x86_64, best of {ROUNDS}, milliseconds of CPU", title_justify="left")
    for column in (
        "rules",
        "instructions",
        "compile",
        "prove",
        "prove + equivalence",
        "of compile",
        "µs an instruction",
    ):
        view.add_column(column, justify="right")
    for rules in sizes:
        asked = profile(rules, condition)
        view.add_row(str(rules), *figures(asked, compile_profile(asked, X86_64)))
    Console(width=110).print(view)


def figures(asked: Profile, program: Program) -> tuple[str, ...]:
    """One line."""
    again: Program = tuple(instruction._replace() for instruction in program)

    def proof() -> object:
        return prove([program], FLOOR, resolve, native=X86_64)

    def both() -> object:
        return proof(), differences(again, program, FLOOR, resolve, native=X86_64)

    assert prove([program], FLOOR, resolve, native=X86_64).closed
    assert differences(again, program, FLOOR, resolve, native=X86_64) == ()
    compiled, proven, all_of_it = best(lambda: compile_profile(asked, X86_64)), best(proof), best(both)
    return (
        str(len(program)),
        f"{compiled:.1f}",
        f"{proven:.1f}",
        f"{all_of_it:.1f}",
        f"{all_of_it / compiled:.2f}",
        f"{all_of_it / len(program) * 1e3:.1f}",
    )


def test_rules_as_profiles_have_them() -> None:
    """Names; and numbers that an argument may be."""
    measure("names, above 350 conditions on an int", (10, 50, 100, 200, 350, 700, 1000, 1500, 2000), lambda n: n)


def test_rules_as_no_profile_has_them() -> None:
    """Every condition with another high half: the worst that libseccomp makes of conditions, since none of them share a test."""
    measure("conditions on 64 bits that have nothing in common", (350, 500, 700, 1000), lambda n: n << 33 | n)


if __name__ == "__main__":
    test_rules_as_profiles_have_them()
    test_rules_as_no_profile_has_them()
