"""A plugin's session with the runtime, from registration to the end of the connection."""

from __future__ import annotations

import asyncio
import logging
from asyncio import StreamReader, StreamWriter
from contextlib import suppress
from dataclasses import dataclass
from string import ascii_letters, digits
from typing import NoReturn

from google.protobuf.message import DecodeError, Message

from seccomp_floor.errors import InputError, excerpt
from seccomp_floor.nri import mux, ttrpc
from seccomp_floor.nri.errors import (
    CallError,
    ConnectionLostError,
    NriError,
    Refused,
)
from seccomp_floor.nri.handlers import Handlers, Runtime
from seccomp_floor.nri.service import CALLS, overrides, state_change, subscription
from seccomp_floor.nri.version import RuntimeVersion
from seccomp_floor.pb import nri_pb2 as nri

__all__ = ["Identity", "Session"]

PLUGIN = "nri.pkg.api.v1alpha1.Plugin"
RUNTIME = "nri.pkg.api.v1alpha1.Runtime"
NRI_VERSION = "v0.12.0"

PATIENCE = 0.75
"""The part of the runtime's deadline that a handler may use. The rest is for the way there and back on a busy node: the runtime
drops a plugin that is late, and creates the container without it."""

REGISTRATION_WAIT = 30.0
"""Seconds that we wait to be let in. The runtime lets plugins in one at a time, and gives each 5 seconds."""

LAST_WORDS = 1.0
"""Seconds that we give the runtime to read our last answers."""

READ_SIZE = 1 << 16

_NAME, _INDEX = frozenset(ascii_letters + digits + "-_.+"), frozenset(digits)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Identity:
    """What the plugin is called, and its place among the others: they are asked in ascending order of ``index``.

    :raises InputError: on what the runtime would refuse: an index other than two digits, a name with other characters than
        letters, digits and ``-_.+``
    """

    name: str
    index: str

    def __post_init__(self) -> None:
        if not self.name or not _NAME.issuperset(self.name):
            raise InputError("the plugin's name", self.name, "letters, digits and -_.+")
        if len(self.index) != 2 or not _INDEX.issuperset(self.index):
            raise InputError("the plugin's index", self.index, "two digits")

    def __str__(self) -> str:
        return f"{self.index}-{self.name}"


class _UnknownMethodError(Exception):
    pass


