"""The runtime's end of the wire, as containerd has it, written apart from the code under test.

What matters about it is how it reads (containerd/nri ``mux.go``, containerd/ttrpc ``channel.go``): frames are queued whole, 256 per
connection at most; a ttrpc channel reads through a Go ``bufio.Reader`` of 4096 bytes, whose every read takes one frame whole, or
fails where the frame is longer than the room that the read has.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from google.protobuf.message import Message

from seccomp_floor.nri.handlers import Handlers
from seccomp_floor.nri.plugin import Identity, Session
from seccomp_floor.pb import nri_pb2 as nri
from seccomp_floor.pb import ttrpc_pb2

BUFIO_SIZE = 4096
READ_QUEUE_LENGTH = 256
PLUGIN_CONNECTION, RUNTIME_CONNECTION = 1, 2
PLUGIN_SERVICE = "nri.pkg.api.v1alpha1.Plugin"

Reply = TypeVar("Reply", bound=Message)


class Dropped(Exception):  # noqa: N818
    """containerd drops the connection here."""


class StatusError(Exception):
    """The plugin has answered with an error."""

    def __init__(self, status: ttrpc_pb2.Status) -> None:
        super().__init__(status.message)
        self.code = status.code


class BufioReader:
    """Go's ``bufio.Reader`` over one connection of the trunk."""

    def __init__(self) -> None:
        self.frames: deque[bytes] = deque()
        self._buffered = b""

    def read_full(self, wanted: int) -> bytes | None:
        """``io.ReadFull``; None if the frames are not there yet, and then nothing is consumed."""
        frames, buffered, result = deque(self.frames), self._buffered, b""
        while len(result) < wanted:
            missing = wanted - len(result)
            if buffered:
                result += buffered[:missing]
                buffered = buffered[missing:]
                continue
            if not frames:
                return None
            room = max(missing, BUFIO_SIZE)
            frame = frames.popleft()
            if len(frame) > room:
                raise Dropped(f"a frame of {len(frame)} bytes, with room for {room}: ENOMEM")
            if missing >= BUFIO_SIZE:
                result += frame
            else:
                buffered = frame
        self.frames, self._buffered = frames, buffered
        return result


class Channel:
    """ttrpc over a :class:`BufioReader`."""

    def __init__(self) -> None:
        self.reader = BufioReader()
        self._header: tuple[int, int, int] | None = None

    def receive(self) -> tuple[int, int, bytes] | None:
        """Stream, type and data of the next message, if it is there."""
        if self._header is None:
            header = self.reader.read_full(10)
            if header is None:
                return None
            length, stream, kind, _ = struct.unpack(">IIBB", header)
            if length > 4 << 20:
                raise Dropped(f"a message of {length} bytes")
            self._header = length, stream, kind
        length, stream, kind = self._header
        data = self.reader.read_full(length)
        if data is None:
            return None
        self._header = None
        return stream, kind, data


class Wire:
    """Trunk and channels: the bytes of a plugin in, its messages out."""

    def __init__(self) -> None:
        self.channels = {PLUGIN_CONNECTION: Channel(), RUNTIME_CONNECTION: Channel()}
        self._pending = b""

    def feed(self, data: bytes) -> list[tuple[int, int, int, bytes]]:
        """Connection, stream, type and data of the messages that are whole by now."""
        self._pending += data
        while len(self._pending) >= 8:
            connection, length = struct.unpack_from(">II", self._pending)
            if len(self._pending) < 8 + length:
                break
            frame, self._pending = self._pending[8 : 8 + length], self._pending[8 + length :]
            if connection in self.channels:
                queue = self.channels[connection].reader.frames
                queue.append(frame)
                if len(queue) > READ_QUEUE_LENGTH:
                    raise Dropped("failed to queue payload for reading")
        messages = []
        for connection, channel in self.channels.items():
            while message := channel.receive():
                messages.append((connection, *message))
        return messages


def frame(connection: int, payload: bytes) -> bytes:
    """One frame, of any length."""
    return struct.pack(">II", connection, len(payload)) + payload


def frames(connection: int, payload: bytes) -> bytes:
    """A message as Go's ``bufio.Writer`` flushes it: 4096 bytes, then the rest."""
    return b"".join(frame(connection, part) for part in (payload[:BUFIO_SIZE], payload[BUFIO_SIZE:]) if part)


def message(stream: int, kind: int, data: bytes, flags: int = 0) -> bytes:
    """A ttrpc message."""
    return struct.pack(">IIBB", len(data), stream, kind, flags) + data


def request_message(
    stream: int, method: str, request: Message, *, service: str = PLUGIN_SERVICE, deadline: float | None = 2.0
) -> bytes:
    """A ttrpc request, with the deadline that containerd has for most."""
    call = ttrpc_pb2.Request(service=service, method=method, payload=request.SerializeToString())
    if deadline is not None:
        call.timeout_nano = int(deadline * 1e9)
    return message(stream, 1, call.SerializeToString())


