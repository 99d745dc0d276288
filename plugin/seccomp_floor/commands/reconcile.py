"""``seccomp-floor reconcile``: the section that a container gets for its profile."""

from __future__ import annotations

from collections.abc import Iterable
from errno import errorcode
from typing import Any

import click

from seccomp_floor.abi import Abi
from seccomp_floor.bpf.compile import RUNC, RUNTIMES
from seccomp_floor.bpf.libseccomp import name_of
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
from seccomp_floor.confine import ConfinedError, TooSlow, confined
from seccomp_floor.errors import InputError
from seccomp_floor.floor import Policy
from seccomp_floor.judge import Judgement, Unprovable, Way, judge
from seccomp_floor.profile import Action, Arg, Operator, Profile, Syscall, parse_profile, write_profile

__all__ = ["command"]

MOST_SECONDS = 60.0
"""How long a hostile profile may keep libseccomp and the proof busy."""

MOST_SHOWN = 12
"""Rules of a change that ``--diff`` shows on each side, and names that it shows of a rule."""

# Of the profiles that Docker (moby/profiles) and Podman (containers/common) read: an engine makes a section of them for each
# container, by its capabilities and the machine.
_ENGINES_OWN = frozenset({"archMap", "defaultErrno"})
_ENGINES_OWN_OF_RULES = frozenset({"includes", "excludes", "name", "comment", "errno"})


@click.command("reconcile")
@click.argument("profile", required=False)
@click.option("--diff", is_flag=True, help="Show the rules before and after, and why, instead of the section.")
@click.option("--nri", is_flag=True, help="As an NRI adjustment, which loses the default's errno on its way.")
@click.option("--runtime", type=click.Choice(sorted(RUNTIMES)), default=RUNC.name, show_default=True,
              help="Which runtime will compile it.")  # fmt: skip
@config_option
@arch_option
@json_option
def command(
    profile: str | None, diff: bool, nri: bool, runtime: str, policy: Policy, native: Abi, as_json: bool
) -> None:
    """Print the seccomp section that a container with PROFILE gets: what the profile allows and the floor does not deny.

    PROFILE is the section of an OCI specification in JSON; - is stdin; without it, the container has no profile. Exit code 1: no
    section could be proven to hold the floor.
    """
    before = None if profile is None else _profile(profile)
    way = Way.NRI if nri else Way.SPEC
    try:
        judgement = confined(_judge, before, policy, native, way, runtime, seconds=MOST_SECONDS)
    except (CannotJudgeError, ConfinedError, TooSlow, Unprovable) as error:
        click.echo(f"seccomp-floor: {error}", err=True)
        answer_no()
    for different in _differences(judgement):
        click.echo(f"seccomp-floor: not exact: {different}", err=True)
    if as_json:
        print_json(_document(judgement))
    elif diff:
        _show(judgement)
    else:
        print_json(None if judgement.section is None else write_profile(judgement.section))


def _judge(profile: Profile | None, policy: Policy, native: Abi, way: Way, runtime: str) -> Judgement:
    return judge(profile, policy, native, way=way, runtime=RUNTIMES[runtime])


def _profile(source: str) -> Profile:
    name = "stdin" if source == "-" else source
    document = parse_json(read_input(source), name)
    if isinstance(document, dict):
        rules = document.get("syscalls")
        if not _ENGINES_OWN.isdisjoint(document) or (
            isinstance(rules, list)
            and any(isinstance(rule, dict) and not _ENGINES_OWN_OF_RULES.isdisjoint(rule) for rule in rules)
        ):
            raise InputError(
                name,
                "a profile in the form of Docker's or Podman's own (archMap, includes, ...)",
                "the section that the engine makes of it for a container: linux.seccomp of the container's config.json",
            )
        if "ociVersion" in document:
            raise InputError(name, "a whole config.json", "its linux.seccomp alone")
    return parse_profile(document, name)


def _differences(judgement: Judgement) -> list[str]:
    return [different.describe(name_of) for different in judgement.differences]


def _document(judgement: Judgement) -> dict[str, Any]:
    return {
        "section": None if judgement.section is None else write_profile(judgement.section),
        "closed": judgement.proof.closed,
        "exact": not judgement.differences,
        "changes": [
            {"reason": change.reason, "before": _rules(change.before), "after": _rules(change.after)}
            for change in judgement.changes
        ],
        "differences": _differences(judgement),
    }


def _rules(rules: tuple[Syscall, ...]) -> list[Any]:
    return list(write_profile(Profile(Action.ALLOW, syscalls=rules)).get("syscalls", []))


def _show(judgement: Judgement) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not judgement.changes:
        click.echo("the profile holds the floor already: it stays as it is")
    for change in judgement.changes:
        table = Table("before", "after", box=None, pad_edge=False, header_style="dim", expand=True)
        table.columns[0].ratio = table.columns[1].ratio = 1
        table.add_row(
            Text("\n".join(_lines(change.before)) or "(nothing)", "red" if change.before else "dim"),
            Text("\n".join(_lines(change.after)) or "(nothing)", "green" if change.after else "dim"),
        )
        console.print(Text(change.reason, "bold"))
        console.print(table)
        console.print()


def _lines(rules: tuple[Syscall, ...]) -> Iterable[str]:
    for rule in rules[:MOST_SHOWN]:
        names = ", ".join(rule.names[:MOST_SHOWN])
        if len(rule.names) > MOST_SHOWN:
            names += f", ... ({len(rule.names)} names)"
        answer = rule.action.removeprefix("SCMP_ACT_")
        if rule.errno_ret is not None:
            answer += f"({errorcode.get(rule.errno_ret, rule.errno_ret)})"
        conditions = " and ".join(map(_condition, rule.args))
        yield f"{names}: {answer}" + (f" if {conditions}" if conditions else "")
    if len(rules) > MOST_SHOWN:
        yield f"... and {len(rules) - MOST_SHOWN} more rules"


def _condition(arg: Arg) -> str:
    if arg.op is Operator.MASKED_EQ:
        return f"arg{arg.index} & {arg.value:#x} == {arg.value_two:#x}"
    return f"arg{arg.index} {_OPERATORS[arg.op]} {arg.value}"


_OPERATORS = {
    Operator.NE: "!=", Operator.LT: "<", Operator.LE: "<=", Operator.EQ: "==", Operator.GE: ">=", Operator.GT: ">",
}  # fmt: skip
