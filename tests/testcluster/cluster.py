"""A Kubernetes of one node, all of it on the loopback interface and in a scratch directory.

Pods use the host's network, so no CNI plugin is needed: only a configuration, without which the kubelet calls its node
not ready. Everything that is started carries the scratch directory's mark, and so ends with it.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from testcluster import programs
from testcluster.kubectl import Kubectl
from testcluster.process import Program
from testnode import Containerd, Handler, Nri, Scratch, image, probe
from testnode.node import BUSYBOX
from testnode.scratch import members, mounts_under

LOOPBACK = "127.0.0.1"
NODE = "localhost"
"""The node's name: the API server resolves it when it asks the kubelet for `exec` and `logs`."""
MASTERS = "system:masters"
USERS = {
    "admin": ("admin", MASTERS),
    "kube-controller-manager": ("system:kube-controller-manager", ""),
    "kube-scheduler": ("system:kube-scheduler", ""),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
}
"""Who may speak to the API server: a user's name and group for each token."""

LISTENERS = ("etcd", "etcd-peer", "api", "kubelet", "kubelet-health", "kube-controller-manager", "kube-scheduler")
CNI = {"cniVersion": "1.0.0", "name": "none", "plugins": [{"type": "loopback"}]}


class Cluster:
    """Everything of it is running when the constructor returns; a context manager that leaves nothing behind."""

    def __init__(
        self, *, nri: Nri | None = None, handlers: Sequence[Handler] = (Handler(),), imports: Sequence[Path] = ()
    ) -> None:
        """Set up and start; raises with everything cleaned up. Options as of `Containerd`."""
        self.directory = programs.directory()
        self.scratch = Scratch()
        try:
            self.containerd = Containerd(scratch=self.scratch, nri=nri or Nri(), handlers=handlers, imports=imports)
            self._prepare()
            self.etcd = self._etcd()
            self.api_server = self._api_server()
            self.controllers = [self._controller("kube-controller-manager"), self._controller("kube-scheduler")]
            self.kubelet = self._kubelet()
            self.kubectl = Kubectl(
                self.directory / "kubectl", self.scratch.path / "admin.kubeconfig", self.scratch.environment
            )
            self.start()
            self.import_probe()
        except BaseException:
            self.scratch.close()
            raise

    @property
    def profiles(self) -> Path:
        """Where the kubelet looks for the Localhost profiles that pods name."""
        return self.scratch.path / "kubelet" / "seccomp"

    @property
    def static_pods(self) -> Path:
        """Where the kubelet looks for manifests of pods that it starts without being told by the API server."""
        return self.scratch.path / "static"

    def start(self) -> None:
        """Start what is stopped, in the order in which each part needs the others, until the node is ready."""
        self.etcd.start()
        self.containerd.start()
        self.etcd.wait()
        self.api_server.start()
        self.api_server.wait()
        for program in (*self.controllers, self.kubelet):
            program.start()
        for program in (*self.controllers, self.kubelet):
            program.wait()
        for created in (f"node/{NODE}", "serviceaccount/default"):  # one by one: kubectl waits for the first only
            self.kubectl("wait", "--for=create", created, "--timeout=60s")
        self.kubectl.wait_for(f"node/{NODE}", "Ready")

    def power_cycle(self) -> None:
        """Pull the plug and start again: every process dies at once, and what a machine keeps in memory is gone."""
        while processes := members(self.scratch.path):
            for pid in processes:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        for mount in reversed(mounts_under(self.scratch.path / "kubelet")):
            subprocess.run(["umount", "--lazy", mount], check=True)
        shutil.rmtree(self.scratch.path / "state")  # in /run, usually
        self.containerd = replace(self.containerd)  # with a mount namespace that is to be made anew
        self.start()

    def import_probe(self) -> None:
        """The door probe's image, which is the pause image as well."""
        program, archive = self.scratch.path / "probe", self.scratch.path / "image.tar"
        probe.build(program)
        image.write(archive, program, BUSYBOX)
        self.containerd.import_image(archive)

    def close(self) -> None:
        """End everything and remove its files."""
        self.scratch.close()

    def __enter__(self) -> Self:
        """The cluster is running already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As `close`."""
        self.close()

    # How each part is started.

    def _prepare(self) -> None:
        """Keys, tokens, directories; and a mount from which the kubelet's volumes reach containerd's mount namespace."""
        path = self.scratch.path
        self._ports = dict(zip(LISTENERS, free_ports(len(LISTENERS)), strict=True))
        self._write_credentials()
        key = path / "service-accounts.key"
        subprocess.run(["openssl", "genpkey", "-algorithm", "RSA", "-out", key], check=True, capture_output=True)
        self.static_pods.mkdir()
        (path / "cni").mkdir()
        (path / "cni" / "10-none.conflist").write_text(json.dumps(CNI))
        self.profiles.mkdir(parents=True)
        subprocess.run(["mount", "--bind", path / "kubelet", path / "kubelet"], check=True)
        subprocess.run(["mount", "--make-shared", path / "kubelet"], check=True)

    def _write_credentials(self) -> None:
        """A token for each user, and a kubeconfig that has it; the API server makes its certificate at its first start."""
        path = self.scratch.path
        lines = []
        server = {
            "server": f"https://{LOOPBACK}:{self._ports['api']}",
            "certificate-authority": f"{path}/api/apiserver.crt",
        }
        for name, (user, group) in USERS.items():
            token = secrets.token_hex(16)
            lines.append(f'{token},{user},{name},"{group}"\n')
            configuration = {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "test", "cluster": server}],
                "users": [{"name": name, "user": {"token": token}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
                "current-context": "test",
            }
            (path / f"{name}.kubeconfig").write_text(json.dumps(configuration))
        (path / "tokens.csv").write_text("".join(lines))

    def _program(self, name: str, arguments: Sequence[str | Path], **options: Any) -> Program:
        log = self.scratch.path / f"{name}.log"
        command = [self.directory / name, *arguments]
        return Program(scratch=self.scratch, command=command, log=log, **options)

    def _etcd(self) -> Program:
        client, peer = (f"http://{LOOPBACK}:{self._ports[name]}" for name in ("etcd", "etcd-peer"))
        arguments = [
            f"--data-dir={self.scratch.path}/etcd",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        ]
        return self._program("etcd", arguments, ready=lambda: answers("http", self._ports["etcd"], "/health"))

    def _api_server(self) -> Program:
        path = self.scratch.path
        arguments = [
            f"--etcd-servers=http://{LOOPBACK}:{self._ports['etcd']}",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={self._ports['api']}",
            f"--cert-dir={path}/api",
            f"--token-auth-file={path}/tokens.csv",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={path}/service-accounts.key",
            f"--service-account-signing-key-file={path}/service-accounts.key",
            "--kubelet-preferred-address-types=Hostname",
            "--endpoint-reconciler-type=none",
        ]
        return self._program("kube-apiserver", arguments, ready=lambda: answers("https", self._ports["api"], "/readyz"))

    def _controller(self, name: str) -> Program:
        path, port = self.scratch.path, self._ports[name]
        credentials = path / f"{name}.kubeconfig"
        arguments = [
            f"--kubeconfig={credentials}",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={port}",
            "--leader-elect=false",
            f"--cert-dir={path}/{name}",
        ]
        if name == "kube-controller-manager":
            arguments += [
                f"--root-ca-file={path}/api/apiserver.crt",
                f"--service-account-private-key-file={path}/service-accounts.key",
                "--use-service-account-credentials",
            ]
        return self._program(name, arguments, ready=lambda: answers("https", port, "/healthz"))

    def _kubelet(self) -> Program:
        path = self.scratch.path
        configuration = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": LOOPBACK,
            "port": self._ports["kubelet"],
            "healthzBindAddress": LOOPBACK,
            "healthzPort": self._ports["kubelet-health"],
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": f"unix://{self.containerd.socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.scratch.cgroup}",
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            "localStorageCapacityIsolation": False,
            "oomScoreAdj": 0,
            "podLogsDir": f"{path}/pods",
            "staticPodPath": str(self.static_pods),
            "volumePluginDir": f"{path}/volume-plugins",
            "evictionHard": {"memory.available": "1Mi"},  # no pod of a test is to go for want of disk
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "syncFrequency": "5s",
            "crashLoopBackOff": {"maxContainerRestartPeriod": "2s"},
            "featureGates": {"KubeletCrashLoopBackOffMax": True},
        }
        file = path / "kubelet.json"
        file.write_text(json.dumps(configuration, indent=2))
        arguments = [
            f"--config={file}",
            f"--kubeconfig={path}/kubelet.kubeconfig",
            f"--root-dir={path}/kubelet",
            f"--cert-dir={path}/kubelet-pki",
            f"--hostname-override={NODE}",
        ]
        return self._program(
            "kubelet", arguments, ready=lambda: answers("http", self._ports["kubelet-health"], "/healthz")
        )


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]


def answers(scheme: str, port: int, path: str) -> bool:
    """Whether there is a 200 to be had."""
    if scheme == "https":
        context = ssl._create_unverified_context()  # noqa: S323 (made at its start, by and for this machine)
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(LOOPBACK, port, timeout=5, context=context)
    else:
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
