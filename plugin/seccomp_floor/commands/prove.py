"""``seccomp-floor prove``: are the floor's doors closed by this profile, configuration or program?"""

from __future__ import annotations

from typing import Any

import click

from seccomp_floor.abi import Abi, abis_of_machine
from seccomp_floor.bpf.compile import RUNC, RUNTIMES, compile_profile
from seccomp_floor.bpf.libseccomp import resolve
from seccomp_floor.bpf.program import Program, decode, describe
from seccomp_floor.bpf.prove import Counterexample, Proof, Status, prove
from seccomp_floor.bpf.space import CannotJudgeError
from seccomp_floor.commands.common import (
    answer_no,
    arch_option,
    config_option,
    json_option,
    parse_json,
    print_json,
    read_input,
)
from seccomp_floor.confine import TooSlow, confined
from seccomp_floor.errors import InputError
from seccomp_floor.floor import Floor, Policy
from seccomp_floor.profile import Profile, parse_profile

__all__ = ["command"]

MOST_SECONDS = 60.0
"""How long a hostile profile may keep libseccomp and the proof busy."""

CRUN_BPF = "run.oci.seccomp_bpf_data"
"""Annotation with a program that crun loads instead of the section (crun.1)."""

_SHOWN = {
    Status.CLOSED: "[green]closed[/]",
    Status.LOGGED: "[yellow]logged[/]",
    Status.BREACHED: "[bold red]OPEN[/]",
    Status.OPEN_BY_POLICY: "[yellow]open by policy[/]",
    Status.MODULE_LOAD: "[yellow]module load only[/]",
    Status.NOT_ADMITTED: "[green]no calls at all[/]",
}


@click.command("prove")
@click.argument("file", default="-", type=str)
@click.option("--bpf", is_flag=True, help="FILE is a program: an array of struct sock_filter.")
@click.option("--runtime", type=click.Choice(sorted(RUNTIMES)), default=RUNC.name, show_default=True,
              help="Whose way of compiling a profile to judge.")  # fmt: skip
@config_option
@arch_option
@json_option
def command(file: str, bpf: bool, runtime: str, policy: Policy, native: Abi, as_json: bool) -> None:
    """Prove that FILE closes the floor's doors on every architecture, for all register contents, or show a call that gets through.

    FILE is a seccomp profile, an OCI config.json, or with --bpf a compiled filter; - is stdin. It is judged as it is, not
    reconciled first. Exit code 1: a door is open, or FILE cannot be judged.
    """
    data = read_input(file)
    name = "stdin" if file == "-" else file
    what = decode(data, little_endian=native.little_endian) if bpf else _section(parse_json(data, name), name)
    try:
        proof = confined(_judge, what, policy.floor, native, runtime, seconds=MOST_SECONDS)
    except (CannotJudgeError, TooSlow) as error:
        click.echo(f"seccomp-floor: {name}: not proven: {error}", err=True)
        answer_no()
    if as_json:
        print_json(_document(proof))
    else:
        _show(proof, native)
    if not proof.holds:
        answer_no()


def _section(document: object, name: str) -> Profile | None:
    """The profile in a document, None where a container has none."""
    if not isinstance(document, dict):
        raise InputError(name, document, "a seccomp profile or an OCI config.json")
    if "ociVersion" not in document and "linux" not in document:
        return parse_profile(document, f"{name}: profile")
    annotations = document.get("annotations")
    if isinstance(annotations, dict) and CRUN_BPF in annotations:
        click.echo(
            f"seccomp-floor: {name}: crun loads annotation {CRUN_BPF} instead of the section judged here", err=True
        )
    linux = document.get("linux")
    if linux is not None and not isinstance(linux, dict):
        raise InputError(f"{name}: linux", linux, "an object")
    section = linux.get("seccomp") if linux else None
    return None if section is None else parse_profile(section, f"{name}: linux.seccomp")


def _judge(what: Profile | Program | None, floor: Floor, native: Abi, runtime: str) -> Proof:
    if isinstance(what, Profile):
        what = compile_profile(what, native, runtime=RUNTIMES[runtime])
    return prove([] if what is None else [what], floor, resolve, native=native)


def _show(proof: Proof, native: Abi) -> None:
    from rich.console import Console
    from rich.table import Table

    abis = list(dict.fromkeys((*abis_of_machine(native), *(verdict.door.abi for verdict in proof.verdicts))))
    table = Table("door", "opens", *(abi.short for abi in abis), box=None, pad_edge=False, header_style="bold")
    cells = {(verdict.door.name, verdict.door.opens, verdict.door.abi): verdict for verdict in proof.verdicts}
    for name, opens in dict.fromkeys((name, opens) for name, opens, _ in cells):
        row = (cells.get((name, opens, abi)) for abi in abis)
        table.add_row(
            name, "" if opens == name else opens, *("-" if cell is None else _SHOWN[cell.status] for cell in row)
        )
    Console().print(table)
    click.echo()
    for found in proof.counterexamples:
        click.echo(f"open: {found}")
    if not proof.counterexamples:
        click.echo("closed" if proof.closed else "watched: every use of a door is logged, none is denied")


def _document(proof: Proof) -> dict[str, Any]:
    return {
        "closed": proof.closed,
        "holds": proof.holds,
        "doors": [
            {
                "architecture": verdict.door.abi.name,
                "door": verdict.door.name,
                "opens": verdict.door.opens,
                "number": verdict.door.number,
                "status": verdict.status,
            }
            | ({"counterexample": _call(verdict.counterexample)} if verdict.counterexample else {})
            for verdict in proof.verdicts
        ],
    } | ({"unknownArchitecture": _call(proof.stranger)} if proof.stranger else {})


def _call(found: Counterexample) -> dict[str, Any]:
    """A counterexample as JSON values; 64-bit words as hexadecimal text, which JSON's readers do not round."""
    data = found.data
    return {
        "arch": f"{data.arch:#010x}",
        "nr": data.nr,
        "instructionPointer": f"{data.instruction_pointer:#x}",
        "args": [f"{arg:#x}" for arg in data.args],
        "action": describe(found.value),
        "text": str(found),
    }
