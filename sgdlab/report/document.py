"""The report: a question, its answer, the figures, and everything needed to repeat it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sgdlab import plots
from sgdlab.experiment.folders.edges import describe_edges
from sgdlab.experiment.folders.folder import write_file
from sgdlab.report import claims, clocks, datasets, figures, outcomes, tables
from sgdlab.report.answer import answer
from sgdlab.report.entries import Comparison, compare
from sgdlab.report.markup import Markup, data_block, page, tag

if TYPE_CHECKING:
    from sgdlab.experiment import Run


def build_report(runs: Sequence[Run]) -> str:
    """One self-contained HTML page about one run or several.

    It loads nothing and sends nothing: style, script, figures and data stand in it, and its
    Content-Security-Policy forbids all else. Every name, description and value is escaped.

    Args:
      runs: what `sgdlab.experiment.load_run` returns; their members are compared with one another.

    Returns:
      HTML text.

    Raises:
      ValueError: there is no run, or none of them has a member.
    """
    comparison = compare(runs)
    title = ", ".join(dict.fromkeys(run.name for run in runs))
    data = datasets.datasets(comparison)
    body = [
        _header(runs, comparison, title),
        tag("main", *_sections(runs, comparison)),
        tag("footer", "Made by sgdlab. Times are simulated unless they say otherwise."),
        data_block("data", data),
    ]
    return page(title, style=_asset("page.css"), script=_asset("page.js"), body=body)


def write_report(runs: Sequence[Run], path: str | Path) -> Path:
    """`build_report` into a file, which appears whole or not at all.

    Args:
      runs: as `build_report` takes them.
      path: of the HTML file; its folder must be there.

    Returns:
      The path.

    Raises:
      ValueError: as `build_report` does.
      OutputError: the file cannot be written.
    """
    return write_file(Path(path), build_report(runs).encode())


def _asset(name: str) -> str:
    return resources.files("sgdlab.report").joinpath(name).read_text(encoding="utf-8")


def _header(runs: Sequence[Run], comparison: Comparison, title: str) -> Markup:
    questions = dict.fromkeys(str(run.config.get("description") or "") for run in runs)
    facts = []
    if len(runs) == 1:
        facts.append(f"run {runs[0].id}")
    else:
        facts.append(f"{len(runs)} runs")
    if len(comparison.entries) > 1:
        facts.append(f"{len(comparison.entries)} members")
    seeds = {len({seed for _, seed in entry.replicates}) for entry in comparison.entries}
    draws = {len({draw for draw, _ in entry.replicates}) for entry in comparison.entries}
    facts.append(f"{_count(seeds, 'seed')} × {_count(draws, 'draw')} of the clocks")
    workers = {t.num_workers for e in comparison.entries for t in e.member.timelines[:1]}
    if workers:
        facts.append(_count(workers, "worker"))
    return tag(
        "header",
        tag("h1", title),
        *(tag("p", question, class_="question") for question in questions if question),
        tag("p", " · ".join(facts), class_="facts"),
    )


def _count(numbers: set[int], noun: str) -> str:
    low, high = min(numbers), max(numbers)
    text = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{text} {noun}{'' if high == 1 else 's'}"


def _sections(runs: Sequence[Run], comparison: Comparison) -> Iterator[Markup]:
    edges = [tag("p", line, class_="edge") for run in runs for line in describe_edges(run.members)]
    table = tables.headline(comparison)
    yield tag("section", tag("h2", "Result"), answer(comparison), *edges, table)
    if any(run.claims for run in runs):
        yield tag("section", tag("h2", "Claims"), claims.claims(runs))
    yield _gallery("How it went", [*outcomes.outcomes(comparison), *figures.progress(comparison)])
    yield _gallery("When it happened", list(clocks.clocks(comparison)))
    details = [_fold("Every replicate", tables.replicates(comparison))]
    errors = [*_run_errors(runs), *_errors(comparison)]
    if errors:
        yield tag("section", tag("h2", "What went wrong"), tag("ul", *errors))
    for run in runs:
        name = f" of {run.name}/{run.id}" if len(runs) > 1 else ""
        details.append(_fold(f"Config{name}", tag("pre", _yaml(run.config))))
        details.append(_fold(f"Environment{name}", tables.environment(run.environment)))
    yield tag("section", tag("h2", "To repeat it"), *details)


def _run_errors(runs: Sequence[Run]) -> Iterator[Markup]:
    """A line per run that a failure ended early: the file that could not be written."""
    for run in runs:
        if error := run.summary.get("error"):
            yield tag("li", tag("strong", f"{run.name}/{run.id}"), f": {error}")


def _errors(comparison: Comparison) -> Iterator[Markup]:
    """A line per member that ended badly: the first of its errors, and how many there are."""
    for entry in comparison.entries:
        errors = entry.member.summary.get("errors")
        if isinstance(errors, list) and errors:
            more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
            yield tag("li", tag("strong", entry.label), f": {errors[0]}{more}")


def _gallery(title: str, exhibits: Sequence[figures.Exhibit]) -> Markup:
    cards = tag("div", *map(_card, exhibits), class_="gallery")
    return tag("section", tag("h2", title), cards) if exhibits else Markup("")


def _card(exhibit: figures.Exhibit) -> Markup:
    name = re.sub(r"[^a-z0-9]+", "-", exhibit.title.lower()).strip("-")[:60] or "figure"
    svg = plots.to_svg(exhibit.figure, title=exhibit.title, description=exhibit.caption)
    buttons = [
        tag("button", "SVG", type="button", data_svg=name, aria_label=f"SVG of {exhibit.title}"),
        tag(
            "button",
            "CSV",
            type="button",
            data_csv=exhibit.data,
            aria_label=f"Data of {exhibit.title} as CSV",
        ),
    ]
    return tag(
        "figure",
        tag("h3", exhibit.title),
        Markup(svg),
        tag("figcaption", tag("span", exhibit.caption), tag("span", *buttons, class_="downloads")),
    )


def _fold(title: str, content: Markup) -> Markup:
    return tag("details", tag("summary", title), content)


def _yaml(config: dict[str, Any]) -> str:
    plain = json.loads(json.dumps(config, default=str))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=88)
