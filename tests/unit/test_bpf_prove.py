"""What a proof says of filters written by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oracles.assembly import (
    ALLOW,
    ARCH,
    ARG0_HIGH,
    ARG0_LOW,
    NR,
    errno,
    jump,
    load,
    plain,
    program,
    returns,
)
from seccomp_floor.abi import ABIS, Abi, abi_named
from seccomp_floor.bpf import bits
from seccomp_floor.bpf import opcodes as op
from seccomp_floor.bpf.program import (
    RET_ALLOW,
    RET_KILL_PROCESS,
    RET_LOG,
    RET_TRACE,
    RET_USER_NOTIF,
    Instruction,
    Program,
    ProgramError,
)
from seccomp_floor.bpf.prove import Proof, Status, prove
from seccomp_floor.bpf.space import CannotJudgeError
from seccomp_floor.floor import Floor
from seccomp_floor.profile import Action

X86_64, X86, X32, AARCH64, S390X = map(abi_named, ("x86_64", "x86", "x32", "aarch64", "s390x"))
FLOOR = Floor()
KILL = returns(RET_KILL_PROCESS)


def no_more(name: str, abi: Abi) -> int | None:  # noqa: ARG001 (a Resolve)
    """Numbers of no calls at all."""
    return None


def judged(*filters: Program, floor: Floor = FLOOR, native: Abi = X86_64) -> Proof:
    """A proof about these filters, from the oldest to the newest."""
    return prove(filters, floor, no_more, native=native)


def status(proof: Proof, abi: Abi, door: str, opens: str | None = None) -> Status:
    """The one verdict on a door."""
    found = {
        verdict.status
        for verdict in proof.verdicts
        if (verdict.door.abi, verdict.door.name) == (abi, door) and opens in (None, verdict.door.opens)
    }
    assert len(found) == 1, found
    return found.pop()


def only(abi: Abi, *body: Instruction) -> Program:
    """A filter that admits one architecture, and goes on with its number."""
    return program(load(ARCH), jump(op.JEQ, abi.audit_arch, 1, 0), KILL, load(NR), *body)


def denying(abi: Abi, *numbers: int, code: int = 1) -> Program:
    """A filter that denies these calls whole, and those of other architectures."""
    body = [part for number in numbers for part in (jump(op.JEQ, number, 0, 1), errno(code))]
    return only(abi, *body, ALLOW)


def everything_of(abi: Abi) -> tuple[int, ...]:
    """The numbers of all doors."""
    return (abi.socket, abi.socketpair, *abi.io_uring, *([abi.socketcall] if abi.socketcall is not None else []))


def test_nothing_is_admitted() -> None:
    proof = judged(program(KILL))
    assert proof.closed
    assert {verdict.status for verdict in proof.verdicts} == {Status.NOT_ADMITTED}
    assert {verdict.door.abi for verdict in proof.verdicts} == {X86_64, X86, X32}


def test_everything_is_allowed() -> None:
    proof = judged(program(ALLOW))
    assert not proof.holds
    assert {verdict.door.abi for verdict in proof.verdicts} == set(ABIS.values())
    assert {verdict.status for verdict in proof.verdicts} == {Status.BREACHED, Status.MODULE_LOAD}
    assert proof.stranger is not None
    assert proof.stranger.data.arch not in {abi.audit_arch for abi in ABIS.values()}


def test_no_filter_at_all_opens_the_machines_doors_and_no_others() -> None:
    proof = judged(native=S390X)
    assert {verdict.door.abi for verdict in proof.verdicts} == {S390X, abi_named("s390")}
    assert {verdict.status for verdict in proof.verdicts} == {Status.BREACHED, Status.MODULE_LOAD}
    assert proof.stranger is None


@pytest.mark.parametrize("abi", ABIS.values(), ids=lambda abi: abi.short)
def test_all_doors_denied_whole(abi: Abi) -> None:
    """On every ABI: closed if all its doors are denied, breached if any one of them is left."""
    numbers = everything_of(abi)
    twin = {X86_64: X32, X32: X86_64}.get(abi)
    others = everything_of(twin) if twin else ()
    proof = judged(denying(abi, *numbers, *others), native=abi)
    assert proof.closed
    assert status(proof, abi, "socket", "AF_VSOCK") is Status.CLOSED
    for left_out in numbers:
        breached = judged(denying(abi, *(number for number in numbers if number != left_out), *others), native=abi)
        assert not breached.holds
        assert {call.data.nr for call in breached.counterexamples} == {left_out}
        assert {call.door.abi for call in breached.counterexamples if call.door} == {abi}


@pytest.mark.parametrize("abi", [X86_64, S390X, AARCH64], ids=lambda abi: abi.short)
def test_the_kernel_reads_the_low_half_only(abi: Abi) -> None:
    """A filter that looks at both halves of the family is one that a high half gets by."""
    low, high = (ARG0_LOW, ARG0_HIGH) if abi.little_endian else (ARG0_HIGH, ARG0_LOW)
    twin = everything_of(X32) if abi is X86_64 else ()
    rest = [number for number in (*everything_of(abi), *twin) if number != abi.socket]
    doors_else = [part for number in rest for part in (jump(op.JEQ, number, 0, 1), errno(1))]

    def filtered(word: int) -> Program:
        both = (load(word), jump(op.JEQ, 0, 0, 4)) if word == high else ()
        families = (load(low), jump(op.JEQ, 38, 1, 0), jump(op.JEQ, 40, 0, 1), errno(97))
        return only(abi, *doors_else, jump(op.JEQ, abi.socket, 0, len(both) + len(families)), *both, *families, ALLOW)

    assert judged(filtered(low), native=abi).closed
    proof = judged(filtered(high), native=abi)
    assert [call.data.args[0] for call in proof.counterexamples] == [1 << 32 | 38, 1 << 32 | 40]


def test_the_numbers_of_x32_are_their_own() -> None:
    proof = judged(denying(X86_64, *everything_of(X86_64)))
    assert status(proof, X86_64, "socket", "AF_ALG") is Status.CLOSED
    assert status(proof, X32, "socket", "AF_ALG") is Status.BREACHED
    below = only(X86_64, jump(op.JGE, 0x4000_0000, 0, 1), errno(1), *denying(X86_64, *everything_of(X86_64))[4:])
    proof = judged(below)
    assert proof.closed
    assert status(proof, X32, "socket", "AF_ALG") is Status.NOT_ADMITTED


def test_an_architecture_that_does_not_exist_is_no_way_around() -> None:
    blind = program(load(ARCH), jump(op.JEQ, 0x1234, 1, 0), KILL, ALLOW)
    proof = judged(blind)
    assert proof.stranger is not None
    assert proof.stranger.data.arch == 0x1234
    assert str(proof.stranger) == "architecture 0x00001234: number 0 with (0, 0, 0, 0, 0, 0) gets ALLOW"
    assert not proof.holds


@pytest.mark.parametrize("value", [RET_TRACE, RET_USER_NOTIF, RET_LOG, RET_ALLOW])
def test_what_can_be_answered_with_continue_is_open(value: int) -> None:
    numbers = [number for number in (*everything_of(X86_64), *everything_of(X32)) if number != X86_64.io_uring[0]]
    watched = only(
        X86_64,
        jump(op.JEQ, X86_64.io_uring[0], 0, 1),
        returns(value),
        *(part for number in numbers for part in (jump(op.JEQ, number, 0, 1), errno(1))),
        ALLOW,
    )
    (call,) = judged(watched).counterexamples
    assert call.value == value


def test_a_value_that_the_kernel_does_not_know_kills() -> None:
    assert judged(program(returns(0x7FF8_0000))).closed


def test_stacked_filters_are_judged_together() -> None:
    numbers = (*everything_of(X86_64), *everything_of(X32))
    one, other = denying(X86_64, *numbers[::2]), denying(X86_64, *numbers[1::2])
    assert not judged(one).holds
    assert not judged(other).holds
    assert judged(one, other).closed
    assert judged(other, one).closed


def test_an_unknown_value_that_loses_closes_nothing() -> None:
    """TRACE is stricter than a value above it that would kill: the call goes to the tracer."""
    unknown, traced = program(returns(0x7FF8_0000)), program(returns(RET_TRACE))
    assert judged(unknown).closed
    assert not judged(unknown, traced).holds


def test_doors_left_open_by_policy_are_shown_and_hold() -> None:
    closed = denying(X86, X86.socket, X86.socketpair)
    assert not judged(closed, native=X86).holds
    proof = judged(closed, floor=Floor(socketcall=False, io_uring=False), native=X86)
    assert proof.holds
    assert status(proof, X86, "socketcall(SYS_SOCKET)") is Status.OPEN_BY_POLICY
    assert status(proof, X86, "io_uring_setup") is Status.OPEN_BY_POLICY


def test_the_module_load_through_socketcall_is_named() -> None:
    no_sockets = only(
        X86,
        *(part for number in everything_of(X86)[:-1] for part in (jump(op.JEQ, number, 0, 1), errno(1))),
        jump(op.JEQ, 102, 0, 3),
        load(ARG0_LOW),
        jump(op.JEQ, 1, 0, 1),
        errno(38),
        ALLOW,
    )
    proof = judged(no_sockets, native=X86)
    assert proof.closed
    assert status(proof, X86, "socketcall(SYS_SOCKETPAIR)") is Status.MODULE_LOAD
    pairs = judged(no_sockets, floor=Floor(families=("AF_VSOCK", "AF_UNIX")), native=X86)
    assert [call.data.args[0] for call in pairs.counterexamples] == [8]


def test_a_floor_that_only_watches() -> None:
    watching = replace(FLOOR, action=Action.LOG)
    numbers = (*everything_of(X86_64), *everything_of(X32))
    logged = only(
        X86_64, *(part for number in numbers for part in (jump(op.JEQ, number, 0, 1), returns(RET_LOG))), ALLOW
    )
    proof = judged(logged, floor=watching)
    assert proof.holds
    assert not proof.closed
    assert status(proof, X86_64, "socket", "AF_ALG") is Status.LOGGED
    assert not judged(logged).holds
    silent = judged(program(ALLOW), floor=watching)
    assert not silent.holds
    assert status(judged(denying(X86_64, *numbers), floor=watching), X86_64, "socket", "AF_ALG") is Status.CLOSED


def test_further_system_calls_of_the_floor() -> None:
    floor = Floor(families=(), syscalls=(("ptrace", 1), ("elsewhere", 38)))

    def resolve(name: str, abi: Abi) -> int | None:
        return {("ptrace", X86_64): 101, ("elsewhere", abi_named("s390x")): 7}.get((name, abi))

    body = denying(X86_64, 101)
    assert prove([body], floor, resolve, native=X86_64).closed
    (call,) = prove([denying(X86_64, 102)], floor, resolve, native=X86_64).counterexamples
    assert (call.data.nr, str(call)) == (101, "x86_64 ptrace: number 101 with (0, 0, 0, 0, 0, 0) gets ALLOW")


def test_a_counterexample_is_a_line_that_says_it_all() -> None:
    proof = judged(denying(X86_64, X86_64.socket, *everything_of(X86_64)[2:], *everything_of(X32)))
    assert [str(call) for call in proof.counterexamples] == [
        "x86_64 socketpair: number 53 with (0x26, 0, 0, 0, 0, 0) gets ALLOW, opens AF_ALG",
        "x86_64 socketpair: number 53 with (0x28, 0, 0, 0, 0, 0) gets ALLOW, opens AF_VSOCK",
    ]


def test_what_is_no_filter_is_an_error_and_no_verdict() -> None:
    with pytest.raises(ProgramError):
        judged(program(load(0)))


def sixty_four_bits(multiply: bool) -> Program:
    """A filter that would take factoring to judge: is the product of two arguments this number?"""
    combine = plain((op.MUL if multiply else op.XOR) | op.X)
    return program(load(4), plain(op.TAX), load(6), combine, jump(op.JEQ, 0x7F4A_7C15, 0, 1), ALLOW, KILL)


def test_what_is_too_hard_is_refused_and_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bits, "MOST_STEPS", 50_000)
    assert not judged(sixty_four_bits(multiply=False)).holds
    with pytest.raises(CannotJudgeError, match="computes more than can be judged exactly"):
        judged(sixty_four_bits(multiply=True))


def test_a_filter_that_is_too_hard_hides_nothing_that_another_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bits, "MOST_STEPS", 50_000)
    closed, hard = denying(X86_64, *everything_of(X86_64), *everything_of(X32)), sixty_four_bits(multiply=True)
    assert judged(closed, hard).closed
    with pytest.raises(CannotJudgeError):
        judged(denying(X86_64, 1), hard)


@pytest.mark.parametrize("x", [plain(op.LDX_IMM, 33), load(4)], ids=["constant", "argument"])
def test_a_shift_that_machines_do_differently_is_refused_where_they_do(x: Instruction) -> None:
    """By 32 and more: s390 and others shift everything out, where the interpreter takes the amount modulo 32."""
    amount = [x, plain(op.TAX)] if x.code == op.LD_ABS else [x]
    shift = [*amount, load(6), plain(op.LSH | op.X), jump(op.JEQ, 8, 0, 1), ALLOW, KILL]
    assert not judged(only(X86_64, *shift)).holds
    with pytest.raises(CannotJudgeError):
        judged(only(S390X, *shift), native=S390X)


def test_ways_that_part_and_meet_again_do_not_add_up() -> None:
    """4096 instructions that ask about six arguments in turn, each question for nothing."""
    asking = [
        part
        for k in range(1023)
        for part in (load(4 + 2 * (k % 6)), jump(op.JEQ, k, 1, 0), load(0), jump(op.JEQ, k, 0, 0))
    ]
    assert not judged(program(*asking, errno(1), ALLOW)[:-1]).counterexamples
    assert not judged(program(*asking, ALLOW)).holds


def test_a_program_made_to_be_hard_is_refused() -> None:
    """4096 instructions that count in a register how many of a thousand conditions on six arguments hold."""
    counting = [
        part
        for k in range(817)
        for part in (
            load(4 + 2 * (k * 7 % 6)),
            jump(op.JGT, k * 2_654_435_761 % (1 << 32), 0, 3),
            plain(op.TXA),
            plain(op.ADD, 1),
            plain(op.TAX),
        )
    ]
    with pytest.raises(CannotJudgeError, match="computes more than can be judged exactly"):
        judged(program(*counting, plain(op.TXA), jump(op.JGT, 400, 0, 1), errno(1), ALLOW))
