"""Whether there is another daemon, as far as the lock tells. What decides about containers is not here, but on a real node."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

import pytest

from seccomp_floor.node.succession import Succession


@pytest.fixture
def line(tmp_path: Path) -> tuple[Succession, Succession]:
    """An older and a newer daemon, both with a session."""
    older, newer = Succession(tmp_path), Succession(tmp_path)
    older.enter()
    newer.enter()
    return older, newer


def test_whoever_comes_later_knows_of_the_other(line: tuple[Succession, Succession]) -> None:
    older, newer = line
    assert (older.accompanied, newer.accompanied) == (False, True)
    assert (older.standing_by, newer.standing_by) == (False, True)


def test_who_stands_by_is_shown_by_what_happens(line: tuple[Succession, Succession]) -> None:
    """Whatever the lock tells: somebody else may have it."""
    _, newer = line
    newer.decided(by_another=False)
    assert (newer.accompanied, newer.standing_by) == (True, False)
    newer.decided(by_another=True)
    assert newer.standing_by


def test_who_comes_back_is_the_later_one(tmp_path: Path) -> None:
    older, newer = Succession(tmp_path), Succession(tmp_path)
    older.enter()
    older.leave()
    newer.enter()
    older.enter()
    assert (older.accompanied, newer.accompanied) == (True, False)


def test_without_a_session_or_a_directory_nobody_is_known(tmp_path: Path) -> None:
    daemon = Succession(tmp_path)
    assert (daemon.accompanied, daemon.standing_by) == (False, False)
    daemon = Succession(tmp_path / "none")
    daemon.enter()
    assert (daemon.accompanied, daemon.standing_by) == (False, False)


def test_a_directory_made_anew_is_the_one_that_counts(tmp_path: Path) -> None:
    """The runtime may have removed and made it while it was restarted; the next session looks again."""
    directory = tmp_path / "nri"
    directory.mkdir()
    older, newer = Succession(directory), Succession(directory)
    older.enter()
    directory.rmdir()
    directory.mkdir()
    older.enter()
    newer.enter()
    assert (older.accompanied, newer.accompanied) == (False, True)


def test_a_stranger_s_lock_is_another_daemon_for_all_that_is_known(tmp_path: Path) -> None:
    stranger = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(stranger, fcntl.LOCK_SH)
    daemon = Succession(tmp_path)
    daemon.enter()
    assert daemon.accompanied
    daemon.decided(by_another=False)
    assert not daemon.standing_by
    os.close(stranger)


async def _succeeded(newer: Succession, older: Succession) -> int:
    count = 0

    async def succeeded() -> None:
        nonlocal count
        count += 1

    watching = asyncio.create_task(newer.watch(succeeded))
    await asyncio.sleep(0.3)
    assert count == 0
    older.leave()
    await asyncio.sleep(0.5)
    watching.cancel()
    return count


def test_a_succession_is_told_once(line: tuple[Succession, Succession]) -> None:
    older, newer = line
    newer.decided(by_another=True)
    assert asyncio.run(_succeeded(newer, older)) == 1
    assert (newer.accompanied, newer.standing_by) == (False, False)
