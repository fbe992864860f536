"""One message: computed by a worker at the version it has read, checked, and measured."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sgdlab.precision import all_finite, select_tree
from sgdlab.tasks.rows import take_rows
from sgdlab.training.batches import Draws
from sgdlab.training.gradients import make_value_and_grad
from sgdlab.training.program import Chunk, Data, Program, State
from sgdlab.training.trees import get_row


class Step(NamedTuple):
    """What every step of a chunk reads."""

    program: Program
    rule: optax.GradientTransformationExtraArgs
    chunk: Chunk
    draws: Draws
    data: Data


class Sent(NamedTuple):
    """A message, the worker's new state, the loss, and whether all is finite (`None`: unasked)."""

    message: Any
    worker: Any
    loss: jax.Array
    finite: jax.Array | None


def send(step: Step, state: State, read, worker_state, loss_scale, drawn: Draws) -> Sent:
    """One worker computes one message at the version that it has read."""
    program = step.program
    average, microbatches = program.spread(drawn.rows.shape[-1])
    value_and_grad = make_value_and_grad(
        program.task, program.policy, loss_scale, average, microbatches
    )
    batches = take_rows(step.data.train, drawn.rows)
    key = None if drawn.keys is None else jax.random.wrap_key_data(drawn.keys)
    message, new_state, info = program.worker.compute(
        value_and_grad, read, worker_state, batches, key
    )
    check_message("worker", message, state.params)
    loss = info["loss"].astype(jnp.float32)
    if not program.guard:
        return Sent(message, new_state, loss, None)
    finite = all_finite(message)  # of the mean over devices, so that all of them agree
    return Sent(message, select_tree(finite, new_state, worker_state), loss, finite)


def leave_out(sent: Sent) -> Sent:
    """Zeros in place of a message that is not finite, so that it adds nothing to a sum."""
    if sent.finite is None:
        return sent
    zeros = jax.tree.map(jnp.zeros_like, sent.message)
    return sent._replace(message=select_tree(sent.finite, sent.message, zeros))


def waiting_like(program: Program, params: Any) -> Sent:
    """A message as a slot keeps it until its turn: zeros for a worker without a state."""
    finite = jnp.bool_(False) if program.guard else None
    return Sent(jax.tree.map(jnp.zeros_like, params), (), jnp.float32(0), finite)


def check_message(sender: str, message, params) -> None:
    """A message must have the parameters' structure, shapes and dtypes."""
    sent, expected = jax.tree.structure(message), jax.tree.structure(params)
    if sent != expected:
        raise ValueError(f"{sender}: its message is {sent}; the parameters are {expected}")
    for (path, leaf), wanted in zip(
        jax.tree_util.tree_leaves_with_path(message), jax.tree.leaves(params), strict=True
    ):
        if (leaf.shape, leaf.dtype) != (wanted.shape, wanted.dtype):
            raise ValueError(
                f"{sender}: message{jax.tree_util.keystr(path)} is {leaf.dtype}{list(leaf.shape)}; "
                f"the parameter is {wanted.dtype}{list(wanted.shape)}"
            )


def measure(step: Step, state: State, m, read, sent: Sent, loss_scale) -> dict[str, jax.Array]:
    """The message's loss, how far the parameters have moved since it was computed, and its angle.

    distance: ‖w − w_read‖. cosine: between the message and the one that the same worker would have
    sent for the same batch from the current parameters; it costs a second message, and is NaN for
    one that is not finite.
    """
    program, report = step.program, {"loss": sent.loss}
    if "distance" in program.measures:
        gap = jax.tree.map(jnp.subtract, state.params, read)
        report["distance"] = optax.tree.norm(gap).astype(jnp.float32)
    if "cosine" in program.measures:
        who = step.chunk.worker[m]
        drawn = get_row(step.draws, m)
        worker_state = get_row(state.worker, who)
        fresh = leave_out(send(step, state, state.params, worker_state, loss_scale, drawn))
        norms = optax.tree.norm(sent.message) * optax.tree.norm(fresh.message)
        cosine = optax.tree.vdot(sent.message, fresh.message) / jnp.maximum(norms, 1e-30)
        report["cosine"] = jnp.asarray(cosine, jnp.float32)
        if sent.finite is not None:
            report["cosine"] = jnp.where(sent.finite, report["cosine"], jnp.nan)
    return report
