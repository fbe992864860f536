"""What was measured, kept as JSON and told in RESULTS.md."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contest import Benchmark, Survey, Target
from benchmarks.harness import ratio

FOLDER = Path(__file__).parent
PACKAGES = ("jax", "jaxlib", "optax", "flax", "numpy", "torch")


def keep(name: str, measured: dict[str, Any]) -> None:
    """Write one benchmark's figures beside the others'."""
    (FOLDER / "results").mkdir(exist_ok=True)
    stamp = {"machine": machine(), "date": datetime.date.today().isoformat()}
    path = FOLDER / "results" / f"{name}.json"
    path.write_text(json.dumps(stamp | measured, indent=1) + "\n")


def load(name: str) -> dict[str, Any] | None:
    """The figures last kept, or `None`."""
    path = FOLDER / "results" / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def machine() -> dict[str, Any]:
    """What the figures depend on besides our code."""
    model = "unknown processor"
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":")[1].strip() if lines else model
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
        **{name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def write(benchmarks: dict[str, Benchmark | Survey], findings: str) -> Path:
    """Write RESULTS.md from all figures that are kept."""
    parts = ["# Results", _preface(), "## Targets", _targets(benchmarks), findings.strip()]
    for name, benchmark in benchmarks.items():
        parts.append(f"## {benchmark.title}\n\n`python -m benchmarks {name}`")
        kept = load(name)
        if kept is None:
            parts.append("Not measured yet.")
        elif isinstance(benchmark, Survey):
            parts.append(_table([list(benchmark.columns), *kept["rows"]]))
        else:
            parts.append(rates(benchmark, kept))
        if benchmark.note:
            parts.append(benchmark.note)
        if kept is not None:
            parts.append(_stamp(kept))
    parts += _figure()
    path = FOLDER / "RESULTS.md"
    path.write_text("\n\n".join(parts) + "\n")
    return path


def rates(benchmark: Benchmark, measured: dict[str, Any]) -> str:
    """A benchmark's table: rates, and ratios to the first contestant by both clocks."""
    first = benchmark.contestants[0].name
    rows = [["", "updates/s", f"/ {first}", "quartiles", "by the processor's clock"]]
    for contestant in benchmark.contestants:
        if contestant.name not in measured["rates"]:
            rows.append(
                [contestant.name, measured["missing"].get(contestant.name, "–"), "", "", ""]
            )
            continue
        target = Target(contestant.name, first, 0)
        wall, cpu = ratio(measured, target, "wall"), ratio(measured, target, "cpu")
        if wall is None or cpu is None:  # the first is missing: rates alone
            wall = cpu = np.array([np.nan])
        rate = np.median(measured["rates"][contestant.name]["wall"])
        low, high = np.quantile(wall, (0.25, 0.75))
        rows.append(
            [
                contestant.name,
                f"{rate:,.0f}",
                f"{np.median(wall):.3g}",
                f"{low:.3g}–{high:.3g}",
                f"{np.median(cpu):.3g}",
            ]
        )
    return _table(rows)


def _targets(benchmarks: dict[str, Benchmark | Survey]) -> str:
    rows = [["benchmark", "ratio", "target", "reached", "processor's clock", "met"]]
    for benchmark in benchmarks.values():
        if not isinstance(benchmark, Benchmark):
            continue
        measured = load(benchmark.name)
        for target in benchmark.targets:
            over = target.over if isinstance(target.over, str) else "the best PyTorch loop"
            row = [benchmark.title, f"{target.contestant} / {over}", f"≥ {target.at_least:g}"]
            wall, cpu = (_median(measured, target, clock) for clock in ("wall", "cpu"))
            if wall is None or cpu is None:
                rows.append([*row, "–", "–", "not measured"])
                continue
            several = any(each.threads > 1 for each in benchmark.contestants)
            reached = wall if several else cpu
            met = "yes" if reached >= target.at_least else "**no**"
            rows.append([*row, f"{wall:.3g}", f"{cpu:.3g}", met])
    return _table(rows)


def _median(measured: dict[str, Any] | None, target: Target, clock: str) -> float | None:
    ratios = ratio(measured, target, clock) if measured else None
    return None if ratios is None else float(np.median(ratios))


def _figure() -> list[str]:
    """The scaling curves, where both are kept."""
    kept = [load(name) for name in ("scaling-workers", "scaling-parameters")]
    if any(each is None for each in kept):
        return []
    from benchmarks.figure import draw  # matplotlib takes half a second

    by_workers, by_parameters = (each["rows"] for each in kept if each)
    draw(by_workers, by_parameters, FOLDER / "scaling.svg")
    caption = "Replay / floor where the state leaves the caches (dotted)"
    return [f"## {caption}\n\n![{caption}](scaling.svg)"]


def _preface() -> str:
    return (
        "Written by `python -m benchmarks`. Every contestant is a process of its own; they work "
        "in turns (A B C, B C A, …), and a ratio is the median over rounds of two turns of one "
        "round. A contestant of one thread has one core to itself. Where other programs share the "
        "machine, the wall's clock counts their turns too and the processor's clock does not: both "
        "are told, and a target is judged by the processor's clock (by the wall's where a "
        "contestant has several threads)."
    )


def _stamp(kept: dict[str, Any]) -> str:
    facts = kept["machine"]
    versions = ", ".join(f"{name} {facts[name]}" for name in PACKAGES)
    return (
        f"*{kept['date']}; {facts['processor']}, {facts['cores']} cores, load {facts['load']}; "
        f"{facts['system']}; Python {facts['python']}, {versions}.*"
    )


def _table(rows: list[list[Any]]) -> str:
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
