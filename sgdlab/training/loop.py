"""The compiled replay: where it starts, and the loop over a chunk's updates."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import optax

from sgdlab.precision import DynamicLossScale, Policy, all_finite
from sgdlab.rules import evaluation_params
from sgdlab.tasks import Task
from sgdlab.training.batches import INIT, Draws
from sgdlab.training.gradients import make_evaluate
from sgdlab.training.messages import Step, waiting_like
from sgdlab.training.program import Chunk, Data, Member, Outputs, Program, State
from sgdlab.training.slots import make_slots
from sgdlab.training.table import make_table
from sgdlab.training.trees import set_row, stack
from sgdlab.training.updates import UPDATES, take_wave, update_in_wave


def init_params(task: Task, policy: Policy, key: jax.Array):
    """Version 0: `task.init` with the run's key folded with `INIT`, in the parameters' dtype."""
    return policy.cast_to_param(task.init(jax.random.fold_in(key, INIT)))


def init_state(
    program: Program, params, member: Member, data: Data, loss_scale
) -> tuple[State, dict]:
    """The state at version 0, and the held-out metrics there.

    Args:
      program: what is compiled.
      params: version 0.
      member: key and hyperparameters of this run.
      data: shared data.
      loss_scale: the initial loss scale.

    Returns:
      `(state, metrics)`.
    """
    program, rule = program.of(member), program.make_rule(**member.hyperparameters)
    with jax.numpy_dtype_promotion("standard"):
        rule_state, receive_state = rule.init(params), program.receive.init(params)
    state = State(
        params=params,
        rule=rule_state,
        receive=receive_state,
        worker=stack(program.worker.init(params), program.num_workers),
        loss_scale=stack(loss_scale, program.num_workers),
        slots=make_slots(
            waiting_like(program, params) if program.form == "early" else program.as_stored(params),
            program.num_slots,
            flat=not program.spreads_params,
        ),
        table=make_table(params, program.num_workers) if program.has_table else (),
    )
    state = program.lay_out(state)
    return state, program.share(_evaluate(program, state, data))


def run_chunk(
    program: Program, state: State, chunk: Chunk, draws: Draws, member: Member, data: Data
) -> tuple[State, Outputs]:
    """Make the chunk's updates.

    Args:
      program: what is compiled.
      state: where the last chunk ended.
      chunk: the stretch of timeline.
      draws: its minibatches and keys.
      member: key and hyperparameters of this run.
      data: shared data.

    Returns:
      `(state, outputs)`.
    """
    program, rule = program.of(member), program.make_rule(**member.hyperparameters)
    capacity = chunk.write_slot.shape[0]
    step = Step(program, optax.with_extra_args_support(rule), chunk, draws, data)

    def advance(update, u, state: State):
        state, report = update(step, u, state)
        if isinstance(state.loss_scale, DynamicLossScale):
            report["loss_scale"] = jnp.mean(state.loss_scale.loss_scale)
        if program.record is not None:
            report["record"] = program.record(state.params)
        return state, report

    def body(update, u, carry):
        state, reports = carry
        state, report = advance(update, u, state)
        return program.lay_out(state), set_row(reports, u, report)

    def wave(v, carry):
        state, reports = carry
        first, after = chunk.wave[v], chunk.wave[v + 1]
        state, taken = take_wave(step, first, state)
        update = partial(update_in_wave, taken, first)
        return jax.lax.fori_loop(first, after, partial(body, update), (state, reports))

    update = UPDATES[program.form]
    _, report = jax.eval_shape(partial(advance, update), jnp.uint32(0), state)
    reports = jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape), leaf.dtype), report)
    # An unsigned index needs no check for a negative one, which a small model would notice.
    zero, carry = jnp.uint32(0), (state, reports)
    if program.form == "waves":
        state, reports = jax.lax.fori_loop(zero, chunk.num_waves, wave, carry)
    else:
        state, reports = jax.lax.fori_loop(zero, chunk.num_steps, partial(body, update), carry)
    state = program.lay_out(state)  # else XLA may hand it out otherwise than it came in
    finite = jnp.stack([all_finite(leaf) for leaf in jax.tree.leaves(state.params)])
    shapes = jax.eval_shape(lambda: _evaluate(program, state, data))
    metrics = jax.lax.cond(
        chunk.evaluate,
        lambda: _evaluate(program, state, data),
        lambda: jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes),
    )
    return state, program.share(Outputs(reports, finite, metrics))


def _evaluate(program: Program, state: State, data: Data) -> dict:
    params = evaluation_params(state.rule, state.params)
    return make_evaluate(program.task, program.policy, program.average)(params, data.test)
