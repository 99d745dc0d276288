"""Does the floor apply to this container, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from seccomp_floor.errors import InputError
from seccomp_floor.floor import Policy

__all__ = ["ANNOTATION", "Decision", "Reason", "Subject", "decide"]

ANNOTATION = "opt-out.seccomp-floor.nri.io"
"""Annotation that takes a pod, or one container of it, off the floor; the form ``KEY/pod`` and ``KEY/container.NAME`` is the
convention of NRI plugins (containerd/nri, pkg/plugin annotations)."""

LONGEST_VALUE = 64
"""Characters of an annotation's value that are kept: what is longer is no boolean either way."""


class Reason(StrEnum):
    """Why a container is under the floor or not; stable words, for logs and metrics."""

    SELECTED = "selected"
    OPT_OUT_NOT_HONOURED = "opt-out-not-honoured"
    OPTED_OUT = "opted-out"
    HANDLER_NOT_SELECTED = "handler-not-selected"
    OWN_POD = "own-pod"


@dataclass(frozen=True, slots=True)
class Subject:
    """What a decision looks at, and all that it looks at: :meth:`of` leaves out what else there is.

    ``handler``: the CRI runtime handler (``""``: the default one; None: an engine that has none). ``namespace``: the pod's
    Kubernetes namespace, None where there is no pod (Docker, Podman, runc). ``annotations``: of the pod, or of such a container.
    """

    container: str
    handler: str | None
    namespace: str | None
    annotations: Mapping[str, str]

    @classmethod
    def of(cls, container: str, handler: str | None, namespace: str | None, annotations: Mapping[str, str]) -> Subject:
        """Of all annotations, which may be long and many, those that are kept are this project's."""
        asked = {key: annotations[key][:LONGEST_VALUE] for key in _keys(container) if key in annotations}
        return cls(container, handler, namespace, asked)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether the floor applies. ``detail`` says it in a sentence."""

    floored: bool
    reason: Reason
    detail: str


def decide(policy: Policy, subject: Subject) -> Decision:
    """Decide for one container.

    :raises InputError: an opt-out annotation that is neither "true" nor "false": its author meant something, and to guess
        either way would be wrong, so the container is rejected
    """
    handlers = policy.apply.runtime_handlers
    if subject.handler is not None and "*" not in handlers and subject.handler not in handlers:
        shown = subject.handler or '"" (the default)'
        return Decision(False, Reason.HANDLER_NOT_SELECTED, f"runtime handler {shown} is not in apply.runtimeHandlers")
    asked = _opt_out(subject)
    if asked is None:
        return Decision(True, Reason.SELECTED, "the floor applies")
    refused = _refusal(policy, subject)
    if refused is not None:
        return Decision(True, Reason.OPT_OUT_NOT_HONOURED, f"annotation {asked} is not honoured: {refused}")
    return Decision(False, Reason.OPTED_OUT, f"opted out by annotation {asked}")


def _keys(container: str) -> tuple[str, ...]:
    return f"{ANNOTATION}/container.{container}", f"{ANNOTATION}/pod", ANNOTATION


def _opt_out(subject: Subject) -> str | None:
    """The key of the annotation that asks for an opt-out; the container's own form wins over the pod's."""
    for key in _keys(subject.container):
        value = subject.annotations.get(key)
        if value is None:
            continue
        if value not in ("true", "false"):
            raise InputError(f"annotation {key}", value, '"true" or "false"')
        return key if value == "true" else None
    return None


def _refusal(policy: Policy, subject: Subject) -> str | None:
    if not policy.opt_out.honour:
        return "optOut.honour is false"
    allowed = policy.opt_out.namespaces
    if subject.namespace is None or "*" in allowed or subject.namespace in allowed:
        return None
    return f"namespace {subject.namespace} is not in optOut.namespaces"
