"""For tests on a real node: who may run them, and a node each module can share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from testnode import Node


@pytest.fixture(scope="session", autouse=True)
def root() -> None:
    """Containers take root."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture(scope="module")
def new_node(root: None) -> Iterator[Callable[..., Node]]:  # noqa: ARG001
    """Makes nodes that last as long as the module; options as of `Node`."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Node(**options))


@pytest.fixture(scope="module")
def node(new_node: Callable[..., Any]) -> Node:
    """A node that lets containers through when a plugin is gone, as containerd does by default."""
    node = new_node()
    assert isinstance(node, Node)
    return node
