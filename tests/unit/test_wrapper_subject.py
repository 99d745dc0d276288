"""Who a container is, by the annotations that engines write and pods' authors may forge."""

from __future__ import annotations

import pytest

from seccomp_floor.runtime.judging import subject

CONTAINERD, CRI_O = "io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"


@pytest.mark.parametrize(
    ("annotations", "namespace"),
    [
        ({}, None),
        ({CONTAINERD: "lab"}, "lab"),
        ({CRI_O: "lab"}, "lab"),
        ({"io.kubernetes.cri.container-type": "container"}, ""),
        ({CONTAINERD: "lab", CRI_O: "lab"}, "lab"),
        ({CONTAINERD: "trusted", CRI_O: "evil"}, ""),
    ],
)
def test_the_namespace_is_the_engines_word(annotations: dict[str, str], namespace: str | None) -> None:
    assert subject(annotations).namespace == namespace


def test_a_container_with_two_names_has_none() -> None:
    names = {"io.kubernetes.cri.container-name": "trusted", "io.kubernetes.container.name": "evil"}
    assert subject(names).container == ""