class Containerd:
    """A runtime with one plugin. Its calls raise StatusError on an error, Dropped when the connection is gone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.registration: asyncio.Future[nri.RegisterPluginRequest] = asyncio.get_running_loop().create_future()
        self.refuse_registration = ""
        self.unasked: list[int] = []
        self.gone = asyncio.Event()
        self._reader, self._writer = reader, writer
        self._next = 1
        self._calls: dict[int, asyncio.Future[ttrpc_pb2.Response]] = {}
        self._receiving = asyncio.create_task(self._receive())

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        self._receiving.cancel()
        await asyncio.gather(self._receiving, return_exceptions=True)

    async def send(self, data: bytes) -> None:
        """Raw bytes onto the trunk."""
        self._writer.write(data)
        await self._writer.drain()

    def expect(self, stream: int) -> asyncio.Future[ttrpc_pb2.Response]:
        """The response on this stream, whenever it comes."""
        response = self._calls[stream] = asyncio.get_running_loop().create_future()
        return response

    async def call(
        self,
        method: str,
        request: Message,
        reply: type[Reply],
        *,
        deadline: float | None = 2.0,
        service: str = PLUGIN_SERVICE,
    ) -> Reply:
        """Call the plugin, and wait for its answer."""
        stream, self._next = self._next, self._next + 2
        response = self.expect(stream)
        await self.send(
            frames(PLUGIN_CONNECTION, request_message(stream, method, request, deadline=deadline, service=service))
        )
        return reply.FromString(payload_of(await response))

    async def introduce(self, version: str = "v2.3.4") -> nri.ConfigureResponse:
        """Registration and configuration."""
        await self.registration
        request = nri.ConfigureRequest(
            runtime_name="containerd", runtime_version=version, registration_timeout=5000, request_timeout=2000
        )
        return await self.call("Configure", request, nri.ConfigureResponse)

    async def start(self) -> nri.ConfigureResponse:
        """All that comes before the first event, with nothing to synchronise."""
        configured = await self.introduce()
        await self.call("Synchronize", nri.SynchronizeRequest(), nri.SynchronizeResponse)
        return configured

    async def _receive(self) -> None:
        wire = Wire()
        failure = "ttrpc: closed"
        try:
            while data := await self._reader.read(1 << 16):
                for connection, stream, kind, content in wire.feed(data):
                    await self._take(connection, stream, kind, content)
        except (Dropped, OSError) as error:
            failure = str(error)
        finally:
            self._writer.close()
            self.gone.set()
            waiting: list[asyncio.Future[Any]] = [self.registration, *self._calls.values()]
            for future in waiting:
                if not future.done():
                    future.set_exception(Dropped(failure))
                    future.exception()  # not every call is awaited

    async def _take(self, connection: int, stream: int, kind: int, content: bytes) -> None:
        if connection == RUNTIME_CONNECTION:
            request = ttrpc_pb2.Request.FromString(content)
            assert (kind, request.service, request.method) == (1, "nri.pkg.api.v1alpha1.Runtime", "RegisterPlugin")
            response = ttrpc_pb2.Response(status=ttrpc_pb2.Status(code=2, message=self.refuse_registration))
            if not self.refuse_registration:
                response = ttrpc_pb2.Response()
                self.registration.set_result(nri.RegisterPluginRequest.FromString(request.payload))
            await self.send(frames(RUNTIME_CONNECTION, message(stream, 2, response.SerializeToString())))
        elif call := self._calls.pop(stream, None):
            assert kind == 2
            call.set_result(ttrpc_pb2.Response.FromString(content))
        else:
            self.unasked.append(stream)


def payload_of(response: ttrpc_pb2.Response) -> bytes:
    """The payload of a success."""
    if response.status.code:
        raise StatusError(response.status)
    return response.payload


@asynccontextmanager
async def session(handlers: Handlers) -> AsyncIterator[tuple[Containerd, Session, asyncio.Task[None]]]:
    """A plugin's session with a runtime, over a pair of sockets."""
    ours, theirs = socket.socketpair()
    runtime = Containerd(*await asyncio.open_unix_connection(sock=theirs))
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    plugin = Session(handlers, Identity("floor", "10"), reader, writer)
    running = asyncio.create_task(plugin.run())
    try:
        yield runtime, plugin, running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        writer.close()  # a task cancelled before its first step closes nothing
        await runtime.close()


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Run a test's scenario; one that hangs has failed."""

    async def guarded() -> None:
        async with asyncio.timeout(30):
            await scenario

    asyncio.run(guarded())
