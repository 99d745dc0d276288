"""Mux and ttrpc as state machines.

The invariant of all that reads: any bytes, however cut, give the same events and then the same end, which is either "more, please"
or one clear error; and nothing keeps more than one message.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seccomp_floor.nri import mux, ttrpc
from seccomp_floor.nri.errors import LocalProtocolError, NriError, RemoteProtocolError
from seccomp_floor.pb import nri_pb2 as nri
from seccomp_floor.pb import ttrpc_pb2
from wire.peer import Dropped, Wire, frame, message, request_message
from wire.traffic import cut, trunks

MIB = 1 << 20

Outcome = tuple[list[object], str]


def read(pieces: Iterable[bytes], role: type[ttrpc.Server | ttrpc.Client] = ttrpc.Server) -> Outcome:
    """Everything that comes of these bytes on the plugin's connection, and the error that ends it, if one does."""
    trunk, machine, others = mux.TrunkReader(), role(), bytearray()
    if isinstance(machine, ttrpc.Client):
        for _ in range(3):
            machine.call("service", "method", b"")
    events: list[object] = []
    try:
        for piece in pieces:
            trunk.feed(piece)
            while chunk := trunk.next_chunk():
                if chunk[0] != mux.PLUGIN_SERVICE:
                    others += chunk[1]
                    continue
                machine.feed(chunk[1])
                while event := machine.next_event():
                    events.append(event)
    except NriError as error:
        return [*events, bytes(others)], str(error)
    return [*events, bytes(others)], ""


@pytest.mark.parametrize("role", [ttrpc.Server, ttrpc.Client])
@settings(max_examples=300, deadline=None)
@given(data=trunks(), places=st.lists(st.integers(0, 1 << 16), max_size=5))
@example(data=frame(1, b""), places=[])
@example(data=frame(1, message(1, 1, b"")) * 2, places=[])
def test_whole_in_pieces_and_byte_by_byte_are_the_same(
    role: type[ttrpc.Server | ttrpc.Client], data: bytes, places: list[int]
) -> None:
    whole = read([data], role)
    assert read(cut(data, places), role) == whole
    assert read([data[n : n + 1] for n in range(len(data))], role) == whole


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_noise_gives_events_or_one_clear_error(data: bytes) -> None:
    _, error = read([data])
    assert not error or any(part in error for part in ("a trunk frame of", "a message of", "a second request"))


def test_an_error_stays() -> None:
    trunk = mux.TrunkReader()
    trunk.feed(b"\0\0\0\1\xff\xff\xff\xff")
    server = ttrpc.Server()
    server.feed(b"\xff" * 10)
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="a trunk frame of 4294967295 bytes"):
            trunk.next_chunk()
        with pytest.raises(RemoteProtocolError, match="not ttrpc, or out of step"):
            server.next_event()
        trunk.feed(frame(1, b"x"))
        server.feed(request_message(1, "m", nri.Empty()))
    server = ttrpc.Server()
    server.feed(request_message(1, "m", nri.Empty()) * 2 + request_message(3, "m", nri.Empty()))
    assert isinstance(server.next_event(), ttrpc.Request)
    for _ in range(2):
        with pytest.raises(
            RemoteProtocolError, match="a second request on stream 1, whose first has not been answered"
        ):
            server.next_event()


def test_the_longest_frames_pass_and_longer_do_not() -> None:
    data = bytes(4 * MIB)
    events, error = read([frame(1, message(1, 1, data))])
    assert (events[0], error) == (ttrpc.BadRequest(1, ttrpc.INVALID_ARGUMENT, "the request is not a ttrpc.Request"), "")
    _, error = read([frame(1, message(1, 1, data + b"x"))])
    assert error == "a trunk frame of 4194315 bytes, more than the 4194314 that one may have"


