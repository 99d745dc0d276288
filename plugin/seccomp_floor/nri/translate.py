"""Seccomp sections between NRI's messages and our values, and what NRI loses of them on the way to the container's spec."""

from __future__ import annotations

from seccomp_floor.pb import nri_pb2 as nri
from seccomp_floor.profile import Profile, as_nri_delivers, parse_profile

__all__ = ["adjustment", "as_runtime_will_see", "from_nri", "section_after", "to_nri"]


def from_nri(message: nri.LinuxSeccomp, where: str = "linux.seccomp") -> Profile:
    """The section that the runtime shows.

    An empty list of flags is read as absent. The message cannot tell the two apart, and need not: containerd writes the spec with
    empty flags left out (``omitempty`` in runtime-spec's Go types), so that the OCI runtime sees none either way.

    :param where: how errors name the section
    :raises InputError: naming the first value that is not what runtime-spec says: runtimes show what a profile's file says
    """
    section: dict[str, object] = {
        "defaultAction": message.default_action,
        "architectures": list(message.architectures),
        "flags": list(message.flags) or None,
        "listenerPath": message.listener_path,
        "listenerMetadata": message.listener_metadata,
        "syscalls": [_rule(rule) for rule in message.syscalls],
    }
    if message.HasField("default_errno"):
        section["defaultErrnoRet"] = message.default_errno.value
    return parse_profile(section, where)


def to_nri(profile: Profile) -> nri.LinuxSeccomp:
    """The section as a message. What the container's spec will have of it says :func:`as_runtime_will_see`."""
    return nri.LinuxSeccomp(
        default_action=profile.default_action,
        default_errno=_optional(profile.default_errno_ret),
        architectures=profile.architectures,
        flags=profile.flags or (),
        listener_path=profile.listener_path,
        listener_metadata=profile.listener_metadata,
        syscalls=[
            nri.LinuxSyscall(
                names=rule.names,
                action=rule.action,
                errno_ret=_optional(rule.errno_ret),
                args=[
                    nri.LinuxSeccompArg(index=arg.index, value=arg.value, value_two=arg.value_two, op=arg.op)
                    for arg in rule.args
                ],
            )
            for rule in profile.syscalls
        ],
    )


def adjustment(profile: Profile) -> nri.ContainerAdjustment:
    """Give the container this section."""
    return nri.ContainerAdjustment(linux=nri.LinuxContainerAdjustment(seccomp_policy=to_nri(profile)))


def as_runtime_will_see(profile: Profile) -> Profile:
    """What arrives in the container's spec of an adjustment: see :func:`~seccomp_floor.profile.as_nri_delivers`."""
    return as_nri_delivers(profile)


def section_after(request: nri.ValidateContainerAdjustmentRequest) -> Profile | None:
    """The section that the container's spec will have once all plugins' adjustments are made; None: no filter.

    :raises InputError: as :func:`from_nri`
    """
    if request.adjust.linux.HasField("seccomp_policy"):
        return as_runtime_will_see(from_nri(request.adjust.linux.seccomp_policy))
    if request.container.linux.HasField("seccomp_policy"):
        return from_nri(request.container.linux.seccomp_policy)
    return None


def _rule(rule: nri.LinuxSyscall) -> dict[str, object]:
    section: dict[str, object] = {
        "names": list(rule.names),
        "action": rule.action,
        "args": [
            {"index": arg.index, "value": arg.value, "valueTwo": arg.value_two, "op": arg.op} for arg in rule.args
        ],
    }
    if rule.HasField("errno_ret"):
        section["errnoRet"] = rule.errno_ret.value
    return section


def _optional(value: int | None) -> nri.OptionalUInt32 | None:
    return None if value is None else nri.OptionalUInt32(value=value)
