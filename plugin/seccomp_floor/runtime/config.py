"""A container's ``config.json`` as text: where its parts are, and the same text with parts replaced.

Only the seccomp section is the wrapper's to change. All else stays byte for byte as the engine wrote it, so the file is not decoded
and written anew: the members of the document, of ``linux`` and of ``annotations`` are found by their place in the text.

What is found must be what the runtime will find. runc's decoder (Go's encoding/json) takes the last of several equal keys and
does not mind case; crun's takes the first and cuts a key at a NUL. A file in which that would matter is refused.
"""

# `json` itself takes longer to import than everything that the wrapper does. The scanner that it is made of is all that a good file
# needs; for a bad one `json` is imported after all, and finds the words.
from _json import make_scanner, scanstring

from seccomp_floor.errors import InputError, SeccompFloorError

__all__ = ["MARK", "Config", "ConfigError"]

MARK = "seccomp-floor.nri.io/wrapper"
"""Annotation that says, for information only, that the wrapper made the section; its value is our version."""


class ConfigError(SeccompFloorError):
    """The file is not a runtime-spec configuration, or one that runtimes would read differently."""


class Config:
    """A configuration.

    ``section``: the text of ``linux.seccomp``; None where there is none, or a null, which runtimes take for none.
    ``annotations``: those whose values are strings.

    :raises ConfigError: not JSON, or ambiguous
    :raises InputError: ``linux`` or ``annotations`` is not an object
    """

    def __init__(self, text: str) -> None:
        self._text = text
        try:
            self._root = _Object(text, _after_blank(text, 0), "config.json", ("linux", "annotations"))
            if not self._root.values or _after_blank(text, self._root.end) != len(text):
                raise ValueError
            self._linux = self._child("linux", ("seccomp",))
            self._annotations = self._child("annotations", ())
        except RecursionError:
            raise ConfigError("config.json: nested too deeply") from None
        except (
            IndexError,
            StopIteration,
            SystemError,
            ValueError,
        ):  # all of them mean that the text is not what is expected
            raise ConfigError(f"config.json: expected an object in JSON: {_what_is_wrong(text)}") from None
        self.section: str | None = None
        if self._linux and self._linux.values.get("seccomp") is not None:
            start, end = self._linux.places["seccomp"]
            self.section = text[start:end]
        annotations = self._annotations.values if self._annotations else {}
        self.annotations = {key: value for key, value in annotations.items() if isinstance(value, str)}

    def with_section(self, section: str, mark: str) -> str:
        """The text with this section and this mark, JSON values both, in place of its own or added to it."""
        text = self._text
        edits = [
            self._linux.put("seccomp", section) if self._linux else self._root.put("linux", f'{{"seccomp":{section}}}'),
            self._annotations.put(MARK, mark)
            if self._annotations
            else self._root.put("annotations", f'{{"{MARK}":{mark}}}'),
        ]
        for start, end, new in sorted(edits, reverse=True):  # from the end, so that the places before stay true
            text = text[:start] + new + text[end:]
        return text

    def _child(self, name: str, important: tuple[str, ...]) -> "_Object | None":
        value = self._root.values.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise InputError(f"config.json: {name}", value, "an object")
        return _Object(self._text, self._root.places[name][0], f"config.json: {name}", important)


class _Object:
    """An object in the text: the values of its members, and where they stand. ``end``: after the closing brace."""

    def __init__(self, text: str, start: int, where: str, important: tuple[str, ...]) -> None:
        self.start = start
        self.values: dict[str, object] = {}
        self.places: dict[str, tuple[int, int]] = {}
        place = _expect(text, start, "{")
        while text[place] != "}":
            if self.values:
                place = _expect(text, place, ",")
            key, place = scanstring(text, _expect(text, place, '"', blank=False))
            if key in self.values:
                raise ConfigError(f"{where}: key {key!a} is given twice")
            if "\0" in key or (key not in important and key.casefold() in important):
                raise ConfigError(f"{where}: key {key!a} is one that runtimes read differently")
            begin = _expect(text, _after_blank(text, place), ":")
            self.values[key], place = _scan(text, begin)
            self.places[key] = (begin, place)
            place = _after_blank(text, place)
        self.end = place + 1

    def put(self, key: str, value: str) -> tuple[int, int, str]:
        """The edit (from, to, new text) that gives a member this value."""
        if key in self.places:
            return *self.places[key], value
        first = self.start + 1
        return first, first, f'"{key}":{value}' + ("," if self.values else "")


def _expect(text: str, place: int, character: str, *, blank: bool = True) -> int:
    """The place after this character and, if ``blank``, the blanks that follow it."""
    if text[place] != character:
        raise ValueError
    return _after_blank(text, place + 1) if blank else place + 1


def _after_blank(text: str, place: int) -> int:
    while text[place : place + 1] in (" ", "\t", "\n", "\r"):
        place += 1
    return place


def _not_json(name: str) -> object:
    raise ValueError(f"{name} is no JSON value")  # NaN, Infinity, -Infinity: Python's own


class _Context:
    """What the scanner asks for (json.JSONDecoder has the same attributes)."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_not_json)


_scan = make_scanner(_Context)  # type: ignore[arg-type]  # typeshed takes it for its own type


def _what_is_wrong(text: str) -> str:
    import json

    try:
        value = json.loads(text, parse_constant=_not_json)
    except RecursionError:
        return "nested too deeply"
    except ValueError as error:
        return str(error)
    return "it is empty" if value == {} else f"it is {type(value).__name__}"
