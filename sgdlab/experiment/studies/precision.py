"""One experiment under several precision policies: what each costs, loses and saves."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from sgdlab import training
from sgdlab.experiment.config.experiment import Experiment, Point
from sgdlab.experiment.config.schema import Config, Precision
from sgdlab.experiment.errors import ConfigError
from sgdlab.experiment.running.making import DEFAULT_EVALUATIONS
from sgdlab.experiment.running.workshop import Workshop
from sgdlab.precision import DynamicLossScale, NoOpLossScale, get_policy
from sgdlab.statistics import headline
from sgdlab.tasks.rows import count_rows, take_rows
from sgdlab.training.gradients import make_value_and_grad
from sgdlab.training.inspecting import ChunkProgram

POLICIES: dict[str, dict[str, Any]] = {
    "float32": {"policy": "float32"},
    "mixed_bfloat16": {"policy": "mixed_bfloat16"},
    "mixed_float16": {"policy": "mixed_float16"},
    "mixed_float16, dynamic scale": {"policy": "mixed_float16", "loss_scale": {"name": "dynamic"}},
    "bfloat16": {"policy": "bfloat16"},
    "bfloat16, stochastic rounding": {
        "policy": "bfloat16",
        "rounding": {"name": "stochastic_rounding"},
    },
    "bfloat16, kahan": {"policy": "bfloat16", "rounding": {"name": "kahan"}},
}
"""What is compared where the experiment does not say: label to its `precision`."""

FORMATS = ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
_BATCHES = 8  # minibatches whose gradients are looked at, each at the first and final parameters


@dataclass(frozen=True)
class Exponents:
    """How large float32 gradient entries are.

    Attributes:
      counts: `[E]` int64, entries g with ⌊log₂|g|⌋ = lowest, lowest + 1, …
      lowest: the exponent of the first count.
      zeros: share of entries that are exactly zero.
    """

    counts: np.ndarray
    lowest: int
    zeros: float


def choose_policies(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """The policies to compare: those that the experiment sweeps over, else `POLICIES`.

    Raises:
      ConfigError: the sweep is about other things too.
    """
    if len(experiment.points) == 1:
        return POLICIES
    for point in experiment.points:
        others = [path for path in point.values if path.split(".")[0] != "precision"]
        if others:
            raise ConfigError(
                [f"{experiment.source}: sweep: {others[0]}; allowed here: precision alone"]
            )
    return {point.label: point.config.precision.model_dump() for point in experiment.points}


def study_precision(
    experiment: Experiment, policies: Mapping[str, Mapping[str, Any]], *, repeats: int = 5
) -> pd.DataFrame:
    """Run one experiment under each policy.

    Args:
      experiment: its first point is run, with `precision` replaced.
      policies: label to a config's `precision`; the first is what speed and gradients are
        compared with, float32 as a rule.
      repeats: timed calls of each compiled chunk, interleaved.

    Returns:
      A row for each policy, with the columns
        `policy`, `status`: its label; "done", or what stopped a run.
        `metric`, `mean`, `deviation`: the target's metric, else the task's own, at the end; over
          seeds and draws; both NaN where a run's is not finite.
        `skipped`: messages that a run left out, mean over runs.
        `loss_scale`: the median of the final ones, or None.
        `flushed`, `overflowed`: shares in [0, 1] of gradient entries, counted under the policy
          against float32 at the same parameters; `by_layer`: both by the parameter's path.
        `parameters`, `rule_state`, `temporary`, `peak`: bytes.
        `updates_per_second`, `relative_speed`: the latter against the first policy.
      In `attrs` stand "metric", "exponents" (`Exponents`) and "ranges" (format to path to the
      shares below and above its range).

    Raises:
      ConfigError: a policy does not fit the experiment.
    """
    workshop, point = Workshop(), experiment.points[0]
    studies = [_Study(label, point, dict(each), workshop) for label, each in policies.items()]
    for study in studies:
        study.train()
    goal = point.config.goal
    metric = (
        goal.metric
        if goal
        else headline(list(studies[0].histories[0].evaluations), studies[0].task.directions)
    )
    gradients = _Gradients(studies[0])
    speeds = _time([study.chunk for study in studies], repeats)
    rows = []
    for study, speed in zip(studies, speeds, strict=True):
        rows.append({**study.describe(metric), **gradients.under(study), **study.memory()})
        rows[-1] |= {"relative_speed": speed / speeds[0], "updates_per_second": speed}
    table = pd.DataFrame(rows)
    table.attrs.update(metric=metric, exponents=gradients.exponents(), ranges=gradients.ranges())
    return table


class _Study:
    """The experiment under one policy."""

    def __init__(self, label: str, point: Point, spec: dict[str, Any], workshop: Workshop) -> None:
        self.label, self.workshop, self.point = label, workshop, point
        raw = point.config.model_dump() | {"precision": Precision.model_validate(spec).model_dump()}
        self.config: Config = Config.model_validate({k: v for k, v in raw.items() if v is not None})
        self.timelines = workshop.timelines(self.config)
        self.histories: list[training.History] = []
        self.task = workshop.task(self.config)
        self.policy = get_policy(self.config.precision.policy)
        self._chunk: ChunkProgram | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """What `replay_many` takes."""
        found = self.workshop.arguments(self.config, self.point.mapped, self.timelines)
        return found | {"hyperparameters": {k: [v] for k, v in self.point.mapped.items()}}

    @property
    def chunk(self) -> ChunkProgram:
        """The compiled chunk of the first seed and draw."""
        if self._chunk is None:
            rest = dict(self.arguments)
            task, make_rule, (timeline, *_), (seed, *_) = (
                rest.pop(name) for name in ("task", "make_rule", "timeline", "seeds")
            )
            self._chunk = ChunkProgram(task, make_rule, timeline, seed=seed, **rest)
        return self._chunk

    def train(self) -> None:
        """Run every seed and draw."""
        config = self.config
        updates = max(timeline.num_updates for timeline in self.timelines)
        evaluations = config.evaluations or DEFAULT_EVALUATIONS
        try:
            self.histories = list(
                training.replay_many(
                    evaluate_every=config.evaluate_every or max(1, -(-updates // evaluations)),
                    stop=None if config.stop is None else config.stop.model_dump(exclude_none=True),
                    **self.arguments,
                )
            )
        except ValueError as error:
            text = " ".join(str(error).splitlines())
            raise ConfigError([f"precision: {self.label}: {text}"]) from error

    def describe(self, metric: str) -> dict[str, Any]:
        """Where the runs ended."""
        last = np.array([h.evaluations[metric].iloc[-1] for h in self.histories], np.float64)
        final = last if np.isfinite(last).all() else np.full(len(last), np.nan)
        ends = [np.median(h.loss_scale.loss_scale) for h in self.histories if _is_dynamic(h)]
        errors = [h.error for h in self.histories if h.error]
        return {
            "policy": self.label,
            "metric": metric,
            "mean": float(final.mean()),
            "deviation": float(final.std(ddof=1)) if len(final) > 1 else 0.0,
            "skipped": statistics.fmean(float(h.skipped.sum()) for h in self.histories),
            "loss_scale": float(np.median(ends)) if ends else None,
            "status": errors[0] if errors else "done",
        }

    def memory(self) -> dict[str, int]:
        """Bytes; `temporary` and `peak` are XLA's own account of the compiled chunk."""
        state, found = self.chunk.state, self.chunk.compiled.memory_analysis()
        whole = found.argument_size_in_bytes + found.output_size_in_bytes
        whole += found.temp_size_in_bytes - found.alias_size_in_bytes
        return {
            "parameters": _num_bytes(state.params),
            "rule_state": _num_bytes((state.rule, state.receive)),
            "temporary": int(found.temp_size_in_bytes),
            "peak": int(getattr(found, "peak_memory_in_bytes", 0) or whole),
        }


