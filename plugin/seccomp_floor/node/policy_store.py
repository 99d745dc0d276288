"""The policy in force while the file behind it changes.

A new policy takes the place of the old one whole, or not at all: what cannot be read, or is not a policy, or has no provable
floor, leaves the old one in force, and the reason stays to be seen until the file is right again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from seccomp_floor.confine import ConfinedError, TooSlow
from seccomp_floor.errors import SeccompFloorError
from seccomp_floor.floor import Policy
from seccomp_floor.node.logs import event
from seccomp_floor.policy_file import DEFAULT_PATH, UnreadablePolicyError, load_policy

__all__ = ["PolicyStore"]

POLL_SECONDS = 1.0
"""How often the file is looked at. A look is one stat(2); unlike inotify it sees through the symlinks that a kubelet swaps, and
through network file systems."""

log = logging.getLogger(__name__)

_NO_FAULT_OF_ITS = (ConfinedError, TooSlow, UnreadablePolicyError)
"""Errors that say nothing of the policy: at another time it may be as good as any."""

Accept = Callable[[Policy], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Print:
    """What tells one state of a file from the next; None for one that is not there, or that is to be read whatever it is."""

    identity: tuple[int, ...] | None

    @classmethod
    def of(cls, path: Path) -> _Print:
        try:
            found = path.stat()
        except OSError:
            return cls(None)
        return cls((found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size))


class PolicyStore:
    """The policy in force. ``error``: why the file's newer content is not, None where it is."""

    def __init__(self, path: Path | None) -> None:
        """Read it for the first time.

        :raises PolicyError: as :func:`~seccomp_floor.policy_file.load_policy`
        """
        # From here on a file that was there is a file that must be there: a lost mount must not change what is enforced.
        self.path = path if path is not None or not DEFAULT_PATH.is_file() else DEFAULT_PATH
        self._seen = _Print.of(self._watched)
        self.policy = load_policy(self.path)
        self.error: str | None = None
        self.generation = 1
        self._reloading = asyncio.Lock()

    @property
    def source(self) -> str:
        """Where the policy comes from, for people."""
        return "built-in" if self.path is None else str(self.path)

    @property
    def _watched(self) -> Path:
        return self.path or DEFAULT_PATH

    async def reload(self, accept: Accept) -> None:
        """Read the file again; the new policy is in force once ``accept`` has returned without an error. One at a time, so that the
        last to read is the last to be heard."""
        async with self._reloading:
            await self._reload(accept)

    async def _reload(self, accept: Accept) -> None:
        path = self.path if self.path is not None or not DEFAULT_PATH.is_file() else DEFAULT_PATH
        self._seen = _Print.of(path or DEFAULT_PATH)
        try:
            policy = load_policy(path)
            if policy != self.policy:
                await accept(policy)
        except SeccompFloorError as error:
            if isinstance(error, _NO_FAULT_OF_ITS):
                self._seen = _Print(None)  # once more
            if str(error) == self.error:
                return
            self.error = str(error)
            event(log, logging.ERROR, f"the new policy is not accepted, the old one stays in force: {error}")
            return
        self.error, self.path = None, path
        if policy == self.policy:
            event(log, logging.INFO, "the policy is unchanged", policy=self.source)
            return
        self.policy = policy
        self.generation += 1
        event(log, logging.INFO, "a new policy is in force", policy=self.source, mode=str(policy.mode))

    async def watch(self, reload: Callable[[], Awaitable[None]]) -> None:
        """Call ``reload`` whenever the file has changed, and then stayed as it is from one look to the next: one that is being
        written may look like another policy, a shorter one. For ever."""
        last = self._seen
        while True:
            await asyncio.sleep(POLL_SECONDS)
            seen, before = _Print.of(self._watched), last
            last = seen
            if seen == self._seen or seen != before:
                continue
            if seen.identity is None:
                self._seen = seen
                self.error = f"{self._watched}: the policy file has gone"
                event(
                    log, logging.ERROR, "the policy file has gone, its last content stays in force", policy=self.source
                )
                continue
            await reload()
