"""ttrpc, the remote procedure calls of containerd, as two state machines without I/O.

Theory of operation
-------------------

A connection carries messages: a header of ten bytes (data length, stream id, type, flags) and data, at most 4 MiB
(containerd/ttrpc, ``PROTOCOL.md``). One side is the client; each call of its is a *stream*, with an odd id higher than all before.
A unary call, the only kind that NRI has, is one request message and one response message on its stream; the server may finish
them in any order.

So there is a :class:`Server` and a :class:`Client`, one for each end of a connection. Both eat bytes (``feed``) and give events
(``next_event``, until it gives None); what is to be sent they return, as header and data, to whoever holds the socket. They keep
a message until it is whole, and the ids of streams that wait for an answer: nothing else, and never more than a message's length.

*What is wrong with a stream is answered on that stream*, and the connection goes on, since to lose it is to lose every
container's protection at once: an id that is even or was used before, a request that makes no sense, one that is too long (its
bytes are skipped). Such a request comes out as :class:`BadRequest`, to be answered with ``Server.fail``.

*What is wrong with the connection ends it* with a :class:`RemoteProtocolError`, then and at every later call: a length of 16 MiB or
more, whose first byte the protocol reserves (so we have lost our place, or speak to something else), and a request on a stream
whose request has not been answered (no answer could be told from the other).

*What belongs to nothing is reported and ignored*, as the reference implementation does: a response that nobody waits for, an
unknown type, which a later protocol may have. It comes out as :class:`Stray`.

What we must not do (answer twice, answer nothing, send too much) raises :class:`LocalProtocolError` and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from google.protobuf.message import DecodeError

from seccomp_floor.nri.errors import LocalProtocolError, RemoteProtocolError
from seccomp_floor.pb import ttrpc_pb2

__all__ = [
    "ABORTED",
    "FAILED_PRECONDITION",
    "INTERNAL",
    "INVALID_ARGUMENT",
    "RESOURCE_EXHAUSTED",
    "UNIMPLEMENTED",
    "BadRequest",
    "Client",
    "Failure",
    "Message",
    "Request",
    "Response",
    "Server",
    "Stray",
]

MAX_DATA = 4 << 20
"""The longest data of a message, in bytes."""

MAX_ERROR_TEXT = 4096
"""What we send of an error's text, in characters. An event of Kubernetes holds 1024."""

# gRPC's status codes, which ttrpc uses.
INVALID_ARGUMENT = 3
RESOURCE_EXHAUSTED = 8
FAILED_PRECONDITION = 9
ABORTED = 10
UNIMPLEMENTED = 12
INTERNAL = 13

_HEADER = Struct(">IIBB")
_REQUEST, _RESPONSE, _DATA = 1, 2, 3
_REMOTE_OPEN = 0x02
_RESERVED_LENGTH = 16 << 20

Message = tuple[bytes, bytes]
"""A message to be sent: its header and its data."""


@dataclass(frozen=True, slots=True)
class Request:
    """A call. ``timeout``: the seconds that the caller waits, None for ever. ``payload``: the method's own message."""

    stream: int
    service: str
    method: str
    payload: bytes
    timeout: float | None = None
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class BadRequest:
    """A request that can only be answered with an error: this one."""

    stream: int
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class Response:
    """A call of ours has succeeded."""

    stream: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Failure:
    """A call of ours has failed."""

    stream: int
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class Stray:
    """A message that belongs to nothing, for the log."""

    text: str


