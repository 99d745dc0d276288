"""Handlers for the tests of sessions, and requests to call them with."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from google.protobuf.message import Message

from seccomp_floor.nri.errors import NriError
from seccomp_floor.nri.handlers import Handlers, Runtime
from seccomp_floor.pb import nri_pb2 as nri
from wire.peer import Containerd

CREATE = nri.CreateContainerRequest(
    pod=nri.PodSandbox(id="p", name="web", namespace="shop", runtime_handler="runc"),
    container=nri.Container(id="c", name="app"),
)


class Recorder(Handlers):
    """Creates nothing, remembers everything."""

    def __init__(self) -> None:
        self.runtime: Runtime | None = None
        self.heard: list[str] = []
        self.ended: list[NriError | None] = []

    async def configure(self, runtime: Runtime) -> None:
        self.runtime = runtime

    def registered(self, runtime: Runtime) -> None:
        assert runtime is self.runtime
        self.heard.append("registered")

    def disconnected(self, reason: NriError | None) -> None:
        self.ended.append(reason)

    async def create_container(self, pod: nri.PodSandbox, container: nri.Container) -> nri.ContainerAdjustment | None:
        self.heard.append(f"create {pod.namespace}/{pod.name}/{container.name}")
        return None


def handling(**methods: Callable[..., Awaitable[object]]) -> Recorder:
    """Handlers with these methods, called as they would be without ``self``."""
    kind: type[Recorder] = type(
        "Handling", (Recorder,), {name: staticmethod(method) for name, method in methods.items()}
    )
    return kind()


async def create(runtime: Containerd) -> nri.CreateContainerResponse:
    return await runtime.call("CreateContainer", CREATE, nri.CreateContainerResponse)


EVENTS: dict[str, Message] = {
    "RunPodSandbox": nri.RunPodSandboxRequest(),
    "UpdatePodSandbox": nri.UpdatePodSandboxRequest(),
    "PostUpdatePodSandbox": nri.PostUpdatePodSandboxRequest(),
    "StopPodSandbox": nri.StopPodSandboxRequest(),
    "RemovePodSandbox": nri.RemovePodSandboxRequest(),
    "CreateContainer": nri.CreateContainerRequest(),
    "PostCreateContainer": nri.PostCreateContainerRequest(),
    "StartContainer": nri.StartContainerRequest(),
    "PostStartContainer": nri.PostStartContainerRequest(),
    "UpdateContainer": nri.UpdateContainerRequest(),
    "PostUpdateContainer": nri.PostUpdateContainerRequest(),
    "StopContainer": nri.StopContainerRequest(),
    "RemoveContainer": nri.RemoveContainerRequest(),
    "ValidateContainerAdjustment": nri.ValidateContainerAdjustmentRequest(),
}


def handler_of(method: str) -> str:
    """CreateContainer -> create_container."""
    return re.sub(r"(?<!^)([A-Z])", r"_\1", method).lower()
