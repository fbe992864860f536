"""The arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[Path, typer.Argument(help="An experiment, in YAML.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="key.path=value, put over what the file says.")
]
Picture = Annotated[
    Path | None, typer.Option("-o", "--output", help="The picture: .svg, .png or .pdf.")
]
Root = Annotated[Path, typer.Option(help="The folder that runs lie in.")]
Simulate = Annotated[
    int | None, typer.Option("--simulate-devices", metavar="N", help="N devices on the CPU.")
]
Distributed = Annotated[
    bool, typer.Option("--distributed", help="One process of several: those of the scheduler, or")
]
Coordinator = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="where process 0 is to be found,")
]
NumProcesses = Annotated[int | None, typer.Option(metavar="N", help="how many there are,")]
ProcessId = Annotated[int | None, typer.Option(metavar="I", help="and which one this is, from 0.")]
