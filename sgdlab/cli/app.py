"""The commands, in the order in which help shows them."""

from __future__ import annotations

from typing import Annotated

import typer

from sgdlab.cli.folders import list_runs, report
from sgdlab.cli.run import run
from sgdlab.cli.studies import calibrate, precision, schema, timeline
from sgdlab.cli.verify import verify

app = typer.Typer(
    name="sgdlab",
    help="A laboratory for distributed SGD: a timeline says when, a replay says what.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root(
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where a failure came from.")
    ] = False,
) -> None:
    del traceback  # taken out of the arguments before they are read


for command in (run, verify, timeline, calibrate, precision, report):
    app.command()(command)
app.command("list")(list_runs)
app.command()(schema)
