"""Runtime versions, read leniently, and what each can do for us."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seccomp_floor.nri.version import RuntimeVersion, Support, remedy, seccomp_support

FULL, BLIND, NONE, UNKNOWN = Support


@pytest.mark.parametrize(
    ("text", "release", "support"),
    [
        ("v2.3.4", (2, 3, 4), FULL),
        ("2.3.4+unknown", (2, 3, 4), FULL),
        ("2.3.4-1ubuntu1~24.04", (2, 3, 4), FULL),
        ("v2.3.0-beta.0", (2, 3, 0), FULL),
        ("2.3", (2, 3, 0), FULL),
        ("v2.10.0", (2, 10, 0), FULL),
        ("v3.0.0", (3, 0, 0), FULL),
        (" v2.3.4\n", (2, 3, 4), FULL),
        ("v2.2.1", (2, 2, 1), BLIND),
        ("v2.2.10-k3s1", (2, 2, 10), BLIND),
        ("2.1.9", (2, 1, 9), NONE),
        ("v2.0.0-rc.6", (2, 0, 0), NONE),
        ("1.7.24~ds1", (1, 7, 24), NONE),
        ("1.6.20~ds1", (1, 6, 20), NONE),
        ("", None, UNKNOWN),
        ("v", None, UNKNOWN),
        ("2", None, UNKNOWN),
        ("2.", None, UNKNOWN),
        ("unknown", None, UNKNOWN),
        ("20261101-3f2a9c", None, UNKNOWN),
        ("3f2a9c.4", None, UNKNOWN),
        ("99999999999999999999.3.4", None, UNKNOWN),
        ("٢.٣.٤", None, UNKNOWN),
        ("-2.3.4", None, UNKNOWN),
    ],
)
def test_every_form_that_builds_have(text: str, release: tuple[int, int, int] | None, support: Support) -> None:
    version = RuntimeVersion.parse(text)
    assert version.release == release
    assert version.text == text
    assert seccomp_support("containerd", version) is support
    assert (remedy("containerd", version) is None) == (support is FULL)


@pytest.mark.parametrize("name", ["cri-o", "", "containerd-fork"])
def test_other_runtimes_are_not_trusted_by_their_version(name: str) -> None:
    assert seccomp_support(name, RuntimeVersion.parse("v2.3.4")) is UNKNOWN


def test_the_remedy_names_runtime_version_fault_and_way_out() -> None:
    text = remedy("containerd", RuntimeVersion.parse("v2.2.1"))
    assert text is not None
    for part in ("containerd v2.2.1", "does not show the profile", "containerd 2.3", "seccomp-floor runc"):
        assert part in text


@settings(deadline=None)
@given(st.text(), st.text())
def test_any_text_is_a_version_and_prints_on_one_line(name: str, text: str) -> None:
    version = RuntimeVersion.parse(text)
    assert str(version).isprintable()
    assert len(str(version)) < 600
    assert (remedy(name, version) or "").isprintable()