class _Receiver:
    """Bytes in, whole messages out."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skipping = 0
        self._broken: RemoteProtocolError | None = None

    def feed(self, data: bytes) -> None:
        """Take bytes, however split."""
        self._buffer += data

    def end(self) -> None:
        """The connection has ended.

        :raises RemoteProtocolError: if it did in the middle of a message
        """
        if self._buffer or self._skipping:
            raise RemoteProtocolError("the connection ended in the middle of a message")

    def _next_message(self) -> tuple[int, int, int, bytes | None] | None:
        """Stream id, type, flags and data (None: too long, and skipped) of the next message, if it is whole."""
        if self._broken:
            raise self._broken
        if self._skipping:
            skipped = min(self._skipping, len(self._buffer))
            del self._buffer[:skipped]
            self._skipping -= skipped
        if self._skipping or len(self._buffer) < _HEADER.size:
            return None
        length, stream, kind, flags = _HEADER.unpack_from(self._buffer)
        if length >= _RESERVED_LENGTH:
            raise self._break(f"a message of {length} bytes: not ttrpc, or out of step")
        if length > MAX_DATA:
            del self._buffer[: _HEADER.size]
            self._skipping = length
            return stream, kind, flags, None
        end = _HEADER.size + length
        if len(self._buffer) < end:
            return None
        data = bytes(self._buffer[_HEADER.size : end])
        del self._buffer[:end]
        return stream, kind, flags, data

    def _break(self, text: str) -> RemoteProtocolError:
        self._broken = RemoteProtocolError(text)
        return self._broken


class Server(_Receiver):
    """The end that is called."""

    def __init__(self) -> None:
        super().__init__()
        self._last = 0
        self._unanswered: set[int] = set()

    def next_event(self) -> Request | BadRequest | Stray | None:
        """What the peer wants, or None until more is fed. Every ``Request`` and ``BadRequest`` is owed one answer.

        :raises RemoteProtocolError: when the connection is beyond use
        """
        message = self._next_message()
        if message is None:
            return None
        stream, kind, flags, data = message
        if kind != _REQUEST:
            return Stray(f"a message of type {kind} on stream {stream}: not a request")
        if stream in self._unanswered:
            raise self._break(f"a second request on stream {stream}, whose first has not been answered")
        self._unanswered.add(stream)
        if stream % 2 == 0:
            return BadRequest(stream, INVALID_ARGUMENT, f"stream {stream}: a client's streams have odd numbers")
        if stream <= self._last:
            return BadRequest(
                stream, INVALID_ARGUMENT, f"stream {stream}: stream ids must increase, {self._last} was used"
            )
        self._last = stream
        if data is None:
            return BadRequest(stream, RESOURCE_EXHAUSTED, f"a request may have at most {MAX_DATA} bytes")
        if flags & _REMOTE_OPEN:
            return BadRequest(stream, UNIMPLEMENTED, "requests that are streams are not supported")
        try:
            request = ttrpc_pb2.Request.FromString(data)
        except DecodeError:
            return BadRequest(stream, INVALID_ARGUMENT, "the request is not a ttrpc.Request")
        return Request(
            stream,
            request.service,
            request.method,
            request.payload,
            max(request.timeout_nano, 0) / 1e9 if request.timeout_nano else None,
            tuple((pair.key, pair.value) for pair in request.metadata),
        )

    def respond(self, stream: int, payload: bytes) -> Message:
        """The answer to a request.

        :raises LocalProtocolError: if none is owed on this stream, or the answer is too long; then one is still owed
        """
        return self._answer(stream, ttrpc_pb2.Response(payload=payload))

    def fail(self, stream: int, code: int, text: str) -> Message:
        """The answer to a request that could not be served; too long a text is cut.

        :raises LocalProtocolError: if none is owed on this stream
        """
        sendable = text[:MAX_ERROR_TEXT].encode("utf-8", "backslashreplace").decode()
        return self._answer(stream, ttrpc_pb2.Response(status=ttrpc_pb2.Status(code=code, message=sendable)))

    def _answer(self, stream: int, response: ttrpc_pb2.Response) -> Message:
        if stream not in self._unanswered:
            raise LocalProtocolError(f"an answer on stream {stream}, where none is owed")
        message = _message(stream, _RESPONSE, response.SerializeToString())
        self._unanswered.remove(stream)
        return message


class Client(_Receiver):
    """The end that calls."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 1
        self._waiting: set[int] = set()

    def call(self, service: str, method: str, payload: bytes, timeout: float | None = None) -> tuple[int, Message]:
        """A call: the stream on which its ``Response`` or ``Failure`` will come, and what to send.

        :param timeout: seconds that the server is told we wait; to keep that time is the caller's business
        :raises LocalProtocolError: if the request is too long
        """
        request = ttrpc_pb2.Request(service=service, method=method, payload=payload)
        if timeout is not None:
            request.timeout_nano = int(timeout * 1e9)
        stream = self._next
        message = _message(stream, _REQUEST, request.SerializeToString())
        self._next += 2
        self._waiting.add(stream)
        return stream, message

    def next_event(self) -> Response | Failure | Stray | None:
        """What has come of our calls, or None until more is fed.

        :raises RemoteProtocolError: when the connection is beyond use
        """
        message = self._next_message()
        if message is None:
            return None
        stream, kind, _, data = message
        if stream not in self._waiting or kind not in (_RESPONSE, _DATA):
            return Stray(f"a message of type {kind} on stream {stream}, where none is awaited")
        self._waiting.remove(stream)
        if data is None:
            return Failure(stream, RESOURCE_EXHAUSTED, f"the response has more than {MAX_DATA} bytes")
        if kind == _DATA:
            return Failure(stream, INTERNAL, "the response is a stream, which was not asked for")
        try:
            response = ttrpc_pb2.Response.FromString(data)
        except DecodeError:
            return Failure(stream, INTERNAL, "the response is not a ttrpc.Response")
        if response.status.code:
            return Failure(stream, response.status.code, response.status.message)
        return Response(stream, response.payload)


def _message(stream: int, kind: int, data: bytes) -> Message:
    if len(data) > MAX_DATA:
        raise LocalProtocolError(f"a message of {len(data)} bytes: ttrpc's limit is {MAX_DATA}")
    return _HEADER.pack(len(data), stream, kind, 0), data
