"""The compiled chunk itself: its text, its memory and its speed, without a run."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import optax

from sgdlab.tasks import Task
from sgdlab.timelines import Timeline
from sgdlab.training import members
from sgdlab.training.batches import draw
from sgdlab.training.chunks import cut, find_capacity
from sgdlab.training.program import Program, State
from sgdlab.training.replaying import prepare


class ChunkProgram:
    """The program of a replay's first chunk, for one seed.

    Attributes:
      program: what is compiled.
      num_updates: how many updates a call makes.
    """

    def __init__(
        self,
        task: Task,
        make_rule: Callable[..., optax.GradientTransformation],
        timeline: Timeline,
        *,
        seed: int = 0,
        **options: Any,
    ) -> None:
        """Args: as for `replay_many`, with one timeline and one seed."""
        prepared = prepare(task, make_rule, timeline, seeds=[seed], **options)
        program, (run, *_), data, loss_scale, every = prepared
        capacity = find_capacity([run.plan], every, None, waves=program.form == "waves")
        chunk = next(cut(timeline, run.plan, every, capacity, None))
        self.program: Program = program
        self.num_updates = int(chunk.num_updates)

        def start():
            state, _ = members._init(program, run.member, data, loss_scale)
            shape = (program.worker.gradients_per_message, program.batch_size)
            draws = draw(
                run.member.key,
                data.shards,
                *chunk.computed,
                shape=shape,
                with_keys=program.needs_key,
            )
            return state, draws

        self._start, self._others = start, (chunk, run.member, data)

    @functools.cached_property
    def lowered(self) -> Any:
        """The program as `jax.jit` lowers it; `as_text()` is StableHLO. Nothing is computed."""
        chunk, member, data = self._others
        state, draws = jax.eval_shape(self._start)
        return members._step.lower(self.program, state, chunk, draws, member, data)

    @functools.cached_property
    def compiled(self) -> Any:
        """The executable; `memory_analysis()` is XLA's own account of its bytes."""
        return self.lowered.compile()

    @functools.cached_property
    def _started(self) -> tuple[State, Any]:
        return self._start()

    @property
    def state(self) -> State:
        """Version 0 and what goes with it; after `run`, where the last call ended."""
        return self._started[0]

    def run(self) -> float:
        """Make the chunk's updates once more, from where the last call ended.

        Returns:
          Seconds until all of it was there.
        """
        compiled, (state, draws), (chunk, member, data) = self.compiled, self._started, self._others
        jax.block_until_ready((state, draws))
        start = time.perf_counter()
        state, outputs = compiled(state, chunk, draws, member, data)
        jax.block_until_ready((state, outputs))
        seconds = time.perf_counter() - start
        self._started = state, draws
        return seconds
