"""Requests within a session: what comes back for each, whatever the handler or the runtime does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from seccomp_floor.nri import ttrpc
from seccomp_floor.nri.errors import Refused
from seccomp_floor.nri.handlers import Runtime
from seccomp_floor.nri.version import RuntimeVersion
from seccomp_floor.pb import nri_pb2 as nri
from seccomp_floor.pb import ttrpc_pb2
from wire.peer import (
    PLUGIN_CONNECTION,
    RUNTIME_CONNECTION,
    Dropped,
    StatusError,
    frame,
    message,
    payload_of,
    request_message,
    run,
    session,
)
from wire.plugins import CREATE, EVENTS, Recorder, create, handler_of, handling


@pytest.mark.parametrize(
    "size", [0, 1, 4000, 4070, 4080, 4085, 4086, 4087, 4096, 4097, 5000, 8192, 60_000, 1 << 20, (4 << 20) - 100]
)
def test_answers_of_every_size_pass_the_runtimes_frame_limit(size: int) -> None:
    async def large(*_: object) -> nri.ContainerAdjustment:
        return nri.ContainerAdjustment(annotations={"a": "x" * size})

    async def scenario() -> None:
        async with session(handling(create_container=large)) as (runtime, _, _):
            await runtime.start()
            for _ in range(2):  # what one answer leaves in the runtime's buffers must not spoil the next
                assert len((await create(runtime)).adjust.annotations["a"]) == size

    run(scenario())


def test_the_peer_drops_the_obvious_framing() -> None:
    """One frame for a message is what breaks: were the peer more patient than containerd, the test above would prove nothing."""
    response = message(1, 2, b"\x12" + b"x" * 5000)

    async def scenario() -> None:
        async with session(Recorder()) as (runtime, plugin, _):
            await runtime.start()
            answer = runtime.expect(1)
            plugin._writer.write(frame(PLUGIN_CONNECTION, response))
            with pytest.raises(Dropped, match="a frame of 5011 bytes, with room for 4096"):
                await answer

    run(scenario())


def test_an_answer_beyond_the_limit_becomes_an_error() -> None:
    async def too_large(*_: object) -> nri.ContainerAdjustment:
        return nri.ContainerAdjustment(annotations={"a": "x" * (4 << 20)})

    async def scenario() -> None:
        async with session(handling(create_container=too_large)) as (runtime, _, _):
            await runtime.start()
            with pytest.raises(StatusError, match="floor failed in CreateContainer, and so refuses it"):
                await create(runtime)

    run(scenario())


def test_a_refusal_reaches_the_runtime_word_for_word_and_the_session_goes_on() -> None:
    def refusing(text: str) -> Callable[..., Awaitable[object]]:
        async def refuse(*_: object) -> None:
            raise Refused(text)

        return refuse

    handlers = handling(
        create_container=refusing("socketcall on x86 stays open: \udcff remove the rule"),
        start_container=refusing("the kernel's filter lets AF_ALG through"),
        validate_container_adjustment=refusing("another plugin opened AF_VSOCK"),
    )

    async def scenario() -> None:
        async with session(handlers) as (runtime, _, _):
            await runtime.start()
            for _ in range(2):
                with pytest.raises(StatusError, match=r"^socketcall on x86 stays open: \\udcff remove the rule$"):
                    await create(runtime)
            with pytest.raises(StatusError, match=r"^the kernel's filter lets AF_ALG through$"):
                await runtime.call("StartContainer", nri.StartContainerRequest(), nri.Empty)
            verdict = await runtime.call(
                "ValidateContainerAdjustment",
                nri.ValidateContainerAdjustmentRequest(),
                nri.ValidateContainerAdjustmentResponse,
            )
            assert verdict.reject
            assert verdict.reason == "another plugin opened AF_VSOCK"

    run(scenario())


@pytest.mark.parametrize(
    "method", ["CreateContainer", "ValidateContainerAdjustment", "StartContainer", "Synchronize", "Configure"]
)
def test_a_handler_that_breaks_refuses_and_says_so_in_the_log_alone(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("a secret path")

    async def scenario() -> None:
        async with session(handling(**{handler_of(method): broken})) as (runtime, plugin, _):
            if method != "Configure":
                await runtime.introduce()
            for _ in range(2):
                with pytest.raises(StatusError, match=f"^floor failed in {method}, and so refuses it: see its log$"):
                    await runtime.call(method, nri.Empty(), nri.Empty)
            assert not plugin.registered

    run(scenario())
    (record, _) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert "a secret path" in str(record.exc_info[1])


def test_a_late_handler_is_cancelled_and_refuses_before_the_runtime_gives_up() -> None:
    cancelled = asyncio.Event()

    async def slow(*_: object) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def scenario() -> None:
        async with session(handling(create_container=slow)) as (runtime, _, _):
            await runtime.start()
            with pytest.raises(
                StatusError, match=r"^floor could not decide about CreateContainer in time, and so refuses it"
            ):
                await runtime.call("CreateContainer", CREATE, nri.CreateContainerResponse, deadline=0.2)
            assert cancelled.is_set()

    run(scenario())


@pytest.mark.parametrize(
    ("of_the_request", "of_the_runtime", "ours"),
    [
        (2.0, 2.0, 1.5),
        (0.4, 2.0, 0.3),
        (8.0, 2.0, 1.5),
        (None, 2.0, 1.5),
        (2.0, 0.0, 1.5),
        (None, 0.0, None),
        (0.0, 2.0, 0.0),
    ],
)
def test_a_handler_has_three_quarters_of_the_nearer_deadline(
    of_the_request: float | None, of_the_runtime: float, ours: float | None
) -> None:
    async def scenario() -> None:
        async with session(Recorder()) as (_, plugin, _):
            plugin._runtime = Runtime("containerd", RuntimeVersion.parse("v2.3.4"), "", "", 5.0, of_the_runtime)
            patience = plugin._patience(ttrpc.Request(1, "", "", b"", of_the_request))
            assert patience == (ours if ours is None else pytest.approx(ours))

    run(scenario())


def test_a_timeout_of_the_handlers_own_is_a_failure_like_any_other() -> None:
    async def impatient(*_: object) -> None:
        raise TimeoutError

    async def scenario() -> None:
        async with session(handling(create_container=impatient)) as (runtime, _, _):
            await runtime.start()
            with pytest.raises(StatusError, match="floor failed in CreateContainer"):
                await create(runtime)

    run(scenario())


def test_one_slow_request_does_not_hold_up_another() -> None:
    release = asyncio.Event()

    async def slow(*_: object) -> None:
        await release.wait()

    async def quick(*_: object) -> None:
        release.set()

    async def scenario() -> None:
        async with session(handling(create_container=slow, start_container=quick)) as (runtime, _, _):
            await runtime.start()
            creation = asyncio.create_task(create(runtime))
            await asyncio.sleep(0)
            await runtime.call("StartContainer", nri.StartContainerRequest(), nri.Empty)
            await creation

    run(scenario())


@pytest.mark.parametrize(
    ("method", "service", "expected"),
    [
        ("MakeCoffee", "nri.pkg.api.v1alpha1.Plugin", "floor has no method MakeCoffee"),
        ("CreateContainer", "nri.pkg.api.v2.Plugin", "floor has no method CreateContainer"),
        ("x\n" * 9999, "nri.pkg.api.v1alpha1.Plugin", r"floor has no method x\\nx\\n.* \(19998 long\)"),
    ],
)
def test_unknown_methods_are_unimplemented(method: str, service: str, expected: str) -> None:
    async def scenario() -> None:
        async with session(Recorder()) as (runtime, _, _):
            await runtime.start()
            with pytest.raises(StatusError, match=f"^{expected}$") as caught:
                await runtime.call(method, nri.Empty(), nri.Empty, service=service)
            assert caught.value.code == 12
            await create(runtime)

    run(scenario())


def test_events_of_older_runtimes_come_as_state_changes() -> None:
    class Starting(Recorder):
        async def start_container(self, pod: nri.PodSandbox, container: nri.Container) -> None:
            if container.name == "bad":
                raise Refused("no")
            self.heard.append(f"start {pod.name}/{container.name}")

    async def scenario() -> None:
        handlers = Starting()
        async with session(handlers) as (runtime, _, _):
            await runtime.start()
            change = nri.StateChangeEvent(event=nri.START_CONTAINER, pod=CREATE.pod, container=CREATE.container)
            await runtime.call("StateChange", change, nri.Empty)
            change.container.name = "bad"
            with pytest.raises(StatusError, match=r"^no$"):
                await runtime.call("StateChange", change, nri.Empty)
            change.event = 99  # type: ignore[assignment]
            await runtime.call("StateChange", change, nri.Empty)
        assert handlers.heard == ["registered", "start web/app"]

    run(scenario())


def test_every_event_reaches_its_handler() -> None:
    heard: list[str] = []

    def hearing(name: str) -> Callable[..., Awaitable[object]]:
        async def hear(*_: object) -> object:
            heard.append(name)
            return () if name in {"update_container", "stop_container"} else None

        return hear

    async def scenario() -> None:
        handlers = handling(**{handler_of(method): hearing(handler_of(method)) for method in EVENTS})
        async with session(handlers) as (runtime, _, _):
            assert (await runtime.start()).events == (1 << nri.LAST - 1) - 1
            for method, request in EVENTS.items():
                await runtime.call(method, request, nri.Empty)
        assert heard == [handler_of(method) for method in EVENTS]

    run(scenario())


def test_an_event_that_nobody_asked_for_is_answered_with_nothing() -> None:
    async def scenario() -> None:
        async with session(Recorder()) as (runtime, _, _):
            await runtime.start()
            for method, request in EVENTS.items():
                assert await runtime.call(method, request, nri.Empty) == nri.Empty()

    run(scenario())


def test_bad_requests_get_their_error_and_the_session_goes_on() -> None:
    async def scenario() -> None:
        async with session(Recorder()) as (runtime, _, _):
            await runtime.start()  # streams 1 and 3

            async def answer(stream: int, data: bytes) -> str:
                response = runtime.expect(stream)
                await runtime.send(data)
                with pytest.raises(StatusError) as caught:
                    payload_of(await response)
                return str(caught.value)

            def on_plugin(data: bytes) -> bytes:
                return frame(PLUGIN_CONNECTION, data)

            even = request_message(4, "CreateContainer", CREATE)
            assert "odd" in await answer(4, on_plugin(even))
            assert "must increase, 3 was used" in await answer(
                1, on_plugin(request_message(1, "CreateContainer", CREATE))
            )
            assert "not a ttrpc.Request" in await answer(5, on_plugin(message(5, 1, b"\xff\xff\xff")))
            malformed = ttrpc_pb2.Request(
                service="nri.pkg.api.v1alpha1.Plugin", method="CreateContainer", payload=b"\xff"
            )
            assert "CreateContainer: the request is malformed" in await answer(
                7, on_plugin(message(7, 1, malformed.SerializeToString()))
            )
            assert "streams are not supported" in await answer(9, on_plugin(message(9, 1, b"", flags=2)))
            oversized = message(11, 1, bytes((4 << 20) + 1))
            halves = on_plugin(oversized[: 1 << 20]) + on_plugin(oversized[1 << 20 :])
            assert "at most 4194304 bytes" in await answer(11, halves)

            await runtime.send(on_plugin(message(13, 2, b"")))  # a response on the connection of requests
            await runtime.send(on_plugin(message(13, 77, b"later")))
            await runtime.send(frame(99, b"a connection that nobody opened"))
            await runtime.send(frame(RUNTIME_CONNECTION, message(1, 2, b"")))  # a second answer to our registration
            await runtime.send(frame(RUNTIME_CONNECTION, message(5, 2, b"")))
            runtime._next = 15
            await create(runtime)
            assert runtime.unasked == []

    run(scenario())
