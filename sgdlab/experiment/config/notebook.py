"""How configs, experiments and claims show themselves in a notebook; every text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from sgdlab.experiment.reading.parsing import dump

if TYPE_CHECKING:
    from sgdlab.experiment.claims.judging import Judgement
    from sgdlab.experiment.config.experiment import Experiment

MAX_ROWS = 60


def show_config(config: Mapping[str, Any]) -> str:
    """A config as YAML."""
    return f"<pre>{escape(dump(dict(config)))}</pre>"


def show_experiment(experiment: Experiment) -> str:
    """Its name, how much work it is, its points, its claims, and its config folded away."""
    description = experiment.config.get("description") or ""
    parts = [f"<p><b>{escape(experiment.name)}</b>: {escape(experiment.describe())}</p>"]
    if description:
        parts.append(f"<p>{escape(str(description))}</p>")
    if len(experiment.points) > 1:
        axes = list(dict.fromkeys(path for point in experiment.points for path in point.values))
        rows = [
            [point.label, *(point.values.get(path, "") for path in axes)]
            for point in experiment.points
        ]
        parts.append(_table(["point", *axes], rows))
    if experiment.claims:
        items = "".join(f"<li>{escape(claim.claim)}</li>" for claim in experiment.claims)
        parts.append(f"<p>Claims:</p><ul>{items}</ul>")
    parts.append(f"<details><summary>config</summary>{show_config(experiment.config)}</details>")
    return "".join(parts)


def show_claims(judged: Sequence[Judgement]) -> str:
    """A row per claim; nothing for none."""
    from sgdlab.experiment.claims.showing import row

    rows = [row(each) for each in judged]
    return _table(list(rows[0]), [list(each.values()) for each in rows]) if rows else ""


def _table(head: Iterable[object], rows: Sequence[Iterable[object]]) -> str:
    titles = "".join(f"<th>{escape(str(name))}</th>" for name in head)
    lines = "".join(
        f"<tr>{''.join(f'<td>{escape(str(value))}</td>' for value in row)}</tr>"
        for row in rows[:MAX_ROWS]
    )
    more = f"<p>and {len(rows) - MAX_ROWS} more</p>" if len(rows) > MAX_ROWS else ""
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table>{more}"
