"""Build hook: the protobuf stubs are generated from ``proto/`` at build time and never edited or committed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HEADER = '"""Generated from proto/ by the build: do not edit."""\n'


class ProtoBuildHook(BuildHookInterface[Any]):
    """Compile every ``proto/*.proto`` into ``plugin/seccomp_floor/pb/*_pb2.py`` with its ``.pyi``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 (hatchling's signature)
        """Run protoc; a wheel, an sdist and an editable install all come through here."""
        from grpc_tools import protoc

        root = Path(self.root)
        source, target = root / "proto", root / "plugin" / "seccomp_floor" / "pb"
        protos = sorted(source.glob("*.proto"))
        if not protos:
            return
        target.mkdir(exist_ok=True)
        (target / "__init__.py").write_text(HEADER)
        arguments = ["protoc", f"-I{source}", f"--python_out={target}", f"--pyi_out={target}"]
        well_known = Path(protoc.__file__).parent / "_proto"
        if protoc.main([*arguments, f"-I{well_known}", *map(str, protos)]) != 0:
            raise RuntimeError(f"protoc failed on {source}")
        build_data["artifacts"].append("plugin/seccomp_floor/pb/*")
