"""One update, in each of the forms that a timeline can take.

Store first, then read: at update u the current parameters go into their slot before any stale
version is read. In the other order XLA copies every slot at every step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sgdlab.precision import DynamicLossScale, all_finite, select_tree
from sgdlab.training.batches import Draws
from sgdlab.training.means import add_message, mean_of_finite, mean_of_total, start_total
from sgdlab.training.messages import Sent, Step, check_message, leave_out, measure, send
from sgdlab.training.program import State
from sgdlab.training.slots import read, store
from sgdlab.training.trees import get_row, set_row


def _fused_update(step: Step, u, state: State):
    """Equal fresh messages of a plain gradient are one gradient over the global batch.

    Under the guard that is so where it is finite and their loss scales are equal, as it says the
    same of each message then. Elsewhere the update is made message by message.
    """
    program, chunk = step.program, step.chunk
    count = program.messages_per_update
    first = u * count
    who = jax.lax.dynamic_slice_in_dim(chunk.worker, first, count)
    rows = jax.lax.dynamic_slice_in_dim(step.draws.rows, first, count).reshape(1, -1)
    extra = _facts(step, u)
    if count == 1:
        extra |= {"stale_params": state.params, "worker": chunk.worker[first]}

    def together() -> Sent:
        loss_scale = get_row(state.loss_scale, who[0])
        return send(step, state, state.params, (), loss_scale, Draws(rows, None))

    if not program.guard or count == 1:
        sent = together()
        finite = None if sent.finite is None else sent.finite[None]
        return _finish(step, state, who, sent, sent.message, finite, extra)
    sent = _where_scales_agree(state.loss_scale, who, together)
    return jax.lax.cond(
        sent.finite,
        lambda: _finish(step, state, who, sent, sent.message, jnp.ones(count, jnp.bool_), extra),
        lambda: _walk_update(step, u, state),
    )


def _where_scales_agree(loss_scale: Any, who, together: Callable[[], Sent]) -> Sent:
    """One gradient in place of some workers' own; not finite where their loss scales differ."""
    if not isinstance(loss_scale, DynamicLossScale):
        return together()
    scales = loss_scale.loss_scale[who]
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(together))
    return jax.lax.cond(jnp.all(scales == scales[0]), together, lambda: nothing)


def _mapped_update(step: Step, u, state: State):
    """Fresh messages of any program, computed side by side."""
    count = step.program.messages_per_update
    who, draws = jax.tree.map(
        lambda column: jax.lax.dynamic_slice_in_dim(column, u * count, count),
        (step.chunk.worker, step.draws),
    )

    def one(worker_state, loss_scale, drawn):
        return leave_out(send(step, state, state.params, worker_state, loss_scale, drawn))

    states, scales = jax.tree.map(lambda leaf: leaf[who], (state.worker, state.loss_scale))
    sent = jax.vmap(one)(states, scales, draws)
    if sent.finite is None:
        mean = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), sent.message)
    else:
        mean = mean_of_finite(sent.message, sent.finite)
    workers = jax.tree.map(lambda old, new: old.at[who].set(new), state.worker, sent.worker)
    extra = _facts(step, u)
    return _finish(step, state._replace(worker=workers), who, sent, mean, sent.finite, extra)


def _finish(step: Step, state: State, who, sent: Sent, mean, finite, extra):
    """An update of fresh messages that have been averaged; `finite`, `[count]`, may be `None`."""
    fresh = {"distance": jnp.float32(0), "cosine": jnp.float32(1)}
    report = {name: fresh[name] for name in step.program.measures}
    if finite is None:
        return _apply(step, state, mean, None, **extra), report | {"loss": jnp.mean(sent.loss)}
    valid = jnp.any(finite)
    state = _apply(step, state, mean, valid, **extra)
    if "cosine" in report:
        report["cosine"] = jnp.where(valid, report["cosine"], jnp.nan)
    told = jnp.where(valid, finite, True)  # of all, where none is left
    report["loss"] = jnp.mean(jnp.broadcast_to(sent.loss, finite.shape), where=told)
    report["skipped"] = jnp.sum(~finite, dtype=jnp.int32)
    scales = jax.tree.map(lambda leaf: leaf[who], state.loss_scale)
    scales = jax.vmap(lambda scale, fine: scale.adjust(fine))(scales, finite)
    scales = jax.tree.map(lambda old, new: old.at[who].set(new), state.loss_scale, scales)
    return state._replace(loss_scale=scales), report


