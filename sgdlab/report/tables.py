"""The tables of a report: members, replicates, environment. Every column sorts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from sgdlab.report.digits import as_written, column_format, deviation, figure
from sgdlab.report.entries import Comparison, Entry, short_names, show
from sgdlab.report.markup import Markup, escape, tag

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


Column: TypeAlias = tuple[str, Sequence[Cell]]
"""A heading and its cells."""


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
    columns = [*_name_columns(comparison), *_time_columns(comparison)]
    columns += [
        (f"final {metric}", _spreads([entry.final(metric) for entry in entries]))
        for metric in _metrics(comparison)
    ]
    columns += _measures(entries)
    states = [entry.member.status for entry in entries]
    if set(states) != {"done"}:
        columns.append(("status", [Cell(state) for state in states]))
    head = [name for name, _ in columns]
    rows = list(zip(*(cells for _, cells in columns), strict=True))
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


def _name_columns(comparison: Comparison) -> list[Column]:
    """The label that a person wrote, if one did, and the values of the axes; a swatch first."""
    entries, names = comparison.entries, short_names(comparison.axes)
    written = len(comparison.axes) == 0 or _labels_written(comparison)
    columns = [("member", [Cell(entry.label) for entry in entries])] if written else []
    for axis in comparison.axes:
        if _is_numeric(comparison, axis):
            numbers = [_number_of(entry.member.point.get(axis)) for entry in entries]
            texts = as_written([entry.axes[axis] for entry in entries])
            columns.append((names[axis], list(map(Cell, texts, numbers))))
        elif not written:
            columns.append((names[axis], [Cell(entry.axes[axis]) for entry in entries]))
    head, cells = columns[0]
    cells = [Cell(_swatched(e, cell), cell.number) for e, cell in zip(entries, cells, strict=True)]
    return [(head, cells), *columns[1:]]


def _swatched(entry: Entry, cell: Cell) -> Markup:
    swatch = tag("span", class_=f"swatch series-{entry.colour % 8}", aria_hidden="true")
    name = tag("div", cell.content, class_="name") if cell.number is None else cell.content
    return Markup(swatch + escape(name))


def _time_columns(comparison: Comparison) -> list[Column]:
    times = [entry.times for entry in comparison.entries]
    if not any(map(len, times)):
        return []
    form = column_format(np.concatenate(times), digits=3)
    reached = [
        Cell(f"{np.isfinite(row).sum()}/{len(row)}", int(np.isfinite(row).sum()))
        if len(row)
        else Cell("–", math.inf)
        for row in times
    ]
    return [(_time_head(comparison), [_time(row, form) for row in times]), ("reached", reached)]


def _time_head(comparison: Comparison) -> str:
    return f"seconds to {comparison.goal or 'its target'}"


def _time(times: np.ndarray, form: str) -> Cell:
    """Median and range, in which never stands for replicates that did not get there."""
    if not len(times):
        return Cell("–", math.inf)
    median = float(np.median(times))
    if len(times) == 1 or not np.isfinite(times).any():
        return Cell(_seconds(median, form), median)
    span = f"{_seconds(float(times.min()), form)}–{_seconds(float(times.max()), form)}"
    return Cell(Markup(f"{escape(_seconds(median, form))} {tag('small', f'[{span}]')}"), median)


def _seconds(value: float, form: str) -> str:
    return figure(value, form) if math.isfinite(value) else "never"


def _spreads(rows: Sequence[np.ndarray]) -> list[Cell]:
    """Mean ± standard deviation over replicates; where one diverged, how many, and the others'."""
    means = [float(row[np.isfinite(row)].mean()) for row in rows if np.isfinite(row).any()]
    form = column_format(means)
    return [_spread(row, form) for row in rows]


def _spread(values: np.ndarray, form: str) -> Cell:
    finite = values[np.isfinite(values)]
    lost = len(values) - len(finite)
    if not len(finite):
        return Cell("diverged" if lost else "–", math.inf)
    mean = float(finite.mean())
    text = figure(mean, form)
    if len(finite) > 1:
        text += f" ± {deviation(float(finite.std(ddof=1)), form)}"
    if not lost:
        return Cell(text, mean)
    rest = tag("small", f" (the other {len(finite)}: {text})")
    return Cell(Markup(escape(f"{lost} of {len(values)} diverged") + rest), math.inf)


def _measures(entries: Sequence[Entry]) -> list[Column]:
    columns = []
    for key, form in {"updates": ",.0f", "mean_staleness": "", "utilisation": ".0%"}.items():
        given = [entry.member.summary.get(key) for entry in entries]
        values = [float(v) if isinstance(v, int | float) else math.nan for v in given]
        form = form or column_format(values)
        columns.append((key.replace("_", " "), [_number(value, form, "–") for value in values]))
    return columns


def _number(value: float, form: str, otherwise: str) -> Cell:
    return Cell(figure(value, form) if math.isfinite(value) else otherwise, value)


def replicates(comparison: Comparison) -> Markup:
    """A row per member, draw of the clocks and seed."""
    entries, metrics = comparison.entries, _metrics(comparison)
    places = [
        (entry, index, draw, seed)
        for entry in entries
        for index, (draw, seed) in enumerate(entry.replicates)
    ]
    columns: list[Column] = [
        ("member", [Cell(entry.label) for entry, *_ in places]),
        ("draw", [Cell(str(draw), draw) for *_, draw, _ in places]),
        ("seed", [Cell(str(seed), seed) for *_, seed in places]),
    ]
    if any(len(entry.times) for entry in entries):
        times = [_at(entry.times, index) for entry, index, *_ in places]
        form = column_format(times, digits=3)
        cells = [Cell("–" if math.isnan(t) else _seconds(t, form), t) for t in times]
        columns.append((_time_head(comparison), cells))
    for metric in metrics:
        values = [_at(entry.final(metric), index) for entry, index, *_ in places]
        form = column_format(values)
        columns.append((f"final {metric}", [_number(v, form, "diverged") for v in values]))
    ends = [each["update"].iloc[-1] for entry in entries for each in entry.replicates.values()]
    columns.append(("updates", [Cell(f"{end:,}", end) for end in ends]))
    more = len(places) - MAX_REPLICATES
    caption = "One row per member, draw of the clocks and seed"
    caption += f"; {more} more are in the data" if more > 0 else ""
    rows = list(zip(*(cells for _, cells in columns), strict=True))
    return table(caption, [name for name, _ in columns], rows[:MAX_REPLICATES])


def _at(values: np.ndarray, index: int) -> float:
    return float(values[index]) if index < len(values) else math.nan


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
