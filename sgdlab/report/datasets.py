"""The data behind the figures, as CSV text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from sgdlab.report.clocks import distinct_timelines
from sgdlab.report.entries import Comparison
from sgdlab.timelines import Timeline

MAX_MESSAGES = 5_000
_DIGITS = ".7g"


def datasets(comparison: Comparison) -> dict[str, str]:
    """Name to CSV text for every data set that a figure draws."""
    sets = {
        "evaluations": _text(_evaluations(comparison)),
        "outcomes": _text(_outcomes(comparison)),
        "utilisation": _text(_utilisation(comparison)),
    }
    for digest, (_, timeline, _) in distinct_timelines(comparison).items():
        sets[f"messages-{digest[:8]}"] = _text(_messages(timeline))
    return sets


def _text(rows: Iterable[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerows(map(_formatted, rows))
    return buffer.getvalue()


def _formatted(row: Sequence[Any]) -> list[str]:
    return [
        format(value, _DIGITS) if isinstance(value, float | np.floating) else str(value)
        for value in row
    ]


def _evaluations(comparison: Comparison) -> Iterator[Sequence[Any]]:
    columns: dict[str, None] = {}
    for entry in comparison.entries:
        columns |= dict.fromkeys(map(str, entry.member.evaluations.columns))
    yield ["member", *columns]
    for entry in comparison.entries:
        table = entry.member.evaluations.reindex(columns=list(columns))
        yield from ([entry.label, *row] for row in table.itertuples(index=False))


def _outcomes(comparison: Comparison) -> Iterator[Sequence[Any]]:
    metrics = list(
        dict.fromkeys(m for e in comparison.entries for m in e.member.summary.get("final") or {})
    )
    yield ["member", *comparison.axes, "draw", "seed", "time_to_target", *metrics]
    for entry in comparison.entries:
        finals = [entry.final(metric) for metric in metrics]
        columns = [entry.times, *(np.where(np.isinf(each), np.nan, each) for each in finals)]
        for index, (draw, seed) in enumerate(entry.replicates):
            values = [c[index] if index < len(c) else "" for c in columns]
            yield [entry.label, *entry.axes.values(), draw, seed, *values]


def _utilisation(comparison: Comparison) -> Iterator[Sequence[Any]]:
    yield ["timeline", "worker", "utilisation"]
    for names, timeline, _ in distinct_timelines(comparison).values():
        for worker, share in enumerate(timeline.utilisation()):
            yield names, worker, float(share)


def _messages(timeline: Timeline) -> Iterator[Sequence[Any]]:
    """The first messages to arrive; the whole timeline is in the run's folder."""
    names = ("worker", "read_version", "start_time", "compute_end", "arrival_time", "update")
    names = (*names, "staleness")
    yield names
    columns = [getattr(timeline, name)[:MAX_MESSAGES].tolist() for name in names]
    yield from islice(zip(*columns, strict=True), MAX_MESSAGES)
