"""Every trap between a floor and the filter that should hold it.

Each test writes the solution that comes to mind first, shows that the proof refuses it, and that the reconciled section passes.
"""

from __future__ import annotations

from dataclasses import replace
from errno import EACCES, EAFNOSUPPORT, EINVAL, ENOSYS, EPERM

import pytest

from floored import ALL_X86, X32, X86, X86_64, allowed, arg, denied, outcome, profile, rule
from seccomp_floor.abi import Abi, abi_named
from seccomp_floor.bpf.compile import CRUN, RUNC, CompileError, compile_profile
from seccomp_floor.bpf.equivalence import Difference, differences
from seccomp_floor.bpf.libseccomp import library, resolve
from seccomp_floor.bpf.prove import Proof
from seccomp_floor.floor import Floor, Policy
from seccomp_floor.judge import examine, judge
from seccomp_floor.profile import Action, Profile, Syscall, write_profile
from seccomp_floor.reconcile import open_profile

POLICY, FLOOR = Policy(), Floor()
EVERYDAY = "read write close mmap execve exit_group openat2"
LOW = 0xFFFF_FFFF
AF_UNIX, AF_INET, AF_NETLINK, AF_ALG, AF_VSOCK = 1, 2, 16, 38, 40
HIGH = 1 << 32
IO_URING = "io_uring_setup io_uring_enter io_uring_register"
S390X, PPC64LE = map(abi_named, ("s390x", "ppc64le"))


def low_is(family: int) -> object:
    """The condition that is exact: the low half alone."""
    return arg(0, "MASKED_EQ", LOW, family)


def families_denied(*families: int) -> list[Syscall]:
    """What seems to be the whole floor."""
    return [denied("socket", EAFNOSUPPORT, arg(0, "MASKED_EQ", LOW, family)) for family in families]


def proof_of(section: Profile) -> Proof:
    """The proof of a section as it stands."""
    return examine(section, FLOOR, X86_64)


def reconciled(given: Profile | None, policy: Policy = POLICY, native: Abi = X86_64) -> Profile:
    """The section, after checking that it is proven and exact."""
    judgement = judge(given, policy, native)
    assert judgement.proof.holds
    assert judgement.differences == ()
    assert judgement.section is not None
    return judgement.section


def missed(given: Profile | None, section: Profile) -> tuple[Difference, ...]:
    """Where a section is not the meet of profile and floor."""
    programs = [compile_profile(one, X86_64) if one else None for one in (given, section)]
    assert programs[1] is not None
    return differences(programs[0], programs[1], FLOOR, resolve, native=X86_64)


# 1: high halves


@pytest.mark.parametrize("op", ["NE", "GT"])
def test_high_halves(op: str) -> None:
    below = allowed("socket", arg(0, "LT", 38)), allowed("socket", arg(0, "EQ", 39))
    given = profile(allowed(EVERYDAY), *below, allowed("socket", arg(0, op, 40)))
    assert proof_of(given).counterexamples
    section = reconciled(given)
    for family in (AF_ALG, AF_VSOCK):
        assert outcome(section, "socket", HIGH | family) == "ERRNO(EAFNOSUPPORT)"
        assert outcome(section, "socket", 0xABCD_0000_0000_0000 | family) == "ERRNO(EAFNOSUPPORT)"
    assert outcome(section, "socket", HIGH | AF_INET) == outcome(given, "socket", HIGH | AF_INET) == "ALLOW"


def test_a_family_that_the_profile_denies_keeps_its_errno() -> None:
    """EPERM by default for the plain value, and the floor's errno only where the profile would have let a high half through."""
    given = profile(
        allowed(EVERYDAY), allowed("socket", arg(0, "LT", 38)), allowed("socket", arg(0, "EQ", 39)),
        allowed("socket", arg(0, "GT", 40)),
    )  # fmt: skip
    section = reconciled(given)
    assert outcome(section, "socket", AF_VSOCK) == "ERRNO(EPERM)"
    assert outcome(section, "socket", HIGH | AF_VSOCK) == "ERRNO(EAFNOSUPPORT)"
    assert outcome(section, "socket", AF_VSOCK, abi=X86) == "ERRNO(EPERM)"
    assert outcome(section, "socket", 1000) == outcome(section, "socket", HIGH | 1000) == "ALLOW"


