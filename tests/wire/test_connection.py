"""Ways to the runtime, over real sockets."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

import pytest

from seccomp_floor.errors import InputError
from seccomp_floor.nri import connection
from seccomp_floor.nri.connection import connect, inherit, inherited, serve
from seccomp_floor.nri.errors import ConnectionLostError, NriError, Refused
from seccomp_floor.nri.handlers import Handlers, Runtime
from seccomp_floor.nri.plugin import Identity
from seccomp_floor.pb import nri_pb2 as nri
from wire.peer import Containerd, run

FLOOR = Identity("floor", "10")


class Creating(Handlers):
    """Counts sessions; says no to runtimes below 2.3."""

    def __init__(self) -> None:
        self.registrations = 0
        self.reasons: list[NriError | None] = []

    async def configure(self, runtime: Runtime) -> None:
        if runtime.version.release is None or runtime.version.release < (2, 3, 0):
            raise Refused(f"not on {runtime.version}")

    def registered(self, runtime: Runtime) -> None:
        assert runtime.name == "containerd"
        self.registrations += 1

    def disconnected(self, reason: NriError | None) -> None:
        self.reasons.append(reason)

    async def create_container(self, pod: nri.PodSandbox, container: nri.Container) -> nri.ContainerAdjustment:
        return nri.ContainerAdjustment(annotations={"seen": f"{pod.name}/{container.name}"})


class Listener:
    """containerd's socket: made anew whenever it starts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runtimes: asyncio.Queue[Containerd] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._accept, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.path.unlink()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.runtimes.put(Containerd(reader, writer))


async def check_creation(runtime: Containerd) -> None:
    request = nri.CreateContainerRequest(pod=nri.PodSandbox(name="web"), container=nri.Container(name="app"))
    response = await runtime.call("CreateContainer", request, nri.CreateContainerResponse)
    assert response.adjust.annotations["seen"] == "web/app"


def serving(path: Path, scenario: Callable[[Creating, asyncio.Event], Awaitable[None]]) -> Creating:
    """Run the scenario beside a plugin that serves ``path``; the plugin must stop when it is told to."""
    handlers = Creating()

    async def both() -> None:
        stop = asyncio.Event()
        plugin = asyncio.create_task(serve(path, handlers, FLOOR, stop))
        await scenario(handlers, stop)
        stop.set()
        await plugin

    run(both())
    return handlers


def test_comes_back_after_every_restart_of_the_runtime(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "nri.sock"

    async def scenario(_: Creating, __: asyncio.Event) -> None:
        for _restart in range(3):
            async with Listener(path) as listener:
                runtime = await listener.runtimes.get()
                await runtime.start()
                await check_creation(runtime)
                await runtime.close()

    handlers = serving(path, scenario)
    assert handlers.registrations == 3
    assert [type(reason) for reason in handlers.reasons[:3]] == [ConnectionLostError] * 3
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings.count("the runtime closed the connection") == 3  # each loss of a registration is news


def test_waits_for_a_runtime_that_is_not_there_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "nri.sock"

    async def scenario(_: Creating, __: asyncio.Event) -> None:
        await asyncio.sleep(0.5)  # several attempts
        async with Listener(path) as listener:
            runtime = await listener.runtimes.get()
            await runtime.start()
            await check_creation(runtime)
            await runtime.close()

    serving(path, scenario)
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings[0] == f"cannot connect to {path}: No such file or directory; is the runtime up, with NRI enabled?"
    assert len([text for text in warnings if "No such file" in text]) == 1


def test_an_unwanted_runtime_is_tried_again_and_taken_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LAST_DELAY_UNWANTED", 0.2)
    path = tmp_path / "nri.sock"

    async def scenario(handlers: Creating, _: asyncio.Event) -> None:
        async with Listener(path) as listener:
            old = await listener.runtimes.get()
            with pytest.raises(Exception, match=r"^not on v2.2.1$"):
                await old.introduce("v2.2.1")
            await old.gone.wait()
            await old.close()
            new = await listener.runtimes.get()
            await new.start()
            await check_creation(new)
            assert handlers.registrations == 1
            await new.close()

    handlers = serving(path, scenario)
    assert isinstance(handlers.reasons[0], Refused)


def test_stops_at_once_while_it_waits(tmp_path: Path) -> None:
    async def scenario(_: Creating, __: asyncio.Event) -> None:
        await asyncio.sleep(0.05)

    assert serving(tmp_path / "nri.sock", scenario).registrations == 0


def test_stopping_ends_the_session_in_peace(tmp_path: Path) -> None:
    path = tmp_path / "nri.sock"

    async def scenario(_: Creating, stop: asyncio.Event) -> None:
        async with Listener(path) as listener:
            runtime = await listener.runtimes.get()
            await runtime.start()
            stop.set()
            await runtime.gone.wait()
            await runtime.close()

    assert serving(path, scenario).reasons == [None]


def test_connect_names_the_socket_and_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConnectionLostError, match="Connection refused; is the runtime up, with NRI enabled"):
        asyncio.run(connect(tmp_path / "file"))


