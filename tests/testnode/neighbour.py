"""Another NRI plugin on the node, in a thread of the tests: it does what it is told to each container."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from seccomp_floor.nri.connection import connect
from seccomp_floor.nri.errors import NriError
from seccomp_floor.nri.handlers import Handlers, Runtime
from seccomp_floor.nri.plugin import Identity, Session
from seccomp_floor.pb import nri_pb2 as nri

Adjust = Callable[[nri.PodSandbox, nri.Container], nri.ContainerAdjustment | None]


class Neighbour:
    """Registered when the constructor returns; a context manager."""

    def __init__(self, socket: Path, adjust: Adjust, index: str = "50") -> None:
        """Connect; plugins are called in the order of their index."""
        self._registered = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._session: Session | None = None
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._run(socket, adjust, index)])
        self._thread.start()
        assert self._registered.wait(30)

    async def _run(self, socket: Path, adjust: Adjust, index: str) -> None:
        handlers = _Adjusting(adjust, self._registered)
        self._session = Session(handlers, Identity("neighbour", index), *await connect(socket))
        try:
            await self._session.run()
        except NriError:
            self._registered.set()  # so that who waits sees the failure in what follows

    def __enter__(self) -> Self:
        """It is there already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave."""
        if self._session is not None:
            self._loop.call_soon_threadsafe(self._session.stop)
        self._thread.join()
        self._loop.close()


class _Adjusting(Handlers):
    def __init__(self, adjust: Adjust, registered: threading.Event) -> None:
        self._adjust = adjust
        self._registered = registered

    def registered(self, runtime: Runtime) -> None:  # noqa: ARG002
        self._registered.set()

    async def create_container(self, pod: nri.PodSandbox, container: nri.Container) -> nri.ContainerAdjustment | None:
        return self._adjust(pod, container)
