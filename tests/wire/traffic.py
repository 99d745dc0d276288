"""What may come over a trunk, for hypothesis to make up."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from hypothesis import strategies as st

from seccomp_floor.pb import nri_pb2 as nri
from seccomp_floor.pb import ttrpc_pb2
from wire.peer import frame, message, request_message

__all__ = ["cut", "trunks"]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(bounds)]


requests = st.builds(
    request_message,
    st.integers(0, 9),
    st.sampled_from(["CreateContainer", "", "x" * 300]),
    st.builds(nri.PodSandbox, id=st.text(st.characters(codec="utf-8"), max_size=20)),
    deadline=st.none() | st.floats(-1, 5),
)
responses = st.binary(max_size=40).map(lambda payload: ttrpc_pb2.Response(payload=payload).SerializeToString())
messages = st.one_of(
    requests,
    st.builds(message, st.integers(0, 9), st.integers(0, 255), st.binary(max_size=40), st.integers(0, 255)),
    st.builds(message, st.integers(0, 9), st.just(2), responses),
    st.binary(max_size=30),
)


@st.composite
def trunks(draw: st.DrawFn) -> bytes:
    """A connection's bytes in frames cut anywhere, mostly honest."""
    content = b"".join(draw(st.lists(messages, max_size=6)))
    pieces = cut(content, draw(st.lists(st.integers(0, 1 << 16), max_size=5)))
    connections = st.sampled_from([1, 1, 1, 1, 2, 7])
    data = b"".join(frame(draw(connections), piece) for piece in pieces)
    return (
        data
        + draw(st.sampled_from([b"", b"", b"\0\0\0\1\xff\xff\xff\xff", b"\0\0\0\1\0\0"]))
        + draw(st.binary(max_size=9))
    )
