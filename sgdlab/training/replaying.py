"""`replay` and `replay_many`: the host's side of a run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from sgdlab.precision import DynamicLossScale, NoOpLossScale, get_policy
from sgdlab.tasks import Task
from sgdlab.tasks.rows import count_rows
from sgdlab.timelines import Timeline
from sgdlab.timelines.early import go_early
from sgdlab.timelines.plan import needs_table, plan
from sgdlab.training.arguments import (
    check_make_rule,
    check_parts,
    check_rule,
    check_task,
    read_axes,
    read_count,
    read_measures,
    read_seed,
    read_seeds,
    read_timelines,
)
from sgdlab.training.batches import make_shards
from sgdlab.training.checkpoints.resuming import CheckpointPlan, went_early
from sgdlab.training.chunks import choose_length
from sgdlab.training.devices.collectives import (
    Average,
    Collective,
    Reduction,
    check_microbatch_rows,
)
from sgdlab.training.devices.mesh import make_mesh, replicated
from sgdlab.training.devices.sharding import shard_params
from sgdlab.training.forms import can_go_early, choose_form, common, find_traits, pays_early
from sgdlab.training.history import Histories, History, NumericalError
from sgdlab.training.interrupts import interruptible
from sgdlab.training.members import ChunkReport, Run, choose_members, run_members
from sgdlab.training.program import Data, FixedRule, Member, Program
from sgdlab.training.receiving import Receive, check_receive
from sgdlab.workers import WorkerProgram, gradient

__all__ = ["ChunkReport", "replay", "replay_many"]

CANONICAL = 8  # microbatches, where nothing is said
_IDENTITY = optax.identity()  # one object, since equal programs share a compile


def replay(
    task: Task,
    rule: optax.GradientTransformation,
    timeline: Timeline,
    *,
    seed: int = 0,
    **options: Any,
) -> History:
    """Do the arithmetic of a timeline: one run of SGD with the staleness that it says.

    Update u takes the messages m that the timeline gives it, each computed by its worker at the
    version it had read, and applies the rule to their mean:

        w_{u+1} = w_u + rule(mean_m receive(message_m(w_{read(m)})))

    Args:
      task: what is learned.
      rule: an optax transform (its learning rate inside), which sees the mean.
      timeline: who read which version, and which update applied it.
      seed: an int in [0, 2³²): initial parameters, minibatches and noise follow from it.
      **options: as for `replay_many`.

    Returns:
      The `History`.

    Raises:
      NumericalError: a loss or parameter is not finite, under `on_nonfinite="stop"`; its
        `history` holds what was computed.
      ValueError, TimelineError: as for `replay_many`.
    """
    check_rule(rule)
    history = replay_many(task, FixedRule(rule), timeline, seeds=[read_seed(seed)], **options)[0]
    if history.error:
        raise NumericalError(history.error, history)
    return history


def replay_many(
    task: Task,
    make_rule: Callable[..., optax.GradientTransformation],
    timeline: Timeline | Sequence[Timeline],
    *,
    seeds: Sequence[int],
    hyperparameters: Mapping[str, Sequence[float]] | None = None,
    worker: WorkerProgram | None = None,
    receive: Receive | None = None,
    batch_size: int = 32,
    partition: Sequence[Any] | np.ndarray | None = None,
    precision: Any = "float32",
    loss_scale: Any = None,
    on_nonfinite: str | None = None,
    evaluate_every: int | None = None,
    stop: Mapping[str, Any] | None = None,
    measures: Sequence[str] = (),
    record: Callable[[Any], dict[str, jax.Array]] | None = None,
    callback: Callable[[ChunkReport], None] | None = None,
    members: str | None = None,
    width: int = 1,
    mesh: Mesh | None = None,
    collective: Collective = "jit",
    reduction: Reduction = "fast",
    microbatches: int | None = None,
    checkpoint: CheckpointPlan | None = None,
    resume: bool = False,
) -> Histories:
    """Replay every combination of timelines, hyperparameters and seeds as one program.

    On a CPU the members run one by one on as many cores as there are, each exactly as it would run
    alone: the same compiled program, so the same bits. On an accelerator they run under `vmap`.
    `replay` of a rule from `sgdlab.rules` has the bits of the member with the same numbers. Of an
    optax rule it has them where only the learning rate is mapped: from a Python number optax
    computes a factor like 1 − γ in float64, from a mapped one in float32.

    Args:
      task: what is learned.
      make_rule: `make_rule(**hyperparameters) -> rule`, called inside the trace with float32
        scalars. Pass the same function again and nothing is compiled again.
      timeline: one timeline, or several (draws of the same cluster's clocks).
      seeds: ints in [0, 2³²).
      hyperparameters: argument of `make_rule` to the values to try.
      worker: what a worker sends; by default `workers.gradient()`.
      receive: a transform that each message passes with its own staleness, or a function that
        makes one, `receive(**hyperparameters)`, as `make_rule` is; by default none.
      batch_size: rows of a minibatch.
      partition: one array of row numbers for each worker, or `None`: all sample all rows.
      precision: a policy, or its name or string.
      loss_scale: a loss scale from `sgdlab.precision`; by default none.
      on_nonfinite: "stop" ends a run at the first chunk with a value that is not finite; "skip"
        leaves each non-finite message out of its mean. By default "skip" under a dynamic loss scale
        and "stop" otherwise.
      evaluate_every: held-out metrics every so many updates; by default only at both ends.
      stop: `{"metric": name, "at_least": value}` or `at_most`: a run ends once it gets there.
      measures: of "distance" and "cosine"; see `History.measures`. A cosine costs a second message.
      record: `record(params) -> dict` of arrays to keep for every version; see `History.records`.
      callback: called with a `ChunkReport` as chunks come in.
      members: "threads" or "vmap"; by default threads on a CPU and `vmap` elsewhere.
      width: where every update has one message, so many independent gradients are computed side by
        side at the most (`Plan.wave`). It changes a result by rounding alone, costs their memory,
        and slows a CPU down; an accelerator that a single small gradient leaves idle may gain.
      mesh: from `make_mesh`: each minibatch is spread over `data` and `fsdp`, and parameters, the
        rule's state and the stale versions over `fsdp` and `tensor`. By default one device.
      collective: "jit", "shard_map" or "pmap": how the mean over devices is taken.
      reduction: "fast", or "canonical" for the same bits on any number of devices.
      microbatches: K, in how many parts a gradient is computed, one after another. By default 1;
        a canonical gradient has 8 over all devices.
      checkpoint: where and how often the state is saved; by default never.
      resume: go on from the newest sound checkpoint, or begin where there is none yet. What the
        callback had been told before that checkpoint it is not told again.

    Returns:
      `Histories` in the order product(timelines, hyperparameters, seeds). A member that stopped at
      a non-finite value says so in `error`; the others go on.

    Raises:
      ValueError: an argument is outside what is allowed, in one line.
      TimelineError: the timeline can't be replayed.
      CheckpointError: a checkpoint cannot be written, or none is sound; `ResumeError`: it belongs
        to another run.
      RunInterrupted: `checkpoint.interrupt` asked for it; all is saved.
      KeyboardInterrupt: Ctrl-C; none is lost.
    """
    if resume and checkpoint is None:
        raise ValueError("resume: there is no checkpoint plan; one is needed")
    with interruptible() as interrupted:
        prepared = prepare(
            task,
            make_rule,
            timeline,
            seeds=seeds,
            hyperparameters=hyperparameters,
            worker=worker,
            receive=receive,
            batch_size=batch_size,
            partition=partition,
            precision=precision,
            loss_scale=loss_scale,
            on_nonfinite=on_nonfinite,
            evaluate_every=evaluate_every,
            measures=measures,
            record=record,
            members=members,
            width=width,
            mesh=mesh,
            collective=collective,
            reduction=reduction,
            microbatches=microbatches,
            early=_went_early(timeline, checkpoint if resume else None),
        )
        return run_members(
            prepared.program,
            prepared.runs,
            prepared.data,
            prepared.loss_scale,
            prepared.every,
            evaluate_every,
            stop,
            callback,
            members,
            checkpoint,
            resume,
            interrupted,
        )


def _went_early(
    timeline: Timeline | Sequence[Timeline], checkpoint: CheckpointPlan | None
) -> bool | None:
    if checkpoint is None:
        return None
    return went_early(checkpoint, [each.num_updates for each in read_timelines(timeline)])


class Prepared(NamedTuple):
    """A replay before it runs: what is compiled, the members, the data, the first loss scale.

    `every` is how many updates a chunk has.
    """

    program: Program
    runs: list[Run]
    data: Data
    loss_scale: Any
    every: int


def prepare(
    task: Task,
    make_rule: Callable[..., optax.GradientTransformation],
    timeline: Timeline | Sequence[Timeline],
    *,
    seeds: Sequence[int],
    hyperparameters: Mapping[str, Sequence[float]] | None = None,
    worker: WorkerProgram | None = None,
    receive: Receive | None = None,
    batch_size: int = 32,
    partition: Sequence[Any] | np.ndarray | None = None,
    precision: Any = "float32",
    loss_scale: Any = None,
    on_nonfinite: str | None = None,
    evaluate_every: int | None = None,
    measures: Sequence[str] = (),
    record: Callable[[Any], dict[str, jax.Array]] | None = None,
    members: str | None = None,
    width: int = 1,
    mesh: Mesh | None = None,
    collective: Collective = "jit",
    reduction: Reduction = "fast",
    microbatches: int | None = None,
    early: bool | None = None,
) -> Prepared:
    """Check the arguments of `replay_many`, which see, and choose the program.

    Args:
      early: whether messages are computed early where they can be; by default where that pays.

    Returns:
      What `replay_many` runs, for it and for `sgdlab.training.inspecting`.
    """
    worker = gradient() if worker is None else worker
    timelines, seeds = read_timelines(timeline), read_seeds(seeds)
    check_task(task)
    check_make_rule(make_rule)
    check_parts(worker, receive, loss_scale, mesh)
    axes = read_axes(hyperparameters, make_rule)
    batch_size, width = read_count("batch_size", batch_size), read_count("width", width)
    evaluate_every = read_count("evaluate_every", evaluate_every, optional=True)
    microbatches = read_count("microbatches", microbatches, optional=True)
    policy, scale = get_policy(precision), NoOpLossScale() if loss_scale is None else loss_scale
    guard = _guards(on_nonfinite, scale)
    _check(timelines, worker)
    average = _average(task, mesh, collective, reduction, microbatches or CANONICAL)
    microbatches = 1 if reduction == "canonical" else microbatches or 1
    traits = find_traits(task, make_rule, tuple(axes), worker, receive or _IDENTITY, policy)
    if "gradients" in traits.rule_reads | traits.receive_reads:
        _check_gradients(timelines)
    if receive is None or traits.receives_untouched:
        receive = _IDENTITY
    stateful = traits.has_worker_state or isinstance(scale, DynamicLossScale)
    if mesh is not None and width > 1:
        raise ValueError(f"width: {width} on a mesh; allowed: 1, its devices share each gradient")
    table = any(needs_table(each, leaves_out=guard) for each in timelines)
    plans = [plan(each, include_dropped=stateful, width=width, table=table) for each in timelines]
    points = _points(axes)
    check_receive(receive, make_rule, points, plans, traits.params)
    one_by_one = len(points) * len(seeds) == 1 or choose_members(members, average) == "threads"
    form = choose_form(task, worker, traits, stateful, one_by_one or not guard, timelines, plans)
    if form == "single" and not measures and can_go_early(traits, stateful, timelines):
        on_cpu = jax.default_backend() == "cpu"  # elsewhere a branch waits for the device
        if (on_cpu and pays_early(timelines)) if early is None else early:
            form, plans = "early", list(map(go_early, timelines, plans))
    program = Program(
        task=task,
        make_rule=make_rule,
        worker=worker,
        receive=receive,
        policy=policy,
        guard=guard,
        form=form,
        num_workers=timelines[0].num_workers,
        num_slots=max(each.num_slots for each in plans),
        compact_slots=worker == gradient()
        and receive is _IDENTITY
        and not measures
        and "stale_params" not in traits.rule_reads,
        has_table=table,
        has_refused=any(bool(np.any(each.weight == 0)) for each in plans),
        messages_per_update=common([each.messages_per_update for each in plans]) or 0,
        batch_size=batch_size,
        measures=read_measures(measures),
        record=record,
        average=average,
        width=width if form == "waves" else 1,
        microbatches=microbatches,
    )
    rows = batch_size * (program.messages_per_update if form == "fused" else 1)
    if average is None:
        check_microbatch_rows(rows, microbatches)
    else:
        average.check_rows(rows, microbatches)
        shard_params(
            traits.params, average.mesh, task.logical_axes
        )  # a named axis must divide, too
    num_rows = count_rows(task.train)
    data = Data(
        jax.tree.map(np.asarray, task.train),
        jax.tree.map(np.asarray, task.test),
        make_shards(partition, num_rows, program.num_workers),
    )
    # Every process has the same rows, so each gives its own devices a copy.
    data = jax.device_put(data, None if mesh is None else replicated(mesh))
    runs = [
        Run(
            index,
            timelines[t],
            plans[t],
            {"seed": seed, "timeline": t, **point},
            _member(seed, point),
        )
        for index, (t, point, seed) in enumerate(
            itertools.product(range(len(timelines)), points, seeds)
        )
    ]
    messages = max(math.ceil(len(each.message) / each.num_updates) for each in plans)
    every = choose_length(
        sum(leaf.size for leaf in jax.tree.leaves(traits.params)),
        messages * worker.gradients_per_message * batch_size,
        evaluate_every,
    )
    return Prepared(program, runs, data, scale, every)


def _average(task: Task, mesh, collective, reduction, microbatches) -> Average | None:
    """How a gradient is averaged; canonical sums on one device are those of a mesh of one."""
    if mesh is None and reduction == "canonical":
        mesh = make_mesh(data=1, devices=jax.local_devices()[:1])
    if mesh is None:
        return None
    if task.needs_key and reduction == "fast" and collective != "jit":
        raise ValueError(
            f"collective: task {task.name!r} draws from its key, and {collective!r} would draw "
            'otherwise on each number of devices; allowed: collective="jit", which draws once for '
            'the whole batch, or reduction="canonical", which draws once a microbatch'
        )
    return Average(mesh, collective, reduction, microbatches)


def _points(axes: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    """The full product of the axes."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _member(seed: int, point: Mapping[str, float]) -> Member:
    values = {name: jnp.asarray(value, jnp.float32) for name, value in point.items()}
    return Member(jax.random.key(np.uint32(seed)), values)


def _guards(on_nonfinite: str | None, loss_scale: Any) -> bool:
    """Whether non-finite messages are left out."""
    dynamic = isinstance(loss_scale, DynamicLossScale)
    choice = on_nonfinite or ("skip" if dynamic else "stop")
    if choice not in ("stop", "skip"):
        raise ValueError(f'on_nonfinite: {on_nonfinite!r} is unknown; allowed: "stop", "skip"')
    if dynamic and choice == "stop":
        raise ValueError(
            'on_nonfinite: a dynamic loss scale finds its value by overflow; use "skip"'
        )
    return choice == "skip"


def _check(timelines, worker) -> None:
    for timeline in timelines:
        if timeline.num_updates == 0:
            raise ValueError("timeline: it has no update; lengthen its horizon")
        if timeline.gradients_per_message != worker.gradients_per_message:
            raise ValueError(
                f"timeline: its messages hold {timeline.gradients_per_message} gradients and the "
                f"worker program computes {worker.gradients_per_message}; make the cluster with "
                f"gradients_per_message={worker.gradients_per_message}"
            )
    if len({timeline.num_workers for timeline in timelines}) > 1:
        raise ValueError("timeline: all timelines of one call need the same number of workers")


def _check_gradients(timelines: Sequence[Timeline]) -> None:
    """A rule is told how many there were as an int32."""
    most = max(int(timeline.gradients_before[-1]) for timeline in timelines)
    if most >= 2**31:
        raise ValueError(
            f"rule: its schedule counts gradients, and there are {most}; allowed: below 2**31, or "
            "a schedule that counts seconds"
        )
