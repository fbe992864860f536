"""What runs left: pages about them, and a list."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sgdlab.cli.options import Root

if TYPE_CHECKING:
    from sgdlab.experiment import Run


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The page; in the run folder, if one.")
    ] = None,
) -> None:
    """Write one self-contained page about one run or several."""
    from sgdlab.experiment import load_run

    loaded = [load_run(path) for path in runs]
    where = runs[0] / "report.html" if len(runs) == 1 else Path("report.html")
    print(write_report(loaded, output or where))


def list_runs(
    names: Annotated[list[str] | None, typer.Argument(help="Only names that hold these.")] = None,
    root: Root = Path("runs"),
    status: Annotated[str | None, typer.Option(help="Only runs of this status.")] = None,
    sort: Annotated[str, typer.Option(help="The column to sort by.")] = "id",
    reverse: Annotated[bool, typer.Option(help="The other way round.")] = False,
) -> None:
    """List the runs below a root, the newest first."""
    from sgdlab.experiment import load_runs
    from sgdlab.experiment.terminal.display import print_frame

    table: Any = load_runs(root)
    if sort not in table:
        allowed = ", ".join(str(column) for column in table)
        raise typer.BadParameter(f"--sort: unknown column {sort!r}; allowed: {allowed}")
    for name in names or ():
        table = table[table["name"].str.contains(name, regex=False)]
    if status is not None:
        table = table[table["status"] == status]
    # Newest, or largest, first.
    print_frame(table.sort_values(sort, ascending=reverse, kind="stable"))


def write_report(runs: list[Run], path: Path) -> Any:
    """Write the page about some runs; its path."""
    import sgdlab.report

    # The room's functions are loaded by name, which a type checker can't see.
    write: Any = sgdlab.report.write_report
    return write(runs, path)
