"""``seccomp-floor doctor``: is this node able to enforce?"""

from __future__ import annotations

from pathlib import Path

import click

from seccomp_floor.abi import Abi
from seccomp_floor.commands.common import answer_no, arch_option, config_option, json_option, print_json
from seccomp_floor.floor import Policy

__all__ = ["command"]

_MARKS = {"ok": ("ok", "green"), "note": ("note", "cyan"), "warning": ("warn", "yellow"), "error": ("FAIL", "red")}


@click.command("doctor")
@click.option("--containerd-socket", type=click.Path(path_type=Path), default="/run/containerd/containerd.sock",
              show_default=True, metavar="PATH", help="containerd's own API.")  # fmt: skip
@click.option("--control-socket", type=click.Path(path_type=Path), default="/run/seccomp-floor/control.sock",
              show_default=True, metavar="PATH", help="The daemon's.")  # fmt: skip
@config_option
@arch_option
@json_option
def command(containerd_socket: Path, control_socket: Path, policy: Policy, native: Abi, as_json: bool) -> None:
    """Examine this node: kernel, libseccomp, containerd, its NRI settings, the daemon; each finding with its remedy.

    Changes nothing, and never connects to the NRI socket. Exit code 1: something keeps the node from being protected.
    """
    from seccomp_floor.node.doctor import Level, Node, examine

    findings = []
    for finding in examine(Node(policy, native, containerd_socket, control_socket)):
        findings.append(finding)
        if not as_json:
            mark, colour = _MARKS[finding.level]
            click.echo(f"{click.style(f'{mark:4}', fg=colour)}  {finding.subject}: {finding.text}")
            if finding.remedy:
                click.echo(f"      {click.style('->', fg=colour)} {finding.remedy}")
    if as_json:
        print_json([{"level": f.level, "subject": f.subject, "text": f.text, "remedy": f.remedy} for f in findings])
    if any(finding.level is Level.ERROR for finding in findings):
        answer_no()
