"""Pods and containers through CRI, as a kubelet makes them: a few gRPC calls."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from seccomp_floor.pb import cri_pb2 as pb
from testnode import image

Reply = TypeVar("Reply", bound=Message)
CALL_SECONDS = 120
_numbers = itertools.count(1)


class CriError(Exception):
    """The runtime refused a call; the message is its own."""


@dataclass(frozen=True, slots=True)
class Seccomp:
    """What a container's security context says of seccomp."""

    kind: str
    """Of CRI: RuntimeDefault, Unconfined, Localhost; or none: nothing is said."""
    path: str = ""

    def message(self) -> pb.SecurityProfile | None:
        """As CRI has it."""
        if self.kind == "none":
            return None
        return pb.SecurityProfile(profile_type=self.kind, localhost_ref=self.path)


RUNTIME_DEFAULT = Seccomp("RuntimeDefault")
UNCONFINED = Seccomp("Unconfined")
NONE = Seccomp("none")


def localhost(path: Path) -> Seccomp:
    """The profile in that file."""
    return Seccomp("Localhost", str(path))


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What a command left that was run in a container."""

    stdout: str
    stderr: str
    code: int


class Client:
    """CRI's RuntimeService on a socket."""

    def __init__(self, socket: Path) -> None:
        """Connect when first used."""
        self._channel = grpc.insecure_channel(f"unix:{socket}")

    def call(self, method: str, request: Message, reply: type[Reply]) -> Reply:
        """One call; `CriError` with the runtime's words if it says no."""
        rpc: grpc.UnaryUnaryMultiCallable[Message, Reply] = self._channel.unary_unary(
            f"/runtime.v1.RuntimeService/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply.FromString,
        )
        try:
            return rpc(request, timeout=CALL_SECONDS, wait_for_ready=True)
        except grpc.RpcError as error:
            raise CriError(f"{method}: {error.details()}") from None

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod sandbox on the host's network."""

    client: Client
    id: str
    config: pb.PodSandboxConfig

    @classmethod
    def create(
        cls,
        client: Client,
        *,
        cgroup: str,
        name: str = "",
        namespace: str = "default",
        handler: str = "",
        annotations: Mapping[str, str] | None = None,
        privileged: bool = False,
        host_pid: bool = False,
    ) -> Pod:
        """Run a sandbox; `handler` as in a RuntimeClass, "" for the default one."""
        number = next(_numbers)
        namespaces = pb.NamespaceOption(network=pb.NODE, pid=pb.NODE if host_pid else pb.CONTAINER)
        security = pb.LinuxSandboxSecurityContext(
            namespace_options=namespaces, privileged=privileged, seccomp=RUNTIME_DEFAULT.message()
        )
        name = name or f"pod-{number}"
        config = pb.PodSandboxConfig(
            metadata=pb.PodSandboxMetadata(name=name, uid=f"uid-{number}", namespace=namespace),
            annotations=annotations,
            linux=pb.LinuxPodSandboxConfig(cgroup_parent=f"/{cgroup}", security_context=security),
        )
        request = pb.RunPodSandboxRequest(config=config, runtime_handler=handler)
        reply = client.call("RunPodSandbox", request, pb.RunPodSandboxResponse)
        return cls(client, reply.pod_sandbox_id, config)

    def remove(self) -> None:
        """Stop and remove, with the containers in it."""
        self.client.call("StopPodSandbox", pb.StopPodSandboxRequest(pod_sandbox_id=self.id), pb.StopPodSandboxResponse)
        request = pb.RemovePodSandboxRequest(pod_sandbox_id=self.id)
        self.client.call("RemovePodSandbox", request, pb.RemovePodSandboxResponse)


@dataclass(frozen=True, slots=True)
class Container:
    """A container in a pod."""

    pod: Pod
    id: str
    seccomp: Seccomp = field(default=NONE)

    @classmethod
    def create(
        cls,
        pod: Pod,
        *,
        seccomp: Seccomp = NONE,
        name: str = "probe",
        command: Sequence[str] = ("/probe", "sleep"),
        privileged: bool = False,
        annotations: Mapping[str, str] | None = None,
        capabilities: Sequence[str] = (),
        no_new_privileges: bool = False,
        image_name: str = image.NAME,
    ) -> Container:
        """Create, without starting it."""
        security = pb.LinuxContainerSecurityContext(
            privileged=privileged,
            namespace_options=pod.config.linux.security_context.namespace_options,
            capabilities=pb.Capability(add_capabilities=capabilities),
            no_new_privs=no_new_privileges,
            seccomp=seccomp.message(),
        )
        config = pb.ContainerConfig(
            metadata=pb.ContainerMetadata(name=name),
            image=pb.ImageSpec(image=image_name),
            command=command,
            annotations=annotations,
            linux=pb.LinuxContainerConfig(security_context=security),
        )
        request = pb.CreateContainerRequest(pod_sandbox_id=pod.id, config=config, sandbox_config=pod.config)
        reply = pod.client.call("CreateContainer", request, pb.CreateContainerResponse)
        return cls(pod, reply.container_id, seccomp)

    def start(self) -> None:
        """Start its process."""
        request = pb.StartContainerRequest(container_id=self.id)
        self.pod.client.call("StartContainer", request, pb.StartContainerResponse)

    def exec(self, command: Sequence[str]) -> ExecResult:
        """Run a command in it, under its seccomp filter, to its end."""
        request = pb.ExecSyncRequest(container_id=self.id, cmd=command, timeout=CALL_SECONDS)
        reply = self.pod.client.call("ExecSync", request, pb.ExecSyncResponse)
        return ExecResult(reply.stdout.decode(), reply.stderr.decode(), reply.exit_code)

    def output(self, command: Sequence[str]) -> str:
        """Standard output of a command; `CriError` if it fails."""
        result = self.exec(command)
        if result.code != 0:
            raise CriError(f"{' '.join(command)}: exit code {result.code}: {result.stderr}")
        return result.stdout

    def status(self) -> pb.ContainerStatus:
        """State and exit code."""
        return self._status().status

    def info(self) -> dict[str, Any]:
        """What containerd knows beyond CRI: `pid`, and `runtimeSpec`, the OCI specification it was created with."""
        info: dict[str, Any] = json.loads(self._status().info["info"])
        return info

    def section(self) -> dict[str, Any] | None:
        """`linux.seccomp` of the OCI specification that it was created with."""
        section: dict[str, Any] | None = self.info()["runtimeSpec"]["linux"].get("seccomp")
        return section

    def remove(self) -> None:
        """Kill and remove."""
        self.pod.client.call(
            "StopContainer", pb.StopContainerRequest(container_id=self.id, timeout=0), pb.StopContainerResponse
        )
        request = pb.RemoveContainerRequest(container_id=self.id)
        self.pod.client.call("RemoveContainer", request, pb.RemoveContainerResponse)

    def _status(self) -> pb.ContainerStatusResponse:
        request = pb.ContainerStatusRequest(container_id=self.id, verbose=True)
        return self.pod.client.call("ContainerStatus", request, pb.ContainerStatusResponse)
