"""How progress, tables and figures reach a terminal, or a file where there is none."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress as RichProgress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from sgdlab.experiment.errors import OutputError, in_one_line
from sgdlab.experiment.folders.folder import write_file

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from sgdlab.experiment.running.making import Progress

_WIDE = 240  # columns of a table that goes into a file
_EVERY = 0.1  # seconds between two redrawings


class Bar:
    """A progress bar on the standard error; silent where that is no terminal, or if asked to be.

    Updates may come from any thread.

    Args:
      quiet: show nothing.
      experiments: how many there are; more than one have a bar of their own above.
    """

    def __init__(self, quiet: bool, experiments: int = 1) -> None:
        console = Console(stderr=True)
        self._rich = RichProgress(
            TextColumn("{task.description}", markup=False),  # a label may hold brackets
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[facts]}", markup=False),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._all = self._rich.add_task("", total=experiments, facts="", visible=experiments > 1)
        self._task = self._rich.add_task("preparing", total=None, facts="")
        self._started = self._last = 0.0

    def __enter__(self) -> Bar:
        self._rich.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._rich.stop()

    def begin(self, name: str, number: int) -> None:
        """Turn to the next experiment, the one of this number from 0 on."""
        self._rich.update(self._all, description=in_one_line(name), completed=number)
        self._rich.update(self._task, description="preparing", total=None, completed=0, facts="")
        self._started = self._last = 0.0

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Out of the way of what is printed."""
        self._rich.stop()
        try:
            yield
        finally:
            self._rich.start()

    def update(self, progress: Progress) -> None:
        """Show how far it is: updates a second, loss, simulated time."""
        now = time.monotonic()
        if progress.updates and not self._started:
            self._started = now
        if now - self._last < _EVERY and progress.updates < progress.total_updates:
            return
        self._last = now
        elapsed = now - self._started if self._started else 0.0
        rate = f"{progress.updates / elapsed:,.0f} updates/s" if elapsed else "compiling"
        loss = "" if math.isnan(progress.loss) else f", loss {progress.loss:.4g}"
        self._rich.update(
            self._task,
            description=in_one_line(progress.label or "running"),
            completed=progress.updates,
            total=progress.total_updates,
            facts=f"{rate}{loss}, {progress.time:.4g} simulated s",
        )


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """A table on the standard output; columns that are empty throughout are left out.

    Names and values are text and no markup: a label may hold brackets.
    """
    if not rows:
        print("nothing to list")
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDE)
    names = [name for name in rows[0] if any(row.get(name) not in (None, "") for row in rows)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        values = [row.get(name) for row in rows]
        numbers = all(value is None or isinstance(value, int | float) for value in values)
        table.add_column(
            Text(in_one_line(name)), justify="right" if numbers else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(_show(row.get(name))) for name in names))
    console.print(table)


def print_frame(table: pandas.DataFrame) -> None:
    """The same of a data frame; what is missing in it is shown as such."""
    print_table(table.astype(object).where(table.notna(), None).to_dict("records"))


def save_figure(figure: Figure, path: Path, *, title: str) -> Path:
    """Write a figure as SVG, or as what the suffix says.

    Raises:
      OutputError: the suffix is unknown, or the file cannot be written.
    """
    from sgdlab import plots

    suffix = path.suffix.lower()
    if suffix == ".svg":
        return write_file(path, plots.to_svg(figure, title=title).encode())
    if suffix not in (".png", ".pdf"):
        raise OutputError(f"{path}: the suffix is {suffix!r}; allowed: .svg, .png, .pdf")
    try:
        figure.savefig(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def _show(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return "never" if math.isinf(value) else f"{value:.4g}"
    return in_one_line(value)
