"""A container image from a few files: busybox and the probe, as an OCI layout in a tar archive."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAME = "localhost/probe:1"
LAYOUT = {"imageLayoutVersion": "1.0.0"}
EMPTY_DIRECTORIES = ("bin", "dev", "etc", "proc", "sys", "tmp")
SHELL_COMMANDS = ("cat", "sh", "sleep", "true")


def add(archive: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    """A file with these bytes, the same in every build."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))


def layer(files: Mapping[str, Path]) -> bytes:
    """The root file system: `files` by their path in it, executable; and busybox's commands as links."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for directory in EMPTY_DIRECTORIES:
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, source in files.items():
            add(archive, name, source.read_bytes(), 0o755)
        for command in SHELL_COMMANDS:
            entry = tarfile.TarInfo(f"bin/{command}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
    return buffer.getvalue()


def write(target: Path, probe: Path, busybox: Path, name: str = NAME) -> None:
    """Write an archive that ``ctr images import`` takes; its default command is ``/probe sleep``."""
    blobs: dict[str, bytes] = {}

    def blob(kind: str, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    rootfs = layer({"probe": probe, "bin/busybox": busybox})
    layers = [blob("layer.v1.tar", rootfs)]
    config = blob(
        "config.v1+json",
        to_json(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Cmd": ["/probe", "sleep"], "Env": ["PATH=/bin"]},
                "rootfs": {"type": "layers", "diff_ids": [layers[0]["digest"]]},
            }
        ),
    )
    manifest = blob("manifest.v1+json", to_json({"schemaVersion": 2, "config": config, "layers": layers}))
    manifest["annotations"] = {"io.containerd.image.name": name}
    index = {"schemaVersion": 2, "manifests": [manifest]}
    with tarfile.open(target, "w") as archive:
        for path, data in {"oci-layout": to_json(LAYOUT), "index.json": to_json(index), **blobs}.items():
            add(archive, path, data)


def to_json(value: object) -> bytes:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()
