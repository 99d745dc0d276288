"""What an examination is made of: where to look, and what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from seccomp_floor.abi import Abi
from seccomp_floor.floor import Policy

__all__ = ["Check", "Finding", "Level", "Node", "mapping"]


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. ``remedy``: what to do, empty where there is nothing to do."""

    level: Level
    subject: str
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """Where to look."""

    policy: Policy
    native: Abi
    containerd_socket: Path
    control_socket: Path


Check = Callable[[Node], Iterator[Finding]]


def mapping(value: object) -> Mapping[str, Any]:
    """A table of a configuration, or an empty one."""
    return value if isinstance(value, dict) else {}
