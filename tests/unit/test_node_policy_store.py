"""A new policy takes the place of the old one whole, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from seccomp_floor.confine import ConfinedError
from seccomp_floor.errors import SeccompFloorError
from seccomp_floor.floor import Mode, Policy
from seccomp_floor.node import policy_store
from seccomp_floor.node.policy_store import PolicyStore
from seccomp_floor.policy_file import PolicyError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A policy file."""
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\n")
    return path


async def accept(_policy: Policy) -> None:
    """Any policy will do."""


def test_a_better_policy_takes_over(path: Path) -> None:
    """And is counted."""
    store = PolicyStore(path)
    path.write_text("version: 1\nmode: report\n")
    asyncio.run(store.reload(accept))
    assert (store.policy.mode, store.error, store.generation) == (Mode.REPORT, None, 2)


@pytest.mark.parametrize("text", ["version: 2\n", "[", "\0", "floor: {socketFamilies: {deny: [AF_NOTHING]}}\n"])
def test_an_invalid_policy_changes_nothing_but_the_error(path: Path, text: str) -> None:
    """Until the file is right again."""
    store = PolicyStore(path)
    before = store.policy
    path.write_text(text)
    asyncio.run(store.reload(accept))
    assert (store.policy, store.generation) == (before, 1)
    assert store.error is not None
    assert str(path) in store.error
    path.write_text("version: 1\nmode: log\n")
    asyncio.run(store.reload(accept))
    assert store.policy.mode is Mode.LOG
    assert store.error is None


def test_a_policy_that_cannot_be_proven_is_not_accepted(path: Path) -> None:
    """It is tried before it is in force."""

    async def refuse(_policy: Policy) -> None:
        raise SeccompFloorError("no section")

    store = PolicyStore(path)
    path.write_text("version: 1\nmode: report\n")
    asyncio.run(store.reload(refuse))
    assert (store.policy.mode, store.error) == (Mode.ENFORCE, "no section")


def test_a_file_that_goes_leaves_the_policy_in_force(path: Path) -> None:
    """A lost mount must not change what is enforced."""
    path.write_text("version: 1\nmode: report\n")
    store = PolicyStore(path)
    path.unlink()
    asyncio.run(store.reload(accept))
    assert store.policy.mode is Mode.REPORT
    assert store.error is not None


def test_the_default_file_once_seen_must_stay(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --config the built-in policy holds where there is no file, and never again where there was one."""
    monkeypatch.setattr(policy_store, "DEFAULT_PATH", path)
    monkeypatch.setattr("seccomp_floor.policy_file.DEFAULT_PATH", path)
    path.unlink()
    store = PolicyStore(None)
    assert store.source == "built-in"
    path.write_text("version: 1\nmode: report\n")
    asyncio.run(store.reload(accept))
    assert (store.policy.mode, store.source) == (Mode.REPORT, str(path))
    path.unlink()
    asyncio.run(store.reload(accept))
    assert store.policy.mode is Mode.REPORT
    assert store.error is not None


def test_a_first_policy_that_is_none_is_an_error(path: Path) -> None:
    """There is no old one to stay in force."""
    path.write_text("version: 2\n")
    with pytest.raises(PolicyError, match="version"):
        PolicyStore(path)
    with pytest.raises(PolicyError):
        PolicyStore(path.with_suffix(".gone"))


def swap(path: Path) -> None:
    """As a kubelet does with a ConfigMap: the name leads to another file from one moment to the next."""
    second = path.with_suffix(".second")
    second.write_text("version: 1\nmode: log\n")
    link = path.with_suffix(".link")
    link.symlink_to(second)
    link.rename(path)


def rewrite(path: Path) -> None:
    """As an editor does: another file of the same length under the same name."""
    new = path.with_suffix(".new")
    new.write_text("version: 1\n")
    new.rename(path)


@pytest.mark.parametrize("change", [swap, rewrite, Path.unlink])
def test_every_change_of_the_file_is_seen(
    path: Path, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing else: not the passing of time."""
    monkeypatch.setattr(policy_store, "POLL_SECONDS", 0.01)

    async def watched() -> int:
        store = PolicyStore(path)
        seen = asyncio.Event()

        def reload() -> Awaitable[None]:
            seen.set()
            return store.reload(accept)

        watching = asyncio.create_task(store.watch(reload))
        await asyncio.sleep(0.05)
        assert not seen.is_set()
        change(path)
        if change is not Path.unlink:
            await seen.wait()
        while not store.error and change is Path.unlink:  # noqa: ASYNC110 (nothing is called for a file that has gone)
            await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        watching.cancel()
        return store.generation

    assert asyncio.run(asyncio.wait_for(watched(), 30)) == (2 if change is swap else 1)


def test_of_two_reloads_at_once_the_last_to_read_is_heard(path: Path) -> None:
    """A mistake, taken back while its policy is still being proven."""
    write = path.write_text

    async def scenario() -> tuple[Mode, str | None]:
        store = PolicyStore(path)
        proving = asyncio.Event()

        async def slowly(policy: Policy) -> None:
            if policy.mode is Mode.REPORT:
                await proving.wait()

        write("mode: report")
        mistake = asyncio.create_task(store.reload(slowly))
        await asyncio.sleep(0)
        write("mode: enforce")
        mended = asyncio.create_task(store.reload(slowly))
        await asyncio.sleep(0)
        proving.set()
        await asyncio.gather(mistake, mended)
        return store.policy.mode, store.error

    assert asyncio.run(scenario()) == (Mode.ENFORCE, None)


def test_a_file_that_is_being_written_is_not_taken(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its beginning is a policy as well, and another one: here it would deny, where the whole only logs."""
    monkeypatch.setattr(policy_store, "POLL_SECONDS", 0.05)
    path.write_text("version: 1\nmode: log\n")

    async def written() -> list[Mode]:
        store, modes = PolicyStore(path), []

        async def reload() -> None:
            await store.reload(accept)
            modes.append(store.policy.mode)

        watching = asyncio.create_task(store.watch(reload))
        with path.open("w") as file:
            for part in ("version: 1\n", "onBreach: kill\n", "onUnprovable: admit\n", "mode: report\n"):
                file.write(part)
                file.flush()
                await asyncio.sleep(0.04)
        while not modes:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        watching.cancel()
        return modes

    assert asyncio.run(written()) == [Mode.REPORT]


def test_a_policy_that_could_not_be_tried_is_tried_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node was busy: no fault of the policy's, and nobody has to touch the file for it."""
    monkeypatch.setattr(policy_store, "POLL_SECONDS", 0.01)
    tries = 0

    async def accept_the_third(_policy: Policy) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise ConfinedError("the daemon was held up")

    async def tried() -> None:
        store = PolicyStore(path)
        watching = asyncio.create_task(store.watch(lambda: store.reload(accept_the_third)))
        path.write_text("version: 1\nmode: report\n")  # noqa: ASYNC240 (of the test)
        async with asyncio.timeout(5):
            while store.policy.mode is not Mode.REPORT:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert store.error is None
        watching.cancel()

    asyncio.run(tried())
    assert tries == 3
