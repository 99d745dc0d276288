"""Filters read back from the running kernel, of children that exist for that."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from seccomp_floor.abi import abis_of_machine, this_machine
from seccomp_floor.bpf.compile import compile_profile
from seccomp_floor.bpf.libseccomp import resolve
from seccomp_floor.bpf.program import encode
from seccomp_floor.doors import doors
from seccomp_floor.floor import Floor, Policy
from seccomp_floor.judge import judge
from seccomp_floor.node import audit, ptrace
from seccomp_floor.node.audit import RestlessError, judge_filters, read_process, read_processes, why_not_readable
from seccomp_floor.node.kernel_probe import knock
from seccomp_floor.node.ptrace import Filters, GoneError, PtraceError, read_filters, thread_seccomp
from seccomp_floor.profile import Action, Profile

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

NATIVE = this_machine()
LIBC = ctypes.CDLL(None, use_errno=True)
ALLOW = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
# write(2), number 1 on x86_64, gives EPERM: another program than ALLOW, that does the child no harm
LONGER = struct.pack("=HBBI", 0x20, 0, 0, 0) + struct.pack("=HBBI", 0x15, 0, 1, 0xFFFF) + struct.pack(
    "=HBBI", 0x06, 0, 0, 0x50001
) + ALLOW  # fmt: skip


def load(program: bytes) -> None:
    """Put this process under a filter."""
    code = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    LIBC.prctl(38, 1, 0, 0, 0)
    if LIBC.prctl(22, 2, fprog, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


@contextmanager
def child(life: Callable[[], None]) -> Iterator[int]:
    """A child that has done that and then sleeps."""
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            life()
            os.write(tell, b"+")
            while True:
                time.sleep(60)
        os._exit(1)
    os.close(tell)
    try:
        assert os.read(ready, 1) == b"+"
        yield pid
    finally:
        os.close(ready)
        os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)


def test_all_filters_come_back_as_they_were_loaded() -> None:
    """Oldest first, byte for byte; and the process goes on."""

    def life() -> None:
        load(ALLOW)
        load(LONGER)

    with child(life) as pid:
        status = thread_seccomp(pid)
        assert (status.mode, status.filters, status.no_new_privileges) == (2, 2, True)
        found = read_filters(pid)
        assert found.programs == (ALLOW, LONGER)
        assert found.pause > 0
        assert read_filters(pid).programs == found.programs
        assert thread_seccomp(pid).state in ("S", "R")


def test_a_process_without_a_filter_is_not_stopped() -> None:
    """There is nothing to read."""
    with child(lambda: None) as pid:
        assert read_filters(pid) == ptrace.Filters((), 0.0)


def test_a_process_that_is_stopped_stays_stopped() -> None:
    """SIGSTOP was meant."""
    with child(lambda: load(ALLOW)) as pid:
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        assert read_filters(pid).programs == (ALLOW,)
        for _ in range(1000):  # it wakes up to stop again
            if thread_seccomp(pid).state == "T":
                break
            time.sleep(0.01)
        assert thread_seccomp(pid).state == "T"


def test_a_signal_that_arrives_meanwhile_is_delivered() -> None:
    """Whether it came before our stop or after."""
    ready, tell = os.pipe()

    def life() -> None:
        signal.signal(signal.SIGUSR1, lambda *_: os.write(tell, b"!"))
        load(ALLOW)

    with child(life) as pid:
        for _ in range(50):
            os.kill(pid, signal.SIGUSR1)
            assert read_filters(pid).programs == (ALLOW,)
            assert os.read(ready, 1) == b"!"
    os.close(ready)
    os.close(tell)


def test_gone_and_dead_processes() -> None:
    """Both are gone to us."""
    with child(lambda: load(ALLOW)) as pid:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(GoneError):
            read_filters(pid)
    with pytest.raises(GoneError):
        read_filters(pid)


def test_a_process_that_another_traces_says_so() -> None:
    """One tracer at a time."""
    with child(lambda: load(ALLOW)) as pid:
        held, release = threading.Event(), threading.Event()

        def hold() -> None:
            assert LIBC.ptrace(0x4206, pid, None, None) == 0  # PTRACE_SEIZE
            held.set()
            release.wait(30)

        tracer = threading.Thread(target=hold)
        tracer.start()
        held.wait(30)
        try:
            with pytest.raises(PtraceError, match="another tracer"):
                read_filters(pid)
        finally:
            release.set()
            tracer.join()


def test_a_thread_with_fewer_filters_is_read_as_well() -> None:
    """A filter loaded by one thread is not there for the threads that were there before it."""

    def life() -> None:
        threading.Thread(target=time.sleep, args=[60], daemon=True).start()
        load(ALLOW)

    with child(life) as pid:
        readings = read_process(pid)
        assert [reading.filters for reading in readings] == [(ALLOW,), ()]
        assert len({reading.tid for reading in readings}) == 2


def test_this_machine_can_read_filters() -> None:
    """Or says why not."""
    assert why_not_readable() == ""


def test_who_has_a_filter_cannot_read_any() -> None:
    """The kernel's rule, and the sentence for it."""
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            load(ALLOW)
            os.write(tell, why_not_readable().encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert b"under a seccomp filter itself" in os.read(ready, 1000)
    os.close(ready)
    os.close(tell)


def test_the_section_in_the_kernel_is_what_was_proven() -> None:
    """Loaded, read back, judged: closed; and the kernel itself agrees, door by door."""
    floor = Floor()
    section = judge(None, Policy(), NATIVE).section
    assert section is not None
    program = compile_profile(section, NATIVE)
    with child(lambda: load(encode(program))) as pid:
        (reading,) = read_process(pid)
        assert reading.filters == (encode(program),)
        assert judge_filters(reading.filters, floor, NATIVE).closed
    entries = [door for abi in abis_of_machine(NATIVE) for door in doors(floor, abi, resolve)]
    knocks = knock(program, entries, NATIVE)
    assert knocks
    assert [str(found) for found in knocks if not found.closed] == []


def test_a_kernel_that_reaches_the_family_is_told_from_a_filter_that_closes() -> None:
    """The probe must be able to say no: under a filter that allows everything each native door is open."""
    everything = Profile(Action.ALLOW, architectures=tuple(abi.name for abi in abis_of_machine(NATIVE)))
    entries = [door for door in doors(Floor(), NATIVE, resolve) if door.denied]
    knocks = knock(compile_profile(everything, NATIVE), entries, NATIVE)
    assert {found.door.name for found in knocks} == {"socket", "socketpair", "io_uring_setup"}
    assert not any(found.closed for found in knocks if found.door.name != "io_uring_setup")


def test_filters_of_hostile_processes_are_judged_or_refused() -> None:
    """A stack of filters that answers by the instruction pointer is still a stack of filters."""
    finding = judge_filters((ALLOW, ALLOW), Floor(), NATIVE)
    assert not finding.holds
    assert "socket" in finding.text


def test_a_process_without_its_first_thread_is_read_by_another() -> None:
    """It goes on without, and so must whoever looks at it: its floor is that of the thread that is left."""

    def life() -> None:
        load(LONGER)
        alone = threading.Thread(target=time.sleep, args=(60,), daemon=True)
        alone.start()

    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        life()
        os.write(tell, b"+")
        LIBC.syscall(60, 0)  # exit, of this thread only
    os.close(tell)
    try:
        assert os.read(ready, 1) == b"+"
        until_zombie(pid)
        [reading] = read_process(pid)
        assert reading.tid != pid
        assert reading.filters == (LONGER,)
    finally:
        os.close(ready)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    with pytest.raises(GoneError):
        read_process(pid)


def until_zombie(pid: int) -> None:
    """Until its first thread has ended."""
    deadline = time.monotonic() + 10
    while thread_seccomp(pid).state != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_thread_with_another_filter_of_the_same_number_is_read_as_well() -> None:
    """Each thread of a process that began without any may have loaded one of its own."""

    def life() -> None:
        loaded = threading.Event()

        def other() -> None:
            load(ALLOW)
            loaded.set()
            time.sleep(60)

        threading.Thread(target=other, daemon=True).start()
        loaded.wait()
        load(LONGER)

    with child(life) as pid:
        assert {reading.filters for reading in read_process(pid)} == {(LONGER,), (ALLOW,)}


def test_processes_that_end_faster_than_they_are_read_are_not_said_to_hold_anything() -> None:
    """Whoever is there by the time that they are listed again may be read; whoever never is, nobody can tell of."""
    gone = 4194303  # pid_max is at most 2**22
    with child(lambda: load(ALLOW)) as pid:
        lists = [[pid], [pid, gone]]
        readings, trouble = read_processes(lists.pop)
        assert ({reading.pid for reading in readings}, trouble) == ({pid}, None)
        readings, trouble = read_processes(lambda: [pid, gone])
        assert {reading.pid for reading in readings} == {pid}
        assert isinstance(trouble, RestlessError)


def test_one_process_that_cannot_be_read_hides_no_other() -> None:
    """It may be traced by a neighbour of its own, for that very purpose."""
    with child(lambda: load(ALLOW)) as traced, child(lambda: load(LONGER)) as other:

        def read(tid: int) -> Filters:
            if tid == traced:
                raise PtraceError("another tracer holds it")
            return read_filters(tid)

        readings, trouble = read_processes(lambda: [traced, other], read)
        assert [reading.filters for reading in readings] == [(LONGER,)]
        assert str(trouble) == "another tracer holds it"


def test_a_container_has_no_more_stacks_than_can_be_kept() -> None:
    stacks = iter(range(1000))
    with child(lambda: None) as pid:
        pids = iter([[pid]] * 10)
        readings, trouble = read_processes(lambda: next(pids), lambda _: Filters((bytes([next(stacks)]),), 0.0))
        assert (len(readings), trouble) == (1, None)
    with ExitStack() as stack:
        some = [stack.enter_context(child(lambda: None)) for _ in range(3)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(audit, "MOST_STACKS", 2)
            readings, trouble = read_processes(lambda: some, lambda _: Filters((bytes([next(stacks)]),), 0.0))
        assert len(readings) == 2
        assert "more than 2 different stacks" in str(trouble)
