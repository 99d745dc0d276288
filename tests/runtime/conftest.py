"""For tests of runtimes: root, Debian, and a scratch directory that each module can share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from runtime import debian
from runtime.runtimes import Runtime, runtimes
from testnode.scratch import Scratch

NAMES = ("runc v1.4.0", "Debian's runc", "Debian's crun")


@pytest.fixture(scope="session", autouse=True)
def able() -> None:
    """Containers take root, and the older runtimes are Debian's."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if shutil.which("dpkg") is None:
        pytest.skip("needs Debian's packages")
    debian.directory()


@pytest.fixture(scope="module")
def scratch(able: None) -> Iterator[Scratch]:  # noqa: ARG001
    """Gone at the end, with every process, mount and cgroup in it."""
    with Scratch() as scratch:
        yield scratch


@pytest.fixture(scope="module", params=NAMES)
def pair(scratch: Scratch, request: pytest.FixtureRequest) -> tuple[Runtime, Runtime]:
    """A runtime, bare and behind the wrapper."""
    name: str = request.param
    return runtimes(scratch)[name]
