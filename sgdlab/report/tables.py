"""The tables of a report: members, replicates, environment. Every column sorts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sgdlab.experiment.claims import showing
from sgdlab.report.entries import Comparison, Entry, short_names, show
from sgdlab.report.markup import Markup, escape, tag

if TYPE_CHECKING:
    from sgdlab.experiment import Judgement, Run

MAX_REPLICATES = 600


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and the number it sorts by; text sorts by itself."""

    content: object
    number: float | None = None

    @property
    def key(self) -> str | None:
        """The number as the page's script reads it; "" sorts last."""
        if self.number is None:
            return None
        return f"{self.number:.12g}" if math.isfinite(self.number) else ""


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Markup:
    """A table that sorts by any column, in a box that scrolls sideways on a narrow screen."""
    numeric = [any(row[k].number is not None for row in rows) for k in range(len(head))]
    titles = [
        tag("th", tag("button", name, type="button"), scope="col", class_="number" if n else None)
        for name, n in zip(head, numeric, strict=True)
    ]
    lines = [_row(row, numeric) for row in rows]
    inner = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", *titles)),
        tag("tbody", *lines),
        class_="sortable",
    )
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _row(row: Sequence[Cell], numeric: Sequence[bool]) -> Markup:
    cells = []
    for index, (cell, number) in enumerate(zip(row, numeric, strict=True)):
        style = {"class_": "number" if number else None, "data_value": cell.key}
        heading = {"scope": "row"} if index == 0 else {}
        cells.append(tag("th" if index == 0 else "td", cell.content, **style, **heading))
    return tag("tr", *cells)


def headline(comparison: Comparison) -> Markup:
    """A row per member: how soon, how good, how many updates, how stale, how busy."""
    entries = comparison.entries
    names = short_names(comparison.axes)
    written = len(comparison.axes) == 0 or _labels_written(comparison)
    shown = [axis for axis in comparison.axes if not written or _is_numeric(comparison, axis)]
    head = ["member"] * written + [names[axis] for axis in shown]
    head += _time_heads(comparison)
    metrics = _metrics(comparison)
    head += [f"final {metric}" for metric in metrics]
    head += ["updates", "mean staleness", "utilisation"]
    states = {entry.member.status for entry in entries}
    head += ["status"] if len(states) > 1 or not states <= {"done"} else []
    rows = []
    for entry in entries:
        row = _name_cells(entry, shown, written)
        row += _time_cells(entry) if _time_heads(comparison) else []
        row += [_spread(entry.final(metric)) for metric in metrics]
        row += _measures(entry.member.summary)
        row += [Cell(entry.member.status)] * (head[-1] == "status")
        rows.append(row)
    return table("Members, one a row; a click on a heading sorts", head, rows)


def _labels_written(comparison: Comparison) -> bool:
    """Whether the sweep's author gave its members names of their own."""
    return any(
        entry.member.label and entry.label.endswith(entry.member.label)
        for entry in comparison.entries
    )


def _metrics(comparison: Comparison) -> list[str]:
    known = {name for e in comparison.entries for name in e.member.summary.get("final") or {}}
    rest = sorted(known - {comparison.metric, "loss"})
    return [m for m in dict.fromkeys([comparison.metric, "loss", *rest]) if m in known]


def _is_numeric(comparison: Comparison, axis: str) -> bool:
    return all(_number_of(entry.member.point.get(axis)) is not None for entry in comparison.entries)


