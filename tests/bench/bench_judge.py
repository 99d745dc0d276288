"""What a judgement costs: from a profile nobody has seen before to a proven section, step by step."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from rich.console import Console
from rich.table import Table

import libseccomps
from floored import X86_64
from real_profiles import real_profile
from seccomp_floor.bpf.compile import RUNC, RuntimeModel, abis_of_filter, compile_profile
from seccomp_floor.bpf.equivalence import differences
from seccomp_floor.bpf.libseccomp import SONAME, library
from seccomp_floor.bpf.prove import prove
from seccomp_floor.floor import Policy
from seccomp_floor.judge import judge
from seccomp_floor.profile import Profile
from seccomp_floor.reconcile import candidates

ROUNDS = 5
POLICY = Policy()


def milliseconds(work: Callable[[], object]) -> float:
    """CPU time of the quickest of some rounds: the machine's other work does not count."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return best * 1e3


def steps(given: Profile, runtime: RuntimeModel) -> dict[str, float]:
    """What each step of a judgement costs by itself."""
    resolve = library(runtime.library).number
    section = judge(given, POLICY, X86_64, runtime=runtime).section
    assert section is not None
    before, after = (compile_profile(one, X86_64, runtime=runtime) for one in (given, section))
    abis = abis_of_filter(given, X86_64)
    return {
        "compile the profile": milliseconds(lambda: compile_profile(given, X86_64, runtime=runtime)),
        "prove it open": milliseconds(lambda: prove([before], POLICY.floor, resolve, native=X86_64)),
        "write the section": milliseconds(lambda: next(candidates(given, POLICY.floor, abis, resolve, stub=True))),
        "compile it": milliseconds(lambda: compile_profile(section, X86_64, runtime=runtime)),
        "prove it closed": milliseconds(lambda: prove([after], POLICY.floor, resolve, native=X86_64)),
        "prove it exact": milliseconds(lambda: differences(before, after, POLICY.floor, resolve, native=X86_64)),
        "all of it": milliseconds(lambda: judge(given, POLICY, X86_64, runtime=runtime)),
    }


def test_time_of_a_judgement() -> None:
    """containerd's default, by the versions of libseccomp that are set up."""
    given = real_profile("containerd-2.3.4", X86_64)
    found = {"installed": SONAME} | {name: path for name in libseccomps.VERSIONS if (path := libseccomps.find(name))}
    columns = {}
    for name, path in found.items():
        version = ".".join(map(str, library(path).version))
        columns[f"libseccomp {version}" if name == "installed" else version] = steps(given, replace(RUNC, library=path))
    view = Table(title="A judgement of containerd's default profile, CPU milliseconds", title_justify="left")
    view.add_column("")
    for name in columns:
        view.add_column(name, justify="right")
    for step in next(iter(columns.values())):
        view.add_row(step, *(f"{times[step]:.1f}" for times in columns.values()))
    Console().print(view)
    for times in columns.values():
        parts = sum(cost for step, cost in times.items() if step != "all of it")
        assert times["all of it"] < 2 * parts  # nothing is done twice


def test_time_of_the_first_judgement() -> None:
    """In a process of its own, with nothing looked up yet."""
    code = (
        "import sys, time\n"
        "from floored import X86_64; from real_profiles import real_profile\n"
        "started = time.process_time()\n"
        "from seccomp_floor.judge import judge; from seccomp_floor.floor import Policy\n"
        "loaded = time.process_time()\n"
        "judge(real_profile('containerd-2.3.4', X86_64), Policy(), X86_64)\n"
        "print(f'{(loaded - started) * 1e3:.0f} ms to load the code, {(time.process_time() - loaded) * 1e3:.0f} ms to judge')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    Console().print(f"The first judgement of a process: {done.stdout.strip()}")
