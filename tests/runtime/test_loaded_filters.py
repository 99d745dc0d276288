"""The runtime as the oracle: what it has the kernel load is what we compile, or the difference is proven to make none."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from real_profiles import real_profile
from runtime.runtimes import Runtime, bundle
from runtime.test_doors import SECTIONS
from seccomp_floor.abi import this_machine
from seccomp_floor.bpf.compile import compile_profile
from seccomp_floor.bpf.equivalence import differences
from seccomp_floor.bpf.libseccomp import resolve
from seccomp_floor.bpf.program import decode
from seccomp_floor.floor import Floor, Policy
from seccomp_floor.judge import judge
from seccomp_floor.node.ptrace import read_filters
from seccomp_floor.profile import parse_profile, write_profile
from seccomp_floor.runtime.identity import identify
from testnode.agent import Agent
from testnode.scratch import Scratch

pytestmark = pytest.mark.runtimes

NOTHING = Floor(families=(), io_uring=False, socketcall=False)
"""A floor that denies nothing: what differs from a profile under it is the profile itself."""
REAL = ("containerd-2.3.4", "docker-2026", "podman-2025")
PROFILES: dict[str, dict[str, Any]] = {name: section for name, section in SECTIONS.items() if section} | {
    name: write_profile(real_profile(name, this_machine())) for name in REAL
}


@pytest.fixture(scope="module")
def agent(scratch: Scratch) -> Iterator[Agent]:
    """Somebody who listens, for sections that ask to be notified."""
    with Agent(scratch.path / "agent.sock") as agent:
        yield agent


@pytest.mark.parametrize("floored", [False, True], ids=["profile", "section"])
@pytest.mark.parametrize("name", PROFILES)
def test_what_is_loaded_is_what_is_compiled(
    scratch: Scratch, pair: tuple[Runtime, Runtime], agent: Agent, name: str, floored: bool
) -> None:
    runtime, native = pair[0], this_machine()
    model, _ = identify(str(runtime.program))
    profile = parse_profile(PROFILES[name])
    if floored:
        section = judge(profile, Policy(), native, runtime=model).section
        assert section is not None
        profile = section
    written = write_profile(profile)
    if "listenerPath" in PROFILES[name]:
        written["listenerPath"] = str(agent.path)
    path = bundle(scratch, f"{runtime.name}-{name}-{floored}-loaded", section=written)
    runtime.run("create", "--bundle", path, "loaded", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        runtime.run("start", "loaded")
        pid = json.loads(runtime.run("state", "loaded").stdout)["pid"]
        (loaded,) = read_filters(pid).programs
    finally:
        runtime.run("delete", "--force", "loaded")
    # runc's stub jumps to the architectures in the order of a Go map: the bytes may differ, the answers may not.
    compiled = compile_profile(profile, native, runtime=model)
    assert differences(compiled, decode(loaded), NOTHING, resolve, native=native) == ()
    assert len(decode(loaded)) == len(compiled)
