"""What the probe finds in the pods of a cluster, through ``kubectl exec``."""

from __future__ import annotations

from collections.abc import Sequence

from testcluster.kubectl import Kubectl
from testnode import probe
from testnode.reading import FAMILIES, Reading

STAYS = ("i386 socketcall socketpair", "i386 socketcall socketpair, high half")
"""No family that is denied implements socketpair, so no socket comes out of this door: it is left as it was, for 32-bit
programs that need pairs of AF_UNIX sockets (net/socket.c makes them, finds EOPNOTSUPP, and destroys them)."""
CLOSED = ("closed-by-filter", "abi-missing")


def read_doors(kubectl: Kubectl, pod: str, namespace: str = "default", container: str = "probe") -> Reading:
    """The doors of one container of a pod."""

    def run(command: Sequence[str]) -> str:
        return kubectl.exec(pod, command, f"--namespace={namespace}", f"--container={container}")

    return Reading(tuple(probe.doors(run, *FAMILIES)), {})


def left_open(reading: Reading) -> list[str]:
    """What is against the promise: doors that the floor should close, and those that should never give a socket."""
    return [
        f"{door.name}: {door.kind}"
        for door in reading.doors
        if (door.kind == "opened" if door.name in STAYS else door.kind not in CLOSED)
    ]
