"""Who uses the doors: the kernel's records of calls that a filter has logged (SCMP_ACT_LOG), and the containers that made them.

A record (audit type 1326, kernel/auditsc.c) names process, architecture and number of a call, not its arguments. Of a section that
logs the floor's doors only, each record of ``socket`` is the use of a denied family; one of ``socketcall`` is any socket of a
32-bit program's. Records come by the audit subsystem's multicast group, which an audit daemon does not keep from us, or, where that
may not be read, from /dev/kmsg, where the kernel leaves most out when there are many.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from seccomp_floor.abi import BY_AUDIT_ARCH, Abi
from seccomp_floor.node.logs import event
from seccomp_floor.node.processes import container_of
from seccomp_floor.node.state import State

__all__ = ["KernelLog", "LoggedCall", "parse_record"]

_NETLINK_AUDIT, _READLOG = 9, 1 << 0  # include/uapi/linux/netlink.h, audit.h: AUDIT_NLGRP_READLOG is group 1
_NETLINK_HEADER = 16
_SECCOMP, _RET_LOG = 1326, 0x7FFC_0000
LONGEST_RECORD = 16384

MOST_AT_ONCE = 256
"""Records that are looked at before others have their turn: whoever logs a lot shall not hold up the answers to the runtime."""
MOST_REMEMBERED = 4096

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoggedCall:
    """One record: who made which call."""

    pid: int
    abi: Abi
    number: int


def parse_record(text: str) -> LoggedCall | None:
    """A record's text; None where it is of something else.

    Its fields can be told apart by spaces: the kernel writes names that contain any in hexadecimal (``audit_log_untrustedstring``).
    """
    fields: dict[str, str] = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        if equals:
            fields.setdefault(name, value)
    try:
        if int(fields["code"], 16) & 0xFFFF_0000 != _RET_LOG:
            return None
        number, pid = int(fields["syscall"]), int(fields["pid"])
        abis = BY_AUDIT_ARCH[int(fields["arch"], 16)]
    except (KeyError, ValueError):
        return None
    return next((LoggedCall(pid, abi, number) for abi in abis if abi.admits(number)), None)


class KernelLog:
    """Listens while it is told to, and counts."""

    def __init__(self, state: State, doors: Callable[[], Mapping[tuple[Abi, int], str]]) -> None:
        """:param doors: the names of the doors, by ABI and number; asked when listening begins"""
        self._state = state
        self._doors = doors
        self._names: Mapping[tuple[Abi, int], str] = {}
        self._source: socket.socket | int | None = None
        self._said: OrderedDict[tuple[str, str], None] = OrderedDict()

    def listen(self, wanted: bool) -> None:
        """Begin or end."""
        loop = asyncio.get_running_loop()
        if self._source is not None:
            loop.remove_reader(self._source)
            if isinstance(self._source, int):
                os.close(self._source)
            else:
                self._source.close()
            self._source = None
        if not wanted:
            return
        self._names = self._doors()
        try:
            self._source = _netlink()
        except OSError as refused:
            try:
                self._source = _kmsg()
            except OSError as error:
                event(log, logging.ERROR, f"uses of doors cannot be counted: {refused.strerror}, {error.strerror}")
                return
        loop.add_reader(self._source, self._read)

    def _read(self) -> None:
        containers = {record.id for record in self._state.records}
        owners: dict[int, str | None] = {}
        for _ in range(MOST_AT_ONCE):
            try:
                if isinstance(self._source, socket.socket):
                    text = _netlink_text(self._source.recv(LONGEST_RECORD))
                elif self._source is not None:
                    text = os.read(self._source, LONGEST_RECORD).decode(errors="replace")
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS, EPIPE: some were lost, more will come
                continue
            call = parse_record(text)
            if call is not None and (name := self._names.get((call.abi, call.number))) is not None:
                if call.pid not in owners:
                    owners[call.pid] = container_of(call.pid, containers)
                self._count(call, name, owners[call.pid] or "")

    def _count(self, call: LoggedCall, door: str, container: str) -> None:
        records = self._state.records
        record = records.get(container)
        if record is None:  # another container's, or it has ended already
            self._state.uses["", ""] += 1
            return
        self._state.uses[record.namespace, record.pod] += 1
        records.update(record.id, uses=record.uses + 1)
        if (record.id, door) not in self._said:
            self._said[record.id, door] = None
            if len(self._said) > MOST_REMEMBERED:
                self._said.popitem(last=False)
            event(log, logging.WARNING, "a container uses a door", **record.label, door=f"{call.abi.short} {door}")


def _netlink() -> socket.socket:
    source = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_AUDIT)
    try:
        source.bind((0, _READLOG))
        source.setblocking(False)
    except OSError:
        source.close()
        raise
    return source


def _netlink_text(message: bytes) -> str:
    if int.from_bytes(message[4:6], sys.byteorder) != _SECCOMP:  # struct nlmsghdr: length, type
        return ""
    return message[_NETLINK_HEADER:].decode(errors="replace")


def _kmsg() -> int:
    source = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.lseek(source, 0, os.SEEK_END)
    return source