def test_an_explicit_errno_stays_too() -> None:
    given = profile(denied("socket", EACCES, arg(0, "EQ", AF_VSOCK)), default=Action.ALLOW)
    section = reconciled(given)
    assert outcome(section, "socket", AF_VSOCK) == "ERRNO(EACCES)"
    assert outcome(section, "socket", HIGH | AF_VSOCK) == "ERRNO(EAFNOSUPPORT)"


# 2: socketcall's companion


def test_the_companion_opens_what_the_rule_denies() -> None:
    """A rule that allows one family allows all of them through socketcall."""
    given = profile(allowed(EVERYDAY), allowed("socket", arg(0, "EQ", AF_INET)))
    breach = proof_of(given).counterexamples[0]
    assert breach.door is not None
    assert breach.door.name == "socketcall(SYS_SOCKET)"
    section = reconciled(given)
    assert outcome(section, "socketcall", 1, abi=X86) == "ERRNO(ENOSYS)"
    assert outcome(section, "socket", AF_INET, abi=X86) == "ALLOW"


def test_companions_of_other_calls_stay() -> None:
    given = profile(allowed(EVERYDAY + " connect socketpair"), allowed("socket", arg(0, "EQ", AF_INET)))
    section = reconciled(given)
    assert outcome(section, "socketcall", 3, abi=X86) == "ALLOW"  # connect
    assert outcome(section, "socketcall", 8, abi=X86) == "ALLOW"  # socketpair
    assert outcome(section, "socketcall", 4, abi=X86) == "ERRNO(EPERM)"  # listen


def test_an_unconditional_socketcall_swallows_a_denial() -> None:
    obvious = profile(
        denied("socketcall", ENOSYS, arg(0, "MASKED_EQ", LOW, 1)),
        *families_denied(AF_ALG, AF_VSOCK),
        allowed(EVERYDAY + " socketcall"),
        allowed("socket", arg(0, "GE", 0), arg(5, "GE", 0)),
    )
    assert outcome(obvious, "socketcall", 1, abi=X86) == "ALLOW"
    section = reconciled(profile(allowed(EVERYDAY + " socket socketcall")))
    assert outcome(section, "socketcall", 1, abi=X86) == "ERRNO(ENOSYS)"
    assert outcome(section, "socketcall", 2, abi=X86) == "ALLOW"


def test_an_unconditional_denial_shuts_every_sub_call() -> None:
    obvious = profile(
        denied("socketcall", ENOSYS), *families_denied(AF_ALG, AF_VSOCK), allowed("connect"), default=Action.ALLOW
    )
    assert outcome(obvious, "socketcall", 3, abi=X86) == "ERRNO(ENOSYS)"
    assert outcome(reconciled(None), "socketcall", 3, abi=X86) == "ALLOW"


def test_the_companion_of_a_denied_pair_takes_all_pairs() -> None:
    """Denying ``socketpair`` for two families takes Unix pairs from 32-bit programs: the denial's companion has no family."""
    obvious = profile(
        denied("socketcall", ENOSYS, arg(0, "MASKED_EQ", LOW, 1)),
        *families_denied(AF_ALG, AF_VSOCK),
        *(denied("socketpair", EAFNOSUPPORT, arg(0, "MASKED_EQ", LOW, family)) for family in (AF_ALG, AF_VSOCK)),
        denied(IO_URING, ENOSYS),
        default=Action.ALLOW,
    )
    assert proof_of(obvious).closed
    assert [str(found) for found in missed(None, obvious)] == [
        "x86 102, args[0] low in 0x8: expected ALLOW, got ERRNO(EAFNOSUPPORT)"
    ]
    section = reconciled(None)
    assert outcome(section, "socketcall", 8, abi=X86) == "ALLOW"
    assert outcome(section, "socketpair", AF_VSOCK, abi=X86) == "ERRNO(EAFNOSUPPORT)"


