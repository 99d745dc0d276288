"""``seccomp-floor run``: the node daemon."""

from __future__ import annotations

import gc
import logging
import sys
from pathlib import Path

import click

from seccomp_floor.abi import this_machine
from seccomp_floor.node.logs import setup

__all__ = ["command"]

_PATH = click.Path(path_type=Path)


@click.command("run")
@click.option("--nri-socket", type=_PATH, default="/var/run/nri/nri.sock", show_default=True, metavar="PATH",
              help="Where the runtime lets plugins in. Not used when the runtime itself has launched this process.")  # fmt: skip
@click.option("--containerd-socket", type=_PATH, default="/run/containerd/containerd.sock", show_default=True, metavar="PATH",
              help="containerd's own API: what runs already, and on which kind of runtime.")  # fmt: skip
@click.option("--control-socket", type=_PATH, default="/run/seccomp-floor/control.sock", show_default=True, metavar="PATH",
              help="Where `seccomp-floor status` asks; for root only.")  # fmt: skip
@click.option("--reader-socket", type=_PATH, metavar="PATH",
              help="Where `seccomp-floor reader` listens. Without it the daemon starts a reader of its own.")  # fmt: skip
@click.option("--metrics", metavar="[HOST:]PORT",
              help="Serve Prometheus metrics there; the host is 127.0.0.1 unless named. Off by default.")  # fmt: skip
@click.option("--config", type=_PATH, metavar="FILE",
              help="The policy; default /etc/seccomp-floor/policy.yaml where it exists, else the built-in one. "
                   "Read again on SIGHUP and when the file changes.")  # fmt: skip
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True,
              help="One line an event, for people or for programs.")  # fmt: skip
@click.option("--verbose", is_flag=True, help="Log what is of use to developers only, too.")
def command(
    nri_socket: Path,
    containerd_socket: Path,
    control_socket: Path,
    reader_socket: Path | None,
    metrics: str | None,
    config: Path | None,
    log_format: str,
    verbose: bool,
) -> None:
    """Be the node daemon: put every container that the runtime creates under the floor.

    Connects to the runtime's NRI socket and reconnects whenever the runtime restarts, or takes over the connection of a runtime
    that has launched it as a plugin. Ends in order on SIGTERM.
    """
    from seccomp_floor.node.reader import begin

    address = _address(metrics)
    gc.disable()  # the node waits: of what is made while modules are loaded nothing is garbage
    reader = begin(reader_socket)
    from seccomp_floor.node.daemon import Options, run

    gc.enable()
    setup(log_format == "json", logging.DEBUG if verbose else logging.INFO)
    options = Options(nri_socket, containerd_socket, control_socket, address, config)
    run(options, this_machine(), reader)
    sys.stdout.flush()


def _address(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        raise click.BadParameter(f"{text!r} is not [HOST:]PORT", param_hint="--metrics")
    return host.strip("[]") or "127.0.0.1", int(port)
