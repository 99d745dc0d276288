"""A private containerd: its own root, state, sockets and mount namespace, told apart from the host's in everything."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testnode import image, programs
from testnode.scratch import Scratch

START_SECONDS = 30

# The runc shim keeps its socket, and runc its state, under /run/containerd whatever the settings say. A mount
# namespace of its own gives this containerd a /run/containerd of its own, and takes all mounts of its containers
# with it when it goes. A process that only sleeps holds it over containerd's restarts. Mounts made on the host still
# arrive in it (slave): a kubelet's volumes, say.
HOLD_PRIVATE_MOUNTS = """
mkdir -p /run/containerd && mount -t tmpfs -o mode=0711 tmpfs /run/containerd && exec sleep infinity
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nri:
    """containerd's settings for NRI; times are Go durations."""

    request_timeout: str = "2s"
    registration_timeout: str = "5s"
    disable_connections: bool = False
    validator: bool = False
    """The built-in validator, `default_validator`."""
    required_plugins: tuple[str, ...] = ()
    tolerate_annotation: str = ""
    plugin_path: Path | None = None
    plugin_config_path: Path | None = None


PATIENT = Nri(request_timeout="20s")
"""For tests that are not about time: on a crowded machine the default may be too short to judge a profile in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """A CRI runtime handler, of the runc shim."""

    name: str = "runc"
    binary: Path | None = None
    """What the shim runs as runc; by default runc."""
    annotations: tuple[str, ...] = ()
    """Pod and container annotations, as patterns, that are passed on into the container's OCI specification."""


class ContainerdError(Exception):
    """containerd did not start; the message ends in its log's last lines."""


@dataclass(kw_only=True)
class Containerd:
    """The daemon; `start` returns when it answers. Its end is the scratch directory's, or `stop`."""

    scratch: Scratch
    version: str = programs.CONTAINERD
    nri: Nri = Nri()
    handlers: Sequence[Handler] = (Handler(),)
    """The first is the default."""
    imports: Sequence[Path] = ()
    """Drop-in configuration files."""
    _holder: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def directory(self) -> Path:
        """Where its programs are."""
        return programs.containerd_directory(self.version)

    @property
    def socket(self) -> Path:
        """containerd's own API and CRI."""
        return self.scratch.path / "containerd.sock"

    @property
    def nri_socket(self) -> Path:
        """Where plugins connect."""
        return self.scratch.path / "nri" / "nri.sock"

    @property
    def log(self) -> Path:
        """What containerd says, over all restarts."""
        return self.scratch.path / "containerd.log"

    @property
    def pid(self) -> int:
        """The running daemon's process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start and wait until the CRI service answers; `ContainerdError` if it does not."""
        configuration = self.scratch.path / "containerd.toml"
        configuration.write_text(toml(self.configuration()))
        self.nri_socket.parent.mkdir(exist_ok=True)
        self._process = self.scratch.spawn(
            [*self.enter(), self.directory / "containerd", "--config", configuration],
            self.log,
            {"PATH": f"{self.directory}:{programs.runc().parent}:/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            if self.answers():
                return
            time.sleep(0.1)
        tail = "\n".join(self.log.read_text().splitlines()[-15:])
        raise ContainerdError(f"containerd {self.version} did not start; the end of its log:\n{tail}")

    def answers(self) -> bool:
        """Whether clients and plugins can connect."""
        return self.ctr("plugins", "list", check=False).returncode == 0 and self.nri_socket.exists()

    def enter(self) -> list[str]:
        """Words to put before a command that is to run where containerd's mounts are."""
        if self._holder is None:
            command = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", HOLD_PRIVATE_MOUNTS]
            self._holder = self.scratch.spawn(command, self.log)
            name = Path(f"/proc/{self._holder.pid}/comm")
            while name.read_text() != "sleep\n":
                if self._holder.poll() is not None:
                    raise ContainerdError(f"no private mounts: {self.log.read_text()}")
                time.sleep(0.01)
        return ["nsenter", "--mount", "--target", str(self._holder.pid)]

    def stop(self) -> None:
        """End the daemon as its service manager would; containers go on."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def restart(self) -> None:
        """Stop and start; containers go on, plugins have to come back."""
        self.stop()
        self.start()

    def ctr(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run containerd's debugging client in the namespace of Kubernetes."""
        command = [self.directory / "ctr", "--address", self.socket, "--namespace", "k8s.io", *arguments]
        return subprocess.run(command, check=check, capture_output=True, text=True)

    def import_image(self, archive: Path) -> None:
        """Make the images of an archive known."""
        self.ctr("images", "import", archive)

    def configuration(self) -> dict[str, Any]:
        """containerd's configuration, format 3, which 2.0 and everything newer reads."""
        path = self.scratch.path
        runtime = {
            "restrict_oom_score_adj": True,  # a sandboxed root may not lower its score
            "containerd": {
                "default_runtime_name": self.handlers[0].name,
                "runtimes": {
                    handler.name: {
                        "runtime_type": "io.containerd.runc.v2",
                        "pod_annotations": list(handler.annotations),
                        "container_annotations": list(handler.annotations),
                        "options": {"BinaryName": str(handler.binary or programs.runc())},
                    }
                    for handler in self.handlers
                },
            },
            "cni": {"bin_dirs": [str(path / "cni")], "conf_dir": str(path / "cni")},  # pods use the host's network
        }
        nri = {
            "disable": False,
            "socket_path": str(self.nri_socket),
            "plugin_path": str(self.nri.plugin_path or path / "nri" / "plugins"),
            "plugin_config_path": str(self.nri.plugin_config_path or path / "nri" / "conf.d"),
            "plugin_registration_timeout": self.nri.registration_timeout,
            "plugin_request_timeout": self.nri.request_timeout,
            "disable_connections": self.nri.disable_connections,
            "default_validator": {
                "enable": self.nri.validator,
                "required_plugins": list(self.nri.required_plugins),
                "tolerate_missing_plugins_annotation": self.nri.tolerate_annotation,
            },
        }
        return {
            "version": 3,
            "root": str(path / "root"),
            "state": str(path / "state"),
            "imports": [str(file) for file in self.imports],
            "disabled_plugins": ["io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"],
            "grpc": {"address": str(self.socket)},
            "ttrpc": {"address": f"{self.socket}.ttrpc"},
            "plugins": {
                "io.containerd.cri.v1.images": {"pinned_images": {"sandbox": image.NAME}},
                "io.containerd.cri.v1.runtime": runtime,
                "io.containerd.internal.v1.opt": {"path": str(path / "opt")},
                "io.containerd.nri.v1.nri": nri,
            },
        }


def toml(table: Mapping[str, Any], path: str = "") -> str:
    """Nested mappings as TOML; a JSON string is a TOML one, and so are booleans, numbers and lists of strings."""
    values = [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in table.items() if not is_table(value)]
    text = "\n".join([f"[{path}]" if path and values else "", *values, ""])
    for key, value in table.items():
        if is_table(value):
            text += toml(value, f"{path}.{json.dumps(key)}" if path else json.dumps(key))
    return text


def is_table(value: object) -> bool:
    """Whether it becomes a section of its own."""
    return isinstance(value, Mapping)
