"""Writes `protocols.md`, its drawings and the README's table from the registry of protocols.

    python docs/protocols.py

A protocol appears here as soon as it is registered: its sentence is the first line of its
function's docstring, its citation stands in its module's, and the annotations of its arguments hold
the examples that are drawn here.
"""

from __future__ import annotations

import html
import inspect
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sgdlab import theory
from sgdlab.plots.theme import FRESH, IDLE, INK, MUTED, RULE, STALE
from sgdlab.timelines import (
    CANCELLED,
    DROPPED,
    IN_FLIGHT,
    PROTOCOLS,
    Cluster,
    Timeline,
    lognormal,
)
from sgdlab.timelines.arguments import find_examples
from sgdlab.timelines.measures import discarded

PAGE = Path(__file__).with_name("protocols.md")
README = PAGE.parent.parent / "README.md"
IMAGES = PAGE.with_name("images") / "protocols"

SECONDS = 12.0
FIVE = Cluster(
    workers=5, compute=[lognormal(mean=mean, sigma=0.06) for mean in (0.8, 1.0, 1.2, 1.4, 4.0)]
)
LONG = 2_000.0
SIXTEEN = Cluster(workers=16, compute=lognormal(mean=1.0, sigma=0.5))

# Classes of staleness, alike in all drawings: 0, 1, 2, ... and the last one open.
_CLASSES = (
    (0, "0", FRESH),
    (1, "1", STALE[0]),
    (2, "2–3", STALE[2]),
    (4, "4–6", STALE[4]),
    (7, "≥ 7", STALE[6]),
)


def main() -> None:
    """Write everything."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    made = drawings()
    for path in IMAGES.glob("*.svg"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        (IMAGES / name).write_text(text, encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
    README.write_text(readme(README.read_text(encoding="utf-8")), encoding="utf-8")


def drawings() -> dict[str, str]:
    """File name to SVG text: a chart for each protocol, and their key."""
    charts = {f"{name}.svg": chart(name, example(name)) for name in PROTOCOLS}
    return charts | {"key.svg": key()}


def example(name: str) -> Timeline:
    """A protocol's timeline on the five workers, twelve seconds long."""
    takes = inspect.signature(PROTOCOLS[name]).parameters
    arguments = examples(name, FIVE.workers)
    if name == "from_trace":
        with tempfile.TemporaryDirectory() as folder:
            recorded = PROTOCOLS["window"](FIVE, wait=0.3, seconds=SECONDS, seed=1)
            path = Path(folder) / arguments["path"]
            recorded.to_dataframe().to_csv(path, index=False)
            return PROTOCOLS[name](str(path))
    if "cluster" not in takes:
        return PROTOCOLS[name](**arguments, updates=int(SECONDS))
    return PROTOCOLS[name](FIVE, **arguments, seconds=SECONDS, seed=1)


def examples(name: str, workers: int) -> dict[str, Any]:
    """A protocol's first example for so many workers, its defaults left out."""
    takes = inspect.signature(PROTOCOLS[name]).parameters
    first = find_examples(PROTOCOLS[name], workers)[0]
    return {key: value for key, value in first.items() if value != takes[key].default}


# Drawing.

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW, _BOTTOM = 460, 12, 12, 20, 15, 20
_STYLE = (
    f"text{{font:10px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:{MUTED}}}"
)


def chart(name: str, timeline: Timeline) -> str:
    """The Gantt chart of a timeline: a row for each worker, a tick above for each update."""
    height = _TOP + _ROW * timeline.num_workers + _BOTTOM
    title = f"{name}: who computes when, and when the server updates"
    return _svg(_WIDTH, height, title, [*_grid(timeline), *_updates(timeline), *_bars(timeline)])


def key() -> str:
    """What colours and shapes mean, once for all charts."""
    parts, x = [_text(12, 19, "staleness")], 64.0
    for _, label, colour in _CLASSES:
        parts += [_rect(x, 10, 16, 11, {"fill": colour}), _text(x + 20, 19, label)]
        x += 29 + 6 * len(label)
    parts += [f'<path d="M{x + 8:g} 11v9" stroke="{INK}"/>', _text(x + 14, 19, "update")]
    x += 56
    for label, draw in (("refused", _refused), ("stopped", _stopped), ("unfinished", _unfinished)):
        parts += [*draw(x, x + 16, 10, 11), _text(x + 20, 19, label)]
        x += 31 + 5.1 * len(label)
    return _svg(round(x), 30, "colours by staleness; refused, stopped and unfinished work", parts)


