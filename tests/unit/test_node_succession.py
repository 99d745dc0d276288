"""Who leads, as each of two daemons sees it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from seccomp_floor.node.succession import Succession

NAME = "seccomp-floor"
ALONE, BOTH = [NAME], [NAME, "another", NAME]


@pytest.fixture
def line(tmp_path: Path) -> tuple[Succession, Succession]:
    """An older and a newer daemon, both with a session."""
    older, newer = Succession(tmp_path, NAME), Succession(tmp_path, NAME)
    older.enter()
    newer.enter()
    return older, newer


def test_whoever_comes_first_leads(line: tuple[Succession, Succession]) -> None:
    older, newer = line
    assert (older.leads, older.standing_by) == (True, False)
    assert (newer.leads, newer.standing_by) == (False, True)


def test_the_next_leads_as_soon_as_the_leader_s_session_ends(line: tuple[Succession, Succession]) -> None:
    """Not at the next poll: the creation that comes at that moment is already the successor's."""
    older, newer = line
    older.leave()
    assert newer.leads
    assert not newer.standing_by


def test_who_comes_back_stands_by(line: tuple[Succession, Succession]) -> None:
    older, newer = line
    older.leave()
    assert newer.leads
    older.enter()
    assert older.standing_by
    assert newer.leads


def test_a_creation_that_the_leader_was_asked_about_is_the_leader_s_to_judge(
    line: tuple[Succession, Succession],
) -> None:
    older, newer = line
    assert newer.leaves_to_leader(BOTH)
    assert not older.leaves_to_leader(BOTH)


def test_a_leader_that_the_runtime_has_dropped_is_not_waited_for(line: tuple[Succession, Succession]) -> None:
    """It holds the lock still, as one does that was stopped: the runtime's own list says that nobody has answered."""
    older, newer = line
    assert not newer.leaves_to_leader(ALONE)
    assert (newer.leads, newer.standing_by) == (True, False)
    assert older.leads  # it knows of nothing; the runtime no longer asks it
    older.leave()
    older.enter()
    assert newer.leads
    assert newer.standing_by is False
    assert older.standing_by is (not older.leads)


def test_plugins_of_other_names_are_nobody_s_leader(line: tuple[Succession, Succession]) -> None:
    _, newer = line
    assert not newer.leaves_to_leader([NAME, "seccomp-floor-successor", "90-seccomp-floor"])


def test_without_a_session_nobody_leads_or_stands_by(tmp_path: Path) -> None:
    """Who is not registered must not keep the lock from one who is."""
    daemon = Succession(tmp_path, NAME)
    assert (daemon.leads, daemon.standing_by) == (False, False)


def test_without_a_directory_each_acts_for_itself(tmp_path: Path) -> None:
    """The runtime refuses where they disagree; that nobody acts would be worse."""
    daemon = Succession(tmp_path / "none", NAME)
    daemon.enter()
    assert daemon.leads


def test_a_directory_made_anew_is_the_one_that_counts(tmp_path: Path) -> None:
    """The runtime may have removed and made it while it was restarted; the next session looks again."""
    directory = tmp_path / "nri"
    directory.mkdir()
    older, newer = Succession(directory, NAME), Succession(directory, NAME)
    older.enter()
    directory.rmdir()
    directory.mkdir()
    older.enter()
    newer.enter()
    assert (older.leads, newer.leads) == (True, False)


async def _succeeded(newer: Succession, older: Succession) -> int:
    count = 0

    async def succeeded() -> None:
        nonlocal count
        count += 1

    watching = asyncio.create_task(newer.watch(succeeded))
    await asyncio.sleep(0.3)
    assert count == 0
    older.leave()
    assert newer.leads  # a creation notices before the watch does
    await asyncio.sleep(0.5)
    watching.cancel()
    return count


def test_a_succession_is_told_once(line: tuple[Succession, Succession]) -> None:
    older, newer = line
    assert asyncio.run(_succeeded(newer, older)) == 1
