"""Confined work for an event loop, by a real server process."""

from __future__ import annotations

import asyncio
import os
import pickle
import platform
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from errno import EPERM
from pathlib import Path

import pytest

import hostile
from seccomp_floor.confine import MOST_ANSWER, ConfinedError, TooSlow
from seccomp_floor.errors import InputError
from seccomp_floor.node import forkserver
from seccomp_floor.node.forkserver import MOST_AT_ONCE, ForkServer

LONG = 60.0  # nothing here takes that long unless it hangs


def serving(scenario: Callable[[ForkServer], Awaitable[None]]) -> None:
    """Run the scenario with a server; afterwards neither process nor descriptor of it may be left."""
    before = sorted(hostile.descriptors())

    async def run() -> None:
        server = ForkServer()
        server.start()
        try:
            async with asyncio.timeout(LONG):
                await scenario(server)
        finally:
            server.stop()

    asyncio.run(run())
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert sorted(hostile.descriptors()) == before


def children(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def server_of(process: int) -> int:
    """The only child."""
    (child,) = children(process)
    return child


async def until(condition: Callable[[], bool]) -> None:
    """The scenario's timeout guards it."""
    while not condition():  # noqa: ASYNC110 (of the kernel's, which sets no event)
        await asyncio.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86_64's system calls")
def test_a_child_can_do_nothing_beyond_its_work() -> None:
    """It is nobody, as others on the host may be, and in the host's namespaces: but under a filter."""

    async def scenario(server: ForkServer) -> None:
        found = await server.confined(hostile.attempts, seconds=10)
        assert found == dict.fromkeys(found, EPERM)
        assert (await server.confined(hostile.status, seconds=10))["Seccomp"] == "2"

    serving(scenario)


def test_many_pieces_of_work_at_once() -> None:
    """More than the server lets run together, asked for before there is a connection; each gets its own answer."""

    async def scenario(server: ForkServer) -> None:
        answers = await asyncio.gather(*(server.confined(hostile.echo, n, b"x" * n, seconds=LONG) for n in range(20)))
        assert answers == [(n, b"x" * n) for n in range(20)]

    serving(scenario)


def test_never_more_children_than_the_node_has_cores_to_spare() -> None:
    async def scenario(server: ForkServer) -> None:
        work = [
            asyncio.create_task(server.confined(hostile.asleep, 0.1, seconds=LONG)) for _ in range(3 * MOST_AT_ONCE)
        ]
        most = 0
        while not all(task.done() for task in work):
            most = max(most, len(children(server_of(os.getpid()))))
            await asyncio.sleep(0.005)
        assert most == MOST_AT_ONCE
        assert len({task.result() for task in work}) == len(work)

    serving(scenario)


def test_large_questions_and_answers() -> None:
    """Larger than any socket's buffer, many at once, both ways."""
    size = MOST_ANSWER // 2 - 100

    async def scenario(server: ForkServer) -> None:
        data = os.urandom(size)
        for answer in await asyncio.gather(*(server.confined(hostile.echo, n, data, seconds=LONG) for n in range(4))):
            assert answer[1] == data

    serving(scenario)


def test_too_large_an_answer_harms_no_other() -> None:
    async def scenario(server: ForkServer) -> None:
        for work, *arguments in ((hostile.babbling,), (hostile.long_winded, MOST_ANSWER)):
            large = asyncio.create_task(server.confined(work, *arguments, seconds=LONG))
            assert await server.confined(hostile.echo, 1, seconds=LONG) == (1,)
            with pytest.raises(ConfinedError):
                await large
        assert await server.confined(hostile.echo, 2, seconds=LONG) == (2,)

    serving(scenario)


def test_errors() -> None:
    async def scenario(server: ForkServer) -> None:
        with pytest.raises(InputError) as caught:
            await server.confined(hostile.mistaken, seconds=LONG)
        assert caught.value.where == "linux.seccomp"
        with pytest.raises(ConfinedError, match="ZeroDivisionError"):
            await server.confined(hostile.wrong, seconds=LONG)
        for work in (hostile.crashing, hostile.vanishing, hostile.deaf):  # no answer is another thing than none in time
            with pytest.raises(ConfinedError, match="ended without an answer"):
                await server.confined(work, seconds=LONG)

    serving(scenario)


def test_late_work_is_killed_and_its_place_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forkserver, "_GRACE", LONG)  # however busy this machine is, the server's word is awaited

    async def scenario(server: ForkServer) -> None:
        await server.confined(hostile.echo, seconds=LONG)
        late = [server.confined(hostile.endless, seconds=1.0) for _ in range(3 * MOST_AT_ONCE)]
        outcomes = [type(outcome) for outcome in await asyncio.gather(*late, return_exceptions=True)]
        assert set(outcomes) <= {TooSlow, ConfinedError}
        assert outcomes[:MOST_AT_ONCE] == [TooSlow] * MOST_AT_ONCE
        assert await server.confined(hostile.echo, 1, seconds=LONG) == (1,)
        await until(lambda: not children(server_of(os.getpid())))

    serving(scenario)


def test_the_time_that_work_waits_for_its_turn_counts() -> None:
    async def scenario(server: ForkServer) -> None:
        await server.confined(hostile.echo, seconds=LONG)
        before = [asyncio.create_task(server.confined(hostile.endless, seconds=LONG)) for _ in range(MOST_AT_ONCE)]
        await until(lambda: len(children(server_of(os.getpid()))) == MOST_AT_ONCE)
        with pytest.raises(ConfinedError):  # which is no fault of this work's
            await server.confined(hostile.echo, seconds=0.2)
        assert not any(task.done() for task in before)
        server.stop()
        await asyncio.gather(*before, return_exceptions=True)

    serving(scenario)


