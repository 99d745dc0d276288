"""The daemon's own API: served on a unix socket for root, and asked by ``seccomp-floor status``.

Imported late, and only by who needs it: gRPC takes a tenth of a second to load.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from seccomp_floor.errors import SeccompFloorError
from seccomp_floor.pb import control_pb2 as pb

__all__ = ["ALIVE", "READY", "ControlError", "ask_health", "ask_status", "serve_control"]

READY, ALIVE = "ready", "alive"
"""Services of grpc.health.v1. Ready: containers are protected now. Alive: the daemon's loop turns, which is what a restart could
mend; a runtime that is down is not."""

_STATUS = "seccomp_floor.control.v1.Control"
_HEALTH = "grpc.health.v1.Health"
SECONDS = 5.0
WATCH_SECONDS = 1.0
"""How often those who watch the daemon's health are told of a change."""
LARGEST_ANSWER = 64 << 20

_Answer = TypeVar("_Answer", bound=Message)


class ControlError(SeccompFloorError):
    """The daemon does not answer."""


class ControlServer:
    """Serves until it is stopped."""

    def __init__(self, server: grpc.aio.Server, path: Path) -> None:
        self._server = server
        self._path = path
        self._made = path.stat().st_ino

    async def stop(self) -> None:
        """Serve no more, and leave no socket behind, unless it is a successor's."""
        await self._server.stop(None)
        with suppress(OSError):
            if self._path.stat().st_ino == self._made:
                self._path.unlink()


async def serve_control(
    path: Path, status: Callable[[], pb.StatusResponse], ready: Callable[[], bool]
) -> ControlServer:
    """Serve on that socket, which takes the place of a predecessor's.

    :raises ControlError: it cannot be made
    """

    async def answer_status(_request: pb.StatusRequest, _context: object) -> pb.StatusResponse:
        return status()

    states: dict[str, Callable[[], bool]] = {"": ready, READY: ready, ALIVE: lambda: True}
    kind = health_pb2.HealthCheckResponse

    async def answer_health(
        request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in states:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"services are {READY} and {ALIVE}")
        return kind(status=kind.SERVING if states[request.service]() else kind.NOT_SERVING)

    async def watch_health(
        request: health_pb2.HealthCheckRequest, _context: object
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        said = None
        while True:
            state = states.get(request.service)  # of what it does not know, it says so (grpc.health.v1)
            found = kind.SERVICE_UNKNOWN if state is None else kind.SERVING if state() else kind.NOT_SERVING
            if found != said:
                said = found
                yield kind(status=found)
            await asyncio.sleep(WATCH_SECONDS)

    server: grpc.aio.Server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers(
        [
            _service(_STATUS, {"Status": _unary(answer_status, pb.StatusRequest)}),
            _service(
                _HEALTH,
                {
                    "Check": _unary(answer_health, health_pb2.HealthCheckRequest),
                    "Watch": _stream(watch_health, health_pb2.HealthCheckRequest),
                },
            ),
        ]
    )
    # gRPC removes the address that it was given when it ends, whoever may have it by then: so it gets one that nobody else has.
    own = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        own.unlink(missing_ok=True)
        server.add_insecure_port(f"unix:{own}")
        own.chmod(0o600)
        await server.start()
        own.rename(path)
        return ControlServer(server, path)
    except (OSError, RuntimeError) as error:
        await server.stop(None)
        raise ControlError(f"cannot serve on {path}: {error}") from error


def ask_status(path: Path) -> pb.StatusResponse:
    """How the node stands. :raises ControlError: there is no daemon to say."""
    return _call(path, f"/{_STATUS}/Status", pb.StatusRequest(), pb.StatusResponse)


def ask_health(path: Path, service: str) -> bool:
    """Whether the daemon says that it is :data:`READY` or :data:`ALIVE`. :raises ControlError: there is none to say."""
    request = health_pb2.HealthCheckRequest(service=service)
    answer = _call(path, f"/{_HEALTH}/Check", request, health_pb2.HealthCheckResponse)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _service(name: str, methods: dict[str, grpc.RpcMethodHandler[Message, Message]]) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler(name, methods)


def _unary(answer: Callable[..., object], request: type[Message]) -> grpc.RpcMethodHandler[Message, Message]:
    return grpc.unary_unary_rpc_method_handler(answer, request.FromString, lambda message: message.SerializeToString())


def _stream(answer: Callable[..., object], request: type[Message]) -> grpc.RpcMethodHandler[Message, Message]:
    return grpc.unary_stream_rpc_method_handler(answer, request.FromString, lambda message: message.SerializeToString())


def _call(path: Path, method: str, request: Message, answer: type[_Answer]) -> _Answer:
    if not os.access(path, os.W_OK):
        raise ControlError(f"{path}: no daemon listens there, or only root may ask (is seccomp-floor run up?)")
    options = [("grpc.max_receive_message_length", LARGEST_ANSWER)]
    with grpc.insecure_channel(f"unix:{path}", options=options) as channel:
        call: grpc.UnaryUnaryMultiCallable[Message, _Answer] = channel.unary_unary(
            method,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        try:
            return call(request, timeout=SECONDS)
        except grpc.RpcError as error:
            raise ControlError(f"{path}: the daemon does not answer: {error.details()}") from None
