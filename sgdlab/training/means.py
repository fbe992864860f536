"""The mean over an update's messages: of what they say, of their losses, and of their measures.

Under the guard a message that is not finite is in none of these. Where none is left, the losses and
measures are those of all messages.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sgdlab.training.messages import Step
from sgdlab.training.program import Program, State
from sgdlab.training.table import add_to_row, mix_rows
from sgdlab.training.trees import scaled_sum


class Total(NamedTuple):
    """What the messages of one update add up to, walked one after another.

    Attributes:
      value: the weighted sum of the messages, or the `Table`.
      weight: the sum of the weights that counted.
      share: the sum of the shares in the mean loss that counted.
      report: the weighted sums of the loss and of the measures.
      told: under the guard the same of all messages, finite or not; else `{}`.
      skipped: int32 scalar, how many were left out.
    """

    value: Any
    weight: jax.Array
    share: jax.Array
    report: dict[str, jax.Array]
    told: dict[str, jax.Array]
    skipped: jax.Array


def start_total(program: Program, state: State) -> Total:
    """The total of no message."""
    report = {name: jnp.float32(0) for name in ("loss", *program.measures)}
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    value = state.table if program.has_table else zeros
    told = report if program.guard else {}
    return Total(value, jnp.float32(0), jnp.float32(0), report, told, jnp.int32(0))


def add_message(step: Step, m, total: Total, message, finite, report) -> Total:
    """Message m is added to the sum, or to its worker's row; one that is not finite is left out."""
    program, chunk = step.program, step.chunk
    weight, share = chunk.weight[m], chunk.share[m]
    counts, told, skipped = weight > 0, total.told, total.skipped
    if finite is not None:
        told = _add_report(told, share, counts, report)
        skipped += (counts & ~finite).astype(jnp.int32)
        weight, share = (jnp.where(finite, x, 0.0) for x in (weight, share))
        counts = counts & finite
    report = _add_report(total.report, share, counts, report)
    if program.has_table:
        value = add_to_row(total.value, chunk.worker[m], chunk.keep[m], weight, message)
    else:
        value = scaled_sum(None, total.value, weight, message)
    return Total(value, total.weight + weight, total.share + share, report, told, skipped)


def _add_report(sums: dict, share, counts, report: dict) -> dict[str, jax.Array]:
    return {
        name: sums[name] + share * jnp.where(counts, value, 0.0) for name, value in report.items()
    }


def mean_of_total(step: Step, u, total: Total) -> tuple[Any, jax.Array | None, dict]:
    """`(mean, valid, report)` of update u; `valid`, whether anything counted, may be `None`."""
    program, chunk = step.program, step.chunk
    mean, valid = total.value, total.weight > 0
    if program.has_table:
        mean, valid = mix_rows(total.value, chunk.row_weight[u], chunk.rows_are_means)
    elif program.guard:
        weight = jnp.where(valid, total.weight, 1.0)
        mean = jax.tree.map(lambda leaf: leaf / weight.astype(leaf.dtype), mean)
    if not program.guard:
        return mean, None, {name: value / total.share for name, value in total.report.items()}
    some = total.share > 0
    share = jnp.where(some, total.share, 1.0)
    report = {
        name: jnp.where(some, value / share, total.told[name])
        for name, value in total.report.items()
    }
    return mean, valid, report | {"skipped": total.skipped}


def mean_of_finite(messages: Any, finite: jax.Array) -> Any:
    """The mean over the messages `[count, …]` that are finite, the others being zero already."""
    number = jnp.maximum(jnp.sum(finite), 1)

    def leaf(values):
        exact = jnp.promote_types(values.dtype, jnp.float32)  # a sum may leave the range of 16 bits
        return (jnp.sum(values, axis=0, dtype=exact) / number.astype(exact)).astype(values.dtype)

    return jax.tree.map(leaf, messages)