def test_pairs_are_denied_behind_socketcall_where_a_family_has_them() -> None:
    section = reconciled(None, replace(POLICY, floor=Floor(families=("AF_TIPC",))))
    assert outcome(section, "socketcall", 8, abi=X86) == "ERRNO(ENOSYS)"
    assert outcome(section, "socketpair", AF_UNIX, abi=X86) == "ALLOW"


# 3: rules equal to the default


def test_a_denial_equal_to_the_default_vanishes() -> None:
    """Docker's answer of April 2026 had to give socketcall ENOSYS, since EPERM would have been nothing under an EPERM default."""
    obvious = profile(
        denied("socketcall", EPERM),
        *families_denied(AF_ALG, AF_VSOCK),
        allowed(EVERYDAY),
        allowed("socket", arg(0, "GE", 0)),
    )
    with pytest.raises(CompileError):
        compile_profile(obvious, X86_64)
    plain = profile(denied("socketcall", EPERM), allowed(EVERYDAY), allowed("socket", arg(0, "EQ", AF_INET)))
    breach = proof_of(plain).counterexamples[0]
    assert breach.door is not None
    assert breach.door.name == "socketcall(SYS_SOCKET)"


def test_enosys_under_a_default_of_enosys() -> None:
    """Podman's and CRI-O's default errno is the floor's own answer for socketcall, which no rule can therefore give."""
    given = profile(allowed(EVERYDAY + " socket socketcall socketpair io_uring_setup"), errno=ENOSYS)
    obvious = replace(given, syscalls=(denied("socketcall", ENOSYS, arg(0, "MASKED_EQ", LOW, 1)), *given.syscalls))
    assert proof_of(obvious).counterexamples
    section = reconciled(given)
    assert outcome(section, "socketcall", 1, abi=X86) == "ERRNO(ENOSYS)"
    assert outcome(section, "socketcall", 2, abi=X86) == "ALLOW"
    assert outcome(section, "io_uring_setup") == "ERRNO(ENOSYS)"


# 4: the lost load

SMALLEST = profile(denied("socketcall", ENOSYS), *families_denied(AF_ALG, AF_VSOCK), default=Action.ALLOW)


def test_the_lost_load() -> None:
    """The smallest floor for an Unconfined pod denies nothing at all on x86_64 as soon as the filter also knows x32."""
    assert outcome(SMALLEST, "socket", AF_VSOCK) == "ALLOW"
    found = {(call.door.abi, call.door.name) for call in proof_of(SMALLEST).counterexamples if call.door}
    assert {(X86_64, "socket"), (X32, "socket")} <= found
    assert not any(
        call.door and call.door.name == "socket"
        for call in proof_of(replace(SMALLEST, architectures=ALL_X86[:2])).counterexamples
    )


@pytest.mark.parametrize("io_uring", [True, False])
@pytest.mark.parametrize("socketcall", [True, False])
@pytest.mark.parametrize("families", [("AF_ALG",), ("AF_ALG", "AF_VSOCK"), ("AF_ALG", "AF_VSOCK", "AF_RDS", "AF_TIPC", "AF_CAN",
                                       "AF_NFC", "AF_KCM", "AF_XDP", "AF_LLC", "AF_ISDN", "AF_CAIF", "AF_IB")])  # fmt: skip
@pytest.mark.parametrize("native", ["x86_64", "aarch64", "riscv64", "mips64", "x86", "arm"])
def test_no_load_is_lost_whatever_doors_the_policy_leaves_open(
    native: str, families: tuple[str, ...], socketcall: bool, io_uring: bool
) -> None:
    floor = Floor(families=families, socketcall=socketcall, io_uring=io_uring)
    reconciled(None, replace(POLICY, floor=floor), abi_named(native))


