"""Which runtimes show a container's seccomp profile to plugins, and which apply what plugins answer.

No field of the protocol says so: a runtime that knows nothing of seccomp adjustments drops them without a word, and the container
runs as it would have. What is known, read in the sources of containerd and CRI-O by version:

====================  =====================  =========================
runtime               applies an adjustment  shows the profile
====================  =====================  =========================
containerd to 2.1     no                     no
containerd 2.2        yes                    no
containerd from 2.3   yes                    yes, its first beta too
CRI-O to 1.37         not examined           no
====================  =====================  =========================
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from seccomp_floor.errors import excerpt

__all__ = ["RuntimeVersion", "Support", "remedy", "seccomp_support"]


@dataclass(frozen=True, slots=True)
class RuntimeVersion:
    """A runtime's version, read for what it means.

    It comes in whatever form the runtime was built with: ``v2.3.4``, ``2.3.4+unknown``, ``1.6.20~ds1``, ``v2.3.0-beta.1``,
    ``2.3.4-1ubuntu1``. ``release`` is the leading ``(major, minor, patch)``, missing parts being 0, or None where the text
    does not begin with a number and a dot; ``text`` is what was sent.
    """

    text: str
    release: tuple[int, int, int] | None

    @classmethod
    def parse(cls, text: str) -> RuntimeVersion:
        """Read any text; what makes no sense is a version without a release, never an error."""
        numbers: list[int] = []
        rest = text.strip().removeprefix("v")
        while len(numbers) < 3:
            digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
            if not digits or len(digits) > 6:  # longer is a date or a hash, not a version
                break
            numbers.append(int(digits))
            rest = rest[len(digits) :]
            if not rest.startswith("."):
                break
            rest = rest[1:]
        if len(numbers) < 2:
            return cls(text, None)
        major, minor, patch = (*numbers, 0)[:3]
        return cls(text, (major, minor, patch))

    def __str__(self) -> str:
        return _printable(self.text)


class Support(Enum):
    """What a runtime does with seccomp profiles and plugins."""

    FULL = "shows the profile and applies the adjustment"
    BLIND = "applies the adjustment but does not show the profile"
    NONE = "ignores the adjustment"
    UNKNOWN = "is not known to show the profile and apply the adjustment"


def seccomp_support(name: str, version: RuntimeVersion) -> Support:
    """What the runtime ``name`` (as Configure gives it) in this version does."""
    if name != "containerd" or version.release is None:
        return Support.UNKNOWN
    if version.release >= (2, 3, 0):
        return Support.FULL
    return Support.BLIND if version.release >= (2, 2, 0) else Support.NONE


def remedy(name: str, version: RuntimeVersion) -> str | None:
    """None where the floor can be enforced through NRI; else one line that says why not and what to do."""
    support = seccomp_support(name, version)
    if support is Support.FULL:
        return None
    verdict = "seccomp-floor will not pretend to protect it" if support is Support.UNKNOWN else "no plugin can floor it"
    return (
        f"{_printable(name)} {version} {support.value}: {verdict}. Upgrade to containerd 2.3 or later, "
        "or put the OCI runtime wrapper (seccomp-floor runc) in front of runc."
    )


def _printable(text: str) -> str:
    return text if 0 < len(text) <= 80 and text.isascii() and text.isprintable() else excerpt(text)