def test_a_message_too_long_is_skipped_not_kept() -> None:
    server = ttrpc.Server()
    length = 16 * MIB - 1
    server.feed(length.to_bytes(4, "big") + b"\0\0\0\1\1\0")
    assert server.next_event() == ttrpc.BadRequest(
        1, ttrpc.RESOURCE_EXHAUSTED, "a request may have at most 4194304 bytes"
    )
    for _ in range(length // MIB):
        server.feed(bytes(MIB))
        assert server.next_event() is None
        assert len(server._buffer) == 0
    server.feed(bytes(length % MIB) + request_message(3, "next", nri.Empty()))
    event = server.next_event()
    assert isinstance(event, ttrpc.Request)
    assert event.method == "next"


def test_waiting_for_a_message_keeps_no_more_than_the_message() -> None:
    server, trunk = ttrpc.Server(), mux.TrunkReader()
    data = frame(1, message(1, 1, bytes(4 * MIB)))
    for start in range(0, len(data), 4096):
        trunk.feed(data[start : start + 4096])
        while chunk := trunk.next_chunk():
            server.feed(chunk[1])
            server.next_event()
        assert len(trunk._buffer) < 8
        assert len(server._buffer) <= 4 * MIB + 10


@pytest.mark.parametrize("cut_at", range(1, 30))
def test_a_truncated_stream_is_told_from_one_that_ends(cut_at: int) -> None:
    data = request_message(1, "CreateContainer", nri.Empty())
    assert cut_at < len(data)
    server = ttrpc.Server()
    server.feed(data[:cut_at])
    assert server.next_event() is None
    with pytest.raises(RemoteProtocolError, match="ended in the middle of a message"):
        server.end()
    server.feed(data[cut_at:])
    assert server.next_event()
    server.end()
    trunk = mux.TrunkReader()
    trunk.feed(frame(1, data)[:cut_at])
    trunk.next_chunk()
    with pytest.raises(RemoteProtocolError, match="ended in the middle of a frame"):
        trunk.end()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 200), st.integers(4000, 4200), st.integers(8000, 70_000)), max_size=6))
def test_what_we_frame_containerd_can_read(sizes: list[int]) -> None:
    server, wire = ttrpc.Server(), Wire()
    server.feed(b"".join(request_message(2 * n + 1, "m", nri.Empty()) for n in range(len(sizes))))
    sent, expected = b"", []
    for size in sizes:
        event = server.next_event()
        assert isinstance(event, ttrpc.Request)
        header, data = server.respond(event.stream, b"x" * size)
        sent += mux.frames(mux.PLUGIN_SERVICE, header, data)
        expected.append((1, event.stream, 2, data))
    assert wire.feed(sent) == expected
    assert [data for message in Wire().feed(sent) for data in message[3:]] == [data for *_, data in expected]


@pytest.mark.parametrize("length", range(4080, 4100))
def test_around_the_edge_of_the_runtimes_buffer(length: int) -> None:
    data = bytes(length)
    header = message(1, 2, data)[:10]
    assert Wire().feed(mux.frames(1, header, data)) == [(1, 1, 2, data)]


def test_frames_of_4096_bytes_throughout_would_overflow_the_runtimes_queue() -> None:
    """Why a long message goes out in two frames and not in many."""
    data = message(1, 2, bytes(2 * MIB))
    many = b"".join(frame(1, data[start : start + 4096]) for start in range(0, len(data), 4096))
    with pytest.raises(Dropped, match="failed to queue"):
        Wire().feed(many)
    assert Wire().feed(mux.frames(1, data[:10], data[10:])) == [(1, 1, 2, data[10:])]


def test_requests_carry_what_the_caller_said() -> None:
    call = ttrpc_pb2.Request(
        service="s",
        method="m",
        payload=b"p",
        timeout_nano=1_500_000_000,
        metadata=[ttrpc_pb2.KeyValue(key="k", value="v")],
    )
    server = ttrpc.Server()
    server.feed(message(1, 1, call.SerializeToString()))
    assert server.next_event() == ttrpc.Request(1, "s", "m", b"p", 1.5, (("k", "v"),))
    assert server.next_event() is None


