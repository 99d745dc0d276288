"""The repository's deployment in a cluster: applied, watched, changed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from testcluster.cluster import Cluster
from testcluster.kubectl import KubectlError
from testcluster.manifests import NAMESPACE, write_overlay
from testcluster.process import ClusterError

POLICY = """
version: 1
apply: {runtimeHandlers: ["", runc, floored]}
optOut: {namespaces: [may-opt-out]}
"""
DAEMONSET = f"daemonset/{NAMESPACE}"
WAIT_SECONDS = 180
T = TypeVar("T")


def until(what: str, attempt: Callable[[], T | None], seconds: float = WAIT_SECONDS) -> T:
    """The first thing that `attempt` returns that is true; kubectl's no is as good as nothing."""
    deadline = time.monotonic() + seconds
    last = ""
    while time.monotonic() < deadline:
        try:
            if found := attempt():
                return found
        except KubectlError as error:
            last = f": {error}"
        time.sleep(0.3)
    raise ClusterError(f"not within {seconds} s: {what}{last}")


@dataclass(kw_only=False)
class Deployment:
    """`deploy/kubernetes` with an image and a policy."""

    cluster: Cluster
    image: str
    policy: str | None = POLICY
    base: str = "overlays/enforce"
    _overlays: int = field(default=0, init=False)

    def apply(self, host_paths: Mapping[str, Path] | None = None) -> None:
        """As a user would: ``kubectl apply -k``; `host_paths` of volumes that are to be elsewhere."""
        containerd = self.cluster.containerd
        where = {"nri": containerd.nri_socket.parent, "containerd": containerd.socket.parent}
        self._overlays += 1
        overlay = write_overlay(
            self.cluster.scratch.path / f"overlay-{self._overlays}",
            self.base,
            image=self.image,
            host_paths={**where, **(host_paths or {})},
            policy=self.policy,
        )
        self.cluster.kubectl("apply", "--kustomize", overlay)

    def wait(self) -> None:
        """Return when the DaemonSet is rolled out; `ClusterError` with what its pods say if it is not."""
        try:
            self.kubectl("rollout", "status", DAEMONSET, f"--timeout={WAIT_SECONDS}s")
        except KubectlError as error:
            raise ClusterError(f"{error}\n{self.diagnosis()}") from None

    def kubectl(self, *arguments: str) -> str:
        """kubectl in the daemon's namespace."""
        return self.cluster.kubectl("--namespace", NAMESPACE, *arguments)

    def pods(self) -> list[dict[str, Any]]:
        """The daemon's pods that are not about to go."""
        pods = self.cluster.kubectl.get("pods", "--namespace", NAMESPACE)["items"]
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def status(self) -> dict[str, Any]:
        """`seccomp-floor status --json`, whatever it thinks of the node."""
        said = self.kubectl("exec", DAEMONSET, "--", "sh", "-c", "seccomp-floor status --json || true")
        if not said:
            raise KubectlError("the daemon does not answer")
        answer: dict[str, Any] = json.loads(said)
        return answer

    def logs(self) -> str:
        """What the daemon has said."""
        return self.kubectl("logs", DAEMONSET)

    def diagnosis(self) -> str:
        """Events and logs, for the message of a failure."""
        parts = []
        for arguments in (
            ("get", "pods", "--output=wide"),
            ("get", "events", "--output=custom-columns=:.involvedObject.name,:.reason,:.message"),
            ("logs", f"--selector=app.kubernetes.io/name={NAMESPACE}", "--tail=30", "--prefix"),
        ):
            try:
                parts.append(self.kubectl(*arguments))
            except KubectlError as error:
                parts.append(str(error))
        return "\n".join(parts)
