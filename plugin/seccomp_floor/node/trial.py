"""Throw-away containers of each runtime: what is proven here is what runs there.

The runtime compiles sections with a libseccomp of its own, of a version of its own. So each runtime is made to create a container
with our section, which is held before its start, and the filter is read from the kernel. The container needs no image and nothing
on the host: its root is an empty tmpfs, and what it would run is /proc/self/exe. It is never started.
"""

from __future__ import annotations

import json
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty

from seccomp_floor.node.audit import Read
from seccomp_floor.node.containerd import Containerd, ContainerdError, Handler
from seccomp_floor.node.ptrace import Filters
from seccomp_floor.pb import containerd_pb2 as pb
from seccomp_floor.profile import Profile, write_profile

__all__ = ["NAMESPACE", "Tried", "try_runtime"]

NAMESPACE = "seccomp-floor"
"""containerd's namespace for these containers: neither CRI nor anybody's tools see them."""
GONE_SECONDS = 10.0
OLD_SECONDS = 60.0
_SPEC = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
_CONTAINERS, _TASKS = "containerd.services.containers.v1.Containers", "containerd.services.tasks.v1.Tasks"
_NAMESPACES = "containerd.services.namespaces.v1.Namespaces"
_SIGKILL = 9


@dataclass(frozen=True, slots=True)
class Tried:
    """What a runtime has loaded by the time that it holds a container before its start. ``late``: of a container with
    noNewPrivileges it has loaded nothing yet, and will; which it may, since that needs no capability then (seccomp(2))."""

    filters: Filters
    late: bool


def try_runtime(socket: Path, handler: Handler, section: Profile, read: Read) -> Tried:
    """Have a handler's runtime create containers with this section, and read what the kernel has of them.

    :param read: reads a thread's filters
    :raises ContainerdError: they cannot be created
    :raises PtraceError: their filters cannot be read
    """
    with Containerd(socket) as containerd:  # the thread's own: it cleans up even when nobody waits for it any more
        _sweep(containerd)
        filters = _try(containerd, handler, section, read, no_new_privileges=False)
        late = not _try(containerd, handler, section, read, no_new_privileges=True).programs
        return Tried(filters, late and bool(filters.programs))


def _try(containerd: Containerd, handler: Handler, section: Profile, read: Read, *, no_new_privileges: bool) -> Filters:
    identity = f"trial-{secrets.token_hex(8)}"
    spec = _spec(identity, section, no_new_privileges=no_new_privileges)
    container = pb.Container(
        id=identity,
        runtime=pb.Container.Runtime(name=handler.runtime, options=handler.runc_options()),
        spec=AnyMessage(type_url=_SPEC, value=json.dumps(spec).encode()),
    )

    create = f"{_CONTAINERS}/Create", pb.CreateContainerRequest(container=container), pb.CreateContainerResponse
    containerd.call(*create, NAMESPACE)
    try:
        root = pb.Mount(type="tmpfs", source="tmpfs", options=["size=1m"])
        request = pb.CreateTaskRequest(container_id=identity, rootfs=[root])
        return read(containerd.call(f"{_TASKS}/Create", request, pb.CreateTaskResponse, NAMESPACE).pid)
    finally:
        _remove(containerd, identity)


def _sweep(containerd: Containerd) -> None:
    """Remove what a daemon has left behind that was killed in the middle of a trial; another may be at work at the same time."""
    listing = pb.ListContainersRequest()
    found = containerd.call(f"{_CONTAINERS}/List", listing, pb.ListContainersResponse, NAMESPACE)
    for container in found.containers:
        if time.time() - container.created_at.seconds > OLD_SECONDS:
            _remove(containerd, container.id)


def _remove(containerd: Containerd, identity: str) -> None:
    """The task, the container, and the namespace if it was the last one."""
    with suppress(ContainerdError):
        kill = pb.KillTaskRequest(container_id=identity, signal=_SIGKILL)
        containerd.call(f"{_TASKS}/Kill", kill, Empty, NAMESPACE)
    with suppress(ContainerdError):
        _delete_task(containerd, identity)
    with suppress(ContainerdError):
        containerd.call(f"{_CONTAINERS}/Delete", pb.DeleteContainerRequest(id=identity), Empty, NAMESPACE)
        containerd.call(f"{_NAMESPACES}/Delete", pb.DeleteNamespaceRequest(name=NAMESPACE), Empty, NAMESPACE)


def _delete_task(containerd: Containerd, identity: str) -> None:
    """It can be deleted once containerd has heard of its end."""
    deadline = time.monotonic() + GONE_SECONDS
    while True:
        try:
            containerd.call(f"{_TASKS}/Delete", pb.DeleteTaskRequest(container_id=identity), Empty, NAMESPACE)
        except ContainerdError:
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)
        else:
            return


def _spec(identity: str, section: Profile, *, no_new_privileges: bool) -> dict[str, Any]:
    """The least that a runtime takes for a container (runtime-spec, config.md)."""
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/proc/self/exe"],
            "cwd": "/",
            "env": [],
            "noNewPrivileges": no_new_privileges,
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
        ],
        "linux": {
            "cgroupsPath": f"/seccomp-floor-{identity}",
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")],
            "seccomp": write_profile(section),
        },
    }
