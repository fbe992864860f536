"""Running the members of a sweep: one a core on a CPU, side by side under `vmap` elsewhere.

On a CPU each member is a host thread that calls the same compiled program with its own data, so a
member is its own single run, bit for bit, and the cores are kept busy: XLA runs outside Python's
lock. `vmap` gains nothing there.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp

from sgdlab.files import count_cores, return_memory
from sgdlab.timelines import Timeline
from sgdlab.timelines.plan import Plan
from sgdlab.training.batches import draw
from sgdlab.training.checkpoints.fingerprint import describe_form, describe_replay
from sgdlab.training.checkpoints.resuming import CheckpointPlan, Keeper
from sgdlab.training.chunks import Capacity, bounds, cut, cut_lead, find_capacity
from sgdlab.training.devices.collectives import Average
from sgdlab.training.devices.mesh import must_wait
from sgdlab.training.devices.sharding import init_sharded
from sgdlab.training.history import Histories, History
from sgdlab.training.loop import init_params, init_state, run_chunk
from sgdlab.training.nans import FoundNanError, are_looked_for, step_finding_nans
from sgdlab.training.program import Chunk, Data, Member, Program
from sgdlab.training.records import ChunkReport, Records, Watch, check_stop, unstack

_PROGRAMS = 16  # that a process holds: each has some 90 memory mappings and 12 MB


@dataclass(frozen=True)
class Run:
    """One member to be run: its place in the sweep, its timeline and plan, and its data."""

    index: int
    timeline: Timeline
    plan: Plan
    point: dict[str, Any]
    member: Member


@dataclass(frozen=True)
class _Job:
    """What all batches of members share."""

    program: Program
    data: Data
    loss_scale: Any
    every: int
    evaluate_every: int | None
    watch: Watch
    capacity: Capacity
    compiling: threading.Lock
    cancelled: threading.Event
    checkpoint: CheckpointPlan | None
    description: dict[str, Any]
    resume: bool
    interrupted: Callable[[], bool]


def run_members(
    program: Program,
    runs: Sequence[Run],
    data: Data,
    loss_scale: Any,
    every: int,
    evaluate_every: int | None,
    stop: Mapping[str, Any] | None,
    callback: Callable[[ChunkReport], None] | None,
    members: str | None,
    checkpoint: CheckpointPlan | None,
    resume: bool,
    interrupted: Callable[[], bool],
) -> Histories:
    """Run every member of a program and collect the histories in order."""
    let_programs_go()
    check_stop(stop)
    alone = program.average is not None
    members = choose_members(members, program.average)
    waves = program.form == "waves"
    capacity = find_capacity([run.plan for run in runs], every, evaluate_every, waves=waves)
    job = _Job(
        program=program,
        data=data,
        loss_scale=loss_scale,
        every=every,
        evaluate_every=evaluate_every,
        watch=Watch(
            program.guard,
            _paths(program),
            _advise(program),
            program.task.directions,
            stop,
            callback,
        ),
        capacity=capacity,
        compiling=threading.Lock(),
        cancelled=threading.Event(),
        checkpoint=checkpoint,
        description=describe_replay(program, data, loss_scale, stop) if checkpoint else {},
        resume=resume,
        interrupted=interrupted,
    )
    if members == "vmap":
        by_timeline = groupby(runs, key=lambda run: run.point["timeline"])
        batches = [list(batch) for _, batch in by_timeline]
        return Histories([history for batch in batches for history in _run_batch(job, batch)])
    threads = 1 if alone else min(len(runs), count_cores())
    if threads == 1:
        return Histories([history for run in runs for history in _run_batch(job, [run])])
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(_run_batch, job, [run]) for run in runs]
        try:
            return Histories([history for future in futures for history in future.result()])
        except BaseException:
            job.cancelled.set()
            pool.shutdown(cancel_futures=True)
            raise


def choose_members(members: str | None, average: Average | None) -> str:
    """Whether members run one by one, "threads", or side by side, "vmap"; checks what was asked."""
    if members not in (None, "threads", "vmap"):
        raise ValueError(f'members: {members!r} is unknown; allowed: "threads", "vmap"')
    # On a mesh members would meet in each other's collectives.
    one_by_one = average is not None or jax.default_backend() == "cpu"
    return members or ("threads" if one_by_one else "vmap")


def let_programs_go() -> None:
    """Forget what was compiled where that is more than `_PROGRAMS`; JAX itself forgets nothing.

    A process has 65,530 mappings (`vm.max_map_count`), which some 700 programs use up. What is
    wanted again is compiled again, or read from the cache on disk; so are others' functions.
    """
    begun: tuple[Any, ...] = (_init_state, _init_many)  # one of them for each program
    if sum(each._cache_size() for each in begun) >= _PROGRAMS:
        jax.clear_caches()
        gc.collect()  # what it held goes round in circles
        return_memory()


def _run_batch(job: _Job, runs: Sequence[Run]) -> list[History]:
    """Advance members of one timeline together, chunk by chunk.

    A chunk is dispatched before the last one's results are fetched, so the device never waits for
    the host, except where a result decides whether there is a next chunk.
    """
    records = Records(runs, job.watch)
    timeline, plan = runs[0].timeline, runs[0].plan
    init, advance = (_init, _advance) if len(runs) == 1 else (_init_many, _advance_many)
    member = runs[0].member if len(runs) == 1 else _stack([run.member for run in runs])
    with job.compiling:
        state, metrics = init(job.program, member, job.data, job.loss_scale)
    keeper, made = _make_keeper(job, runs), 0
    if keeper is not None and not job.resume:
        keeper.start()
    elif keeper is not None:
        chunk = next(cut(timeline, plan, job.every, job.capacity, job.evaluate_every))
        with jax.debug_nans(False):  # shapes hold none
            _, shapes = jax.eval_shape(
                partial(advance, job.program), state, chunk, member, job.data
            )
        places = jax.tree.map(lambda leaf: leaf.sharding, state)
        made, state = keeper.restore(state, records.each, list(metrics), shapes.updates)
        state = jax.device_put(state, places)
    if not made:
        records.report(0, None, unstack(metrics, len(runs)))
    pending, first_call = None, job.compiling

    def collect(last: int, chunk: Chunk, outputs: Any, error: str | None = None) -> None:
        if keeper is not None:
            keeper.expect(last)
        records.collect(last, chunk, outputs, error=error)

    for last, chunk in _cut(job, timeline, plan, made):
        if job.cancelled.is_set() or records.done:
            break
        if job.interrupted():
            raise KeyboardInterrupt
        nan = None
        with first_call:
            try:
                state, outputs = advance(job.program, state, chunk, member, job.data)
            except FoundNanError as error:
                state, outputs, nan = error.state, error.outputs, error
        first_call = nullcontext()
        if job.program.average is not None and must_wait(job.program.average.mesh):
            jax.block_until_ready(outputs)
        if not chunk.num_updates and nan is None:
            continue
        if pending is not None:
            collect(*pending)
        pending, made = (last, chunk, outputs), last
        if nan is not None:
            collect(*pending, error=f"before update {last}: {nan}")
            pending = None
            break
        due = keeper is not None and keeper.is_due(last, job.evaluate_every or job.every)
        if job.watch.stop is not None or due:
            collect(*pending)
            records.keep_ends(state)
            pending = None
        if keeper is not None and due:
            keeper.save(made, state, records.each)
            keeper.end_if_asked()
    if pending is not None:
        collect(*pending)
    records.keep_ends(state, final=True)
    if keeper is not None:
        keeper.save(made, state, records.each)
    return [record.to_history() for record in records.each]


def _cut(job: _Job, timeline: Timeline, plan: Plan, made: int) -> Iterator[tuple[int, Chunk]]:
    """The chunks after so many updates, each with the update that it ends at."""
    if not made:
        yield from ((0, chunk) for chunk in cut_lead(timeline, plan, job.capacity))
    ends = [last for _, last in bounds(plan.num_updates, job.every, job.evaluate_every, made)]
    chunks = cut(timeline, plan, job.every, job.capacity, job.evaluate_every, made)
    yield from zip(ends, chunks, strict=True)


def _make_keeper(job: _Job, runs: Sequence[Run]) -> Keeper | None:
    """What saves and restores these members, if anything does."""
    if job.checkpoint is None:
        return None
    first, members = runs[0], {run.index: run.point for run in runs}
    form = describe_form(job.program)
    what = job.checkpoint, job.description, members, first.timeline, first.plan, form
    return Keeper(*what, job.evaluate_every)


def _paths(program: Program) -> tuple[str, ...]:
    """The name of each parameter, as in `dense/kernel`."""
    params = jax.eval_shape(program.task.init, jax.random.key(0))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return tuple(
        jax.tree_util.keystr(path, simple=True, separator="/") or "parameters" for path, _ in leaves
    )


def _advise(program: Program) -> str:
    """What may help where a value is not finite after some updates."""
    params = jax.eval_shape(program.task.init, jax.random.key(0))
    kept = jax.tree.leaves(jax.eval_shape(program.policy.cast_to_param, params))
    if all(leaf.dtype != jnp.float16 for leaf in kept):
        return "try a smaller learning rate"
    return (
        "in float16, as parameters and the rule's state are, a squared gradient or eps below 6e-8 "
        "is 0; try policy mixed_float16, eps 1e-4 or more, or a smaller learning rate"
    )


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


_init_params = jax.jit(init_params, static_argnums=(0, 1))  # shared by all rules and protocols


def _init_params_spread(program: Program, average: Average, key: jax.Array):
    """Each part drawn by the device that holds it."""
    init = partial(init_params, program.task, program.policy)
    return init_sharded(init, key, average.mesh, program.task.logical_axes)


_init_state = jax.jit(init_state, static_argnums=0)
_step = jax.jit(run_chunk, static_argnums=0, donate_argnums=1)


def _init(program: Program, member: Member, data: Data, loss_scale: Any):
    if program.average is None:
        params = _init_params(program.task, program.policy, member.key)
    else:
        params = _init_params_spread(program, program.average, member.key)
    # Where they don't fit this says so; what is computed from an array that failed may never come.
    jax.block_until_ready(params)
    return jax.block_until_ready(_init_state(program, params, member, data, loss_scale))


@partial(jax.jit, static_argnums=0)
def _init_many(program: Program, member: Member, data: Data, loss_scale: Any):
    return jax.vmap(lambda one: _init(program, one, data, loss_scale))(member)


def _advance(program: Program, state: Any, chunk: Any, member: Member, data: Data):
    shape = (program.worker.gradients_per_message, program.batch_size)
    draws = draw(
        member.key,
        data.shards,
        *chunk.computed,
        shape=shape,
        with_keys=program.needs_key,
    )
    step = step_finding_nans if are_looked_for(program) else _step
    return step(program, state, chunk, draws, member, data)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _advance_many(program: Program, state: Any, chunk: Any, member: Member, data: Data):
    with jax.debug_nans(False):  # members side by side are checked by JAX, as a whole
        return jax.vmap(lambda one, of: _advance(program, one, chunk, of, data))(state, member)