def _svg(width: float, height: float, title: str, parts: list[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style>"
        f'<rect width="{width}" height="{height}" rx="6" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _x(seconds: Any) -> Any:
    return _LEFT + np.minimum(seconds, SECONDS) / SECONDS * (_WIDTH - _LEFT - _RIGHT)


def _grid(timeline: Timeline) -> Iterator[str]:
    bottom = _TOP + _ROW * timeline.num_workers
    for second in range(0, int(SECONDS) + 1, 2):
        x = _x(second)
        label = f"{second} s" if second == SECONDS else str(second)
        anchor = "end" if second == SECONDS else "start" if second == 0 else "middle"
        yield f'<path d="M{x:g} {bottom + 2}v3" stroke="{MUTED}"/>'
        yield _text(x, bottom + 15, label, anchor)
    yield f'<path d="M{_LEFT} {bottom + 2}H{_WIDTH - _RIGHT}" stroke="{RULE}"/>'


def _updates(timeline: Timeline) -> Iterator[str]:
    """A tick for each update, and below it a faint line that shows where nobody computes."""
    bottom = _TOP + _ROW * timeline.num_workers
    lines = "".join(f"M{x:.1f} {_TOP - 3}V{bottom}" for x in _x(timeline.apply_time))
    ticks = "".join(f"M{x:.1f} {_TOP - 12}v8" for x in _x(timeline.apply_time))
    yield f'<path d="{lines}" stroke="{RULE}" fill="none"/>'
    yield f'<path d="{ticks}" stroke="{INK}" fill="none"/>'


def _bars(timeline: Timeline) -> Iterator[str]:
    """Each message from its reading to its arrival."""
    lower = [first for first, _, _ in _CLASSES]
    for m in range(timeline.num_messages):
        left, right = _x(timeline.start_time[m]), _x(timeline.arrival_time[m])
        top, update = _TOP + _ROW * int(timeline.worker[m]) + 2.0, timeline.update[m]
        if right - left < 2:  # begun as the drawing ends
            continue
        if update == DROPPED:
            yield from _refused(left, right, top, _ROW - 4)
        elif update == CANCELLED:
            yield from _stopped(left, right, top, _ROW - 4)
        elif update == IN_FLIGHT:
            yield from _unfinished(left, right, top, _ROW - 4)
        else:
            colour = _CLASSES[int(np.searchsorted(lower, timeline.staleness[m], "right")) - 1][2]
            yield _rect(left + 0.4, top, right - left - 0.8, _ROW - 4, {"fill": colour})


def _refused(left: float, right: float, top: float, height: float) -> Iterator[str]:
    """Computed, and crossed out at the end."""
    yield _rect(left + 0.4, top, right - left - 0.8, height, {"fill": IDLE})
    x, y, arm = right - 5.5, top + height / 2, 2.6
    yield (
        f'<path d="M{x - arm:.1f} {y - arm:.1f}l{2 * arm:g} {2 * arm:g}m0 {-2 * arm:g}'
        f'l{-2 * arm:g} {2 * arm:g}" stroke="{INK}" stroke-width="1.2"/>'
    )


def _stopped(left: float, right: float, top: float, height: float) -> Iterator[str]:
    """A thin line: nobody will see it."""
    yield _rect(left + 0.4, top + height / 2 - 1.5, right - left - 0.8, 3, {"fill": IDLE})


def _unfinished(left: float, right: float, top: float, height: float) -> Iterator[str]:
    style = {"fill": "none", "stroke": IDLE}
    yield _rect(left + 0.9, top + 0.5, right - left - 1.4, height - 1, style)


def _rect(x: float, y: float, width: float, height: float, style: dict[str, str]) -> str:
    attributes = "".join(f' {name}="{value}"' for name, value in style.items())
    size = f'width="{max(width, 0.6):.1f}" height="{height:g}"'
    return f'<rect x="{x:.1f}" y="{y:g}" {size} rx="1.5"{attributes}/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{html.escape(text)}</text>'


# Words and numbers.


def page() -> str:
    """The text of `protocols.md`."""
    return _PAGE.format(five=_five(), table=_table("images"), measured="\n".join(_measurements()))


def readme(text: str) -> str:
    """The README with its table of protocols, between two comments, made anew."""
    before, rest = text.split(_BEGIN)
    after = rest.split(_END)[1]
    return f"{before}{_BEGIN}\n{_table('docs/images')}\n{_END}{after}"


_BEGIN = "<!-- protocols: written by docs/protocols.py -->"
_END = "<!-- end of protocols -->"


_PAGE = """\
# Protocols

<!-- Written by docs/protocols.py from the registry; change that and run it again. -->

A protocol says when the server updates and whom it sends on. Each is one file in
`sgdlab/timelines/protocols/`. All charts below show the same {five}. A bar
is one message, from the reading of the parameters to its arrival; an empty stretch is waiting; a
tick above is an update.

{table}

## Measured beside predicted

Sixteen workers with log-normal times of mean 1 s and σ = 0.5, over 2,000 simulated seconds. The
predictions are the closed forms of `sgdlab.theory`, for the long run; a dash stands where none is
known for these times. *Busy* is the share of their time that workers compute, *used* the share of
that work which is not refused, stopped or lost.

| protocol | mean staleness | predicted | updates/s | predicted | busy | used |
|---|---:|---:|---:|---:|---:|---:|
{measured}

The two queues have no cluster: they make an update a second by definition.
"""


def _five() -> str:
    means = ", ".join(f"{mean:g}" for mean in FIVE.mean_seconds)
    return f"five workers, whose gradients take about {means} s"


def _table(images: str) -> str:
    """The charts' key, and a row for each protocol."""
    key = "Colours by staleness; refused, stopped and unfinished work"
    rows = "\n".join(_row(name, images) for name in PROTOCOLS)
    head = f'<img src="{images}/protocols/key.svg" alt="{key}">'
    return f"{head}\n\n<table>\n{rows}\n</table>"


def _row(name: str, images: str) -> str:
    """Left the chart, right what it is, how to ask for it, and whose it is."""
    definition, citation = describe(name)
    config = config_line(name, examples(name, FIVE.workers))
    image = (
        f'<img src="{images}/protocols/{name}.svg" width="{_WIDTH}" alt="Gantt chart of {name}">'
    )
    return (
        f'<tr><td width="{_WIDTH}">{image}</td>\n'
        f'<td><b id="{name}">{name}</b><br>{_inline(definition)}<br>'
        f"<code>{html.escape(config)}</code><br><sub>{_inline(citation)}</sub></td></tr>"
    )


def describe(name: str) -> tuple[str, str]:
    """The first line of a protocol's docstring, and its module's citation."""
    function = PROTOCOLS[name]
    paragraphs = _paragraphs(inspect.getmodule(function))
    cited = [text for text in paragraphs if text.startswith("Reference: ")]
    citation = (cited or paragraphs[1:2] or [""])[0].removeprefix("Reference: ")
    return _paragraphs(function)[0], citation


def config_line(name: str, arguments: dict[str, Any]) -> str:
    """What to write in a config."""
    values = "".join(f", {key}: {_yaml(value)}" for key, value in arguments.items())
    return f"protocol: {{name: {name}{values}}}"


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _paragraphs(thing: Any) -> list[str]:
    text = inspect.getdoc(thing) or ""
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


def _inline(text: str) -> str:
    """Escaped, with `names` as code."""
    pieces = html.escape(text, quote=False).split("`")
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(pieces))


def _measurements() -> Iterator[str]:
    """A line for each protocol but the one that makes no timeline of its own."""
    for name in PROTOCOLS:
        if name != "from_trace":
            yield _measure(name, examples(name, SIXTEEN.workers))


def _measure(name: str, arguments: dict[str, Any]) -> str:
    values = (f"{key} = {_yaml(value).strip('[]')}" for key, value in arguments.items())
    label = " ".join([f"`{name}`", ", ".join(values)]).strip()
    compute = SIXTEEN.to_dict()["compute"]
    expected = theory.mean_staleness(name, SIXTEEN.workers, compute, **arguments)
    if "cluster" not in inspect.signature(PROTOCOLS[name]).parameters:
        timeline = PROTOCOLS[name](**arguments, updates=int(LONG))
        return _line(label, _mean_staleness(timeline), expected, None, None, None, None)
    timeline = PROTOCOLS[name](SIXTEEN, **arguments, seconds=LONG, seed=0)
    seconds = theory.mean_update_time(name, SIXTEEN.workers, compute, **arguments)
    return _line(
        label,
        _mean_staleness(timeline),
        expected,
        timeline.throughput(),
        None if seconds is None else 1 / seconds,
        float(timeline.utilisation().mean()),
        1 - discarded(timeline).share,
    )


def _mean_staleness(timeline: Timeline) -> float:
    return float(timeline.staleness[timeline.update >= 0].mean())


def _line(label: str, *values: float | None) -> str:
    numbers = ["–" if value is None else f"{value:.2f}" for value in values[:4]]
    shares = ["–" if value is None else f"{value:.0%}" for value in values[4:]]
    return f"| {' | '.join([label, *numbers, *shares])} |"


if __name__ == "__main__":
    main()