class _Senders(NamedTuple):
    """The states that a message advances: its worker's, its loss scale, and `receive`'s."""

    worker: Any
    loss_scale: Any
    receive: Any


class Taken(NamedTuple):
    """A message on its way: the version that it was computed at, and what the worker sent."""

    stale: Any
    sent: Sent


def take(step: Step, state: State, m, senders: _Senders) -> Taken:
    """The version that message m was computed at is read, and the message computed."""
    stale = _read(step, state, m)
    worker, loss_scale = _of_sender(step, m, senders)
    sent = send(step, state, stale, worker, loss_scale, get_row(step.draws, m))
    return Taken(stale, leave_out(sent))


def take_wave(step: Step, first, state: State) -> tuple[State, Taken]:
    """The messages of the wave that begins with update `first`, computed side by side.

    Whatever the wave's length, as many lanes are computed as the widest has; nobody reads those
    that are left over. A worker has no two messages in a wave, or no state.
    """
    state = store_current(step, first, state)
    lanes = first + jnp.arange(step.program.width, dtype=jnp.uint32)
    lanes = jnp.minimum(lanes, step.chunk.worker.shape[0] - 1)
    return state, jax.vmap(lambda m: take(step, state, m, _senders(state)))(lanes)


def _single_update(step: Step, u, state: State):
    """An update of one message, computed when its turn comes: message u is update u's."""
    state = store_current(step, u, state)
    return _serve(step, u, state, take(step, state, u, _senders(state)))


def update_in_wave(taken: Taken, first, step: Step, u, state: State):
    """An update of one message that was computed when its wave began, with update `first`."""
    return _serve(step, u, store_current(step, u, state), get_row(taken, u - first))


def _early_update(step: Step, u, state: State):
    """Step u computes a message, which waits; then update u is made, except before update 0.

    Nobody looks at `stale_params` where messages are computed early, so the current ones stand in
    for their shapes.
    """
    steps = step.chunk.early
    loss_scale = get_row(state.loss_scale, steps.worker[u])
    sent = leave_out(send(step, state, state.params, (), loss_scale, get_row(step.draws, u)))
    flat = not step.program.spreads_params
    slots = store(state.slots, steps.write_slot[u], sent, flat=flat)

    def waited() -> Sent:
        return read(slots, step.chunk.read_slot[u], sent)

    def serve(state: State) -> State:
        return _serve(step, u, state, Taken(state.params, waited()))[0]

    state = jax.lax.cond(steps.due, serve, lambda state: state, state._replace(slots=()))
    _, _, loss, finite = waited()
    report = {"loss": loss}
    if finite is not None:
        report["skipped"] = (~finite).astype(jnp.int32)
    return state._replace(slots=slots), report


def _serve(step: Step, u, state: State, taken: Taken):
    """An update of one message that has been computed; there is no mean to take."""
    senders, message, finite, report = _receive(step, u, state, u, taken, _senders(state))
    state = _apply(
        step,
        state._replace(**senders._asdict()),
        message,
        finite,
        stale_params=taken.stale,
        worker=step.chunk.worker[u],
        **_facts(step, u),
    )
    if finite is not None:
        report["skipped"] = (~finite).astype(jnp.int32)
    return state, report


def _walk_update(step: Step, u, state: State):
    """Messages are computed one after another and added to their mean, or to a table of rows."""
    program, chunk = step.program, step.chunk
    state = store_current(step, u, state)

    def add(m, carry):
        senders, total = carry
        taken = take(step, state, m, senders)
        senders, message, finite, report = _receive(step, u, state, m, taken, senders)
        return senders, add_message(step, m, total, message, finite, report)

    carry = _senders(state), start_total(program, state)
    senders, total = jax.lax.fori_loop(chunk.start[u], chunk.start[u + 1], add, carry)
    state = state._replace(**senders._asdict())
    if program.has_table:
        state = state._replace(table=total.value)
    mean, valid, report = mean_of_total(step, u, total)
    return _apply(step, state, mean, valid, **_facts(step, u)), report


