"""The terminal: a console that takes nothing of the cluster for markup, and rows of label and text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

LABEL_WIDTH = 12
STYLES = {
    "Succeeded": "green",
    "Passed": "green",
    "Available": "green",
    "Running": "cyan",
    "Training": "cyan",
    "Evaluating": "cyan",
    "RollingOut": "cyan",
    "Canary": "cyan",
    "Failed": "bold red",
    "GateFailed": "bold red",
    "Blocked": "bold red",
    "Warning": "yellow",
    "Retrying": "yellow",
    "Inconclusive": "yellow",
    "Suspended": "magenta",
    "Cancelled": "magenta",
}
"""Of phases, states and types of Events; others have none."""


@dataclass(frozen=True)
class Row:
    """A label, and what is said under it: one entry per line."""

    label: str
    lines: Sequence[str]
    style: str = ""


def console(stderr: bool = False) -> Console:
    """A console for stdout or stderr. Colour only in a terminal, and never with NO_COLOR."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def print_rows(to: Console, rows: Iterable[Row]) -> None:
    """The rows. A file or a pipe gets each line whole, however long it is."""
    if to.is_terminal:
        to.print(as_grid(rows))
        return
    for row in rows:
        for number, line in enumerate(row.lines):
            label = row.label if number == 0 else ""
            to.print(f"{label:{LABEL_WIDTH}} {line}".rstrip(), soft_wrap=True)


def as_grid(rows: Iterable[Row]) -> RenderableType:
    """The rows as a table whose lines are wrapped at the terminal's width."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=LABEL_WIDTH, no_wrap=True, style="bold")
    grid.add_column(ratio=1, overflow="fold")
    for row in rows:
        grid.add_row(Text(row.label), Group(*(Text(line, style=row.style) for line in row.lines)))
    return grid


def print_table(to: Console, headers: Sequence[str], rows: Iterable[Sequence[str]], styled: int | None = None) -> None:
    """A table as kubectl prints them. `styled`: the column whose words have STYLES. Nothing is cut in a file or a
    pipe."""
    texts = [list(row) for row in rows]
    widths = [max([len(header), *(len(row[column]) for row in texts)]) for column, header in enumerate(headers)]
    for row in [list(headers), *texts]:
        line = Text(no_wrap=True)
        for column, (text, width) in enumerate(zip(row, widths, strict=True)):
            style = STYLES.get(text, "") if column == styled and row is not headers else ""
            line.append(text if column == len(widths) - 1 else text.ljust(width + 2), style=style)
        line.rstrip()
        to.print(line, soft_wrap=True)


def tell(text: str) -> None:
    """A line for the person, on stderr: stdout has what was asked for."""
    console(stderr=True).print(text, soft_wrap=True)
