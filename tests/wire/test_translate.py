"""Seccomp sections between NRI's messages and our values."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seccomp_floor.abi import ABIS
from seccomp_floor.errors import InputError
from seccomp_floor.nri.translate import adjustment, as_runtime_will_see, from_nri, section_after, to_nri
from seccomp_floor.pb import nri_pb2 as nri
from seccomp_floor.profile import Action, Arg, Operator, Profile, Syscall

words = st.integers(0, (1 << 64) - 1)
errnos = st.none() | st.integers(0, 0xFFFF)
names = st.sampled_from(["socket", "socketcall", "read", "clone3", "io_uring_setup"])
rules = st.builds(
    Syscall,
    names=st.lists(names, max_size=3).map(tuple),
    action=st.sampled_from(Action),
    errno_ret=errnos,
    args=st.lists(st.builds(Arg, st.integers(0, 5), words, st.sampled_from(Operator), words), max_size=3).map(tuple),
)
profiles = st.builds(
    Profile,
    default_action=st.sampled_from(Action),
    default_errno_ret=errnos,
    architectures=st.lists(st.sampled_from(list(ABIS)), max_size=3).map(tuple),
    flags=st.none() | st.lists(st.sampled_from(["SECCOMP_FILTER_FLAG_LOG", "x"]), max_size=2).map(tuple),
    listener_path=st.sampled_from(["", "/run/agent.sock"]),
    listener_metadata=st.sampled_from(["", "m"]),
    syscalls=st.lists(rules, max_size=4).map(tuple),
)


def over_the_wire(message: nri.LinuxSeccomp) -> nri.LinuxSeccomp:
    return nri.LinuxSeccomp.FromString(message.SerializeToString())


@settings(deadline=None)
@given(profiles)
def test_everything_but_empty_flags_survives_the_wire(profile: Profile) -> None:
    assert from_nri(over_the_wire(to_nri(profile))) == replace(profile, flags=profile.flags or None)


@settings(deadline=None)
@given(profiles)
def test_the_spec_gets_all_but_the_default_errno(profile: Profile) -> None:
    seen = as_runtime_will_see(profile)
    assert seen.default_errno_ret is None
    assert replace(seen, default_errno_ret=profile.default_errno_ret, flags=profile.flags) == profile
    assert as_runtime_will_see(seen) == seen


def test_an_errno_of_zero_is_not_an_absent_one() -> None:
    rule = Syscall(("socket",), Action.ERRNO, errno_ret=0)
    profile = Profile(Action.ERRNO, default_errno_ret=0, syscalls=(rule,))
    assert from_nri(over_the_wire(to_nri(profile))) == profile


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (nri.LinuxSeccomp(), r"linux.seccomp.defaultAction: expected one of SCMP_ACT_KILL, .*, got ''"),
        (nri.LinuxSeccomp(default_action="SCMP_ACT_PRAY"), r"linux.seccomp.defaultAction: .*, got 'SCMP_ACT_PRAY'"),
        (
            nri.LinuxSeccomp(
                default_action="SCMP_ACT_ALLOW",
                syscalls=[
                    nri.LinuxSyscall(action="SCMP_ACT_ERRNO", args=[nri.LinuxSeccompArg(index=6, op="SCMP_CMP_EQ")])
                ],
            ),
            r"linux.seccomp.syscalls\[0\].args\[0\].index: expected an integer from 0 to 5, got 6",
        ),
        (
            nri.LinuxSeccomp(default_action="SCMP_ACT_ALLOW", default_errno=nri.OptionalUInt32(value=70_000)),
            r"linux.seccomp.defaultErrnoRet: expected an integer from 0 to 65535, got 70000",
        ),
    ],
)
def test_what_a_profiles_file_may_say_but_runtime_spec_does_not(message: nri.LinuxSeccomp, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        from_nri(message)


def test_the_section_after_all_adjustments() -> None:
    brought = Profile(Action.ERRNO, default_errno_ret=38)
    given = Profile(Action.ALLOW, default_errno_ret=38)
    request = nri.ValidateContainerAdjustmentRequest()
    assert section_after(request) is None
    request.container.linux.seccomp_policy.CopyFrom(to_nri(brought))
    assert section_after(request) == brought  # untouched by NRI, default errno and all
    request.adjust.linux.cgroups_path = "another plugin's"
    assert section_after(request) == brought
    request.adjust.MergeFrom(adjustment(given))
    assert section_after(request) == replace(given, default_errno_ret=None)
