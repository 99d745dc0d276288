"""The metrics' port: anyone may reach it, and nobody may use the daemon up through it."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from seccomp_floor.errors import SeccompFloorError
from seccomp_floor.node import metrics
from seccomp_floor.node.metrics import MOST_SCRAPES, StateCollector, serve_metrics
from seccomp_floor.node.policy_store import PolicyStore
from seccomp_floor.node.state import State


@pytest.fixture
def collector(tmp_path: Path) -> StateCollector:
    """Of a daemon that has done nothing yet."""
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\n")
    return StateCollector(State(), PolicyStore(path), ("0.1.0", "2.5.4"))


@pytest.fixture(params=["127.0.0.1", "::1"])
def address(
    request: pytest.FixtureRequest, collector: StateCollector, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, int]]:
    """Where they are served, with little patience."""
    monkeypatch.setattr(metrics, "SCRAPE_SECONDS", 1.0)
    monkeypatch.setattr(metrics._Handler, "timeout", 1.0)
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((request.param, 0))
        port: int = listener.getsockname()[1]
    stop = serve_metrics((request.param, port), collector)
    yield request.param, port
    stop()


def scrape(address: tuple[str, int]) -> str:
    """As Prometheus does."""
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    with urllib.request.urlopen(f"http://{host}:{address[1]}/metrics", timeout=5) as answer:
        text: str = answer.read().decode()
    return text


def test_they_are_served(address: tuple[str, int]) -> None:
    assert "seccomp_floor_ready 0.0" in scrape(address)


def test_many_connections_take_few_threads_and_no_time(address: tuple[str, int]) -> None:
    """Idle, or so slow that they never come to an end: after a while there is room again."""
    before = threading.active_count()
    with ExitStack() as stack:
        for number in range(200):
            connection = stack.enter_context(socket.create_connection(address))
            if number % 2:
                connection.send(b"GET /metrics HTTP/1.0\r\nX: ")
        time.sleep(0.3)
        assert threading.active_count() - before <= 2 * MOST_SCRAPES
        assert until_there_is_room(address) < 10


def test_a_connection_has_its_time_however_slowly_it_sends(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as connection:
        begun = time.monotonic()
        with suppress(OSError):  # reset, or a broken pipe
            while time.monotonic() - begun < 30:
                connection.send(b"G")
                time.sleep(0.1)
        assert time.monotonic() - begun < 5


def until_there_is_room(address: tuple[str, int]) -> float:
    """Seconds until a scrape is answered."""
    begun = time.monotonic()
    while True:
        try:
            assert "seccomp_floor_ready" in scrape(address)
        except OSError:
            assert time.monotonic() - begun < 30
            time.sleep(0.1)
        else:
            return time.monotonic() - begun


def test_an_address_that_is_taken(address: tuple[str, int], collector: StateCollector) -> None:
    with pytest.raises(SeccompFloorError, match="in use"):
        serve_metrics(address, collector)
