"""containerd's own API, as far as audit, status and doctor need it: what exists, on which runtime, configured how.

gRPC takes a tenth of a second to load, so whoever needs no answer from containerd should not import this module.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from seccomp_floor.errors import SeccompFloorError
from seccomp_floor.pb import containerd_pb2 as pb

__all__ = ["HONOURS_SECTIONS", "Containerd", "ContainerdError", "CriContainer", "Handler", "wrapped"]

NAMESPACE = "k8s.io"
"""containerd's namespace of CRI containers."""

HONOURS_SECTIONS = frozenset({"io.containerd.runc.v2", "io.containerd.runc.v1"})
"""Shims whose runtime loads the section of the OCI specification. Kata's guest kernel gets it only on demand
(``disable_guest_seccomp=false``), gVisor's sentry only with ``--oci-seccomp``; what others do is not known."""

SECONDS = 5.0
LARGEST_ANSWER = 64 << 20
"""Bytes. A thousand containers come with a thousand OCI specifications."""

_KIND = "io.cri-containerd.kind"  # labels of CRI's, internal/cri/labels
# Annotations of the OCI specification, internal/cri/annotations
_NAME = "io.kubernetes.cri.container-name"
_POD_NAME = "io.kubernetes.cri.sandbox-name"
_POD_NAMESPACE = "io.kubernetes.cri.sandbox-namespace"

_Answer = TypeVar("_Answer", bound=Message)


class ContainerdError(SeccompFloorError):
    """containerd does not answer, or answers with an error."""


@dataclass(frozen=True, slots=True)
class CriContainer:
    """A CRI container. ``runtime``: its shim (``io.containerd.runc.v2``). ``pid``: of its first process, 0 if it does not run."""

    id: str
    name: str
    pod: str
    namespace: str
    runtime: str
    pid: int
    spec: Mapping[str, Any] = field(repr=False)

    @property
    def honours_sections(self) -> bool:
        """Whether its runtime is one that loads seccomp sections."""
        return self.runtime in HONOURS_SECTIONS


@dataclass(frozen=True, slots=True)
class Handler:
    """A CRI runtime handler. ``options``: of its shim, as configured (``BinaryName`` and others)."""

    name: str
    runtime: str
    options: Mapping[str, Any]
    annotations: tuple[str, ...]

    @property
    def honours_sections(self) -> bool:
        """As :attr:`CriContainer.honours_sections`."""
        return self.runtime in HONOURS_SECTIONS

    def runc_options(self) -> AnyMessage:
        """The part of its options that says which program is run."""
        options = pb.RuncOptions(binary_name=str(self.options.get("BinaryName", "")))
        return wrapped("containerd.runc.v1.Options", options)


