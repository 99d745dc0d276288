"""The daemon's own API: served on a unix socket for root, and asked by ``seccomp-floor status``.

Imported late, and only by who needs it: gRPC takes a tenth of a second to load.
"""

from __future__ import annotations

import os
from collections.abc import Callable
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
LARGEST_ANSWER = 64 << 20

_Answer = TypeVar("_Answer", bound=Message)


class ControlError(SeccompFloorError):
    """The daemon does not answer."""


async def serve_control(
    path: Path, status: Callable[[], pb.StatusResponse], ready: Callable[[], bool]
) -> grpc.aio.Server:
    """Serve on that socket, which is made anew.

    :raises ControlError: it cannot be made
    """

    async def answer_status(_request: pb.StatusRequest, _context: object) -> pb.StatusResponse:
        return status()

    async def answer_health(
        request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        states: dict[str, Callable[[], bool]] = {"": ready, READY: ready, ALIVE: lambda: True}
        if request.service not in states:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"services are {READY} and {ALIVE}")
        kind = health_pb2.HealthCheckResponse
        return kind(status=kind.SERVING if states[request.service]() else kind.NOT_SERVING)

    server: grpc.aio.Server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers(
        [
            _handler(_STATUS, "Status", answer_status, pb.StatusRequest),
            _handler(_HEALTH, "Check", answer_health, health_pb2.HealthCheckRequest),
        ]
    )
    try:
        _make_room(path)
        server.add_insecure_port(f"unix:{path}")
        path.chmod(0o600)  # noqa: ASYNC240 (one system call; the process' umask has seen to it already)
        await server.start()
    except (OSError, RuntimeError) as error:
        raise ControlError(f"cannot serve on {path}: {error}") from error
    return server


def ask_status(path: Path) -> pb.StatusResponse:
    """How the node stands. :raises ControlError: there is no daemon to say."""
    return _call(path, f"/{_STATUS}/Status", pb.StatusRequest(), pb.StatusResponse)


def ask_health(path: Path, service: str) -> bool:
    """Whether the daemon says that it is :data:`READY` or :data:`ALIVE`. :raises ControlError: there is none to say."""
    request = health_pb2.HealthCheckRequest(service=service)
    answer = _call(path, f"/{_HEALTH}/Check", request, health_pb2.HealthCheckResponse)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _make_room(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    path.unlink(missing_ok=True)


def _handler(
    service: str, method: str, answer: Callable[..., object], request: type[Message]
) -> grpc.GenericRpcHandler:
    handler: grpc.RpcMethodHandler[Message, Message] = grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=request.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )
    return grpc.method_handlers_generic_handler(service, {method: handler})


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
