"""The process that reads filters for the daemon, and what the daemon has without it."""

from __future__ import annotations

import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from seccomp_floor.node.ptrace import Filters, GoneError, PtraceError, read_filters
from seccomp_floor.node.reader import Reader, ReaderError

COMMAND = Path(sys.executable).parent / "seccomp-floor"

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

FILTERED = """
import ctypes, struct, sys, time
code = struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000)
buffer = ctypes.create_string_buffer(code, 8)
libc = ctypes.CDLL(None)
libc.prctl(38, 1, 0, 0, 0)
assert libc.prctl(22, 2, struct.pack("@HP", 1, ctypes.addressof(buffer)), 0, 0) == 0
print("+", flush=True)
time.sleep(60)
"""
ALLOW = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)


@pytest.fixture
def filtered() -> Iterator[int]:
    """A process with one filter, which allows everything."""
    with subprocess.Popen([sys.executable, "-c", FILTERED], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"+\n"
        yield process.pid
        process.kill()


@contextmanager
def service(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`seccomp-floor reader`, listening."""
    with subprocess.Popen([COMMAND, "reader", "--socket", path], stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 10
        while not path.is_socket():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield process
        process.terminate()
    assert process.returncode == 0


@pytest.fixture(params=["forked", "listening"])
def reader(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reader]:
    """Each kind."""
    if request.param == "forked":
        with closing(Reader.forked()) as made:
            yield made
    else:
        with service(tmp_path / "reader.sock"), closing(Reader.listening(tmp_path / "reader.sock")) as made:
            yield made


def test_it_reads_what_we_would_read_ourselves(reader: Reader, filtered: int) -> None:
    assert reader.why_not() == ""
    found = reader.filters(filtered)
    assert found.programs == read_filters(filtered).programs == (ALLOW,)
    assert 0 < found.pause < 1
    assert reader.filters(os.getpid()) == Filters((), 0.0)


def test_its_errors_are_the_kernel_s(reader: Reader) -> None:
    """By their class, which says what the daemon does."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    with pytest.raises(GoneError):
        reader.filters(gone.pid)
    with pytest.raises(PtraceError):
        reader.filters(0xFFFF_FFFF)


def test_many_may_ask_at_once(reader: Reader, filtered: int) -> None:
    """Each gets its own answer; who is refused because another traces the thread already is told so."""
    answers: list[object] = []

    def ask(number: int) -> None:
        try:
            answers.append(reader.filters(filtered if number % 2 else os.getpid()).programs)
        except PtraceError as error:
            answers.append(str(error))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 40
    assert answers.count(()) == 20
    assert (ALLOW,) in answers
    assert all("another tracer" in str(answer) for answer in answers if answer not in ((), (ALLOW,)))


def test_the_socket_is_for_root_alone(tmp_path: Path) -> None:
    path = tmp_path / "reader.sock"
    with service(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_service_that_was_started_anew_is_asked_again(tmp_path: Path, filtered: int) -> None:
    path = tmp_path / "reader.sock"
    with service(path):
        reader = Reader.listening(path)
        assert reader.filters(filtered).programs == (ALLOW,)
    with closing(reader):
        with pytest.raises(ReaderError, match=r"reader\.sock"):
            reader.filters(filtered)
        path.unlink()
        with service(path):
            assert reader.filters(filtered).programs == (ALLOW,)


def test_a_service_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ReaderError, match="seccomp-floor reader"):
        Reader.listening(tmp_path / "none.sock")


def test_a_service_that_cannot_listen(tmp_path: Path) -> None:
    """One line, exit code 2."""
    path = tmp_path / "none" / "reader.sock"
    outcome = subprocess.run([COMMAND, "reader", "--socket", path], capture_output=True, text=True, check=False)
    assert outcome.returncode == 2
    assert outcome.stderr == f"seccomp-floor: cannot listen at {path}: No such file or directory\n"


def test_a_forked_one_that_has_died_is_an_error(filtered: int) -> None:
    """The container that waits for the answer is then not started."""
    before = children()
    with closing(Reader.forked()) as reader:
        [pid] = set(children()) - set(before)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with pytest.raises(ReaderError, match="has ended"):
            reader.filters(filtered)


def children() -> list[int]:
    """Of this process."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


@pytest.mark.parametrize(
    "send",
    [
        lambda to, _: to.send(b"\1\0\0\0"),
        lambda to, fd: socket.send_fds(to, [b"\1"], [fd]),
        lambda to, fd: socket.send_fds(to, [b"\1\0\0\0" * 9], [fd]),
        lambda to, _: socket.send_fds(to, [b"\1\0\0\0"], [0]),
    ],
    ids=["no descriptor", "too short", "too long", "no socket"],
)  # fmt: skip
def test_nonsense_ends_nothing_but_its_own_connection(
    tmp_path: Path, filtered: int, send: Callable[[socket.socket, int], object]
) -> None:
    path = tmp_path / "reader.sock"
    with service(path), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.connect(str(path))
        ours, theirs = socket.socketpair()
        with ours:
            send(peer, theirs.fileno())
            theirs.close()
            ours.settimeout(5)
            ours.recv(1 << 16)  # an error, or the end
        with closing(Reader.listening(path)) as reader:
            assert reader.filters(filtered).programs == (ALLOW,)


def test_a_forked_one_keeps_nothing_open_and_goes_with_its_parent(tmp_path: Path) -> None:
    """However the parent ends; and signals to their whole group are the parent's."""
    program = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from seccomp_floor.node.reader import Reader
        held = open(sys.argv[1], "w")
        reader = Reader.forked()
        assert reader.why_not() == ""
        [pid] = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        os.kill(int(pid), signal.SIGTERM)
        assert reader.why_not() == ""
        links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        assert all(link.startswith("socket:") for link in links), links
        print(pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    command = [sys.executable, "-c", program, str(tmp_path / "held")]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert outcome.returncode == -signal.SIGKILL, outcome.stderr
    deadline = time.monotonic() + 5
    while alive(int(outcome.stdout)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether it runs still; a zombie does not."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