class Containerd:
    """A client; connects when it is first asked. Calls block, for :data:`SECONDS` at the most."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        options = [("grpc.max_receive_message_length", LARGEST_ANSWER), ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.insecure_channel(f"unix:{socket}", options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    def version(self) -> str:
        """containerd's version, as it was built with."""
        return self.call("containerd.services.version.v1.Version/Version", Empty(), pb.VersionResponse).version

    def process(self) -> tuple[int, int]:
        """containerd's own pid, and the inode of its PID namespace: pids that it names are pids there."""
        method = "containerd.services.introspection.v1.Introspection/Server"
        server = self.call(method, Empty(), pb.ServerResponse)
        return server.pid, server.pidns

    def plugins(self, *filters: str) -> list[pb.Plugin]:
        """containerd's own plugins, with what went wrong when they were loaded."""
        method = "containerd.services.introspection.v1.Introspection/Plugins"
        return list(self.call(method, pb.PluginsRequest(filters=filters), pb.PluginsResponse).plugins)

    def containers(self) -> list[CriContainer]:
        """Every CRI container (the pods' own are not among them), running or not."""
        listing = pb.ListContainersRequest(filters=[f'labels."{_KIND}"==container'])
        found = self.call("containerd.services.containers.v1.Containers/List", listing, pb.ListContainersResponse)
        pids = self.pids()
        return [_container(container, pids.get(container.id, 0)) for container in found.containers]

    def container(self, identity: str) -> CriContainer:
        """One container."""
        request = pb.GetContainerRequest(id=identity)
        found = self.call("containerd.services.containers.v1.Containers/Get", request, pb.GetContainerResponse)
        return _container(found.container, self.pids().get(identity, 0))

    def pids(self) -> dict[str, int]:
        """The first process of every running container."""
        tasks = self.call("containerd.services.tasks.v1.Tasks/List", pb.ListTasksRequest(), pb.ListTasksResponse)
        running = (pb.TASK_CREATED, pb.TASK_RUNNING, pb.TASK_PAUSED, pb.TASK_PAUSING)
        return {task.container_id or task.id: task.pid for task in tasks.tasks if task.status in running}

    def beside_cri(self) -> dict[str, int]:
        """By containerd namespace, how many containers there are that CRI has not made."""
        method = "containerd.services.namespaces.v1.Namespaces/List"
        counts = {}
        for namespace in self.call(method, pb.ListNamespacesRequest(), pb.ListNamespacesResponse).namespaces:
            listing = pb.ListContainersRequest()
            method = "containerd.services.containers.v1.Containers/List"
            found = self.call(method, listing, pb.ListContainersResponse, namespace.name).containers
            others = [each for each in found if not (namespace.name == NAMESPACE and _KIND in each.labels)]
            if others:
                counts[namespace.name] = len(others)
        return counts

    def cri_configuration(self) -> Mapping[str, Any]:
        """The CRI plugin's effective configuration."""
        answer = self.call("runtime.v1.RuntimeService/Status", pb.CriStatusRequest(verbose=True), pb.CriStatusResponse)
        return _mapping(_json(answer.info.get("config", "{}")))

    def handlers(self) -> tuple[dict[str, Handler], str]:
        """CRI's runtime handlers by name, and the name of the default one."""
        section = _mapping(self.cri_configuration().get("containerd"))
        handlers = {}
        for name, value in _mapping(section.get("runtimes")).items():
            runtime = _mapping(value)
            kind = str(runtime.get("runtimeType") or runtime.get("runtime_type") or "")
            patterns = [*_list(runtime.get("PodAnnotations")), *_list(runtime.get("ContainerAnnotations"))]
            handlers[name] = Handler(name, kind, _mapping(runtime.get("options")), tuple(map(str, patterns)))
        return handlers, str(section.get("defaultRuntimeName") or section.get("default_runtime_name") or "")

    def runtime_features(self, handler: Handler) -> tuple[pb.RuntimeInfo, Mapping[str, Any]]:
        """What a handler's runtime says of itself: its name and version, and what ``runc features`` prints."""
        runtime = pb.RuntimeRequest(runtime_path=handler.runtime, options=handler.runc_options())
        options = wrapped("containerd.types.RuntimeRequest", runtime)
        request = pb.PluginInfoRequest(type="io.containerd.runtime.v2", id="task", options=options)
        method = "containerd.services.introspection.v1.Introspection/PluginInfo"
        info = pb.RuntimeInfo.FromString(self.call(method, request, pb.PluginInfoResponse).extra.value)
        return info, _mapping(_json(info.features.value))

    def call(self, method: str, request: Message, answer: type[_Answer], namespace: str = NAMESPACE) -> _Answer:
        """Any other call. :raises ContainerdError: containerd says no, or nothing"""
        call: grpc.UnaryUnaryMultiCallable[Message, _Answer] = self._channel.unary_unary(
            f"/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        try:
            return call(request, timeout=SECONDS, metadata=(("containerd-namespace", namespace),))
        except grpc.RpcError as error:
            # Not exported as such, but every error of a call is a Call and so has details.
            raise ContainerdError(f"{self.socket}: {method.rpartition('/')[2]}: {error.details()}") from None


def _container(container: pb.Container, pid: int) -> CriContainer:
    spec = _mapping(_json(container.spec.value))
    annotations = _mapping(spec.get("annotations"))
    return CriContainer(
        id=container.id,
        name=str(annotations.get(_NAME, "")),
        pod=str(annotations.get(_POD_NAME, "")),
        namespace=str(annotations.get(_POD_NAMESPACE, "")),
        runtime=container.runtime.name,
        pid=pid,
        spec=spec,
    )


def wrapped(name: str, message: Message) -> AnyMessage:
    """A message under its full name, as containerd's API carries it."""
    return AnyMessage(type_url=name, value=message.SerializeToString())


def _json(data: bytes | str) -> object:
    try:
        value: object = json.loads(data)
    except ValueError:
        return {}
    return value


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