def launched(**changes: str) -> dict[str, str]:
    return {"NRI_PLUGIN_NAME": "floor", "NRI_PLUGIN_IDX": "10", "NRI_PLUGIN_SOCKET": "3"} | changes


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (launched(NRI_PLUGIN_IDX="1"), "the plugin's index: expected two digits, got '1'"),
        (launched(NRI_PLUGIN_IDX="²3"), "the plugin's index: expected two digits"),
        (launched(NRI_PLUGIN_NAME=""), "the plugin's name: expected letters, digits and -_.+, got ''"),
        (launched(NRI_PLUGIN_NAME="a b"), "the plugin's name"),
        (launched(NRI_PLUGIN_NAME="ä"), "the plugin's name"),
        (
            launched(NRI_PLUGIN_SOCKET="three"),
            "NRI_PLUGIN_SOCKET: expected the number of an open descriptor, got 'three'",
        ),
        (launched(NRI_PLUGIN_SOCKET="99999999999"), "NRI_PLUGIN_SOCKET: expected the number of an open descriptor"),
        (launched(NRI_PLUGIN_SOCKET="9999999"), r"a connected socket \(Bad file descriptor\)"),
    ],
)
def test_what_a_launching_runtime_cannot_have_meant(environment: dict[str, str], expected: str) -> None:
    assert inherited(environment)
    with pytest.raises(InputError, match=expected):
        asyncio.run(inherit(environment))


def test_an_inherited_descriptor_of_another_kind_is_refused_and_left_open() -> None:
    with socket.socket(socket.AF_INET) as other:
        with pytest.raises(InputError, match="expected a unix stream socket"):
            asyncio.run(inherit(launched(NRI_PLUGIN_SOCKET=str(other.fileno()))))
        os.fstat(other.fileno())
    assert not inherited({})


@pytest.mark.parametrize("name", ["floor", "seccomp-floor", "a_b.c+d", "0", "-"])
def test_names_that_nri_takes(name: str) -> None:
    assert str(Identity(name, "07")) == f"07-{name}"


LAUNCHED_PLUGIN = f"""
import asyncio, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from seccomp_floor.nri.connection import inherit
from seccomp_floor.nri.errors import ConnectionLostError
from seccomp_floor.nri.plugin import Session
from wire.test_connection import Creating

async def main():
    identity, reader, writer = await inherit()
    try:
        await Session(Creating(), identity, reader, writer).run()
    except ConnectionLostError as error:
        print(identity, error)

asyncio.run(main())
"""


def test_a_plugin_launched_by_the_runtime(tmp_path: Path) -> None:
    """As containerd does it: descriptor 3, three variables, and nothing else."""
    output = tmp_path / "output"
    ours, theirs = socket.socketpair()
    with theirs:
        child = os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", LAUNCHED_PLUGIN],
            launched(),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), 3),
                (os.POSIX_SPAWN_OPEN, 1, str(output), os.O_CREAT | os.O_WRONLY, 0o600),
            ],
        )

    async def scenario() -> None:
        runtime = Containerd(*await asyncio.open_unix_connection(sock=ours))
        assert (await runtime.registration).plugin_name == "floor"
        await runtime.start()
        await check_creation(runtime)
        await runtime.close()

    run(scenario())
    assert os.waitpid(child, 0)[1] == 0
    assert output.read_text() == "10-floor the runtime closed the connection\n"