@pytest.mark.parametrize(("nanoseconds", "seconds"), [(0, None), (1, 1e-9), (-5, 0.0)])
def test_a_deadline_that_has_passed_is_not_none(nanoseconds: int, seconds: float | None) -> None:
    server = ttrpc.Server()
    server.feed(message(1, 1, ttrpc_pb2.Request(timeout_nano=nanoseconds).SerializeToString()))
    event = server.next_event()
    assert isinstance(event, ttrpc.Request)
    assert event.timeout == seconds


def test_what_we_must_not_do_is_our_fault_and_changes_nothing() -> None:
    server = ttrpc.Server()
    with pytest.raises(LocalProtocolError, match="an answer on stream 1, where none is owed"):
        server.respond(1, b"")
    server.feed(request_message(1, "m", nri.Empty()))
    assert isinstance(server.next_event(), ttrpc.Request)
    with pytest.raises(LocalProtocolError, match="ttrpc's limit is 4194304"):
        server.respond(1, bytes(4 * MIB))
    server.fail(1, ttrpc.INTERNAL, "too much")
    with pytest.raises(LocalProtocolError, match="where none is owed"):
        server.respond(1, b"")
    client = ttrpc.Client()
    with pytest.raises(LocalProtocolError, match="ttrpc's limit"):
        client.call("s", "m", bytes(4 * MIB))
    assert client.call("s", "m", b"")[0] == 1
    with pytest.raises(LocalProtocolError, match="more than the 4194314 that one may have"):
        mux.frames(1, bytes(10), bytes(4 * MIB + 1))


def test_an_errors_text_is_cut_and_made_sendable() -> None:
    server = ttrpc.Server()
    server.feed(request_message(1, "m", nri.Empty()))
    server.next_event()
    _, data = server.fail(1, ttrpc.INTERNAL, "\ud800" + "é" * MIB)
    status = ttrpc_pb2.Response.FromString(data).status
    assert status.code == ttrpc.INTERNAL
    assert status.message == r"\ud800" + "é" * 4095


def test_a_client_gets_its_answers_in_any_order_and_no_others() -> None:
    client = ttrpc.Client()
    (first, (header, data)), (second, _), (third, _), (fourth, _), (fifth, _) = (
        client.call("s", f"m{n}", b"p", 0.5) for n in range(5)
    )
    assert [first, second, third, fourth, fifth] == [1, 3, 5, 7, 9]
    assert Wire().feed(mux.frames(2, header, data)) == [(2, 1, 1, data)]
    sent = ttrpc_pb2.Request.FromString(data)
    assert (sent.service, sent.method, sent.payload, sent.timeout_nano) == ("s", "m0", b"p", 500_000_000)
    refused = ttrpc_pb2.Response(status=ttrpc_pb2.Status(code=9, message="no"))
    client.feed(
        message(third, 2, ttrpc_pb2.Response(payload=b"r").SerializeToString())
        + message(first, 2, refused.SerializeToString())
        + message(first, 2, b"")
        + message(second, 2, b"\xff")
        + message(fourth, 3, b"")
        + message(fifth, 2, bytes(4 * MIB + 1))
        + message(11, 2, b"")
        + message(4, 1, b"")
    )
    assert [client.next_event() for _ in range(9)] == [
        ttrpc.Response(third, b"r"),
        ttrpc.Failure(first, 9, "no"),
        ttrpc.Stray("a message of type 2 on stream 1, where none is awaited"),
        ttrpc.Failure(second, ttrpc.INTERNAL, "the response is not a ttrpc.Response"),
        ttrpc.Failure(fourth, ttrpc.INTERNAL, "the response is a stream, which was not asked for"),
        ttrpc.Failure(fifth, ttrpc.RESOURCE_EXHAUSTED, "the response has more than 4194304 bytes"),
        ttrpc.Stray("a message of type 2 on stream 11, where none is awaited"),
        ttrpc.Stray("a message of type 1 on stream 4, where none is awaited"),
        None,
    ]
