"""The judge: what it hands on, what it refuses, and on which ways and runtimes."""

from __future__ import annotations

from dataclasses import replace
from errno import ENOSYS

import pytest

from floored import ALL_X86, X86, X86_64, allowed, arg, denied, outcome, profile, rule
from seccomp_floor import judge as judging
from seccomp_floor.abi import Abi, abi_named
from seccomp_floor.bpf.compile import CRUN, RUNC, CompileError, RuntimeModel
from seccomp_floor.bpf.libseccomp import name_of
from seccomp_floor.bpf.program import RET_ERRNO
from seccomp_floor.confine import TooSlow, confined
from seccomp_floor.errors import InputError
from seccomp_floor.floor import Apply, Floor, OnNoProfile, Policy
from seccomp_floor.judge import Judgement, Unprovable, Way, examine, judge
from seccomp_floor.profile import Action, Profile
from seccomp_floor.reconcile import Candidate
from seccomp_floor.reconcile.hardened import hardened_profile

POLICY = Policy()
HARDENED = Policy(apply=Apply(no_profile=OnNoProfile.HARDENED))
EVERYDAY = "read write close mmap execve exit_group openat2"


def test_a_profile_that_the_runtime_refuses_is_refused() -> None:
    given = profile(denied("read", 5, arg(0, "EQ", 1)), allowed("read", arg(0, "EQ", 1)))
    with pytest.raises(CompileError, match="the rule for read"):
        judge(given, POLICY, X86_64)
    with pytest.raises(CompileError, match="NOTIFY"):
        judge(profile(default=Action.NOTIFY), POLICY, X86_64)


def test_a_floor_that_denies_nothing_needs_no_section() -> None:
    judgement = judge(None, Policy(floor=Floor(families=())), X86_64)
    assert (judgement.section, judgement.changes, judgement.differences) == (None, (), ())


def test_a_floor_with_a_name_that_nobody_knows() -> None:
    """It would deny less than it says."""
    with pytest.raises(InputError, match=r"floor.syscalls: expected the name of a system call .* got 'kexec_laod'"):
        judge(None, Policy(floor=Floor(syscalls=(("kexec_laod", 1),))), X86_64)


def test_examine_judges_what_is_there() -> None:
    given = profile(allowed(EVERYDAY + " socket"))
    assert not examine(given, POLICY.floor, X86_64).holds
    section = judge(given, POLICY, X86_64).section
    assert section is not None
    assert examine(section, POLICY.floor, X86_64).closed