def test_a_rule_that_never_holds_saves_the_load_where_nothing_else_does() -> None:
    given = profile(allowed("socket"), errno=EACCES)
    judgement = judge(given, POLICY, X86_64)
    assert judgement.proof.closed
    assert judgement.section is not None
    assert outcome(judgement.section, "socket", AF_INET) == "ALLOW"
    assert outcome(judgement.section, "read") == outcome(given, "read") == "ERRNO(EACCES)"


# 5: io_uring


def test_io_uring() -> None:
    assert outcome(reconciled(profile(allowed(EVERYDAY + " socket " + IO_URING))), "io_uring_setup") == "ERRNO(ENOSYS)"
    kept = profile(denied("io_uring_setup", EACCES), default=Action.ALLOW)
    section = reconciled(kept)
    assert outcome(section, "io_uring_setup") == "ERRNO(EACCES)"
    assert outcome(section, "io_uring_enter") == "ERRNO(ENOSYS)"


def test_conditions_of_a_call_that_is_denied_stay() -> None:
    """What the profile denied of it keeps its own errno."""
    given = profile(allowed(EVERYDAY), allowed("io_uring_setup", arg(0, "LT", 10)), errno=EACCES)
    section = reconciled(given)
    assert outcome(section, "io_uring_setup", 9) == "ERRNO(ENOSYS)"
    assert outcome(section, "io_uring_setup", 10) == "ERRNO(EACCES)"


def test_a_door_left_open_stays_open() -> None:
    open_doors = replace(POLICY, floor=Floor(socketcall=False, io_uring=False))
    section = reconciled(None, open_doors)
    assert outcome(section, "socketcall", 1, abi=X86) == outcome(section, "io_uring_setup") == "ALLOW"
    assert outcome(section, "socket", AF_ALG, abi=X86) == "ERRNO(EAFNOSUPPORT)"


# 6 and 7: repeated arguments, contradictions


def test_two_conditions_on_one_argument() -> None:
    both = (arg(0, "NE", AF_ALG), arg(0, "NE", AF_VSOCK))
    given = profile(allowed(EVERYDAY), allowed("socket", *both))
    assert outcome(given, "socket", AF_ALG) == "ALLOW"
    assert outcome(reconciled(given), "socket", AF_ALG) == "ERRNO(EAFNOSUPPORT)"


def test_a_denial_of_what_a_rule_allows_collides() -> None:
    given = profile(
        allowed(EVERYDAY), allowed("socket", arg(0, "EQ", AF_INET)), allowed("socket", arg(0, "EQ", AF_VSOCK))
    )
    obvious = replace(given, syscalls=(denied("socket", EAFNOSUPPORT, arg(0, "EQ", AF_VSOCK)), *given.syscalls))
    with pytest.raises(CompileError, match=r"\(-17\)"):
        compile_profile(obvious, X86_64)
    section = reconciled(given)
    assert outcome(section, "socket", AF_VSOCK) == "ERRNO(EAFNOSUPPORT)"
    assert outcome(section, "socket", AF_INET) == "ALLOW"


# 8: the stub, architectures, flags


def test_the_stub_does_not_move() -> None:
    """A profile that ends at rseq gave ENOSYS from there on; denying io_uring by name would give EPERM up to 427."""
    given = profile(allowed("read write close rseq socket"))
    obvious = replace(given, syscalls=(*given.syscalls, denied(IO_URING, ENOSYS)))
    assert (outcome(given, "pidfd_send_signal"), outcome(obvious, "pidfd_send_signal")) == (
        "ERRNO(ENOSYS)",
        "ERRNO(EPERM)",
    )
    section = reconciled(given)
    assert outcome(section, "pidfd_send_signal") == outcome(section, "io_uring_setup") == "ERRNO(ENOSYS)"


