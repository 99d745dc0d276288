"""The control socket: whose it is, and what those who watch are told."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from seccomp_floor.node.control import ControlError, ask_health, serve_control
from seccomp_floor.pb import control_pb2 as pb

KIND = health_pb2.HealthCheckResponse


def status() -> pb.StatusResponse:
    """Of a node without containers."""
    return pb.StatusResponse()


def test_a_successor_s_socket_stays_when_the_predecessor_leaves(tmp_path: Path) -> None:
    """Both have the same path, as two services of one host."""
    path = tmp_path / "run" / "control.sock"

    async def story() -> None:
        older = await serve_control(path, status, lambda: False)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        newer = await serve_control(path, status, lambda: True)
        await older.stop()
        assert await asyncio.to_thread(ask_health, path, "ready")
        await newer.stop()

    asyncio.run(story())
    assert list(path.parent.iterdir()) == []


def test_a_place_that_there_is_not(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def story() -> None:
        with pytest.raises(ControlError, match="cannot serve"):
            await serve_control(tmp_path / "file" / "control.sock", status, lambda: True)

    asyncio.run(story())


async def watched(path: Path, service: str) -> AsyncIterator[int]:
    """What grpc.health.v1's Watch says."""
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=KIND.FromString,
        )
        async for answer in watch(health_pb2.HealthCheckRequest(service=service)):
            yield answer.status


def test_a_change_of_health_is_told_to_those_who_watch(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    ready = False

    async def story() -> None:
        nonlocal ready
        server = await serve_control(path, status, lambda: ready)
        said = []
        async for answer in watched(path, "ready"):
            said.append(answer)
            ready = True
            if len(said) == 2:
                break
        assert said == [KIND.NOT_SERVING, KIND.SERVING]
        assert await anext(watched(path, "nonsense")) == KIND.SERVICE_UNKNOWN
        await server.stop()

    asyncio.run(story())