def test_the_loop_goes_on() -> None:
    """Other tasks run while work is done."""

    async def scenario(server: ForkServer) -> None:
        await server.confined(hostile.echo, seconds=LONG)
        working = asyncio.create_task(server.confined(hostile.asleep, 0.3, seconds=LONG))
        turns = 0
        while not working.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert turns > 10

    serving(scenario)


def test_a_waiter_that_is_cancelled() -> None:
    async def scenario(server: ForkServer) -> None:
        for pause in (0.0, 0.1):  # before there is a connection, and while work is done
            waiter = asyncio.create_task(server.confined(hostile.asleep, 0.3, seconds=LONG))
            await asyncio.sleep(pause)
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
            assert await server.confined(hostile.echo, 1, seconds=LONG) == (1,)

    serving(scenario)


def test_when_the_server_dies_all_who_wait_are_told_and_another_is_started() -> None:
    async def scenario(server: ForkServer) -> None:
        await server.confined(hostile.echo, seconds=LONG)
        first = server_of(os.getpid())
        waiting = [asyncio.create_task(server.confined(hostile.endless, seconds=LONG)) for _ in range(3)]
        await until(lambda: len(children(first)) == MOST_AT_ONCE)
        orphans = children(first)
        os.kill(first, signal.SIGKILL)
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, ConfinedError)
            assert "has ended" in str(outcome)
        assert await server.confined(hostile.echo, 1, seconds=LONG) == (1,)
        assert server_of(os.getpid()) != first
        await until(lambda: all(map(gone, orphans)))

    serving(scenario)


def test_a_server_found_dead_is_replaced_and_older_waiters_are_told() -> None:
    """The loop has not seen yet that the connection is gone."""

    async def scenario(server: ForkServer) -> None:
        await server.confined(hostile.echo, seconds=LONG)
        waiting = asyncio.create_task(server.confined(hostile.endless, seconds=LONG))
        await until(lambda: bool(children(server_of(os.getpid()))))
        first = server_of(os.getpid())
        os.kill(first, signal.SIGKILL)
        while not gone(first):
            time.sleep(0.01)  # noqa: ASYNC251 (the loop must not run)
        assert await server.confined(hostile.echo, 1, seconds=LONG) == (1,)
        with pytest.raises(ConfinedError):
            await waiting

    serving(scenario)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_whole_group_is_not_for_the_server(number: signal.Signals) -> None:
    """A service manager, or a terminal, sends it to the daemon's every process; the daemon may still be judging."""

    async def scenario(server: ForkServer) -> None:
        await server.confined(hostile.echo, seconds=LONG)
        first = server_of(os.getpid())
        os.kill(first, number)
        assert await server.confined(hostile.echo, 1, seconds=LONG) == (1,)
        assert server_of(os.getpid()) == first

    serving(scenario)


def test_stop_ends_all_work() -> None:
    async def scenario(server: ForkServer) -> None:
        work = asyncio.create_task(server.confined(hostile.endless, seconds=LONG))
        await until(lambda: bool(children(os.getpid())) and bool(children(server_of(os.getpid()))))
        left = {server_of(os.getpid()), *children(server_of(os.getpid()))}
        server.stop()
        with pytest.raises(ConfinedError):
            await work
        await until(lambda: all(map(gone, left)))

    serving(scenario)


def test_a_server_that_was_never_asked_stops_too() -> None:
    async def scenario(server: ForkServer) -> None:
        server.stop()
        server.stop()

    serving(scenario)


def test_no_server_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(server: ForkServer) -> None:
        server.stop()
        monkeypatch.setattr(sys, "executable", "/nonexistent/python")
        with pytest.raises(ConfinedError, match="cannot start"):
            await server.confined(hostile.echo, seconds=LONG)

    serving(scenario)


def start_server(theirs: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "seccomp_floor.node.forkserver"],
        stdin=theirs.fileno(),
        stderr=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
    )


@pytest.mark.parametrize("unread", [False, True])
def test_the_server_ends_with_the_daemon(unread: bool) -> None:
    """In silence; also where it cannot get rid of an answer."""
    ours, theirs = socket.socketpair()
    with ours, theirs, start_server(theirs) as process:
        theirs.close()
        if unread:
            # A request that asks for a large answer, which nobody reads.
            request = pickle.dumps((hostile.long_winded, (MOST_ANSWER // 4,), LONG, time.monotonic() + LONG))
            ours.sendall(struct.pack("!II", 1, len(request)) + request)
            assert len(ours.recv(8)) == 8
        ours.close()
        _, said = process.communicate(timeout=LONG)
    assert said == b""
    assert process.returncode == 0


def test_a_request_in_pieces() -> None:
    ours, theirs = socket.socketpair()
    request = pickle.dumps((hostile.echo, ("x",), LONG, time.monotonic() + LONG))
    with ours, theirs, start_server(theirs) as process:
        theirs.close()
        for byte in struct.pack("!II", 7, len(request)) + request:
            ours.send(bytes([byte]))
        with ours.makefile("rb") as stream:
            number, length = struct.unpack("!II", stream.read(8))
            assert number == 7
            assert b"x" in stream.read(length)
        ours.close()
        process.communicate(timeout=LONG)
