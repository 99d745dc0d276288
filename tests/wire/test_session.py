"""The plugin's session as a whole: how it begins, how it ends, and what survives."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import given, settings

from seccomp_floor.nri.errors import CallError, ConnectionLostError, Refused, RemoteProtocolError
from seccomp_floor.nri.handlers import Handlers, Runtime
from seccomp_floor.nri.service import subscription
from seccomp_floor.pb import nri_pb2 as nri
from wire.peer import PLUGIN_CONNECTION, StatusError, frame, request_message, run, session
from wire.plugins import CREATE, Recorder, create, handling
from wire.traffic import trunks


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


def test_a_configuration_that_failed_leaves_nothing_to_serve() -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("not this time")

    async def scenario() -> None:
        async with session(handling(configure=broken)) as (runtime, plugin, _):
            with pytest.raises(StatusError, match="failed in Configure"):
                await runtime.introduce()
            with pytest.raises(StatusError, match="has not been configured"):
                await create(runtime)
            assert not plugin.registered

    run(scenario())


def test_a_synchronisation_whose_answer_cannot_be_sent_is_no_registration() -> None:
    async def synchronize(*_: object) -> Sequence[nri.ContainerUpdate]:
        return [nri.ContainerUpdate(container_id="x" * (4 << 20))]

    async def scenario() -> None:
        handlers = handling(synchronize=synchronize)
        async with session(handlers) as (runtime, plugin, _):
            await runtime.introduce()
            with pytest.raises(StatusError, match="failed in Synchronize"):
                await runtime.call("Synchronize", nri.SynchronizeRequest(), nri.SynchronizeResponse)
            assert not plugin.registered
        assert handlers.heard == []

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
