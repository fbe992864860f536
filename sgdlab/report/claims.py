"""The table of claims: what was said, whether it held, and what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sgdlab.experiment.claims import showing
from sgdlab.report.markup import Markup, tag
from sgdlab.report.tables import Cell, table

if TYPE_CHECKING:
    from sgdlab.experiment import Judgement, Run

_SIGNS = {"HOLDS": "✓", "REFUTED": "✗", "FAILS": "✗", "UNDECIDED": "?"}


def claims(runs: Sequence[Run]) -> Markup:
    """A row per claim."""
    head = ["claim", "verdict", "left", "asked", "right", "measured, 95 %", "replicates"]
    rows = []
    for run in runs:
        for each in run.claims:
            note = tag("div", each.note, class_="note") if each.note else ""
            name = tag("div", f"{run.name}/{run.id}", class_="note") if len(runs) > 1 else ""
            rows.append(
                [
                    Cell(tag("div", each.claim, note, name, class_="words")),
                    Cell(_verdict(each)),
                    Cell(showing.show_number(each.left), each.left),
                    Cell(each.asked),
                    Cell(showing.show_number(each.right), each.right),
                    Cell(showing.show_measured(each), each.measured),
                    Cell(each.replicates or "–", each.replicates or math.nan),
                ]
            )
    return table("Claims, one a row, with bootstrap intervals over seeds and clocks", head, rows)


def _verdict(each: Judgement) -> Markup:
    """A word, a sign and a colour for each verdict; filled where it is not what the file says."""
    sign = _SIGNS.get(each.verdict, "?")
    name = each.verdict.lower() if each.verdict in _SIGNS else "undecided"
    mark = tag("span", sign, class_="sign", aria_hidden="true")
    style = f"verdict {name}" + " unexpected" * (not each.expected)
    return tag("strong", mark, showing.show_verdict(each), class_=style)