def _number_of(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return None


def _name_cells(entry: Entry, axes: Sequence[str], written: bool) -> list[Cell]:
    """The label that a person wrote, if one did, and the values of the axes; a swatch first."""
    cells = [Cell(entry.label)] if written else []
    cells += [Cell(entry.axes[axis], _number_of(entry.member.point.get(axis))) for axis in axes]
    swatch = tag("span", class_=f"swatch series-{entry.colour % 8}", aria_hidden="true")
    first = Cell(Markup(swatch + escape(cells[0].content)), cells[0].number)
    return [first, *cells[1:]]


def _time_heads(comparison: Comparison) -> list[str]:
    goal = comparison.goal
    if not any(len(entry.times) for entry in comparison.entries):
        return []
    return [f"seconds to {goal}" if goal else "seconds to its target", "reached"]


def _time_cells(entry: Entry) -> list[Cell]:
    times = entry.times
    if not len(times):
        return [Cell("–", math.inf), Cell("–", math.inf)]
    reached = int(np.isfinite(times).sum())
    return [
        Cell(time_text(times), float(np.median(times))),
        Cell(f"{reached}/{len(times)}", reached),
    ]


def time_text(times: np.ndarray) -> Markup:
    """Median and range, in which never stands for replicates that did not get there."""
    median = _seconds(float(np.median(times)))
    if len(times) == 1 or not np.isfinite(times).any():
        return escape(median)
    span = f"{_seconds(float(times.min()))}–{_seconds(float(times.max()))}"
    return Markup(f"{escape(median)} {tag('small', f'[{span}]')}")


def _seconds(value: float) -> str:
    if not math.isfinite(value):
        return "never"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _spread(values: np.ndarray) -> Cell:
    """Mean ± standard deviation over replicates; what is not finite is counted, not averaged."""
    finite = values[np.isfinite(values)]
    lost = len(values) - len(finite)
    note = tag("small", f" {lost} of {len(values)} diverged") if lost else ""
    if not len(finite):
        return Cell("diverged" if lost else "–", math.inf)
    mean = float(finite.mean())
    text = f"{mean:.4g}"
    if len(finite) > 1:
        deviation = float(finite.std(ddof=1))
        plain = 0.01 <= abs(mean) < 10
        text = f"{mean:.4f} ± {deviation:.4f}" if plain else f"{mean:.4g} ± {deviation:.2g}"
    return Cell(Markup(escape(text) + escape(note)), mean)


def _measures(summary: Mapping[str, Any]) -> list[Cell]:
    forms = {"updates": "{:,.0f}", "mean_staleness": "{:.3g}", "utilisation": "{:.0%}"}
    return [_measure(summary.get(key), form) for key, form in forms.items()]


def _measure(value: object, form: str) -> Cell:
    if isinstance(value, int | float) and math.isfinite(value):
        return Cell(form.format(value), float(value))
    return Cell("–", math.inf)


def replicates(comparison: Comparison) -> Markup:
    """A row per member, draw of the clocks and seed."""
    metrics = _metrics(comparison)
    rows = []
    for entry in comparison.entries:
        final = [entry.final(metric) for metric in metrics]
        for index, ((draw, seed), evaluations) in enumerate(entry.replicates.items()):
            row = [Cell(entry.label), Cell(str(draw), draw), Cell(str(seed), seed)]
            if _time_heads(comparison):
                time = float(entry.times[index]) if index < len(entry.times) else math.nan
                row.append(Cell("–" if math.isnan(time) else _seconds(time), time))
            row += [_number(f[index] if index < len(f) else math.nan) for f in final]
            row.append(
                Cell(f"{int(evaluations['update'].iloc[-1]):,}", evaluations["update"].iloc[-1])
            )
            rows.append(row)
    head = ["member", "draw", "seed", *_time_heads(comparison)[:1]]
    head += [*(f"final {metric}" for metric in metrics), "updates"]
    more = len(rows) - MAX_REPLICATES
    caption = "One row per member, draw of the clocks and seed"
    caption += f"; {more} more are in the data" if more > 0 else ""
    return table(caption, head, rows[:MAX_REPLICATES])


def claims(runs: Sequence[Run]) -> Markup:
    """A row per claim: what was said, whether it held, and what was measured."""
    head = ["claim", "verdict", "left", "asked", "right", "measured, 95 %", "replicates"]
    rows = []
    for run in runs:
        for each in run.claims:
            note = tag("div", each.note, class_="note") if each.note else ""
            name = tag("div", f"{run.name}/{run.id}", class_="note") if len(runs) > 1 else ""
            claim = tag("div", each.claim, note, name, class_="words")
            mark = tag("strong", showing.show_verdict(each), class_=f"verdict {_colour(each)}")
            rows.append(
                [
                    Cell(claim),
                    Cell(mark),
                    Cell(showing.show_number(each.left), each.left),
                    Cell(each.asked),
                    Cell(showing.show_number(each.right), each.right),
                    Cell(showing.show_measured(each), each.measured),
                    Cell(each.replicates or "–", each.replicates or math.nan),
                ]
            )
    return table("Claims, one a row, with bootstrap intervals over seeds and clocks", head, rows)


def _colour(each: Judgement) -> str:
    """Green as expected, orange against it, and neither of them where nothing is decided."""
    if each.verdict == "UNDECIDED":
        return "undecided"
    return "series-2" if each.expected else "series-1"


def _number(value: float) -> Cell:
    return Cell(f"{value:.5g}" if math.isfinite(value) else "diverged", float(value))


def environment(data: Mapping[str, Any]) -> Markup:
    """A row per fact of the environment, nested ones by their path."""
    rows = [tag("tr", tag("th", path, scope="row"), tag("td", text)) for path, text in _flat(data)]
    return tag(
        "div",
        tag("table", tag("tbody", *rows), class_="facts-table"),
        class_="scroll",
        tabindex="0",
    )


def _flat(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    lines = []
    for key, value in data.items():
        path = f"{prefix}{key}"
        lines += _flat(value, f"{path}.") if isinstance(value, Mapping) else [(path, show(value))]
    return lines
