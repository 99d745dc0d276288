"""The default profiles of container engines, on every machine that they have one for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from seccomp_floor.abi import Abi, abi_named
from seccomp_floor.profile import Profile, parse_profile

__all__ = ["NAMES", "machines", "real_profile"]

DIRECTORY = Path(__file__).parent / "data" / "profiles"

NAMES = tuple(sorted(path.stem for path in DIRECTORY.glob("*.json")))


def machines(name: str) -> tuple[Abi, ...]:
    """The machines that the engine has a profile for."""
    return tuple(abi_named(machine) for machine in _read(name)["architectures"])


def real_profile(name: str, native: Abi) -> Profile:
    """What an engine puts into the specification of an ordinary container on this machine."""
    document = _read(name)
    rules = [rule for rule in document["rules"] if native.short in rule.get("for", (native.short,))]
    section: dict[str, Any] = {key: document[key] for key in ("defaultAction", "defaultErrnoRet") if key in document}
    section["architectures"] = document["architectures"][native.short]
    section["syscalls"] = [{key: value for key, value in rule.items() if key != "for"} for rule in rules]
    return parse_profile(section)


def _read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((DIRECTORY / f"{name}.json").read_bytes())
    return document
