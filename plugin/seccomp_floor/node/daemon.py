"""The daemon: everything put together, started in the right order, and ended in order.

The order matters. The process that reads filters was begun before this module was loaded, when there were the privileges for it
(:func:`~seccomp_floor.node.reader.begin`). Next comes the process that judges profiles, while there is one thread; then the session
with the runtime, since a node is unprotected until there is one; and only then what is slow to load and needed by people: control,
metrics, containerd's API.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seccomp_floor.abi import Abi, abis_of_machine
from seccomp_floor.errors import SeccompFloorError
from seccomp_floor.floor import Mode, Policy
from seccomp_floor.node.auditor import Auditor
from seccomp_floor.node.forkserver import ForkServer
from seccomp_floor.node.judging import Judging
from seccomp_floor.node.kernel_log import KernelLog
from seccomp_floor.node.logs import event
from seccomp_floor.node.notify import keep_alive, notify
from seccomp_floor.node.plugin import NodePlugin
from seccomp_floor.node.policy_store import PolicyStore
from seccomp_floor.node.reader import Reader
from seccomp_floor.node.runtimes import Runtimes
from seccomp_floor.node.state import State
from seccomp_floor.node.succession import Succession, sweep
from seccomp_floor.nri.connection import inherit, inherited, run_until, serve
from seccomp_floor.nri.plugin import Identity, Session

if TYPE_CHECKING:
    import socket

    from seccomp_floor.node.control import ControlServer

__all__ = ["IDENTITY", "Options", "run"]

IDENTITY = Identity("seccomp-floor", "90")
"""Late among the plugins, to see what the others have made of a section."""

AGAIN_SECONDS = 2.0
"""The rest before what did not work at the start is tried again."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """What ``seccomp-floor run`` was told. ``metrics``: host and port, None for no metrics."""

    nri_socket: Path
    containerd_socket: Path
    control_socket: Path
    metrics: tuple[str, int] | None
    config: Path | None


def run(options: Options, native: Abi, reader: Reader) -> None:
    """Be the daemon until SIGTERM or SIGINT.

    :raises SeccompFloorError: it cannot begin: the policy is none
    :raises SystemExit: with 1, it had to end by itself: whoever started it should start it anew
    """
    os.umask(0o077)
    policies = PolicyStore(options.config)
    server = ForkServer()
    server.start()

    async def serve_until_stopped() -> bool:
        try:
            return await Daemon(options, policies, server, native, reader).run()
        finally:
            server.stop()
            reader.close()

    if not asyncio.run(serve_until_stopped()):
        raise SystemExit(1)


class Daemon:
    """The running daemon."""

    def __init__(
        self, options: Options, policies: PolicyStore, server: ForkServer, native: Abi, reader: Reader
    ) -> None:
        self._options = options
        self._policies = policies
        self._native = native
        self._succession = Succession(options.nri_socket.parent)
        self._state = State(lambda: self._succession.standing_by)
        self._reader = reader
        self._failed = False
        self._judging = Judging(server, native, self._state)
        self._auditor = Auditor(policies, self._judging, self._state, reader.filters)
        self._runtimes = Runtimes(options.containerd_socket, policies, self._judging, self._state, reader.filters)
        self._helpers: set[asyncio.Task[None]] = set()
        self._control: ControlServer | None = None
        self._kernel_log = KernelLog(self._state, self._doors)
        self._stop = asyncio.Event()
        self._registered = asyncio.Event()
        self._proven = asyncio.Event()
        self._hang_up = asyncio.Event()
        self._plugin = NodePlugin(
            policies, self._judging, self._auditor, self._state, self._succession, self._on_registered
        )

    async def run(self) -> bool:
        """Until a signal says that it is enough; False: it had to end by itself."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up.set)
        if (child := self._reader.child) is not None:
            loop.add_reader(child, self._reader_ended, child)
        session = asyncio.create_task(self._session())
        self._kernel_log.listen(self._policies.policy.mode is Mode.LOG)
        work = (
            keep_alive(),
            self._self_test(),
            self._tell_when_ready(),
            self._face_people(),
            _for_ever(lambda: self._policies.watch(self._reload)),
            _for_ever(self._reload_on_hang_up),
            _for_ever(self._auditor.look_again),
            _for_ever(self._watch_runtimes),
            _for_ever(lambda: self._succession.watch(lambda: sweep(self._options.nri_socket))),
        )
        for part in work:
            self._spare(part)
        try:
            await session
        finally:
            self._stop.set()
            notify("STOPPING=1")
            for helper in self._helpers:
                helper.cancel()
            await asyncio.gather(*self._helpers, return_exceptions=True)
            if self._control is not None:
                await self._control.stop()
        event(log, logging.INFO, "stopped")
        return not self._failed

    def _reader_ended(self, child: socket.socket) -> None:
        """There cannot be another one, since the privileges that it had are given up: the whole has to begin anew."""
        asyncio.get_running_loop().remove_reader(child)
        event(log, logging.ERROR, "the process that reads filters has ended, and so must the daemon")
        self._failed = True
        self._stop.set()

    async def _session(self) -> None:
        """Be the runtime's plugin: on the connection that it left us if it launched us, else on one of our own."""
        if not inherited():
            await serve(self._options.nri_socket, self._plugin, IDENTITY, self._stop)
            return
        identity, reader, writer = await inherit()
        await run_until(Session(self._plugin, identity, reader, writer), self._stop)

    async def _tell_when_ready(self) -> None:
        await self._registered.wait()
        await self._proven.wait()
        notify("READY=1")

    async def _self_test(self) -> None:
        """See whether filters can be read, and prove a section under the policy: what we say that we do, done once."""
        try:
            self._state.auditing = await asyncio.to_thread(self._reader.why_not)
        except SeccompFloorError as error:  # until it answers, each start that it is needed for is refused
            event(log, logging.ERROR, str(error))
        if self._state.auditing:
            event(
                log,
                logging.ERROR,
                f"filters cannot be read from the kernel, so no container is audited: {self._state.auditing}",
            )
        while not self._proven.is_set():
            try:
                await self._accept(self._policies.policy)
            except SeccompFloorError as error:
                if self._state.self_test != str(error):
                    event(log, logging.ERROR, f"the self-test failed, containers will be refused: {error}")
                self._state.self_test = str(error)
                await asyncio.sleep(AGAIN_SECONDS)  # a node that was too busy is not so for ever

    async def _accept(self, policy: Policy) -> None:
        """Try a policy on what every node has, containers without a profile.

        :raises SeccompFloorError: no section can be proven under it
        """
        await self._judging.section(None, policy)
        self._state.self_test = ""
        self._proven.set()

    async def _reload(self) -> None:
        before = self._policies.policy
        await self._policies.reload(self._accept)
        if self._policies.policy != before:
            self._kernel_log.listen(self._policies.policy.mode is Mode.LOG)
            self._runtimes.look()
            self._spare(self._auditor.rejudge())  # which may take long: the next policy is not to wait for it

    async def _reload_on_hang_up(self) -> None:
        while True:
            await self._hang_up.wait()
            self._hang_up.clear()
            await self._reload()

    def _doors(self) -> dict[tuple[Abi, int], str]:
        from seccomp_floor.bpf.libseccomp import resolve
        from seccomp_floor.doors import doors

        floor = self._policies.policy.floor
        abis = abis_of_machine(self._native)
        return {(abi, door.number): door.name for abi in abis for door in doors(floor, abi, resolve) if door.denied}

    async def _face_people(self) -> None:
        """Status, health and metrics. A node is protected without them, so that what goes wrong here is said and no more."""
        from importlib.metadata import version

        from seccomp_floor.bpf.libseccomp import library
        from seccomp_floor.node.view import picture

        versions = version("seccomp-floor"), ".".join(map(str, library().version))
        try:
            from seccomp_floor.node.control import serve_control

            self._control = await serve_control(
                self._options.control_socket,
                lambda: picture(self._state, self._policies, versions),
                lambda: not self._state.ready,
            )
        except SeccompFloorError as error:
            event(log, logging.ERROR, str(error))
        if self._options.metrics is not None:
            self._spare(self._serve_metrics(self._options.metrics, versions))

    async def _serve_metrics(self, address: tuple[str, int], versions: tuple[str, str]) -> None:
        """As soon as the address is to be had: in an upgrade the predecessor still has it."""
        from seccomp_floor.node.metrics import StateCollector, serve_metrics

        collector = StateCollector(self._state, self._policies, versions)
        for tries in itertools.count():
            try:
                serve_metrics(address, collector)
            except SeccompFloorError as error:
                if tries == 0:
                    event(log, logging.WARNING, f"{error}; trying again until it is free")
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                return

    async def _watch_runtimes(self) -> None:
        await self._proven.wait()  # theirs are to load what was proven
        await self._runtimes.watch()

    def _on_registered(self) -> None:
        """The runtime may be another than before: of another version, with other handlers."""
        self._runtimes.look(anew=True)
        self._registered.set()

    def _spare(self, work: Coroutine[object, object, None]) -> None:
        helper = asyncio.create_task(work)
        self._helpers.add(helper)
        helper.add_done_callback(self._helpers.discard)
        helper.add_done_callback(self._helper_ended)

    def _helper_ended(self, helper: asyncio.Task[None]) -> None:
        if not helper.cancelled() and (error := helper.exception()) is not None:
            log.error("a part of the daemon has failed, the session goes on", exc_info=error)


async def _for_ever(watch: Callable[[], Coroutine[object, object, None]]) -> None:
    """Watch, whatever goes wrong: a node that no longer heeds its policy file would look like one that does."""
    while True:
        try:
            await watch()
        except Exception:
            log.exception("a watch of the daemon's has failed, and begins again")
            await asyncio.sleep(AGAIN_SECONDS)
