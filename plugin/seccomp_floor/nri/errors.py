"""What can go wrong between a plugin and the runtime, and whose fault it is."""

from __future__ import annotations

from seccomp_floor.errors import SeccompFloorError

__all__ = ["CallError", "ConnectionLostError", "LocalProtocolError", "NriError", "Refused", "RemoteProtocolError"]


class NriError(SeccompFloorError):
    """Root of the errors of this package."""


class Refused(NriError):  # noqa: N818 (it reads as what is said: raise Refused)
    """Raised by a handler to say no.

    The runtime fails the operation (the creation, the start) with this text, which reaches the pod's events: one line that tells
    the pod's owner what is wrong and what to do.
    """


class RemoteProtocolError(NriError):
    """The peer broke the protocol in a way after which nothing more can be read from the connection."""


class LocalProtocolError(NriError):
    """We were about to break the protocol; nothing was sent."""


class CallError(NriError):
    """The runtime answered a call of ours with an error.

    :param code: gRPC's status code
    """

    def __init__(self, method: str, code: int, message: str) -> None:
        super().__init__(f"{method} failed: {message or 'no reason given'} (status {code})")
        self.method = method
        self.code = code


class ConnectionLostError(NriError):
    """The connection ended, or could not be made."""
