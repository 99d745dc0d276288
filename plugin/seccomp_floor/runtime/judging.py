"""The long way: what becomes of a bundle whose question has no answer in the cache."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib.metadata import version
from json import dumps, loads

from seccomp_floor.abi import this_machine
from seccomp_floor.bpf.libseccomp import library
from seccomp_floor.confine import confined
from seccomp_floor.decide import Reason, Subject, decide
from seccomp_floor.errors import InputError, SeccompFloorError
from seccomp_floor.floor import Mode, OnUnprovable, Policy
from seccomp_floor.judge import judge
from seccomp_floor.policy_file import DEFAULT_PATH, parse_policy
from seccomp_floor.profile import parse_profile, write_profile
from seccomp_floor.runtime.cache import Outcome
from seccomp_floor.runtime.config import Config
from seccomp_floor.runtime.identity import identify

__all__ = ["subject", "work_out"]

SECONDS = 20
"""What the judgement of a section may take. A usual one takes a fraction of one; whoever makes a container waits for longer."""

SECCOMP_BPF_DATA = "run.oci.seccomp_bpf_data"
"""crun's annotation for a filter of one's own, in place of the section (crun(1))."""

# How engines name a pod's namespace and a container in a specification: containerd's pkg/cri/annotations, CRI-O's pkg/annotations.
NAMESPACE = ("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace")
CONTAINER = ("io.kubernetes.cri.container-name", "io.kubernetes.container.name")
KUBERNETES = ("io.kubernetes.cri.", "io.kubernetes.pod.")  # io.kubernetes.cri-o. is on Podman's own containers as well


class BpfDataError(SeccompFloorError):
    """The container brings a filter that would replace its section."""


def work_out(config: Config, policy_text: bytes | None, runtime: str) -> tuple[Outcome, list[str]]:
    """The outcome for a configuration, and the files that it rests upon.

    :param policy_text: the policy file's; None: the built-in policy
    :param runtime: path of the real runtime
    :raises SeccompFloorError: the container must not be made
    """
    policy = Policy() if policy_text is None else parse_policy(policy_text, str(DEFAULT_PATH))
    decision = decide(policy, subject(config.annotations))
    if not decision.floored:
        return Outcome(None, "", [f"not under the floor: {decision.detail}"]), []
    if SECCOMP_BPF_DATA in config.annotations:
        raise BpfDataError(
            f"annotation {SECCOMP_BPF_DATA} would replace the section by a filter that nobody has proven"
        )
    warnings = [decision.detail] if decision.reason is Reason.OPT_OUT_NOT_HONOURED else []
    profile = None if config.section is None else parse_profile(loads(config.section, object_pairs_hook=_object))
    model, warning = identify(runtime)
    if warning:
        warnings.append(warning)
    try:
        judgement = confined(lambda: judge(profile, policy, this_machine(), runtime=model), seconds=SECONDS)
    except (
        SeccompFloorError
    ) as error:  # refused by the runtime, too slow, unproven: it cannot be said to hold the floor
        if policy.on_unprovable is not OnUnprovable.ADMIT:
            raise
        return Outcome(None, "", [*warnings, f"NOT under the floor (onUnprovable: admit): {error}"]), _rests_on(runtime)
    warnings += [f"not exact: {difference}" for difference in judgement.differences]
    section = judgement.section
    if section is None or section == profile:
        return Outcome(None, "", warnings), _rests_on(runtime)
    if policy.mode is Mode.REPORT:
        would = "; ".join(change.reason for change in judgement.changes)
        warnings.append(f"NOT under the floor (mode: report); this would change: {would}")
        return Outcome(None, "", warnings), _rests_on(runtime)
    text = dumps(write_profile(section), separators=(",", ":"))
    return Outcome(text, dumps(version("seccomp-floor")), warnings), _rests_on(runtime)


def subject(annotations: Mapping[str, str]) -> Subject:
    """The container as a decision looks at it.

    One that an engine of Kubernetes made has a namespace, even where that engine does not say which: the empty one, which may not
    opt out unless all may. One without is its own master.
    """
    namespace = _agreed(annotations, NAMESPACE)
    if namespace is None and any(key.startswith(KUBERNETES) for key in annotations):
        namespace = ""
    return Subject(
        container=_agreed(annotations, CONTAINER) or "", handler=None, namespace=namespace, annotations=annotations
    )


def _agreed(annotations: Mapping[str, str], keys: tuple[str, ...]) -> str | None:
    """What the engine says under whichever of its keys; None where it says nothing. An engine writes one of them, and a pod's
    author may have written another: where they differ, nobody is believed."""
    said = {annotations[key] for key in keys if key in annotations}
    return "" if len(said) > 1 else next(iter(said), None)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object in which no key is given twice: runtimes differ in which of two they take."""
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise InputError("linux.seccomp", key, "each key once in an object")
        found[key] = value
    return found


def _rests_on(runtime: str) -> list[str]:
    """The files that an outcome rests upon: the runtime, libseccomp, and our own code."""
    library()  # so that it is mapped
    with open("/proc/self/maps", "rb") as file:
        mapped = {os.fsdecode(line.split(maxsplit=5)[5].rstrip()) for line in file if b"/libseccomp.so" in line}
    ours = {
        module.__file__ for name, module in sys.modules.items() if name.startswith("seccomp_floor") and module.__file__
    }
    return [runtime, *sorted(mapped), *sorted(ours)]
