"""``seccomp-floor``: the commands by name; each is imported only when it is called."""

from __future__ import annotations

import importlib
import sys
from typing import Any

__all__ = ["main"]

COMMANDS = ("run", "reconcile", "prove", "audit", "status", "doctor", "reader")
USAGE_ERROR = 2


def main() -> None:
    """Entry point of the console script; leaves with the exit codes that :mod:`seccomp_floor.commands.common` explains."""
    if sys.argv[1:2] == ["runc"]:  # runc's own command line, untouched: see the wrapper
        from seccomp_floor.runtime.launcher import main as wrapper

        raise SystemExit(wrapper(sys.argv[2:]))

    import click

    from seccomp_floor.errors import SeccompFloorError

    class Commands(click.Group):
        def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
            return [*COMMANDS, "runc"]

        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
            if cmd_name == "runc":
                return click.Command("runc", help="The OCI runtime wrapper: runc's own command line, floored.")
            if cmd_name not in COMMANDS:
                return None
            command: Any = importlib.import_module(f"seccomp_floor.commands.{cmd_name}").command
            return command if isinstance(command, click.Command) else None

    group = Commands(
        "seccomp-floor",
        help="Close kernel doors for every container of a node, and prove it.",
        no_args_is_help=True,
    )
    click.version_option(package_name="seccomp-floor")(group)
    try:
        group(prog_name="seccomp-floor")
    except SeccompFloorError as error:
        click.echo(f"seccomp-floor: {error}", err=True)
        raise SystemExit(USAGE_ERROR) from None


if __name__ == "__main__":
    main()
