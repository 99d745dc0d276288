"""What a plugin has to say: the face that the node daemon implements.

The runtime is told to send only the events whose handler is overridden. A handler may take its time without holding up others,
but not the event loop's: long computations belong in a thread or a process. What raises is answered with an error, and the
runtime then fails the operation: :class:`~seccomp_floor.nri.errors.Refused` with its own text, anything else with a text that
says that the plugin failed. So does a handler that is not done well before the runtime's deadline: to be late is to be cut off,
and then the runtime would go on without us.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seccomp_floor.nri.errors import NriError
from seccomp_floor.nri.version import RuntimeVersion
from seccomp_floor.pb.nri_pb2 import (
    Container,
    ContainerAdjustment,
    ContainerUpdate,
    LinuxResources,
    PodSandbox,
    ValidateContainerAdjustmentRequest,
)

__all__ = ["Handlers", "Runtime"]


@dataclass(frozen=True, slots=True)
class Runtime:
    """Who is at the other end, as its Configure request says. Timeouts are in seconds."""

    name: str
    version: RuntimeVersion
    nri_version: str
    config: str
    registration_timeout: float
    request_timeout: float


class Handlers:
    """Override what you want to hear of; signatures follow NRI's Plugin service.

    ``pod`` is an empty message where the runtime has lost the pod (a container stopped or removed after its sandbox).
    """

    # The session: no subscription needed.

    async def configure(self, runtime: Runtime) -> None:
        """The runtime has introduced itself. Raise ``Refused`` if it is not one to work with: the session then ends."""

    async def synchronize(
        self, pods: Sequence[PodSandbox], containers: Sequence[Container]
    ) -> Sequence[ContainerUpdate]:
        """Everything that exists already, all parts put together. Answer first, and look closer afterwards: the deadline that
        the runtime gives is one for all parts, and a plugin that misses it is dropped."""
        raise NotImplementedError

    async def shutdown(self) -> None:
        """The runtime is going down."""

    def registered(self, runtime: Runtime) -> None:
        """The runtime has our answer to its synchronisation: from here on it sends events."""

    def disconnected(self, reason: NriError | None) -> None:
        """The session is over. ``reason`` is None when we ended it ourselves; ``registered`` may never have been called."""

    # Events with a verdict: an error fails the operation.

    async def run_pod_sandbox(self, pod: PodSandbox) -> None: ...

    async def update_pod_sandbox(
        self, pod: PodSandbox, overhead: LinuxResources, resources: LinuxResources
    ) -> None: ...

    async def create_container(self, pod: PodSandbox, container: Container) -> ContainerAdjustment | None:
        """A container is to be created; None or an empty adjustment leaves it as it is."""
        raise NotImplementedError

    async def validate_container_adjustment(self, request: ValidateContainerAdjustmentRequest) -> None:
        """All plugins have spoken: raise ``Refused`` where the sum must not be."""

    async def start_container(self, pod: PodSandbox, container: Container) -> None:
        """The container's init process exists, held by the OCI runtime; no code of the user's has run."""

    async def update_container(
        self, pod: PodSandbox, container: Container, resources: LinuxResources
    ) -> Sequence[ContainerUpdate]:
        raise NotImplementedError

    async def stop_container(self, pod: PodSandbox, container: Container) -> Sequence[ContainerUpdate]:
        """Comes when the container is stopped and when it ends by itself. containerd only logs an error."""
        raise NotImplementedError

    # News: containerd only logs an error.

    async def post_update_pod_sandbox(self, pod: PodSandbox) -> None: ...

    async def stop_pod_sandbox(self, pod: PodSandbox) -> None: ...

    async def remove_pod_sandbox(self, pod: PodSandbox) -> None: ...

    async def post_create_container(self, pod: PodSandbox, container: Container) -> None: ...

    async def post_start_container(self, pod: PodSandbox, container: Container) -> None: ...

    async def post_update_container(self, pod: PodSandbox, container: Container) -> None: ...

    async def remove_container(self, pod: PodSandbox, container: Container) -> None: ...
