"""NRI's Plugin service as a table: which method is which event, which handler answers it, and with what message."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from seccomp_floor.nri.errors import Refused
from seccomp_floor.nri.handlers import Handlers
from seccomp_floor.pb import nri_pb2 as nri

__all__ = ["CALLS", "Call", "overrides", "state_change", "subscription"]


@dataclass(frozen=True, slots=True)
class Call:
    """A method that is an event: its number, its request, its handler, and how to get from one to the other."""

    event: int
    request: type[Message]
    handler: Callable[..., Awaitable[object]]
    run: Callable[[Handlers, Any], Awaitable[Message | None]]

    async def answer(self, handlers: Handlers, request: Message) -> Message:
        """The response, whose bytes are right for this method: most responses of NRI's are empty messages."""
        if not overrides(handlers, self.handler):
            return nri.Empty()
        return await self.run(handlers, request) or nri.Empty()


def overrides(handlers: Handlers, handler: Callable[..., object]) -> bool:
    """Whether ``handlers`` has its own version of this method of ``Handlers``."""
    return getattr(type(handlers), handler.__name__) is not handler


def subscription(handlers: Handlers) -> int:
    """The mask of events to ask for, bit n-1 for event n.

    :raises ValueError: if no handler is overridden, since an empty mask subscribes to everything
    """
    mask = sum(1 << (call.event - 1) for call in CALLS.values() if overrides(handlers, call.handler))
    if not mask:
        raise ValueError(f"{type(handlers).__name__} handles no event")
    return mask


def state_change(event: int) -> Call | None:
    """The method whose event runtimes before NRI 0.12 send through ``StateChange``, with the pod and the container alone."""
    return _STATE_CHANGES.get(event)


async def _create(handlers: Handlers, request: nri.CreateContainerRequest) -> Message:
    return nri.CreateContainerResponse(adjust=await handlers.create_container(request.pod, request.container))


async def _update(handlers: Handlers, request: nri.UpdateContainerRequest) -> Message:
    updates = await handlers.update_container(request.pod, request.container, request.linux_resources)
    return nri.UpdateContainerResponse(update=updates)


async def _stop(handlers: Handlers, request: nri.StopContainerRequest) -> Message:
    return nri.StopContainerResponse(update=await handlers.stop_container(request.pod, request.container))


async def _validate(handlers: Handlers, request: nri.ValidateContainerAdjustmentRequest) -> Message:
    try:
        await handlers.validate_container_adjustment(request)
    except Refused as no:  # here the protocol has words for it
        return nri.ValidateContainerAdjustmentResponse(reject=True, reason=str(no))
    return nri.ValidateContainerAdjustmentResponse()


CALLS = {
    "RunPodSandbox": Call(
        nri.RUN_POD_SANDBOX,
        nri.RunPodSandboxRequest,
        Handlers.run_pod_sandbox,
        lambda h, r: h.run_pod_sandbox(r.pod),
    ),
    "UpdatePodSandbox": Call(
        nri.UPDATE_POD_SANDBOX,
        nri.UpdatePodSandboxRequest,
        Handlers.update_pod_sandbox,
        lambda h, r: h.update_pod_sandbox(r.pod, r.overhead_linux_resources, r.linux_resources),
    ),
    "PostUpdatePodSandbox": Call(
        nri.POST_UPDATE_POD_SANDBOX,
        nri.PostUpdatePodSandboxRequest,
        Handlers.post_update_pod_sandbox,
        lambda h, r: h.post_update_pod_sandbox(r.pod),
    ),
    "StopPodSandbox": Call(
        nri.STOP_POD_SANDBOX,
        nri.StopPodSandboxRequest,
        Handlers.stop_pod_sandbox,
        lambda h, r: h.stop_pod_sandbox(r.pod),
    ),
    "RemovePodSandbox": Call(
        nri.REMOVE_POD_SANDBOX,
        nri.RemovePodSandboxRequest,
        Handlers.remove_pod_sandbox,
        lambda h, r: h.remove_pod_sandbox(r.pod),
    ),
    "CreateContainer": Call(
        nri.CREATE_CONTAINER,
        nri.CreateContainerRequest,
        Handlers.create_container,
        _create,
    ),
    "PostCreateContainer": Call(
        nri.POST_CREATE_CONTAINER,
        nri.PostCreateContainerRequest,
        Handlers.post_create_container,
        lambda h, r: h.post_create_container(r.pod, r.container),
    ),
    "StartContainer": Call(
        nri.START_CONTAINER,
        nri.StartContainerRequest,
        Handlers.start_container,
        lambda h, r: h.start_container(r.pod, r.container),
    ),
    "PostStartContainer": Call(
        nri.POST_START_CONTAINER,
        nri.PostStartContainerRequest,
        Handlers.post_start_container,
        lambda h, r: h.post_start_container(r.pod, r.container),
    ),
    "UpdateContainer": Call(
        nri.UPDATE_CONTAINER,
        nri.UpdateContainerRequest,
        Handlers.update_container,
        _update,
    ),
    "PostUpdateContainer": Call(
        nri.POST_UPDATE_CONTAINER,
        nri.PostUpdateContainerRequest,
        Handlers.post_update_container,
        lambda h, r: h.post_update_container(r.pod, r.container),
    ),
    "StopContainer": Call(
        nri.STOP_CONTAINER,
        nri.StopContainerRequest,
        Handlers.stop_container,
        _stop,
    ),
    "RemoveContainer": Call(
        nri.REMOVE_CONTAINER,
        nri.RemoveContainerRequest,
        Handlers.remove_container,
        lambda h, r: h.remove_container(r.pod, r.container),
    ),
    "ValidateContainerAdjustment": Call(
        nri.VALIDATE_CONTAINER_ADJUSTMENT,
        nri.ValidateContainerAdjustmentRequest,
        Handlers.validate_container_adjustment,
        _validate,
    ),
}
"""The methods of the service that are events. (Configure, Synchronize and Shutdown are the session's.)"""

_STATE_CHANGES = {
    CALLS[method].event: CALLS[method]
    for method in (
        "RunPodSandbox",
        "PostUpdatePodSandbox",
        "StopPodSandbox",
        "RemovePodSandbox",
        "PostCreateContainer",
        "StartContainer",
        "PostStartContainer",
        "PostUpdateContainer",
        "RemoveContainer",
    )
}