def test_what_the_stub_closes_needs_no_rule() -> None:
    """On x86 this profile ends at 4: everything about sockets is ENOSYS there, and the numbers up to socketcall's must stay so."""
    given = profile(allowed("read write socket"))
    section = reconciled(given)
    assert all("socketcall" not in rule.names for rule in section.syscalls)
    assert outcome(section, "getpid", abi=X86) == "ERRNO(ENOSYS)"
    by_crun = judge(given, POLICY, X86_64, runtime=CRUN).section  # crun has no stub
    assert by_crun is not None
    assert outcome(by_crun, "socketcall", 1, abi=X86, runtime=CRUN) == "ERRNO(ENOSYS)"


def test_clone3_stays_enosys() -> None:
    given = profile(allowed(EVERYDAY + " socket clone"), denied("clone3", ENOSYS))
    assert outcome(reconciled(given), "clone3") == "ERRNO(ENOSYS)"


def test_no_profile_lists_every_abi() -> None:
    """A section without them would kill 32-bit programs at their first call."""
    section = reconciled(None)
    assert section.architectures == ALL_X86
    assert {outcome(section, "getpid", abi=abi) for abi in (X86_64, X86, X32)} == {"ALLOW"}
    assert section.flags is None


def test_a_profile_without_architectures_stays_native_only() -> None:
    section = reconciled(profile(allowed(EVERYDAY + " socket"), architectures=()))
    assert section.architectures == ()
    assert outcome(section, "getpid", abi=X86) == "KILL_THREAD"


@pytest.mark.parametrize("flags", [None, (), ("SECCOMP_FILTER_FLAG_LOG",)])
def test_flags_stay_to_the_letter(flags: tuple[str, ...] | None) -> None:
    given = replace(
        profile(allowed(EVERYDAY + " socket")), flags=flags, listener_path="/run/agent", listener_metadata="x"
    )
    section = reconciled(given)
    assert (section.flags, section.listener_path, section.listener_metadata) == (flags, "/run/agent", "x")


# More of libseccomp


def test_not_equal_on_a_32_bit_abi() -> None:
    """Equality and inequality are asked from the greatest value down: ``!= 50`` would come before the denial of 38."""
    given = profile(allowed(EVERYDAY), allowed("socket", arg(0, "NE", 50)))
    obvious = replace(
        given,
        syscalls=(denied("socketcall", ENOSYS, arg(0, "MASKED_EQ", LOW, 1)), allowed("socketcall", arg(0, "EQ", 1)),
                  *(replace(one, args=(*one.args, arg(5, "GE", 0))) for one in families_denied(AF_ALG, AF_VSOCK)),
                  *given.syscalls),
    )  # fmt: skip
    assert outcome(obvious, "socket", AF_ALG, abi=X86) == "ALLOW"
    section = reconciled(given)
    assert outcome(section, "socket", AF_ALG, abi=X86) == "ERRNO(EAFNOSUPPORT)"
    assert outcome(section, "socket", 50, abi=X86) == "ERRNO(EPERM)"


def test_conditions_on_other_arguments_come_first() -> None:
    """A rule without argument 0 is asked before every denial of a family."""
    given = profile(allowed(EVERYDAY), allowed("socket", arg(1, "EQ", 1)))
    assert outcome(reconciled(given), "socket", AF_ALG, 1) == "ERRNO(EAFNOSUPPORT)"
    assert outcome(reconciled(given), "socket", AF_ALG, 2) == "ERRNO(EPERM)"
    assert outcome(reconciled(given), "socket", AF_INET, 1) == "ALLOW"


