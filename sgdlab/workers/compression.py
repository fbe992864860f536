"""A compressed message, and the error that compression leaves behind for the next one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp

from sgdlab.arguments import read_argument, read_arguments, show
from sgdlab.workers.compressors import Compressor, wide_dtype
from sgdlab.workers.program import ValueAndGrad, WorkerProgram
from sgdlab.workers.table import COMPRESSION, NonNegative

# Far from the step numbers 0 … H−1 that a program itself folds into the message's key.
_COMPRESSION = 2**31


class CompressedState(NamedTuple):
    """State of a worker that compresses with error feedback, or by a schedule.

    Attributes:
      program: the state of the program inside.
      error: e, what has not been sent yet; shaped like the parameters, float32 or wider; `()`
        without error feedback.
      messages: int32 scalar, how many the worker has computed; `()` without a schedule.
    """

    program: Any
    error: Any
    messages: Any = ()


@read_arguments({"error_feedback": COMPRESSION["error_feedback"]})
def compressed(
    program: WorkerProgram,
    compressor: Compressor,
    error_feedback: bool = True,
    learning_rate: float | Callable[[jax.Array], Any] | None = None,
) -> WorkerProgram:
    """Compress what a program sends; with error feedback, send the lost part later.

        p = g + e;  send C(p);  e ← p − C(p)

    With a constant learning rate η and no message dropped, wₜ − ηΣᵢeᵢ = w₀ − ηΣg where each message
    is an update, and wₜ − (η/N)Σᵢeᵢ = w₀ − ηΣḡ where N are averaged: nothing is ever lost.

    That is for constant rates only: e is in the units of gradients, so what was lost at one rate is
    sent at another. With `learning_rate` the rate stands inside, p = ηg + e, and a message is a
    step: the server's rule is `sgd(1.0)`, and wₜ − Σᵢeᵢ = w₀ − Σηg whatever the rates are. A
    compressor that doesn't scale, as `sign`, is sent as ηC(p).

    Args:
      program: what is computed, with message g.
      compressor: C, applied to each leaf.
      error_feedback: whether e is kept; without it C(g) is sent and the remainder is forgotten.
      learning_rate: η, a scalar, or a schedule of the worker's own messages, counted from 0; by
        default the server's rule has the rate.

    Returns:
      A `WorkerProgram` with the gradients per message of `program`. Its state is a
      `CompressedState` under error feedback or a schedule, and the state of `program` otherwise. e
      also takes up the rounding of a 16-bit message.

    Raises:
      ValueError: what is given is no program, compressor, flag or rate.

    Reference: Sai Praneeth Karimireddy et al., "Error Feedback Fixes SignSGD and other Gradient
      Compression Schemes", 2019: with `learning_rate` Algorithm 2, as in the authors' code
      (`ErrorFeedbackSGD.py`), which has ηC(p) for the sign too; without it the same with the rate
      on the server's side, which is equal while the rate is constant.
    """
    for name, value, kind in (
        ("program", program, WorkerProgram),
        ("compressor", compressor, Compressor),
    ):
        if not isinstance(value, kind):
            raise ValueError(f"compressed: {name} is {show(value)}; allowed: a {kind.__name__}")
    scheduled = callable(learning_rate)
    if not scheduled and not isinstance(learning_rate, jax.core.Tracer):
        rates: Any = NonNegative | None
        learning_rate = read_argument(
            "compressed", "learning_rate", rates, learning_rate, others="a schedule"
        )
    keeps_state = error_feedback or scheduled

    def init(params):
        error = jax.tree.map(lambda w: jnp.zeros(w.shape, wide_dtype(w.dtype)), params)
        messages = jnp.zeros([], jnp.int32) if scheduled else ()
        return CompressedState(program.init(params), error if error_feedback else (), messages)

    def find_rate(messages):
        with jax.numpy_dtype_promotion("standard"):  # schedules mix dtypes
            rate = learning_rate(messages) if callable(learning_rate) else learning_rate
            return None if rate is None else jnp.asarray(rate, jnp.float32)

    def send(total, rate, key, example):
        if compressor.needs_key and key is None:
            raise ValueError("compressed: this compressor draws at random; key is None")
        if compressor.needs_key:
            key = jax.random.fold_in(key, _COMPRESSION)
        sent = compressor.compress(total, key)
        if rate is not None and not compressor.scales:
            sent = _times(sent, rate)
        return jax.tree.map(lambda c, g: c.astype(g.dtype), sent, example)

    def compute(value_and_grad: ValueAndGrad, params, state, batches, key):
        inside, messages = (state.program, state.messages) if keeps_state else (state, ())
        message, inside, info = program.compute(value_and_grad, params, inside, batches, key)
        rate = find_rate(messages)
        total = message if rate is None else _times(message, rate)
        if not keeps_state:
            return send(total, rate, key, message), inside, info
        error = state.error
        if error_feedback:
            total = jax.tree.map(lambda g, e: g.astype(e.dtype) + e, total, error)
        sent = send(total, rate, key, message)
        if error_feedback:
            error = jax.tree.map(lambda p, c: p - c.astype(p.dtype), total, sent)
        messages = jax.tree.map(lambda count: count + 1, messages)
        return sent, CompressedState(inside, error, messages), info

    return program._replace(
        init=init if keeps_state else program.init,
        compute=compute,
        needs_key=program.needs_key or compressor.needs_key,
    )


def _times(tree, rate):
    """A tree times a float32 scalar, float32 or wider."""
    return jax.tree.map(
        lambda g: g.astype(wide_dtype(g.dtype)) * rate.astype(wide_dtype(g.dtype)), tree
    )
