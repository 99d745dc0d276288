"""NRI's trunk: several connections over one socket.

Each frame is a connection id and a payload length, both 32 bits in network byte order, and the payload (containerd/nri,
``pkg/net/multiplex``). Every connection carries a byte stream of its own, to whose reader the boundaries of frames mean nothing:
so payload is handed on as it comes, and nothing is kept but an unfinished header.

To containerd they do mean something, and that is the trap of this format. Its reader takes a whole frame in one read, into the
buffer of whoever happens to be reading, and drops the connection when the frame is longer. That buffer is a Go ``bufio.Reader``'s,
4096 bytes, for everything but the data of a ttrpc message that is itself longer, which is read straight to where it belongs. So a
message goes out as one frame where it fits in 4096 bytes, and else as its header and then its data. (Frames of 4096 bytes
throughout would pass, too, until 256 of them wait to be read: at the next one containerd drops the connection.)
"""

from __future__ import annotations

from struct import Struct

from seccomp_floor.nri.errors import LocalProtocolError, RemoteProtocolError

__all__ = ["PLUGIN_SERVICE", "RUNTIME_SERVICE", "TrunkReader", "frames"]

PLUGIN_SERVICE = 1
"""The connection on which the runtime calls the plugin."""
RUNTIME_SERVICE = 2
"""The connection on which the plugin calls the runtime."""

MAX_PAYLOAD = 10 + (4 << 20)
"""The longest frame of an honest peer: a ttrpc header and the longest data."""

PEER_BUFFER = 4096

_HEADER = Struct(">II")


class TrunkReader:
    """The receiving side. Feed it what the socket gives, then ask for chunks until there are none."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._connection = 0
        self._missing = 0  # bytes that the current frame still owes

    def feed(self, data: bytes) -> None:
        """Take bytes, however split."""
        self._buffer += data

    def next_chunk(self) -> tuple[int, bytes] | None:
        """The next ``(connection id, bytes)``, or None until more is fed.

        :raises RemoteProtocolError: on a length that no frame can have; from then on, always
        """
        while not self._missing:
            if len(self._buffer) < _HEADER.size:
                return None
            connection, length = _HEADER.unpack_from(self._buffer)
            if length > MAX_PAYLOAD:
                raise RemoteProtocolError(
                    f"a trunk frame of {length} bytes, more than the {MAX_PAYLOAD} that one may have"
                )
            del self._buffer[: _HEADER.size]
            self._connection, self._missing = connection, length
        if not self._buffer:
            return None
        chunk = bytes(self._buffer[: self._missing])
        del self._buffer[: len(chunk)]
        self._missing -= len(chunk)
        return self._connection, chunk

    def end(self) -> None:
        """The socket has ended.

        :raises RemoteProtocolError: if it did in the middle of a frame
        """
        if self._missing or self._buffer:
            raise RemoteProtocolError("the trunk ended in the middle of a frame")


def frames(connection: int, header: bytes, data: bytes) -> bytes:
    """One ttrpc message, framed as containerd can read it. It must reach the socket in one piece: frames of other messages
    between its own would be read as part of it.

    :raises LocalProtocolError: on more data than a message may have
    """
    length = len(header) + len(data)
    if length > MAX_PAYLOAD:
        raise LocalProtocolError(f"a message of {length} bytes, more than the {MAX_PAYLOAD} that one may have")
    if length <= PEER_BUFFER:
        return b"".join((_HEADER.pack(connection, length), header, data))
    return b"".join((_HEADER.pack(connection, len(header)), header, _HEADER.pack(connection, len(data)), data))
