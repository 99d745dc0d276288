"""``seccomp-floor status``: what the daemon protects right now, and what it does not and why."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from seccomp_floor.commands.common import answer_no, json_option, print_json

if TYPE_CHECKING:
    from seccomp_floor.pb.control_pb2 import StatusResponse

__all__ = ["command"]

WATCH_SECONDS = 2.0


@click.command("status")
@click.option("--control-socket", type=click.Path(path_type=Path), default="/run/seccomp-floor/control.sock",
              show_default=True, metavar="PATH", help="The daemon's.")  # fmt: skip
@click.option("--watch", is_flag=True, help=f"Show it anew every {WATCH_SECONDS:g} seconds.")
@click.option("--health", type=click.Choice(["ready", "alive"]),
              help="Print nothing; exit 0 if the daemon is, 1 if it is not or does not answer. For probes.")  # fmt: skip
@json_option
def command(control_socket: Path, watch: bool, health: str | None, as_json: bool) -> None:
    """Show what the daemon protects right now, container by container, and what it does not and why.

    Exit code 1: the node is not protected, or a container is open that should not be.
    """
    from seccomp_floor.node.control import ControlError, ask_health, ask_status
    from seccomp_floor.node.view import as_json as document

    if health:
        try:
            if ask_health(control_socket, health):
                return
        except ControlError as error:
            click.echo(f"seccomp-floor: {error}", err=True)
        answer_no()
    try:
        status = ask_status(control_socket)
        if watch:
            while True:
                click.clear()
                _show(status)
                time.sleep(WATCH_SECONDS)
                status = ask_status(control_socket)
    except KeyboardInterrupt:
        return
    except ControlError as error:
        click.echo(f"seccomp-floor: {error}", err=True)
        answer_no()
    if as_json:
        print_json(document(status))
    else:
        _show(status)
    if not status.node.ready or any(
        row.protection in ("breached", "admitted", "outdated") for row in status.containers
    ):
        answer_no()


def _show(status: StatusResponse) -> None:
    from rich.console import Console
    from rich.text import Text

    from seccomp_floor.node.view import headline, table

    console = Console()
    for line, colour in headline(status.node):
        console.print(Text(line, style=colour), soft_wrap=True)
    if status.containers:
        console.print()
        console.print(table(status))