def test_what_cannot_be_proven_is_refused_with_the_counterexample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were every section wrong, none would be handed on."""
    given = profile(allowed(EVERYDAY + " socket"))
    wrong = replace(given, syscalls=(*given.syscalls, denied("ptrace", ENOSYS)))
    monkeypatch.setattr(judging, "candidates", lambda *_, **__: iter([Candidate(wrong, ())]))
    with pytest.raises(Unprovable, match=r"no section could be proven.*x86_64 socket: number 41 with .*opens AF_ALG"):
        judge(given, POLICY, X86_64)


def test_the_closed_one_with_the_least_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    given = profile(allowed(EVERYDAY + " socket"))
    right = judge(given, POLICY, X86_64).section
    assert right is not None
    rougher = replace(right, syscalls=(denied("close", 13), denied("read", ENOSYS), *right.syscalls))
    rough = replace(right, syscalls=(denied("read", ENOSYS), *right.syscalls))
    handed = [Candidate(given, ()), Candidate(rougher, ()), Candidate(rough, ())]
    monkeypatch.setattr(judging, "candidates", lambda *_, **__: iter(handed))
    judgement = judge(given, POLICY, X86_64)
    assert judgement.section == rough
    assert {(found.numbers, found.got) for found in judgement.differences if found.abi == X86_64} == {
        (((0, 0),), RET_ERRNO | ENOSYS)
    }


# The way through NRI


def test_nri_loses_the_defaults_errno() -> None:
    """Sent as it is, a section would arrive with EPERM for everything that it denies by default, and rules of EPERM's own would be
    gone."""
    given = profile(allowed(EVERYDAY + " socket"), errno=ENOSYS)
    section = judge(given, POLICY, X86_64).section
    assert section is not None
    arrived = Way.NRI.arrives(section)
    assert outcome(section, "getpid") == "ERRNO(ENOSYS)"
    assert outcome(arrived, "getpid") == "ERRNO(EPERM)"

    judgement = judge(given, POLICY, X86_64, way=Way.NRI)
    assert judgement.section is not None
    arrived = Way.NRI.arrives(judgement.section)
    for name in ("getpid", "clone3", "io_uring_setup", "ptrace"):
        assert outcome(arrived, name) == "ERRNO(ENOSYS)"
    assert outcome(arrived, "openat2") == "ALLOW"


def test_what_is_lost_on_the_way_is_said() -> None:
    """Numbers that no call has cannot be named."""
    given = profile(allowed(EVERYDAY + " socket futex_waitv"), errno=ENOSYS)
    judgement = judge(given, POLICY, X86_64, way=Way.NRI)
    assert judgement.differences
    found = [different for different in judgement.differences if different.abi == X86_64]
    assert found[0].numbers[0] == (335, 423)
    assert len(found) == 1
    assert not any(name_of(number, X86_64) for first, last in found[0].numbers for number in range(first, last + 1))


def test_a_profile_that_stays_as_it_is_loses_nothing() -> None:
    """It is not sent at all."""
    given = profile(allowed(EVERYDAY), errno=ENOSYS)
    judgement = judge(given, POLICY, X86_64, way=Way.NRI)
    assert judgement.section is given
    assert judgement.differences == ()


@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("given", [None, profile(allowed(EVERYDAY + " socket")), profile(default=Action.LOG)])
def test_sections_without_an_errno_of_their_own_are_the_same_on_every_way(given: Profile | None, way: Way) -> None:
    assert judge(given, POLICY, X86_64, way=way) == judge(given, POLICY, X86_64)


def test_flags_on_the_way() -> None:
    for flags, arrives in ((None, None), ((), None), (("SECCOMP_FILTER_FLAG_LOG",), ("SECCOMP_FILTER_FLAG_LOG",))):
        assert Way.NRI.arrives(replace(profile(), flags=flags)).flags == arrives
        assert Way.SPEC.arrives(replace(profile(), flags=flags)).flags == flags


# The hardened profile


@pytest.mark.parametrize("runtime", [RUNC, CRUN], ids=lambda runtime: runtime.name)
@pytest.mark.parametrize("native", ["x86_64", "aarch64", "s390x", "ppc64le", "riscv64", "mips64", "arm"])
def test_the_hardened_profile_is_proven_everywhere(native: str, runtime: RuntimeModel) -> None:
    abi = abi_named(native)
    judgement = judge(None, HARDENED, abi, runtime=runtime)
    assert judgement.proof.closed
    assert judgement.differences == ()
    assert judgement.section is not None

    def gets(name: str, *args: int) -> str:
        assert judgement.section is not None
        return outcome(judgement.section, name, *args, abi=abi, native=abi, runtime=runtime)

    assert {gets(name) for name in ("read", "execve", "futex", "socket", "ptrace")} == {"ALLOW"}
    assert {gets(name) for name in ("mount", "bpf", "keyctl", "init_module")} == {"ERRNO(EPERM)"}
    assert gets("clone3") == "ERRNO(ENOSYS)"
    assert gets("personality", 0xFFFF_FFFF) == "ALLOW"
    assert gets("personality", 0x0040_0000) == "ERRNO(EPERM)"  # ADDR_NO_RANDOMIZE


def test_clone_without_new_namespaces() -> None:
    """On s390 the flags are the second argument."""
    flags = 0x1000_0000  # CLONE_NEWUSER
    for native, args in (("x86_64", (flags,)), ("s390x", (0, flags))):
        abi = abi_named(native)
        given = hardened_profile(abi)
        assert outcome(given, "clone", *args, abi=abi, native=abi) == "ERRNO(EPERM)"
        assert outcome(given, "clone", 0x11, abi=abi, native=abi) == "ALLOW"


def test_a_container_with_a_profile_keeps_it() -> None:
    given = profile(allowed(EVERYDAY))
    assert judge(given, HARDENED, X86_64).section is given


def test_the_reason_is_said_where_a_profile_is_added() -> None:
    assert judge(None, HARDENED, X86_64).changes[0].reason == "a container without a profile gets the hardened one"


# Hostile profiles


def endless() -> Profile:
    """Two rules of which libseccomp adds the second for ever."""
    return profile(
        allowed("read", arg(0, "GE", 0), arg(1, "EQ", 1)),
        allowed("read", arg(0, "GE", 0), arg(2, "EQ", 5)),
        architectures=(),
    )


def test_a_profile_that_makes_libseccomp_loop() -> None:
    with pytest.raises(TooSlow):
        confined(judge, endless(), POLICY, X86_64, seconds=1)


def test_answers_come_back_from_confinement_as_they_were() -> None:
    for given in (None, profile(allowed(EVERYDAY + " socket"), errno=ENOSYS)):
        answer: Judgement = confined(_by_nri, given, X86_64, seconds=60)
        assert answer == _by_nri(given, X86_64)


def _by_nri(given: Profile | None, native: Abi) -> Judgement:
    return judge(given, POLICY, native, way=Way.NRI)


def test_errors_come_back_from_confinement() -> None:
    with pytest.raises(CompileError, match="NOTIFY"):
        confined(judge, profile(default=Action.NOTIFY), POLICY, X86_64, seconds=60)


# Runtimes


def test_the_lost_load_without_a_tree() -> None:
    """A section for runc with its tree would not do for one without: each is proven for its own."""
    for runtime in (RUNC, replace(RUNC, tree_above=None), replace(RUNC, tree_above=None, stub_native=False), CRUN):
        judgement = judge(profile(allowed(EVERYDAY + " socket socketcall")), POLICY, X86_64, runtime=runtime)
        assert judgement.proof.closed
        assert judgement.differences == ()


def test_a_listener_of_the_profiles_own() -> None:
    """NOTIFY can be answered with "continue": it opens, and the floor takes it away where it must."""
    judgement = judge(profile(allowed(EVERYDAY), rule("socket mount", Action.NOTIFY)), POLICY, X86_64)
    assert judgement.section is not None
    assert outcome(judgement.section, "socket", 40) == "ERRNO(EAFNOSUPPORT)"
    assert outcome(judgement.section, "socket", 2) == outcome(judgement.section, "mount") == "NOTIFY"


def test_only_the_native_abi() -> None:
    given = profile(allowed(EVERYDAY + " socket"), architectures=ALL_X86[1:2])
    judgement = judge(given, POLICY, X86_64)
    assert judgement.section is not None
    assert outcome(judgement.section, "getpid", abi=X86) == "ERRNO(EPERM)"
