"""The daemon's state as its control API tells it, and that as a table for people."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from seccomp_floor.floor import Mode
from seccomp_floor.node import neighbours
from seccomp_floor.node.records import Protection, Record
from seccomp_floor.node.state import PROVEN
from seccomp_floor.pb import control_pb2 as pb

if TYPE_CHECKING:
    from rich.console import RenderableType

    from seccomp_floor.node.policy_store import PolicyStore
    from seccomp_floor.node.state import State

__all__ = ["as_json", "headline", "picture", "table"]

_COLOURS = {
    Protection.PROTECTED: "green",
    Protection.PROVEN: "green",
    Protection.WATCHED: "cyan",
    Protection.REPORTED: "cyan",
    Protection.ENDED: "dim",
    Protection.EXEMPT: "yellow",
    Protection.UNVERIFIED: "yellow",
    Protection.UNSUPPORTED: "yellow",
    Protection.OUTDATED: "yellow",
    Protection.ADMITTED: "red",
    Protection.BREACHED: "red",
}

_DOING = {
    Mode.ENFORCE: ("protecting", "green"),
    Mode.LOG: ("watching, nothing is denied", "cyan"),
    Mode.REPORT: ("reporting, nothing is changed", "cyan"),
}


def picture(state: State, policies: PolicyStore, versions: tuple[str, str]) -> pb.StatusResponse:
    """All that there is to say. ``versions``: of this project, and of libseccomp."""
    floor = policies.policy.floor
    left_open = [
        name for name, denied in (("socketcall", floor.socketcall), ("io_uring", floor.io_uring)) if not denied
    ]
    node = pb.Node(
        version=versions[0],
        ready=not state.ready,
        not_ready_because=state.ready,
        started_at=state.started,
        runtime=f"{state.runtime.name} {state.runtime.version}" if state.runtime else "",
        libseccomp=versions[1],
        policy=policies.source,
        policy_generation=policies.generation,
        policy_error=policies.error or "",
        mode=str(policies.policy.mode),
        cannot_audit_because=state.auditing,
        sessions=state.sessions,
        refusals=state.refusals,
        breaches=state.breaches,
        open_by_policy=left_open,
        runtimes=state.runtimes,
        runtime_versions=state.runtime_versions,
        unattributed_uses=state.uses["", ""],
        standing_by=state.standing_by(),
    )
    shared = neighbours.limits(state.records)
    containers = [_container(record, shared.get(record.id, ())) for record in state.records]
    return pb.StatusResponse(node=node, containers=containers)


def _container(record: Record, shared: tuple[str, ...]) -> pb.Container:
    return pb.Container(
        id=record.id,
        name=record.name,
        pod=record.pod,
        namespace=record.namespace,
        handler=record.handler,
        floored=record.floored,
        reason=record.reason,
        detail=record.detail,
        protection=record.protection,
        changes=record.changes,
        proven_at=record.proven_at,
        audited_at=record.audited_at,
        pause=record.pause,
        limits=[*shared, *record.limits, *(f"{door}: open by policy" for door in record.open_doors)],
        uses=record.uses,
    )


def as_json(status: pb.StatusResponse) -> dict[str, Any]:
    """For programs: the API's own names, with nothing left out for being zero."""
    from google.protobuf.json_format import MessageToDict

    document: dict[str, Any] = MessageToDict(
        status, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    for number in (
        "sessions",
        "refusals",
        "breaches",
        "unattributed_uses",
    ):  # protobuf's JSON has 64-bit numbers as strings
        document["node"][number] = int(document["node"][number])
    for container in document["containers"]:
        container["uses"] = int(container["uses"])
    return document


def headline(node: pb.Node) -> Iterator[tuple[str, str]]:
    """The node in a few lines, each with a colour."""
    runtime = node.runtime or "no runtime yet"
    if node.ready:
        doing, colour = _DOING[Mode(node.mode)]
        yield f"{doing}: {runtime}, policy {node.policy}, mode {node.mode}, libseccomp {node.libseccomp}", colour
    else:
        yield f"not protecting: {node.not_ready_because}", "red"
    if node.standing_by:
        yield (
            "standing by: another daemon serves this runtime as well, and its policy is in force until it leaves",
            "yellow",
        )
    if node.policy_error:
        yield f"the policy file has something that is not in force: {node.policy_error}", "red"
    if node.cannot_audit_because:
        yield f"no container is audited: {node.cannot_audit_because}", "yellow"
    if node.unattributed_uses:
        yield f"{node.unattributed_uses} uses of doors by processes that had ended when their record was read", "cyan"
    for handler, found in sorted(node.runtimes.items()):
        version = f" ({node.runtime_versions[handler]})" if handler in node.runtime_versions else ""
        yield f"runtime handler {handler}{version}: {found}", "green" if found == PROVEN else "yellow"
    for door in node.open_by_policy:
        yield f"open by policy: {door}", "yellow"


def table(status: pb.StatusResponse) -> RenderableType:
    """A row for each container, what is wrong first."""
    from rich.table import Table
    from rich.text import Text

    order = list(reversed(_COLOURS))
    rows = sorted(
        status.containers, key=lambda row: (order.index(Protection(row.protection)), row.namespace, row.pod, row.name)
    )
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("NAMESPACE", "POD", "CONTAINER", "STATE", "REASON", "PROVEN", "AUDITED", "NOTES"):
        shown.add_column(title, overflow="fold")
    for row in rows:
        notes = [row.detail, *row.limits, *([f"{row.uses} uses of doors"] if row.uses else [])]
        shown.add_row(
            Text(row.namespace),
            Text(row.pod),
            Text(row.name),
            Text(row.protection, style=_COLOURS[Protection(row.protection)]),
            Text(row.reason),
            Text(_age(row.proven_at if row.HasField("proven_at") else None)),
            Text(_age(row.audited_at if row.HasField("audited_at") else None)),
            Text("; ".join(filter(None, notes))),
        )
    return shown


def _age(moment: float | None) -> str:
    if moment is None:
        return "-"
    seconds = max(0, int(time.time() - moment))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit} ago"
    return f"{seconds}s ago"
