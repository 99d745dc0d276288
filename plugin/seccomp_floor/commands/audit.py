"""``seccomp-floor audit``: the filters that the kernel enforces, read from running processes and proven."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from seccomp_floor.abi import this_machine
from seccomp_floor.commands.common import answer_no, config_option, json_option, print_json
from seccomp_floor.confine import confined
from seccomp_floor.errors import SeccompFloorError
from seccomp_floor.floor import Floor, Policy
from seccomp_floor.node.audit import Finding, judge_filters, read_process
from seccomp_floor.node.logs import printable
from seccomp_floor.node.ptrace import GoneError, PtraceError

__all__ = ["command"]

MOST_SECONDS = 30.0
"""For one stack of filters: whoever runs in a container may have added to it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One process. ``verdict``: closed, watched, open, exempt, unsupported, or unreadable; ``pause`` in seconds."""

    pid: int
    container: str
    verdict: str
    text: str
    filters: int = 0
    pause: float = 0.0


@dataclass(frozen=True, slots=True)
class Target:
    """A process to look at. ``excuse``: why it need not be closed, empty where it must."""

    pid: int
    container: str = ""
    excuse: str = ""


@click.command("audit")
@click.option(
    "--pid", "pids", type=click.IntRange(min=1), multiple=True, metavar="N", help="This process; may be repeated."
)
@click.option("--all", "everything", is_flag=True, help="Every process of every CRI container.")
@click.option("--containerd-socket", type=click.Path(path_type=Path), default="/run/containerd/containerd.sock",
              show_default=True, metavar="PATH", help="For --all: containerd's own API.")  # fmt: skip
@click.option("--control-socket", type=click.Path(path_type=Path), default="/run/seccomp-floor/control.sock",
              show_default=True, metavar="PATH", help="For --all: the daemon's, which knows who is exempt.")  # fmt: skip
@config_option
@json_option
def command(
    pids: tuple[int, ...],
    everything: bool,
    containerd_socket: Path,
    control_socket: Path,
    policy: Policy,
    as_json: bool,
) -> None:
    """Read the seccomp filters of running processes from the kernel, and prove the floor's doors closed or show who gets through.

    Each thread that is read stands still for some 200 microseconds, and may see a system call with a timeout end early (EINTR).
    Needs CAP_SYS_ADMIN and CAP_SYS_PTRACE, and must not run under a seccomp filter itself. Exit code 1: a process is open, or
    cannot be read.
    """
    if everything == bool(pids):
        raise click.UsageError("name processes with --pid, or all containers with --all")
    targets = _of_containers(containerd_socket, control_socket) if everything else [Target(pid) for pid in pids]
    answers = []
    for answer in _audit(targets, policy.floor):
        answers.append(answer)
        if not as_json:
            _show(answer)
    if as_json:
        print_json([asdict(answer) for answer in answers])
    elif not answers:
        click.echo("no container runs", err=True)
    if any(answer.verdict in ("open", "unreadable") for answer in answers):
        answer_no()


def _audit(targets: Iterable[Target], floor: Floor) -> Iterator[Answer]:
    known: dict[tuple[bytes, ...], Finding] = {}
    for target in targets:
        if target.excuse == "unsupported":
            yield Answer(target.pid, target.container, "unsupported", "its runtime does not load seccomp sections")
            continue
        try:
            readings = read_process(target.pid)
        except GoneError as error:
            if not target.container:
                yield Answer(target.pid, "", "unreadable", str(error))
            continue
        except PtraceError as error:
            yield Answer(target.pid, target.container, "unreadable", str(error))
            continue
        for reading in readings:
            if reading.filters not in known:
                known[reading.filters] = _judge(reading.filters, floor)
        worst = min(
            (known[reading.filters] for reading in readings), key=lambda finding: (finding.holds, finding.closed)
        )
        verdict = "closed" if worst.closed else "watched" if worst.holds else target.excuse or "open"
        pause = max(reading.pause for reading in readings)
        yield Answer(target.pid, target.container, verdict, worst.text, len(readings[0].filters), pause)


def _judge(filters: tuple[bytes, ...], floor: Floor) -> Finding:
    import seccomp_floor.judge  # noqa: F401 (a confined child may not be able to read it from disk)

    try:
        return confined(judge_filters, filters, floor, this_machine(), seconds=MOST_SECONDS)
    except SeccompFloorError as error:
        return Finding(False, False, f"its filters cannot be judged: {error}")


def _of_containers(containerd_socket: Path, control_socket: Path) -> list[Target]:
    from seccomp_floor.node.containerd import Containerd
    from seccomp_floor.node.processes import by_container

    exempt = _exempt(control_socket)
    with Containerd(containerd_socket) as containerd:
        containers = {container.id: container for container in containerd.containers() if container.pid}
    targets = []
    for identity, pids in by_container(containers).items():
        container = containers[identity]
        name = printable(f"{container.namespace}/{container.pod}/{container.name}")
        excuse = "exempt" if identity in exempt else "" if container.honours_sections else "unsupported"
        targets += [Target(pid, name, excuse) for pid in pids]
    return targets


def _exempt(control_socket: Path) -> set[str]:
    """The containers that the daemon says are not under the floor; none where there is no daemon."""
    from seccomp_floor.node.control import ControlError, ask_status

    try:
        return {container.id for container in ask_status(control_socket).containers if not container.floored}
    except ControlError:
        return set()


_COLOURS = {"closed": "green", "watched": "cyan", "open": "red", "unreadable": "red"}


def _show(answer: Answer) -> None:
    verdict = click.style(f"{answer.verdict:11}", fg=_COLOURS.get(answer.verdict, "yellow"))
    who = f"{answer.container} (process {answer.pid})" if answer.container else f"process {answer.pid}"
    filters = f"{answer.filters} filter{'s' if answer.filters != 1 else ''}, read in {answer.pause * 1e6:.0f} us"
    text = "" if answer.verdict == "closed" else f": {answer.text.removeprefix('open: ')}"
    click.echo(f"{verdict} {who}: {filters}{text}")
