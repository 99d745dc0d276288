"""The plugin's session, against a runtime that reads as containerd does."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings

from seccomp_floor.nri import ttrpc
from seccomp_floor.nri.errors import CallError, ConnectionLostError, NriError, Refused, RemoteProtocolError
from seccomp_floor.nri.handlers import Handlers, Runtime
from seccomp_floor.nri.service import subscription
from seccomp_floor.nri.version import RuntimeVersion
from seccomp_floor.pb import nri_pb2 as nri
from seccomp_floor.pb import ttrpc_pb2
from wire.peer import (
    PLUGIN_CONNECTION,
    RUNTIME_CONNECTION,
    Containerd,
    Dropped,
    StatusError,
    frame,
    message,
    payload_of,
    request_message,
    run,
    session,
)
from wire.traffic import trunks

CREATE = nri.CreateContainerRequest(
    pod=nri.PodSandbox(id="p", name="web", namespace="shop", runtime_handler="runc"),
    container=nri.Container(id="c", name="app"),
)


class Recorder(Handlers):
    """Creates nothing, remembers everything."""

    def __init__(self) -> None:
        self.runtime: Runtime | None = None
        self.heard: list[str] = []
        self.ended: list[NriError | None] = []

    async def configure(self, runtime: Runtime) -> None:
        self.runtime = runtime

    def registered(self, runtime: Runtime) -> None:
        assert runtime is self.runtime
        self.heard.append("registered")

    def disconnected(self, reason: NriError | None) -> None:
        self.ended.append(reason)

    async def create_container(self, pod: nri.PodSandbox, container: nri.Container) -> nri.ContainerAdjustment | None:
        self.heard.append(f"create {pod.namespace}/{pod.name}/{container.name}")
        return None


def handling(**methods: Callable[..., Awaitable[object]]) -> Recorder:
    """Handlers with these methods, called as they would be without ``self``."""
    kind: type[Recorder] = type(
        "Handling", (Recorder,), {name: staticmethod(method) for name, method in methods.items()}
    )
    return kind()


async def create(runtime: Containerd) -> nri.CreateContainerResponse:
    return await runtime.call("CreateContainer", CREATE, nri.CreateContainerResponse)


def test_registers_configures_and_synchronises() -> None:
    async def scenario() -> None:
        handlers = Recorder()
        async with session(handlers) as (runtime, plugin, _):
            registration = await runtime.registration
            assert (registration.plugin_name, registration.plugin_idx) == ("floor", "10")
            await runtime.introduce("2.3.4+unknown")
            assert handlers.runtime is not None
            assert handlers.runtime.name == "containerd"
            assert handlers.runtime.version.release == (2, 3, 4)
            assert (handlers.runtime.registration_timeout, handlers.runtime.request_timeout) == (5.0, 2.0)
            assert not plugin.registered
            await runtime.call("Synchronize", nri.SynchronizeRequest(), nri.SynchronizeResponse)
            assert plugin.registered
            await create(runtime)
            assert handlers.heard == ["registered", "create shop/web/app"]

    run(scenario())


def test_subscribes_to_what_it_handles_and_nothing_else() -> None:
    async def handle(*_: object) -> None: ...

    async def scenario() -> None:
        handlers = handling(start_container=handle, validate_container_adjustment=handle)
        wanted = (
            1 << nri.CREATE_CONTAINER - 1 | 1 << nri.START_CONTAINER - 1 | 1 << nri.VALIDATE_CONTAINER_ADJUSTMENT - 1
        )
        async with session(handlers) as (runtime, _, _):
            assert (await runtime.introduce()).events == wanted

    run(scenario())


def test_no_handler_at_all_is_our_bug_not_a_subscription_to_everything() -> None:
    with pytest.raises(ValueError, match="Handlers handles no event"):
        subscription(Handlers())


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


def test_synchronisation_in_parts_is_collected_and_answered_with_updates_at_the_last() -> None:
    class Updating(Recorder):
        async def synchronize(
            self, pods: Sequence[nri.PodSandbox], containers: Sequence[nri.Container]
        ) -> Sequence[nri.ContainerUpdate]:
            self.heard += [pod.id for pod in pods] + [container.id for container in containers]
            return [nri.ContainerUpdate(container_id="c0")]

    async def scenario() -> None:
        handlers = Updating()
        async with session(handlers) as (runtime, plugin, _):
            await runtime.introduce()
            for n in range(3):
                part = nri.SynchronizeRequest(
                    pods=[nri.PodSandbox(id=f"p{n}")], containers=[nri.Container(id=f"c{n}")], more=n < 2
                )
                answer = await runtime.call("Synchronize", part, nri.SynchronizeResponse)
                assert answer.more == part.more
                assert len(answer.update) == (n == 2)
                assert plugin.registered == (n == 2)
        assert handlers.heard == ["p0", "p1", "p2", "c0", "c1", "c2", "registered"]

    run(scenario())


def test_unwanted_runtime_gets_the_reason_and_the_session_ends() -> None:
    class Choosy(Recorder):
        async def configure(self, runtime: Runtime) -> None:
            raise Refused(f"not on {runtime.name} {runtime.version}")

    async def scenario() -> None:
        handlers = Choosy()
        async with session(handlers) as (runtime, _, running):
            with pytest.raises(StatusError, match=r"^not on containerd v2.1.0$"):
                await runtime.introduce("v2.1.0")
            with pytest.raises(Refused, match="not on containerd"):
                await running
        assert isinstance(handlers.ended[0], Refused)

    run(scenario())


def test_a_registration_that_is_refused_ends_the_session() -> None:
    async def scenario() -> None:
        handlers = Recorder()
        async with session(handlers) as (runtime, _, running):
            runtime.refuse_registration = "invalid plugin name"
            with pytest.raises(CallError, match="RegisterPlugin failed: invalid plugin name"):
                await running

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


EVENTS: dict[str, Message] = {
    "RunPodSandbox": nri.RunPodSandboxRequest(),
    "UpdatePodSandbox": nri.UpdatePodSandboxRequest(),
    "PostUpdatePodSandbox": nri.PostUpdatePodSandboxRequest(),
    "StopPodSandbox": nri.StopPodSandboxRequest(),
    "RemovePodSandbox": nri.RemovePodSandboxRequest(),
    "CreateContainer": nri.CreateContainerRequest(),
    "PostCreateContainer": nri.PostCreateContainerRequest(),
    "StartContainer": nri.StartContainerRequest(),
    "PostStartContainer": nri.PostStartContainerRequest(),
    "UpdateContainer": nri.UpdateContainerRequest(),
    "PostUpdateContainer": nri.PostUpdateContainerRequest(),
    "StopContainer": nri.StopContainerRequest(),
    "RemoveContainer": nri.RemoveContainerRequest(),
    "ValidateContainerAdjustment": nri.ValidateContainerAdjustmentRequest(),
}


def handler_of(method: str) -> str:
    """CreateContainer -> create_container."""
    return re.sub(r"(?<!^)([A-Z])", r"_\1", method).lower()


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


def test_a_bug_of_the_daemons_is_not_mistaken_for_the_end_of_a_session() -> None:
    class Buggy(Recorder):
        def registered(self, runtime: Runtime) -> None:
            raise RuntimeError(f"a bug with {runtime.name}")

    async def scenario() -> None:
        async with session(Buggy()) as (runtime, _, running):
            await runtime.start()
            with pytest.raises(ExceptionGroup) as caught:
                await running
            assert caught.group_contains(RuntimeError, match="a bug with containerd")

    run(scenario())


def test_nothing_is_served_before_configuration() -> None:
    async def scenario() -> None:
        handlers = Recorder()
        async with session(handlers) as (runtime, plugin, _):
            await runtime.registration
            with pytest.raises(StatusError, match="floor has not been configured"):
                await runtime.call("Synchronize", nri.SynchronizeRequest(), nri.SynchronizeResponse)
            with pytest.raises(StatusError, match="floor has not been configured"):
                await create(runtime)
            assert handlers.heard == []
            assert not plugin.registered

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


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            frame(PLUGIN_CONNECTION, bytes.fromhex("ffffffff 00000005 01 00")),
            "a message of 4294967295 bytes: not ttrpc",
        ),
        (bytes.fromhex("00000001 ffffffff"), "a trunk frame of 4294967295 bytes"),
        (b"GET / HTTP/1.1\r\n\r\n", "a trunk frame of 790644820 bytes"),
        (frame(PLUGIN_CONNECTION, request_message(5, "CreateContainer", CREATE) * 2), "a second request on stream 5"),
    ],
)
def test_what_leaves_no_way_on_ends_the_session_and_says_why(data: bytes, expected: str) -> None:
    async def forever(*_: object) -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        handlers = handling(create_container=forever)
        async with session(handlers) as (runtime, _, running):
            await runtime.start()
            await runtime.send(data)
            with pytest.raises(RemoteProtocolError, match=expected):
                await running
            await runtime.gone.wait()
        assert isinstance(handlers.ended[0], RemoteProtocolError)

    run(scenario())


def test_the_end_of_the_trunk_cancels_what_is_in_hand() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def work(*_: object) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def scenario() -> None:
        handlers = handling(create_container=work)
        async with session(handlers) as (runtime, _, running):
            await runtime.start()
            runtime.expect(5)
            await runtime.send(frame(PLUGIN_CONNECTION, request_message(5, "CreateContainer", CREATE)))
            await started.wait()
            await runtime.close()
            with pytest.raises(ConnectionLostError, match="the runtime closed the connection"):
                await running
            assert cancelled.is_set()
        assert isinstance(handlers.ended[0], ConnectionLostError)

    run(scenario())


def test_an_end_in_the_middle_of_a_frame_is_told_apart() -> None:
    async def scenario() -> None:
        async with session(Recorder()) as (runtime, _, running):
            await runtime.start()
            await runtime.send(frame(PLUGIN_CONNECTION, request_message(5, "CreateContainer", CREATE))[:-1])
            await runtime.close()
            with pytest.raises(RemoteProtocolError, match="ended in the middle of a frame"):
                await running

    run(scenario())


def test_stopping_answers_what_is_in_hand_and_then_hangs_up() -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def work(*_: object) -> None:
        started.set()
        await release.wait()

    async def scenario() -> None:
        handlers = handling(create_container=work)
        async with session(handlers) as (runtime, plugin, running):
            await runtime.start()
            creation = asyncio.create_task(create(runtime))
            await started.wait()
            plugin.stop()
            await asyncio.sleep(0)
            assert not running.done()
            release.set()
            await creation
            await running
            await runtime.gone.wait()
        assert handlers.ended == [None]

    run(scenario())


def test_stopping_does_not_wait_for_a_registration() -> None:
    async def scenario() -> None:
        handlers = Recorder()
        async with session(handlers) as (runtime, plugin, running):
            runtime._receiving.cancel()  # it never answers
            await asyncio.sleep(0)
            plugin.stop()
            await running
        assert handlers.ended == [None]

    run(scenario())


@settings(max_examples=100, deadline=None)
@given(trunks())
def test_any_bytes_at_all_leave_a_session_that_answers_or_has_ended_with_a_reason(data: bytes) -> None:
    async def scenario() -> None:
        handlers = Recorder()
        async with session(handlers) as (runtime, _, running):
            await runtime.start()
            with suppress(OSError):
                await runtime.send(data)
                await runtime.close()
            with pytest.raises((ConnectionLostError, RemoteProtocolError)):
                await running
        assert len(handlers.ended) == 1

    run(scenario())