@pytest.mark.parametrize(
    "rules",
    [
        (allowed("socket"),),
        (allowed("socket", arg(0, "EQ", 2), arg(1, "EQ", 1)), allowed("socket", arg(0, "EQ", 16), arg(2, "EQ", 0))),
        (allowed("socket", arg(0, "MASKED_EQ", 0xFFFF_FFFF_FFFF_FFE0, 0)),),
        (allowed("socket", arg(0, "LE", 39)), denied("socket", EINVAL, arg(0, "EQ", 16), arg(2, "EQ", 9))),
        (rule("socket", Action.NOTIFY),),
        (rule("socket", Action.TRACE, 7), rule("socketcall", Action.LOG)),
        (allowed("socket", arg(0, "GE", 2)), allowed("socketpair", arg(0, "EQ", 1))),
        (allowed("socketpair socketcall connect"),),
    ],
)
@pytest.mark.parametrize(
    ("default", "errno"),
    [(Action.ERRNO, None), (Action.ERRNO, EACCES), (Action.KILL_PROCESS, None), (Action.TRAP, None)],
)
def test_profiles_of_many_shapes(rules: tuple[Syscall, ...], default: Action, errno: int | None) -> None:
    for many in ("", " " + " ".join(f"{name}{end}" for name in ("getuid", "setuid", "chown") for end in ("", "32"))):
        reconciled(profile(allowed(EVERYDAY + many), *rules, default=default, errno=errno))


@pytest.mark.parametrize("default", [Action.ALLOW, Action.LOG, Action.TRACE])
def test_permissive_defaults(default: Action) -> None:
    reconciled(profile(default=default))
    reconciled(profile(denied("ptrace", EPERM), denied("socket", EACCES, arg(1, "EQ", 3)), default=default))


def test_watching() -> None:
    """A floor that only watches logs where it would deny, and leaves everything else as it is."""
    watching = replace(POLICY, floor=Floor(action=Action.LOG))
    for given in (None, profile(allowed(EVERYDAY + " socket socketcall"))):
        section = reconciled(given, watching)
        assert outcome(section, "socket", AF_ALG) == outcome(section, "socketcall", 1, abi=X86) == "LOG"
        assert outcome(section, "socket", AF_INET) == "ALLOW"


def test_further_calls() -> None:
    further = replace(POLICY, floor=Floor(syscalls=(("kexec_load", EPERM), ("userfaultfd", EACCES))))
    section = reconciled(profile(allowed(EVERYDAY + " userfaultfd socket")), further)
    assert (outcome(section, "userfaultfd"), outcome(section, "kexec_load")) == ("ERRNO(EACCES)", "ERRNO(EPERM)")
    whole = replace(POLICY, floor=Floor(syscalls=(("socket", EPERM), ("socketcall", EPERM))))
    section = reconciled(None, whole)
    assert outcome(section, "socket", AF_INET) == outcome(section, "socketcall", 3, abi=X86) == "ERRNO(EPERM)"
    assert outcome(section, "socketpair", AF_ALG) == "ERRNO(EAFNOSUPPORT)"


# What stays


def test_what_holds_already_stays_as_it_is() -> None:
    given = profile(allowed(EVERYDAY), allowed("personality", arg(0, "EQ", 0)), denied("clone3", ENOSYS))
    judgement = judge(given, POLICY, X86_64)
    assert judgement.section is given
    assert judgement.changes == ()


def test_a_section_of_a_section_is_itself() -> None:
    for given in (None, SMALLEST, profile(allowed(EVERYDAY + " socket socketcall socketpair"))):
        section = reconciled(given)
        again = judge(section, POLICY, X86_64)
        assert again.section is section
        assert again.changes == ()


def test_unrelated_rules_keep_their_order() -> None:
    unrelated = (
        allowed(EVERYDAY), denied("ptrace", EINVAL), allowed("personality", arg(0, "EQ", 8)), denied("clone3", ENOSYS),
        rule("mount", Action.NOTIFY),
    )  # fmt: skip
    given = profile(unrelated[0], allowed("socket"), *unrelated[1:3], allowed("io_uring_setup"), *unrelated[3:])
    assert [rule for rule in reconciled(given).syscalls if rule in unrelated] == list(unrelated)


def test_names_are_taken_out_of_longer_rules() -> None:
    section = reconciled(profile(allowed("read socket write io_uring_enter close")))
    assert allowed("read write close") in section.syscalls