class _Gradients:
    """Gradients in float32 at the reference's first and final parameters, and under policies."""

    def __init__(self, reference: _Study) -> None:
        task, history = reference.task, reference.histories[0]
        first = task.init(jax.random.fold_in(jax.random.key(np.uint32(history.member["seed"])), 0))
        final = get_policy("float32").cast_to_param(history.params)
        size = reference.config.worker.arguments()["batch_size"]
        rows = np.random.default_rng(0).integers(count_rows(task.train), size=(_BATCHES, size))
        self.batches = [take_rows(task.train, each) for each in rows]
        self.ends, self.task = (first, final), task
        self.paths = tuple(
            jax.tree_util.keystr(path, simple=True, separator="/") or "parameters"
            for path, _ in jax.tree_util.tree_leaves_with_path(first)
        )
        self.exact = self._compute(get_policy("float32"), [NoOpLossScale()] * 2)

    def _compute(self, policy: Any, scales: Sequence[Any]) -> list[np.ndarray]:
        """By leaf, `[2·batches, …]` float32: the gradient as a worker sends it."""

        @jax.jit
        def gradient(params, batch, key, scale):
            key = key if self.task.needs_key else None
            return make_value_and_grad(self.task, policy, scale)(params, batch, key)[1]

        found = [
            jax.tree.leaves(gradient(policy.cast_to_param(params), batch, jax.random.key(i), scale))
            for params, scale in zip(self.ends, scales, strict=True)
            for i, batch in enumerate(self.batches)
        ]
        return [
            np.stack([np.asarray(leaf, np.float32) for leaf in leaves])
            for leaves in zip(*found, strict=True)
        ]

    def under(self, study: _Study) -> dict[str, Any]:
        """What a policy flushes to zero and overflows, at the parameters of the reference."""
        scale = study.workshop.loss_scale(study.config)
        if isinstance(scale, DynamicLossScale):  # the value that it has found
            value = np.median(study.histories[0].loss_scale.loss_scale)
            scale = dataclasses.replace(scale, loss_scale=jnp.float32(value))
        found = self._compute(study.policy, [scale, scale])
        flushed = [np.sum((a != 0) & (b == 0)) for a, b in zip(self.exact, found, strict=True)]
        overflowed = [np.sum(~np.isfinite(leaf)) for leaf in found]
        sizes = [leaf.size for leaf in found]
        by_layer = zip(self.paths, flushed, overflowed, sizes, strict=True)
        return {
            "flushed": float(sum(flushed) / sum(sizes)),
            "overflowed": float(sum(overflowed) / sum(sizes)),
            "by_layer": {path: (float(f / n), float(o / n)) for path, f, o, n in by_layer},
        }

    def ranges(self) -> dict[str, dict[str, tuple[float, float]]]:
        """Format to path to the shares of float32 entries that it flushes and overflows."""
        shares: dict[str, dict[str, tuple[float, float]]] = {}
        for name in FORMATS:
            info = jnp.finfo(name)
            # Half of the smallest number is a tie, which rounds to the even neighbour, zero.
            low, high = float(info.smallest_subnormal) / 2, float(info.max)
            shares[name] = {
                path: (
                    float(np.mean((leaf != 0) & (np.abs(leaf) <= low))),
                    float(np.mean(np.abs(leaf) > high)),
                )
                for path, leaf in zip(self.paths, self.exact, strict=True)
            }
        return shares

    def exponents(self) -> Exponents:
        """The exponents of all float32 entries."""
        values = np.concatenate([leaf.ravel() for leaf in self.exact])
        used = values[np.isfinite(values) & (values != 0)]
        if not len(used):
            return Exponents(np.zeros(1, np.int64), 0, float(np.mean(values == 0)))
        powers = np.frexp(used)[1] - 1
        lowest = int(powers.min())
        return Exponents(np.bincount(powers - lowest), lowest, float(np.mean(values == 0)))


def format_ranges() -> dict[str, tuple[int, int]]:
    """The exponents of each format's smallest and largest number above zero."""
    return {
        name: (
            int(np.floor(np.log2(float(jnp.finfo(name).smallest_subnormal)))),
            int(np.floor(np.log2(float(jnp.finfo(name).max)))),
        )
        for name in FORMATS
    }


def _time(chunks: Sequence[ChunkProgram], repeats: int) -> list[float]:
    """Updates a second, from the median of calls that take turns."""
    seconds: list[list[float]] = [[] for _ in chunks]
    for turn in range(repeats + 1):
        for taken, chunk in zip(seconds, chunks, strict=True):
            elapsed = chunk.run()
            if turn:  # the first call warms up
                taken.append(elapsed)
    return [
        chunk.num_updates / statistics.median(taken)
        for chunk, taken in zip(chunks, seconds, strict=True)
    ]


def _is_dynamic(history: training.History) -> bool:
    return isinstance(history.loss_scale, DynamicLossScale)


def _num_bytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
