"""The policy file: YAML in, :class:`~seccomp_floor.floor.Policy` out; errors name key, value and what was expected."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from seccomp_floor.errors import InputError, SeccompFloorError, excerpt
from seccomp_floor.floor import FAMILIES, Apply, Floor, Mode, OnBreach, OnNoProfile, OnUnprovable, OptOut, Policy
from seccomp_floor.profile import Action

__all__ = ["DEFAULT_PATH", "PolicyError", "UnreadablePolicyError", "load_policy", "parse_policy"]

DEFAULT_PATH = Path("/etc/seccomp-floor/policy.yaml")
LARGEST = 1 << 17  # bytes; a policy is some 30 lines, and a mistaken path may be a disk image

LONGEST_NAME = 64  # of a system call


class PolicyError(SeccompFloorError):
    """The policy file cannot be read or is not a policy."""


class UnreadablePolicyError(PolicyError):
    """The policy file cannot be read: what it says may be as good as before."""


def load_policy(path: Path | None) -> Policy:
    """The policy of a file, or of the default path where that exists, or else the built-in one.

    :param path: what the owner named; a file that is named must be there, since a lost mount must not change what is enforced
    :raises PolicyError: naming the file and what is wrong with it
    """
    named = path or DEFAULT_PATH
    try:
        with named.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        if path is None and isinstance(error, FileNotFoundError) and not DEFAULT_PATH.is_symlink():
            return Policy()
        raise UnreadablePolicyError(f"{named}: cannot read the policy: {error.strerror}") from error
    return parse_policy(data, str(named))


def parse_policy(data: bytes, name: str) -> Policy:
    """A policy from YAML text. :param name: how errors name the file. :raises PolicyError: as :func:`load_policy`."""
    import yaml  # here, since the wrapper's warm path needs none of it

    if len(data) > LARGEST:
        raise PolicyError(f"{name}: larger than {LARGEST} bytes: not a policy")
    if not data.strip():  # what a full disk leaves of a file must not pass for the default policy
        raise PolicyError(f"{name}: the file is empty; `version: 1` alone is the default policy")
    try:
        document = yaml.load(data, Loader=_loader())  # noqa: S506 (a SafeLoader of ours)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise PolicyError(f"{name}: {place}{', '.join(filter(None, (error.context, error.problem)))}") from error
    except (yaml.YAMLError, UnicodeError, RecursionError, ValueError) as error:
        raise PolicyError(f"{name}: not YAML: {str(error).splitlines()[0]}") from error
    try:
        return _policy(_Section("", {} if document is None else document))
    except InputError as error:
        raise PolicyError(f"{name}: {error}") from error


def _loader() -> type:
    import yaml

    class Loader(yaml.SafeLoader):
        """SafeLoader for what a person writes into a policy.

        It refuses a key given twice, of which the later one would win in silence, and what makes a short text a long or a strange
        value: aliases, merged mappings, tags.
        """

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            event = self.peek_event()  # type: ignore[no-untyped-call]
            for feature in ("anchor", "tag"):
                if getattr(event, feature, None) is not None:
                    raise yaml.composer.ComposerError(
                        None, None, "anchors, aliases and tags are not for policies", event.start_mark
                    )
            return super().compose_node(parent, index)

        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            """Would merge in the mappings under keys ``<<``."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
            seen = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                    raise yaml.constructor.ConstructorError(None, None, "a key that is not a string", key.start_mark)
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {excerpt(key.value)} given twice", key.start_mark
                    )
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    return Loader


_E = TypeVar("_E", bound=StrEnum)


class _Section:
    """One mapping of the file, read key by key; what was not asked for is unknown."""

    def __init__(self, where: str, value: object) -> None:
        if not isinstance(value, dict):
            raise InputError(where or "the policy", value, "a mapping")
        self.where, self.value, self.known = where, value, set[str]()  # the loader makes string keys only

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
                raise InputError(self.where or "the policy", key, f"only the keys {', '.join(sorted(self.known))}")

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
    if file.has("version") and (version != 1 or type(version) is not int):
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
            if len(name) > LONGEST_NAME or not name.isascii() or not name.replace("_", "a").isalnum():
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
