"""What the node's owner forbids (the floor) and where it applies (the policy), with their defaults.

The file format and its errors are in :mod:`seccomp_floor.policy_file`; this module is values only.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

from seccomp_floor.errors import InputError
from seccomp_floor.profile import Action

__all__ = [
    "FAMILIES",
    "Apply",
    "Floor",
    "Mode",
    "OnBreach",
    "OnNoProfile",
    "OnUnprovable",
    "OptOut",
    "Policy",
    "policy_digest",
]

_FAMILY_NAMES = """
AF_UNSPEC AF_UNIX AF_INET AF_AX25 AF_IPX AF_APPLETALK AF_NETROM AF_BRIDGE AF_ATMPVC AF_X25 AF_INET6 AF_ROSE AF_DECnet AF_NETBEUI
AF_SECURITY AF_KEY AF_NETLINK AF_PACKET AF_ASH AF_ECONET AF_ATMSVC AF_RDS AF_SNA AF_IRDA AF_PPPOX AF_WANPIPE AF_LLC AF_IB AF_MPLS
AF_CAN AF_TIPC AF_BLUETOOTH AF_IUCV AF_RXRPC AF_ISDN AF_PHONET AF_IEEE802154 AF_CAIF AF_ALG AF_NFC AF_VSOCK AF_KCM AF_QIPCRTR
AF_SMC AF_XDP AF_MCTP
"""

FAMILIES: dict[str, int] = {name: number for number, name in enumerate(_FAMILY_NAMES.split())}
"""Socket families by name, as the kernel numbers them on every architecture (include/linux/socket.h)."""

PAIRED = frozenset({FAMILIES["AF_UNIX"], FAMILIES["AF_TIPC"]})
"""The families whose ``socketpair`` hands out descriptors; all others answer EOPNOTSUPP after loading their module
(net/unix/af_unix.c, net/tipc/socket.c)."""


class Mode(StrEnum):
    """What the floor does with a use of a door."""

    ENFORCE = "enforce"
    LOG = "log"
    REPORT = "report"


class OnNoProfile(StrEnum):
    """What a container without a profile gets."""

    FLOOR = "floor"
    HARDENED = "hardened"


class OnUnprovable(StrEnum):
    """What becomes of a container whose filter cannot be proven."""

    REJECT = "reject"
    ADMIT = "admit"


class OnBreach(StrEnum):
    """What becomes of a running container whose filter in the kernel turns out to be open."""

    REPORT = "report"
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class Floor:
    """What no container may reach.

    ``families``: denied socket families by name. ``family_errno``: what a denied family answers. ``socketcall`` and ``io_uring``:
    whether those doors are closed; where not, they are left open by policy and shown so. ``syscalls``: further system calls and
    the errno that each answers. ``action``: ERRNO, or LOG where the floor only watches (``mode: log``).

    :raises InputError: where a family could still be had under another name, so that the floor would promise what it cannot keep
    """

    families: tuple[str, ...] = ("AF_ALG", "AF_VSOCK")
    family_errno: int = errno.EAFNOSUPPORT
    socketcall: bool = True
    io_uring: bool = True
    syscalls: tuple[tuple[str, int], ...] = ()
    action: Action = Action.ERRNO

    def __post_init__(self) -> None:
        for name in self.families:
            if name not in FAMILIES:
                raise InputError("floor.socketFamilies.deny", name, "the name of a socket family (AF_...)")
            alias = _ALIASES.get(name)
            if alias and not alias.closed_by.issubset(self.families):
                raise InputError("floor.socketFamilies.deny", name, alias.remedy)
        named = {name for name, _ in self.syscalls}
        for name in sorted(named):
            multiplexer = _MULTIPLEXED.get(name)
            if multiplexer and multiplexer not in named:
                raise InputError(
                    "floor.syscalls",
                    name,
                    f"{multiplexer} to be named as well: 32-bit programs reach {name} through {multiplexer}(2)",
                )

    @property
    def numbers(self) -> tuple[int, ...]:
        """The denied families' numbers, in the order of the policy, each once."""
        return tuple(dict.fromkeys(FAMILIES[name] for name in self.families))

    @property
    def denies_pairs(self) -> bool:
        """Whether ``socketpair`` itself must be closed, behind ``socketcall`` too: a denied family hands out pairs."""
        return not PAIRED.isdisjoint(self.numbers)


@dataclass(frozen=True, slots=True)
class _Alias:
    closed_by: frozenset[str]
    remedy: str


# A family that the kernel also gives under another name. Sources: net/socket.c __sock_create (SOCK_PACKET);
# net/ipv6/ipv6_sockglue.c (IPV6_ADDRFORM); net/smc/smc_inet.c and TCP_ULP "smc".
_ALIASES = {
    "AF_INET": _Alias(
        frozenset({"AF_INET6"}),
        "AF_INET6 to be denied as well: IPV6_ADDRFORM turns an AF_INET6 socket into an AF_INET one",
    ),
    "AF_PACKET": _Alias(
        frozenset({"AF_INET"}),
        "AF_INET to be denied as well: socket(AF_INET, SOCK_PACKET) opens an AF_PACKET socket. Drop CAP_NET_RAW instead",
    ),
    "AF_SMC": _Alias(
        frozenset({"AF_INET", "AF_INET6"}),
        "AF_INET and AF_INET6 to be denied as well: IPPROTO_SMC and TCP_ULP make AF_SMC sockets of theirs",
    ),
}

# System calls that 32-bit programs also reach through a multiplexer (net/socket.c, ipc/syscall.c).
_SOCKETCALLS = """
bind connect listen accept accept4 getsockname getpeername send recv sendto recvfrom shutdown setsockopt getsockopt sendmsg recvmsg
sendmmsg recvmmsg socket socketpair
"""
_IPC_CALLS = "semop semget semctl semtimedop msgsnd msgrcv msgget msgctl shmat shmdt shmget shmctl"
_MULTIPLEXED = dict.fromkeys(_SOCKETCALLS.split(), "socketcall") | dict.fromkeys(_IPC_CALLS.split(), "ipc")


@dataclass(frozen=True, slots=True)
class Apply:
    """Where the floor applies. ``runtime_handlers``: CRI handlers by exact name (``""`` is the default one), or ``*`` for all."""

    runtime_handlers: tuple[str, ...] = ("*",)
    no_profile: OnNoProfile = OnNoProfile.FLOOR


@dataclass(frozen=True, slots=True)
class OptOut:
    """Who may leave the floor by annotation: pods of these namespaces (``*`` for all), if ``honour``."""

    honour: bool = True
    namespaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """The node owner's whole word. The defaults are the built-in policy."""

    mode: Mode = Mode.ENFORCE
    floor: Floor = field(default_factory=Floor)
    apply: Apply = field(default_factory=Apply)
    opt_out: OptOut = field(default_factory=OptOut)
    on_unprovable: OnUnprovable = OnUnprovable.REJECT
    on_breach: OnBreach = OnBreach.REPORT


@lru_cache(maxsize=8)
def policy_digest(policy: Policy) -> str:
    """A short name for what a policy says, however its file is written: on all nodes the same, with one version of this project."""
    from dataclasses import asdict
    from hashlib import sha256
    from json import dumps

    return sha256(dumps(asdict(policy), sort_keys=True, default=str).encode()).hexdigest()[:12]
