"""A node: scratch directory, containerd, image and CRI client in one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from testnode import image, probe, programs
from testnode.containerd import PATIENT, Containerd, Handler, Nri
from testnode.cri import NONE, Client, Container, Pod, Seccomp, localhost
from testnode.daemon import Daemon
from testnode.scratch import Scratch

BUSYBOX = Path("/bin/busybox")


class Node:
    """containerd with the probe's image, ready for pods; a context manager that leaves nothing behind."""

    def __init__(
        self,
        *,
        version: str = programs.CONTAINERD,
        nri: Nri | None = None,
        handlers: Sequence[Handler] = (Handler(),),
        imports: Sequence[Path] = (),
    ) -> None:
        """Set up and start; raises with everything cleaned up."""
        self.scratch = Scratch()
        try:
            self.containerd = Containerd(
                scratch=self.scratch, version=version, nri=nri or PATIENT, handlers=handlers, imports=imports
            )
            self.containerd.start()
            self.probe = self.scratch.path / "probe"
            probe.build(self.probe)
            archive = self.scratch.path / "image.tar"
            image.write(archive, self.probe, BUSYBOX)
            self.containerd.import_image(archive)
            self.cri = Client(self.containerd.socket)
        except BaseException:
            self.scratch.close()
            raise

    def create_pod(self, **options: Any) -> Pod:
        """A sandbox; options as of `Pod.create`."""
        return Pod.create(self.cri, cgroup=self.scratch.cgroup, **options)

    def create_container(self, pod: Pod, **options: Any) -> Container:
        """A container, not started; options as of `Container.create`."""
        return Container.create(pod, **options)

    def run(
        self,
        seccomp: Seccomp = NONE,
        *,
        handler: str = "",
        namespace: str = "default",
        annotations: Mapping[str, str] | None = None,
        name: str = "probe",
        privileged: bool = False,
    ) -> Container:
        """A running container in a pod of its own."""
        pod = self.create_pod(handler=handler, namespace=namespace, annotations=annotations, privileged=privileged)
        try:
            container = self.create_container(pod, seccomp=seccomp, name=name, privileged=privileged)
            container.start()
        except BaseException:
            pod.remove()
            raise
        return container

    def write_profile(self, name: str, section: Mapping[str, Any]) -> Seccomp:
        """A Localhost profile with this section."""
        path = self.scratch.path / f"{name}.json"
        path.write_text(json.dumps(section))
        return localhost(path)

    def daemon(self, policy: str | None = None, **options: Any) -> Daemon:
        """`seccomp-floor run`, connected to this node and registered; `policy` is YAML."""
        return Daemon(self.scratch, self.containerd, policy, **options)

    def close(self) -> None:
        """End all containers, containerd and daemons, and remove their files."""
        self.cri.close()
        self.scratch.close()

    def __enter__(self) -> Self:
        """The node is running already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As `close`."""
        self.close()
