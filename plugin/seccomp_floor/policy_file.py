"""The policy file: YAML in, :class:`~seccomp_floor.floor.Policy` out; errors name key, value and what was expected."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from seccomp_floor.errors import InputError, SeccompFloorError
from seccomp_floor.floor import FAMILIES, Apply, Floor, Mode, OnBreach, OnNoProfile, OnUnprovable, OptOut, Policy
from seccomp_floor.profile import Action

__all__ = ["DEFAULT_PATH", "PolicyError", "load_policy", "parse_policy"]

DEFAULT_PATH = Path("/etc/seccomp-floor/policy.yaml")
LARGEST = 1 << 20  # bytes; a policy is some 30 lines, and a mistaken path may be a disk image


class PolicyError(SeccompFloorError):
    """The policy file cannot be read or is not a policy."""


def load_policy(path: Path | None) -> Policy:
    """The policy of a file, or of the default path where that exists, or else the built-in one.

    :param path: what the owner named; a file that is named must be there, since a lost mount must not change what is enforced
    :raises PolicyError: naming the file and what is wrong with it
    """
    if path is None:
        if not DEFAULT_PATH.is_file():
            return Policy()
        path = DEFAULT_PATH
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise PolicyError(f"{path}: cannot read the policy: {error.strerror}") from error
    if len(data) > LARGEST:
        raise PolicyError(f"{path}: larger than {LARGEST} bytes: not a policy")
    return parse_policy(data, str(path))


def parse_policy(data: bytes, name: str) -> Policy:
    """A policy from YAML text. :param name: how errors name the file. :raises PolicyError: as :func:`load_policy`."""
    import yaml  # here, since the wrapper's warm path needs none of it

    try:
        document = yaml.load(data, Loader=_loader())  # noqa: S506 (a SafeLoader of ours)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise PolicyError(f"{name}: {place}{error.problem or 'not YAML'}") from error
    except (yaml.YAMLError, UnicodeError, RecursionError, ValueError) as error:
        raise PolicyError(f"{name}: not YAML: {str(error).splitlines()[0]}") from error
    try:
        return _policy(_Section("", {} if document is None else document))
    except InputError as error:
        raise PolicyError(f"{name}: {error}") from error


def _loader() -> type:
    import yaml

    class Loader(yaml.SafeLoader):
        """SafeLoader that refuses a key given twice: the later one would win in silence."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
            seen = set()
            for key_node, _ in node.value:
                if key_node.value in seen if isinstance(key_node.value, str) else False:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key_node.value!r} given twice", key_node.start_mark
                    )
                seen.add(key_node.value if isinstance(key_node.value, str) else id(key_node))
            return super().construct_mapping(node, deep)

    return Loader


_E = TypeVar("_E", bound=StrEnum)


class _Section:
    """One mapping of the file, read key by key; what was not asked for is unknown."""

    def __init__(self, where: str, value: object) -> None:
        if not isinstance(value, dict):
            raise InputError(where or "the policy", value, "a mapping")
        self.where, self.value, self.known = where, value, set[str]()

    def path(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key

    def get(self, key: str) -> object:
        self.known.add(key)
        return self.value.get(key)

    def has(self, key: str) -> bool:
        self.known.add(key)
        return key in self.value

    @contextmanager
    def section(self, key: str) -> Iterator[_Section]:
        section = _Section(self.path(key), self.get(key) if self.has(key) else {})
        yield section
        section.finish()

    def finish(self) -> None:
        for key in self.value:
            if key not in self.known:
                raise InputError(self.path(str(key)), key, f"only the keys {', '.join(sorted(self.known))}")

    def choice(self, key: str, default: _E) -> _E:
        if not self.has(key):
            return default
        value = self.get(key)
        for member in type(default):
            if value == member:
                return member
        raise InputError(self.path(key), value, f"one of {', '.join(type(default))}")

    def boolean(self, key: str, default: bool) -> bool:
        if not self.has(key):
            return default
        value = self.get(key)
        if not isinstance(value, bool):
            raise InputError(self.path(key), value, "true or false")
        return value

    def strings(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        if not self.has(key):
            return default
        value = self.get(key)
        if not isinstance(value, list):
            raise InputError(self.path(key), value, "a list of strings")
        for n, item in enumerate(value):
            if not isinstance(item, str):
                raise InputError(f"{self.path(key)}[{n}]", item, "a string")
        return tuple(value)


class _Door(StrEnum):
    DENY = "deny"
    ALLOW = "allow"


def _policy(file: _Section) -> Policy:
    version = file.get("version")
    if file.has("version") and (version != 1 or isinstance(version, bool)):
        raise InputError("version", version, "1")
    mode = file.choice("mode", Mode.ENFORCE)
    with file.section("floor") as section:
        floor = _floor(section, mode)
    with file.section("apply") as section:
        default = Apply()
        apply = Apply(
            runtime_handlers=section.strings("runtimeHandlers", default.runtime_handlers),
            no_profile=section.choice("noProfile", OnNoProfile.FLOOR),
        )
    with file.section("optOut") as section:
        opt_out = OptOut(honour=section.boolean("honour", True), namespaces=section.strings("namespaces", ()))
    policy = Policy(
        mode=mode,
        floor=floor,
        apply=apply,
        opt_out=opt_out,
        on_unprovable=file.choice("onUnprovable", OnUnprovable.REJECT),
        on_breach=file.choice("onBreach", OnBreach.REPORT),
    )
    file.finish()
    return policy


def _floor(section: _Section, mode: Mode) -> Floor:
    default = Floor()
    with section.section("socketFamilies") as families:
        deny = families.strings("deny", default.families)
        for n, name in enumerate(deny):
            if name not in FAMILIES:
                raise InputError(
                    f"{families.path('deny')}[{n}]", name, "the name of a socket family (AF_ALG, AF_VSOCK, ...)"
                )
        family_errno = (
            _errno(families.path("errno"), families.get("errno")) if families.has("errno") else default.family_errno
        )
    with section.section("syscalls") as syscalls:
        named = []
        for name in syscalls.value:
            if not isinstance(name, str) or not name.isascii() or not name.replace("_", "a").isalnum():
                raise InputError(syscalls.where, name, "the name of a system call")
            named.append((name, _errno(syscalls.path(name), syscalls.get(name))))
    return Floor(
        families=deny,
        family_errno=family_errno,
        socketcall=section.choice("socketcall", _Door.DENY) is _Door.DENY,
        io_uring=section.choice("ioUring", _Door.DENY) is _Door.DENY,
        syscalls=tuple(named),
        action=Action.LOG if mode is Mode.LOG else Action.ERRNO,
    )


_ERRNOS: dict[str, int] = {name: number for name, number in vars(errno).items() if name.startswith("E")}


def _errno(where: str, value: object) -> int:
    if not isinstance(value, str) or value not in _ERRNOS:
        raise InputError(where, value, "the name of an errno (EPERM, EAFNOSUPPORT, ENOSYS, ...)")
    return _ERRNOS[value]