def _senders(state: State) -> _Senders:
    return _Senders(state.worker, state.loss_scale, state.receive)


def _of_sender(step: Step, m, senders: _Senders):
    """The state and the loss scale of the worker that sends message m."""
    who = step.chunk.worker[m]
    return get_row(senders.worker, who), get_row(senders.loss_scale, who)


def store_current(step: Step, u, state: State) -> State:
    """The current version goes into its slot; nothing happens where no version is ever stale."""
    if not step.program.num_slots:
        return state
    stored = step.program.as_stored(state.params)
    return state._replace(
        slots=store(
            state.slots, step.chunk.write_slot[u], stored, flat=not step.program.spreads_params
        )
    )


def _read(step: Step, state: State, m):
    """The version that message m was computed at."""
    if not step.program.num_slots:
        return state.params
    return read(state.slots, step.chunk.read_slot[m], step.program.as_stored(state.params))


def _receive(step: Step, u, state: State, m, taken: Taken, senders: _Senders):
    """The server receives message m for update u, and its worker's states advance.

    Returns:
      `(senders, message, finite, report)`; `finite` is `None` where nobody asks.
    """
    program, chunk = step.program, step.chunk
    (stale, sent), who = taken, chunk.worker[m]
    _, loss_scale = _of_sender(step, m, senders)
    with jax.numpy_dtype_promotion("standard"):
        message, receive = optax.with_extra_args_support(program.receive).update(
            sent.message,
            senders.receive,
            state.params,
            **{**_facts(step, u), "staleness": chunk.message_staleness[m]},
            stale_params=stale,
            worker=who,
        )
    check_message("receive", message, state.params)
    if program.has_refused:  # the server never saw it: only the worker's own state advances
        receive = select_tree(chunk.weight[m] > 0, receive, senders.receive)
    scales, finite = senders.loss_scale, sent.finite
    if finite is not None:
        scales = set_row(scales, who, loss_scale.adjust(finite))
        if message is not sent.message:  # what `receive` has made of it may be out of range
            finite &= all_finite(message)
            message = select_tree(finite, message, jax.tree.map(jnp.zeros_like, message))
        receive = select_tree(finite, receive, senders.receive)
    senders = _Senders(set_row(senders.worker, who, sent.worker), scales, receive)
    return senders, message, finite, measure(step, state, m, stale, sent, loss_scale)


def _facts(step: Step, u) -> dict[str, jax.Array]:
    """What a rule may ask of update u."""
    chunk = step.chunk
    facts = {"staleness": chunk.staleness, "seconds": chunk.seconds, "gradients": chunk.gradients}
    return {name: column[u] for name, column in facts.items()}


def _apply(step: Step, state: State, mean, valid, **extra) -> State:
    """The server applies the rule to the mean; nothing changes where no message was valid."""
    with jax.numpy_dtype_promotion("standard"):
        updates, rule_state = step.rule.update(mean, state.rule, state.params, **extra)
        params = optax.apply_updates(state.params, updates)
    rule_state = jax.tree.map(_in_dtype_of, state.rule, rule_state)
    if valid is not None:
        params = select_tree(valid, params, state.params)
        rule_state = select_tree(valid, rule_state, state.rule)
    return state._replace(params=params, rule=rule_state)


def _in_dtype_of(old, new):
    """A float32 learning rate would widen the state that a rule keeps for 16-bit parameters."""
    return new if jnp.result_type(new) == jnp.result_type(old) else new.astype(old.dtype)


# By the program's form: `update(step, u, state) -> (state, report)`.
UPDATES = {
    "fused": _fused_update,
    "mapped": _mapped_update,
    "single": _single_update,
    "waves": _single_update,  # where it stands alone; in a wave it is `update_in_wave`
    "early": _early_update,
    "walk": _walk_update,
}
