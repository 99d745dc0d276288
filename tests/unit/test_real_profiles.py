"""The default profiles of container engines: closed and exact, on every machine that has one and with every compiler there is."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

import libseccomps
from floored import X86, X86_64, outcome
from real_profiles import NAMES, machines, real_profile
from seccomp_floor.abi import Abi
from seccomp_floor.bpf.compile import CRUN, RUNC, CompileError, RuntimeModel, compile_profile, runc_model
from seccomp_floor.bpf.libseccomp import SONAME, library
from seccomp_floor.floor import Policy
from seccomp_floor.judge import Judgement, Way, examine, judge

POLICY = Policy()
ENOSYS_BY_DEFAULT = ("cri-o-2025", "podman-2025")

RUNTIMES = {
    "runc": RUNC,
    "runc 1.1": runc_model((1, 1, 15)),
    "runc, no tree": replace(RUNC, tree_above=None),
    "crun": CRUN,
}
EVERYWHERE = os.environ.get("CI") == "true"
"""Outside of continuous integration some profiles on some machines stand for all."""
CASES = [
    (name, native)
    for name in NAMES
    for native in machines(name)
    if EVERYWHERE or (name in ("containerd-2.3.4", "cri-o-2025") and native.short in ("x86_64", "aarch64", "s390x"))
]


@pytest.fixture(params=[SONAME, *libseccomps.VERSIONS])
def compiler(request: pytest.FixtureRequest) -> str:
    """The installed libseccomp, and the other versions where they are set up."""
    if request.param == SONAME:
        return SONAME
    path = libseccomps.find(request.param)
    if path is None and EVERYWHERE:
        path = libseccomps.install(request.param)
    if path is None:
        pytest.skip(f"libseccomp {request.param} is not set up: python -m libseccomps")
    return path


def known(native: Abi, compiler: str) -> bool:
    """Whether that libseccomp knows the machine at all: 2.6 knows a few more."""
    try:
        compile_profile(real_profile("containerd-2.3.4", native), native, runtime=replace(CRUN, library=compiler))
    except CompileError:
        return False
    return True


def unassigned_only(judgement: Judgement, compiler: str) -> bool:
    """Whether all that differs is what numbers get that no call has."""
    return not any(
        first <= number <= last
        for different in judgement.differences
        for number in (library(compiler).names(different.abi).values() if different.abi else ())
        for first, last in different.numbers
    )


@pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=RUNTIMES)
def test_closed_and_exact(runtime: RuntimeModel, compiler: str) -> None:
    """The one thing that cannot be exact: an ENOSYS default where ``socketcall`` compares 64 bits, for unassigned numbers."""
    judged = 0
    for name, native in CASES:
        if not known(native, compiler):
            continue
        model = replace(runtime, library=compiler, architectures=runtime.architectures | {native.name})
        given = real_profile(name, native)
        judgement = judge(given, POLICY, native, runtime=model)
        assert judgement.proof.closed
        if name in ENOSYS_BY_DEFAULT and native.short in ("s390x", "ppc64le"):
            assert unassigned_only(judgement, compiler)
        else:
            assert judgement.differences == (), (name, native.short)
        assert judgement.section is not None
        assert judge(judgement.section, POLICY, native, runtime=model).section is judgement.section
        judged += 1
    assert judged >= (48 if EVERYWHERE else 6)


@pytest.mark.parametrize("name", NAMES)
def test_through_nri(name: str) -> None:
    """Where the default's errno is lost on the way, only unassigned numbers notice."""
    for native in machines(name):
        if native.short == "loongarch64":
            continue
        judgement = judge(real_profile(name, native), POLICY, native, way=Way.NRI)
        assert judgement.proof.closed
        if name in ENOSYS_BY_DEFAULT:
            assert unassigned_only(judgement, SONAME)
        else:
            assert judgement.differences == ()


@pytest.mark.parametrize("name", NAMES)
def test_none_of_them_holds_the_floor_by_itself(name: str) -> None:
    breached = {
        call.door.name
        for call in examine(real_profile(name, X86_64), POLICY.floor, X86_64).counterexamples
        if call.door
    }
    assert "socketcall(SYS_SOCKET)" in breached or name == "docker-socketcall-denied"
    assert breached


def test_what_containers_notice_of_containerds() -> None:
    """Nothing but closed doors."""
    given = real_profile("containerd-2.3.4", X86_64)
    section = judge(given, POLICY, X86_64).section
    assert section is not None
    for abi in (X86_64, X86):
        for family in range(46):
            before = outcome(given, "socket", family, abi=abi)
            assert outcome(section, "socket", family, abi=abi) == before
            assert before == ("ERRNO(EPERM)" if family in (38, 40) else "ALLOW")
    for name in ("clone3", "openat2", "futex_waitv", "landlock_restrict_self", "mount", "io_uring_setup"):
        assert outcome(section, name) == outcome(given, name)
    assert outcome(given, "socketcall", 1, abi=X86) == "ALLOW"
    assert outcome(section, "socketcall", 1, abi=X86) == "ERRNO(ENOSYS)"