def test_every_change_has_its_reason() -> None:
    given = profile(allowed(EVERYDAY + " socket io_uring_setup"))
    judgement = judge(given, POLICY, X86_64)
    assert judgement.section is not None
    touched = {change.reason.split(":")[0].split()[0]: change for change in judgement.changes}
    assert set(touched) == {"socketcall", "socket", "io_uring_setup"}
    assert touched["io_uring_setup"].before == (allowed("io_uring_setup"),)
    assert touched["io_uring_setup"].after == (denied("io_uring_setup", ENOSYS),)
    after = [rule for change in judgement.changes for rule in change.after]
    assert all(
        rule in given.syscalls or rule in after or rule == allowed(EVERYDAY) for rule in judgement.section.syscalls
    )


def test_sections_can_be_written() -> None:
    """Every number of a section fits the types of runtime-spec's JSON."""
    section = write_profile(reconciled(profile(allowed("socket", arg(0, "NE", 40)), allowed(EVERYDAY))))
    values = [one["value"] for rule in section["syscalls"] for one in rule.get("args", [])]
    assert all(0 <= value < 1 << 64 for value in values)


# 64-bit ABIs with socketcall


@pytest.mark.parametrize("native", [S390X, PPC64LE])
def test_where_companions_cannot_be_dropped(native: Abi) -> None:
    """Under a permissive default a companion is absorbed by no rule: there the default is said by name instead, and only numbers
    that no call has get another answer."""
    judgement = judge(None, POLICY, native)
    section = judgement.section
    assert judgement.proof.closed
    assert section is not None
    assert {outcome(section, "socketcall", call, abi=native, native=native) for call in (3, 8)} == {"ALLOW"}
    assert outcome(section, "socketcall", 1, abi=native, native=native) == "ERRNO(ENOSYS)"
    for different in judgement.differences:
        assert different.abi is not None
        known = library().names(different.abi).values()
        assert not any(first <= number <= last for number in known for first, last in different.numbers)


@pytest.mark.parametrize("native", [S390X, PPC64LE])
def test_high_halves_of_socketcalls_own_argument(native: Abi) -> None:
    """The kernel drops them; a filter of a 64-bit ABI sees them."""
    architectures = tuple(name for name in open_profile(native).architectures)
    given = profile(allowed(EVERYDAY + " socket socketcall"), architectures=architectures)
    section = reconciled(given, native=native)
    assert outcome(section, "socketcall", HIGH | 1, abi=native, native=native) == "ERRNO(ENOSYS)"
    listed = profile(allowed(EVERYDAY), allowed("socket", arg(0, "EQ", 2)), architectures=architectures)
    section = reconciled(listed, native=native)
    assert outcome(section, "socketcall", 1, abi=native, native=native) == "ERRNO(ENOSYS)"
    assert outcome(section, "socketcall", HIGH | 1, abi=native, native=native) == "ERRNO(EPERM)"


def test_runc_is_the_runtime_where_none_is_named() -> None:
    assert judge(None, POLICY, X86_64) == judge(None, POLICY, X86_64, runtime=RUNC)


@pytest.mark.parametrize("errno", [EPERM, EACCES])
def test_a_multiplexer_denied_whole(errno: int) -> None:
    """Every allowed call behind it would open it again."""
    both = replace(POLICY, floor=Floor(syscalls=(("bind", errno), ("socketcall", errno))))
    given = profile(allowed(EVERYDAY + " socket bind connect listen"))
    obvious = replace(given, syscalls=(*given.syscalls, denied("socketcall", errno)))
    judgement = judge(given, both, X86_64)
    assert judgement.proof.closed
    assert judgement.section is not None
    assert outcome(obvious, "socketcall", 3, abi=X86) == ("ALLOW" if errno == EPERM else "ERRNO(EACCES)")
    assert outcome(judgement.section, "socketcall", 3, abi=X86).startswith("ERRNO")
    assert outcome(judgement.section, "connect", abi=X86) == "ALLOW"
