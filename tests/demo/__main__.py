"""The demo: doors of real containers before the daemon, with it, and in a pod that opted out.

Everything happens on a private containerd in a scratch directory, which is gone at the end, also after Ctrl-C.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

from rich.console import Console, Group
from rich.panel import Panel
from rich.text import Text

from testnode import RUNTIME_DEFAULT, UNCONFINED, Node, Seccomp, programs
from testnode.containerd import ContainerdError
from testnode.cri import CriError
from testnode.daemon import DaemonError
from testnode.reading import LEGEND, Reading, table

NAMESPACE = "lab"
POLICY = f"""\
version: 1
floor:
  socketFamilies: {{deny: [AF_ALG, AF_VSOCK], errno: EAFNOSUPPORT}}
optOut:
  namespaces: [{NAMESPACE}]
"""
OPT_OUT = {"opt-out.seccomp-floor.nri.io/pod": "true"}
LOOSE = "Uncon-\nfined"
PROFILES = {"Runtime\nDefault": RUNTIME_DEFAULT, LOOSE: UNCONFINED}
"""As they stand at the head of a narrow column."""
IO_URING = frozenset({"425", "426", "427"})

console = Console(highlight=False)


def main() -> int:
    """0 if the daemon kept its promise, 1 if not."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the first as well: a shell's background jobs start with it ignored
        signal.signal(number, leave)
    try:
        return show()
    except KeyboardInterrupt:
        console.print("\nInterrupted; everything that was started is gone.")
        return 130
    except (ContainerdError, CriError, DaemonError) as error:
        console.print(f"error: {error}", style="red", markup=False)
        return 1


def leave(_signal: int, _frame: FrameType | None) -> None:
    """End in the orderly way."""
    raise KeyboardInterrupt


def show() -> int:
    """The whole story."""
    columns: dict[str, Reading] = {}
    step("Starting a private containerd in a scratch directory, with sockets of its own")
    with Node() as node:
        say(node.containerd.ctr("version").stdout.split("Server:")[1].split()[1], "containerd")
        say(programs.RUNC, "runc")

        step("Before: two pods, and a static program in each that tries every door to AF_ALG and AF_VSOCK")
        for name, seccomp in PROFILES.items():
            columns[heading("before", name)] = read(node, seccomp)
        console.print(table(columns))

        step("Starting the daemon: seccomp-floor run, with this policy")
        console.print(Panel(Text(POLICY.strip()), expand=False, border_style="dim"))
        with node.daemon(POLICY) as daemon:
            console.print(daemon.log.strip(), style="dim", markup=False)

            step("The same two pods again, and one that opts out by annotation, as the policy lets it")
            for name, seccomp in PROFILES.items():
                columns[heading("floor", name)] = read(node, seccomp)
            columns[heading("opted out", LOOSE)] = read(node, UNCONFINED, opt_out=True)
            console.print(daemon.log.strip(), style="dim", markup=False)
    return last_screen(columns)


def read(node: Node, seccomp: Seccomp, *, opt_out: bool = False) -> Reading:
    """A pod, looked at and removed."""
    container = node.run(seccomp, namespace=NAMESPACE, annotations=OPT_OUT if opt_out else None)
    reading = Reading.of(container)
    container.pod.remove()
    return reading


def heading(when: str, profile: str) -> str:
    """A column's name, in lines short enough for a terminal of 80 columns."""
    return f"{when}\n{profile}"


def last_screen(columns: dict[str, Reading]) -> int:
    """Doors down, profiles across; 1 if a socket came out under the floor, or something else changed."""
    kept = True
    lines = []
    for name, seccomp in PROFILES.items():
        before, after = columns[heading("before", name)], columns[heading("floor", name)]
        changed = [call for call, result in before.unrelated.items() if after.unrelated[call] != result]
        others = [call for call in changed if call.split()[-1] not in IO_URING]
        kept = kept and not after.opened() and not others
        text = f" {len(before.unrelated) - len(changed)} of {len(before.unrelated)} other calls answer as before"
        if others:
            text += f"; not so: {', '.join(others[:5])}, ..."
        elif changed:
            text += f"; the other {len(changed)} are io_uring, itself a door"
        lines.append(Text.assemble((f"{seccomp.kind}:", "bold"), text))
    console.print()
    console.print(
        Panel(
            Group(table(columns), LEGEND, Text(), *lines),
            title="[bold]Seccomp Floor: the doors to AF_ALG and AF_VSOCK",
            border_style="green" if kept else "red",
            padding=(0, 1),
            expand=False,
        )
    )
    return 0 if kept else 1


def step(text: str) -> None:
    """What comes next."""
    console.print(f"\n==> {text}", style="bold")


def say(version: str, program: str) -> None:
    """A program and its version."""
    console.print(f"    {program} {version}", style="dim")


if __name__ == "__main__":
    sys.exit(main())
