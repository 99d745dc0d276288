"""``seccomp-floor reader``: the part of the daemon that reads filters, as a service of its own."""

from __future__ import annotations

import signal
from pathlib import Path

import click

__all__ = ["command"]


@click.command("reader")
@click.option("--socket", type=click.Path(path_type=Path), default="/run/seccomp-floor-reader/reader.sock",
              show_default=True, metavar="PATH", help="Where the daemon asks (`run --reader-socket`); for root only.")  # fmt: skip
def command(socket: Path) -> None:
    """Read filters for the daemon, which then needs neither CAP_SYS_ADMIN nor CAP_SYS_PTRACE, and may be under a filter itself.

    Needed only where a service manager is to hold the two to different privileges: without it the daemon starts a reader of its
    own and gives up its privileges then. Ends on SIGTERM.
    """
    from seccomp_floor.node.reader import serve

    signal.signal(signal.SIGTERM, lambda *_: exit_well())
    serve(socket)


def exit_well() -> None:
    """SIGTERM is how a service is ended: nothing is wrong."""
    raise SystemExit(0)
