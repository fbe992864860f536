"""One update, in each of the forms that a timeline can take.

Store first, then read: at update u the current parameters go into their slot before any stale
version is read. In the other order XLA copies every slot at every step.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sgdlab.precision import select_tree
from sgdlab.training.batches import Draws
from sgdlab.training.messages import Sent, Step, check_message, measure, send
from sgdlab.training.program import Program, State
from sgdlab.training.slots import read, store
from sgdlab.training.table import add_to_row, mix_rows
from sgdlab.training.trees import get_row, scaled_sum, set_row


def _fused_update(step: Step, u, state: State):
    """Equal fresh messages of a plain gradient are one gradient over the global batch."""
    count = step.program.messages_per_update
    first = u * count
    rows = jax.lax.dynamic_slice_in_dim(step.draws.rows, first, count).reshape(1, -1)
    sent = send(step, state, state.params, (), state.loss_scale, Draws(rows, None))
    extra = {"staleness": step.chunk.staleness[u]}
    if count == 1:
        extra |= {"stale_params": state.params, "worker": step.chunk.worker[first]}
    return _finish(step, state, sent, sent.message, sent.finite, count, extra)


def _mapped_update(step: Step, u, state: State):
    """Fresh messages of any program, computed side by side."""
    count = step.program.messages_per_update
    who, draws = jax.tree.map(
        lambda column: jax.lax.dynamic_slice_in_dim(column, u * count, count),
        (step.chunk.worker, step.draws),
    )

    def one(worker_state, drawn):
        return send(step, state, state.params, worker_state, state.loss_scale, drawn)

    sent = jax.vmap(one)(jax.tree.map(lambda leaf: leaf[who], state.worker), draws)
    mean = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), sent.message)
    finite = None if sent.finite is None else jnp.all(sent.finite)
    workers = jax.tree.map(lambda old, new: old.at[who].set(new), state.worker, sent.worker)
    state = state._replace(worker=workers)
    extra = {"staleness": step.chunk.staleness[u]}
    return _finish(step, state, sent, mean, finite, count, extra)


def _finish(step: Step, state: State, sent: Sent, mean, finite, count, extra):
    """Messages at one version agree on finiteness, so they share one loss scale."""
    state = _apply(step, state, mean, finite, **extra)
    fresh = {"distance": jnp.float32(0), "cosine": jnp.float32(1)}
    report = {name: fresh[name] for name in step.program.measures}
    report["loss"] = jnp.mean(sent.loss)
    if finite is not None:
        report["skipped"] = jnp.where(finite, 0, count).astype(jnp.int32)
        state = state._replace(loss_scale=state.loss_scale.adjust(finite))
    return state, report


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
    return Taken(stale, send(step, state, stale, worker, loss_scale, get_row(step.draws, m)))


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
    sent = send(step, state, state.params, (), loss_scale, get_row(step.draws, u))
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
    senders, message, finite, report = _receive(step, state, u, taken, _senders(state))
    state = _apply(
        step,
        state._replace(**senders._asdict()),
        message,
        finite,
        staleness=step.chunk.staleness[u],
        stale_params=taken.stale,
        worker=step.chunk.worker[u],
    )
    if finite is not None:
        report["skipped"] = (~finite).astype(jnp.int32)
    return state, report


class _Total(NamedTuple):
    """What the messages of one update add up to.

    Attributes:
      value: the weighted sum of the messages, or the `Table`.
      weight: the sum of the weights that counted.
      share: the sum of the shares in the mean loss that counted.
      report: the weighted sums of the loss and of the measures, and how many were skipped.
    """

    value: Any
    weight: jax.Array
    share: jax.Array
    report: dict[str, jax.Array]


def _walk_update(step: Step, u, state: State):
    """Messages are computed one after another and added to their mean, or to a table of rows."""
    program, chunk = step.program, step.chunk
    state = store_current(step, u, state)

    def add(m, carry):
        senders, total = carry
        taken = take(step, state, m, senders)
        senders, message, finite, report = _receive(step, state, m, taken, senders)
        return senders, _add(step, m, total, message, finite, report)

    carry = _senders(state), _start_total(program, state)
    senders, total = jax.lax.fori_loop(chunk.start[u], chunk.start[u + 1], add, carry)
    state, mean, valid = state._replace(**senders._asdict()), total.value, total.weight > 0
    if program.has_table:
        state = state._replace(table=total.value)
        mean, valid = mix_rows(total.value, chunk.row_weight[u], program.rows_are_means)
    elif program.guard:
        mean = jax.tree.map(lambda leaf: leaf / total.weight.astype(leaf.dtype), mean)
    valid = valid if program.guard else None
    state = _apply(step, state, mean, valid, staleness=chunk.staleness[u])
    skipped = {name: total.report.pop(name) for name in ("skipped",) if program.guard}
    return state, {name: value / total.share for name, value in total.report.items()} | skipped


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


def _receive(step: Step, state: State, m, taken: Taken, senders: _Senders):
    """The server receives message m, and its worker's states advance.

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
            staleness=chunk.message_staleness[m],
            stale_params=stale,
            worker=who,
        )
    check_message("receive", message, state.params)
    if program.has_refused:  # the server never saw it: only the worker's own state advances
        receive = select_tree(chunk.weight[m] > 0, receive, senders.receive)
    scales = senders.loss_scale
    if sent.finite is not None:
        receive = select_tree(sent.finite, receive, senders.receive)
        scales = set_row(scales, who, loss_scale.adjust(sent.finite))
    senders = _Senders(set_row(senders.worker, who, sent.worker), scales, receive)
    return senders, message, sent.finite, measure(step, state, m, stale, sent, loss_scale)


def _start_total(program: Program, state: State) -> _Total:
    report = {name: jnp.float32(0) for name in ("loss", *program.measures)}
    if program.guard:
        report["skipped"] = jnp.int32(0)
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    value = state.table if program.has_table else zeros
    return _Total(value, jnp.float32(0), jnp.float32(0), report)


def _add(step: Step, m, total: _Total, message, finite, report) -> _Total:
    """Message m is added to the sum, or to its worker's row; one that is not finite is left out."""
    program, chunk = step.program, step.chunk
    weight, share = chunk.weight[m], chunk.share[m]
    counts = weight > 0
    if finite is not None:
        skipped = total.report["skipped"] + (counts & ~finite).astype(jnp.int32)
        weight, share = (jnp.where(finite, x, 0.0) for x in (weight, share))
        counts = counts & finite
    report = {
        name: total.report[name] + share * jnp.where(counts, value, 0.0)
        for name, value in report.items()
    }
    if finite is not None:
        report["skipped"] = skipped
    if program.has_table:
        value = add_to_row(total.value, chunk.worker[m], chunk.keep[m], weight, message)
    else:
        value = scaled_sum(None, total.value, weight, message)
    return _Total(value, total.weight + weight, total.share + share, report)


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
