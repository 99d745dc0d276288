"""What the probe saw in one container, and many such readings as one table: doors down, containers across."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from testnode import probe
from testnode.cri import Container
from testnode.probe import AF_ALG, AF_VSOCK, Door

FAMILIES = (AF_ALG, AF_VSOCK)

CELLS = {
    "opened": Text(" OPEN ", "bold white on red"),
    "reached": Text("passed", "yellow"),
    "refused-by-kernel": Text("passed", "yellow"),
    "not-in-kernel": Text("passed", "yellow"),
    "ambiguous": Text("?", "magenta"),
    "closed-by-filter": Text("closed", "green"),
    "abi-missing": Text("-", "dim"),
}
"""By what a door is, the worst first: it gave a socket; it led to the kernel, which had none to give (perhaps after
loading a module); the filter shut it; the machine has no such door."""
WORST_FIRST = list(CELLS)
LEGEND = Text.assemble(
    CELLS["opened"],
    " gave a socket  ",
    CELLS["reached"],
    " to a kernel that has none  ",
    CELLS["closed-by-filter"],
    " by the filter",
)


@dataclass(frozen=True, slots=True)
class Reading:
    """The doors of one container, and everything that is to be the same without the floor."""

    doors: tuple[Door, ...]
    unrelated: Mapping[str, str]

    @classmethod
    def of(cls, container: Container) -> Reading:
        """Run the probe in it."""
        run = container.output
        return cls(tuple(probe.doors(run, *FAMILIES)), probe.unrelated(run))

    def kinds(self) -> dict[str, str]:
        """The worst that each door is, of all families."""
        worst: dict[str, str] = {}
        for door in self.doors:
            seen = worst.get(door.name, door.kind)
            worst[door.name] = min(seen, door.kind, key=WORST_FIRST.index)
        return worst

    def opened(self) -> list[str]:
        """The doors that gave a socket."""
        return [name for name, kind in self.kinds().items() if kind == "opened"]


def table(columns: Mapping[str, Reading]) -> Table:
    """A table for a terminal, of 80 columns for five readings; a reading's name may have several lines."""
    view = Table(header_style="bold", box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_footer=True)
    view.add_column("door", "doors that gave a socket", no_wrap=True, vertical="bottom", footer_style="bold")
    for name, reading in columns.items():
        opened = len(reading.opened())
        footer = Text(str(opened), "bold red" if opened else "bold green")
        view.add_column(name, footer, justify="center", no_wrap=True, vertical="bottom")
    kinds = [reading.kinds() for reading in columns.values()]
    for door in kinds[0]:
        view.add_row(door.replace(", high half", " (high)"), *(CELLS[kind[door]] for kind in kinds))
    return view