class Session:
    """One connection to the runtime, and what it is used for. Good for one :meth:`run`."""

    def __init__(self, handlers: Handlers, identity: Identity, reader: StreamReader, writer: StreamWriter) -> None:
        self.registered = False
        """Whether the runtime has had our answer to its synchronisation, and so sends events."""
        self._handlers = handlers
        self._events = subscription(handlers)
        self._identity = identity
        self._reader = reader
        self._writer = writer
        self._trunk = mux.TrunkReader()
        self._server = ttrpc.Server()
        self._client = ttrpc.Client()
        self._registration: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._receiving: asyncio.Task[NoReturn] | None = None
        self._runtime: Runtime | None = None
        self._known = nri.SynchronizeRequest()

    async def run(self) -> None:
        """Register, then answer the runtime until the connection ends, or until :meth:`stop`.

        The end of the connection cancels what is being worked on. To cancel this coroutine is to hang up.

        :raises Refused: the handlers did not want this runtime
        :raises CallError: the runtime did not want this plugin
        :raises RemoteProtocolError: the runtime made no sense
        :raises ConnectionLostError: the connection ended
        """
        reason: NriError | None = None
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._receiving = self._tasks.create_task(self._receive())
                self._tasks.create_task(self._register())
        except BaseExceptionGroup as group:
            expected, bugs = group.split(NriError)
            if bugs or not expected:
                raise
            reason = next(error for error in expected.exceptions if isinstance(error, NriError))
            raise reason from None
        finally:
            self._writer.close()
            self._handlers.disconnected(reason)
        with suppress(OSError):  # TimeoutError is one: the runtime does not read
            await asyncio.wait_for(self._writer.wait_closed(), LAST_WORDS)

    def stop(self) -> None:
        """Take no more requests; :meth:`run` returns when those in hand have been answered."""
        if self._receiving:
            self._receiving.cancel()
        self._registration.cancel()

    async def _register(self) -> None:
        request = nri.RegisterPluginRequest(
            plugin_name=self._identity.name, plugin_idx=self._identity.index, NRI_version=NRI_VERSION
        )
        _, message = self._client.call(RUNTIME, "RegisterPlugin", request.SerializeToString(), REGISTRATION_WAIT)
        await self._send(mux.RUNTIME_SERVICE, message)
        try:
            async with asyncio.timeout(REGISTRATION_WAIT):
                await self._registration
        except TimeoutError:
            raise ConnectionLostError(
                f"the runtime did not answer our registration for {REGISTRATION_WAIT:g} s"
            ) from None

    async def _receive(self) -> NoReturn:
        while data := await self._read():
            self._trunk.feed(data)
            while chunk := self._trunk.next_chunk():
                connection, content = chunk
                if connection == mux.PLUGIN_SERVICE:
                    self._server.feed(content)
                    self._take_requests()
                elif connection == mux.RUNTIME_SERVICE:
                    self._client.feed(content)
                    self._take_responses()
                # Anything else is for a connection that we have not opened; the runtime's end drops such frames as well.
        for part in (self._trunk, self._server, self._client):
            part.end()
        raise ConnectionLostError("the runtime closed the connection")

    async def _read(self) -> bytes:
        try:
            return await self._reader.read(READ_SIZE)
        except OSError as error:
            raise ConnectionLostError(f"the connection to the runtime failed: {error}") from error

    def _take_requests(self) -> None:
        while event := self._server.next_event():
            match event:
                case ttrpc.Request():
                    self._tasks.create_task(self._serve(event))
                case ttrpc.BadRequest(stream, code, text):
                    log.error("the runtime sent a bad request: %s", text)
                    self._tasks.create_task(self._send(mux.PLUGIN_SERVICE, self._server.fail(stream, code, text)))
                case ttrpc.Stray(text):
                    log.warning("the runtime sent %s; ignored", text)

    def _take_responses(self) -> None:
        """Registration is the only call that we make."""
        while event := self._client.next_event():
            match event:
                case ttrpc.Stray(text):
                    log.warning("the runtime sent %s; ignored", text)
                case _ if self._registration.done():
                    pass
                case ttrpc.Response():
                    self._registration.set_result(None)
                case ttrpc.Failure(_, code, text):
                    self._registration.set_exception(CallError("RegisterPlugin", code, text))

    async def _send(self, connection: int, message: ttrpc.Message) -> None:
        try:
            self._writer.write(mux.frames(connection, *message))
            await self._writer.drain()
        except OSError as error:
            raise ConnectionLostError(f"the connection to the runtime failed: {error}") from error

    async def _serve(self, request: ttrpc.Request) -> None:
        """Answer one request, whatever happens; only what ends the session gets out of here."""
        refused: Refused | None = None
        answered: Message | None = None
        try:
            async with asyncio.timeout(self._patience(request)) as deadline:
                answered = await self._dispatch(request)
            message = self._server.respond(request.stream, answered.SerializeToString())
        except Refused as error:
            refused, answered = error, None
            message = self._server.fail(request.stream, ttrpc.FAILED_PRECONDITION, str(error))
        except Exception as error:  # noqa: BLE001 (without an answer the runtime would go on without us)
            answered = None
            message = self._server.fail(request.stream, *self._excuse(request, error, late=deadline.expired()))
        await self._send(mux.PLUGIN_SERVICE, message)
        if refused and request.method == "Configure":
            raise refused
        if self._runtime and isinstance(answered, nri.SynchronizeResponse) and not (answered.more or self.registered):
            self.registered = True
            self._handlers.registered(self._runtime)

    def _patience(self, request: ttrpc.Request) -> float | None:
        """The seconds that a handler has, by whichever deadline is the nearer; None: no one has named any."""
        deadlines = [request.timeout] if request.timeout is not None else []
        if self._runtime and self._runtime.request_timeout > 0:
            deadlines.append(self._runtime.request_timeout)
        return min(deadlines) * PATIENCE if deadlines else None

    def _excuse(self, request: ttrpc.Request, error: Exception, *, late: bool) -> tuple[int, str]:
        """Code and text of the answer to a request that a handler has failed. Details go to the log: whoever reads the answer
        may be the container's owner, not the node's."""
        method = excerpt(request.method).strip("'")
        match error:
            case _UnknownMethodError():
                log.warning("the runtime called %s, which this plugin does not have", method)
                return ttrpc.UNIMPLEMENTED, f"{self._identity.name} has no method {method}"
            case DecodeError():
                log.error("%s: the runtime sent a malformed request", method)
                return ttrpc.INVALID_ARGUMENT, f"{method}: the request is malformed"
            case TimeoutError() if late:
                log.error("%s: no answer after %.3g s, refused", method, self._patience(request))
                return (
                    ttrpc.ABORTED,
                    f"{self._identity.name} could not decide about {method} in time, and so refuses it",
                )
            case _:
                log.error("%s: the handler failed", method, exc_info=error)
                return ttrpc.INTERNAL, f"{self._identity.name} failed in {method}, and so refuses it: see its log"

    async def _dispatch(self, request: ttrpc.Request) -> Message:
        if request.service != PLUGIN:
            raise _UnknownMethodError
        if request.method == "Configure":
            return await self._configure(nri.ConfigureRequest.FromString(request.payload))
        if self._runtime is None:
            raise Refused(f"{self._identity.name} has not been configured")
        match request.method:
            case "Synchronize":
                return await self._synchronize(nri.SynchronizeRequest.FromString(request.payload))
            case "Shutdown":
                await self._handlers.shutdown()
                return nri.Empty()
            case "StateChange":
                change = nri.StateChangeEvent.FromString(request.payload)
                call = state_change(change.event)
                return await call.answer(self._handlers, change) if call else nri.Empty()
            case method if call := CALLS.get(method):
                return await call.answer(self._handlers, call.request.FromString(request.payload))
            case _:
                raise _UnknownMethodError

    async def _configure(self, request: nri.ConfigureRequest) -> Message:
        runtime = Runtime(
            name=request.runtime_name,
            version=RuntimeVersion.parse(request.runtime_version),
            nri_version=request.NRI_version,
            config=request.config,
            registration_timeout=request.registration_timeout / 1000,
            request_timeout=request.request_timeout / 1000,
        )
        await self._handlers.configure(runtime)
        self._runtime = runtime
        return nri.ConfigureResponse(events=self._events)

    async def _synchronize(self, request: nri.SynchronizeRequest) -> Message:
        """Parts are put together until the last; only that may be answered with updates."""
        self._known.MergeFrom(request)
        if request.more:
            return nri.SynchronizeResponse(more=True)
        known, self._known = self._known, nri.SynchronizeRequest()
        if not overrides(self._handlers, Handlers.synchronize):
            return nri.SynchronizeResponse()
        return nri.SynchronizeResponse(update=await self._handlers.synchronize(known.pods, known.containers))
