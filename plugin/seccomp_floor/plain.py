"""Values of this project as text that holds nothing but values, for answers from a process that may have been taken over.

A pickle is no such text: whoever writes it can set attributes of classes and of enumeration members in the process that reads it.
Here a reader makes what the project's own constructors make, from what they take: enumeration members, named tuples and
dataclasses, found by name among the modules that are loaded.

A JSON array stands for each value that JSON lacks: its kind, then what it is made of.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import Enum
from json import dumps, loads
from typing import Any

from seccomp_floor.errors import SeccompFloorError

__all__ = ["dump", "load"]

PACKAGE = __name__.partition(".")[0] + "."
SCALARS = (str, int, bool, float, type(None))


def dump(value: object) -> bytes:
    """Write a value. :raises TypeError: there is something in it that is none of the kinds above, nor tuple, list, dict, bytes"""
    return dumps(_plain(value), separators=(",", ":")).encode()


def load(text: bytes) -> Any:
    """Read a value, whoever wrote it. :raises ValueError: it is none"""
    try:
        return _value(loads(text))
    except (ArithmeticError, AttributeError, LookupError, RecursionError, SeccompFloorError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _plain(value: object) -> object:
    kind = type(value)
    if kind in SCALARS:
        return value
    if isinstance(value, Enum):
        return ["enum", *_name(kind), value.value]
    if is_dataclass(kind):
        return ["made", *_name(kind), *(_plain(getattr(value, field.name)) for field in fields(kind))]
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return ["made", *_name(kind), *map(_plain, value)]
    if kind is tuple:
        return ["tuple", *map(_plain, value)]  # type: ignore[call-overload]
    if kind is list:
        return ["list", *map(_plain, value)]  # type: ignore[call-overload]
    if isinstance(value, dict):
        return ["dict", *([_plain(key), _plain(item)] for key, item in value.items())]
    if isinstance(value, bytes):
        return ["bytes", value.hex()]
    if isinstance(value, type) and issubclass(value, SeccompFloorError):
        return ["error", *_name(value)]
    raise TypeError(f"a {kind.__name__} cannot be handed back")


def _value(plain: Any) -> Any:
    if type(plain) is not list:
        if type(plain) is dict:
            raise TypeError("an object")
        return plain
    kind, *parts = plain
    return _KINDS[kind](parts)


def _made(parts: list[Any]) -> Any:
    module, name, *values = parts
    kind = _class(module, name)
    if is_dataclass(kind):
        names = [field.name for field in fields(kind)]
    elif issubclass(kind, tuple) and hasattr(kind, "_fields"):
        names = list(kind._fields)
    else:
        raise TypeError(f"{module}.{name} is no class of values")
    return kind(**dict(zip(names, map(_value, values), strict=True)))


def _member(parts: list[Any]) -> Enum:
    module, name, value = parts
    kind = _class(module, name)
    if not issubclass(kind, Enum):
        raise TypeError(f"{module}.{name} is no enumeration")
    return kind(value)


def _error(parts: list[Any]) -> type[SeccompFloorError]:
    module, name = parts
    kind = _class(module, name)
    if not issubclass(kind, SeccompFloorError):
        raise TypeError(f"{module}.{name} is no error of ours")
    return kind


_KINDS: dict[str, Callable[[list[Any]], Any]] = {
    "made": _made,
    "enum": _member,
    "error": _error,
    "tuple": lambda parts: tuple(map(_value, parts)),
    "list": lambda parts: list(map(_value, parts)),
    "dict": lambda parts: {_value(key): _value(item) for key, item in parts},
    "bytes": lambda parts: bytes.fromhex(*parts),
}


def _name(kind: type) -> tuple[str, str]:
    return kind.__module__, kind.__name__


def _class(module: str, name: str) -> type:
    """A class that a module of this package defines. What a module has imported is not its own."""
    found = vars(sys.modules[module])[name] if module.startswith(PACKAGE) else None
    if not isinstance(found, type) or _name(found) != (module, name):
        raise TypeError(f"{module}.{name} is no class of ours")
    return found
