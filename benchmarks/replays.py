"""Our own contestants: the compiled loop alone, and `replay` from end to end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from benchmarks.contest import Run
from benchmarks.problems import Problem
from benchmarks.running import from_losses
from sgdlab import rules
from sgdlab.timelines import Timeline
from sgdlab.training import members, replay


@dataclass(frozen=True)
class Step:
    """A replay's compiled program and what it was first called with.

    Attributes:
      program: its static description.
      state: the state at version 0, which `step` consumes.
      inputs: the rest: a chunk, its draws, the member and the data.
      step: the jitted function, `step(program, state, *inputs) -> (state, outputs)`.
    """

    program: Any
    state: Any
    inputs: tuple
    step: Callable

    @property
    def num_updates(self) -> int:
        """Updates in the chunk."""
        return next(int(each.num_updates) for each in self.inputs if hasattr(each, "num_updates"))

    def compile(self):
        """The compiled program, for its text and its memory."""
        return self.step.lower(self.program, self.state, *self.inputs).compile()


class _CaughtError(Exception):
    """The step has been seen; the replay need not go on."""


def catch_step(start: Callable[[], Any], skip: int = 0) -> Step:
    """Let a replay begin, and take a chunk out of its hands.

    Args:
      start: begins the replay.
      skip: so many chunks are made first, such as those in which all workers still hold version 0.

    Returns:
      The chunk's step. It does not evaluate: a floor doesn't either.
    """
    real, seen = members._step, []

    def catch(program, state, *inputs):
        if not any(getattr(each, "num_updates", 0) for each in inputs):
            return real(program, state, *inputs)  # before update 0
        seen.append((program, state, inputs))
        if len(seen) > skip:
            raise _CaughtError
        return real(program, state, *inputs)

    members._step = catch
    try:
        start()
    except _CaughtError:
        pass
    finally:
        members._step = real
    program, state, inputs = seen[-1]
    inputs = tuple(
        each._replace(evaluate=np.bool_(False)) if hasattr(each, "evaluate") else each
        for each in inputs
    )
    return Step(program, state, jax.tree.map(jax.numpy.asarray, inputs), real)


def arguments(problem: Problem, **options) -> tuple[tuple, dict[str, Any]]:
    """The arguments of `replay` that solve a problem by momentum."""
    rule = options.pop("rule", None) or rules.momentum(problem.learning_rate, problem.decay)
    timeline = options.pop("timeline", problem.timeline)
    return (problem.task, rule, timeline), {"batch_size": problem.batch_size, **options}


def loop(problem: Problem, *, skip: int = 0, **options) -> Run:
    """The compiled loop alone: one chunk of prepared arrays, again and again."""
    positional, named = arguments(problem, **options)
    caught = catch_step(lambda: replay(*positional, **named), skip)
    state, count = [jax.tree.map(jax.numpy.copy, caught.state)], caught.num_updates

    def work() -> int:
        state[0], outputs = caught.step(caught.program, state[0], *caught.inputs)
        jax.block_until_ready(outputs)
        return count

    return Run(work, lambda: replay(*positional, **named).loss)


def end_to_end(
    problem: Problem, make_timeline: Callable[[], Timeline] | None = None, **options
) -> Run:
    """All of `replay`, warm: plan, minibatches, loop, history; and the timeline where asked."""

    (task, rule, timeline), named = arguments(problem, **options)  # a new rule would compile anew

    def losses() -> np.ndarray:
        drawn = timeline if make_timeline is None else make_timeline()
        return replay(task, rule, drawn, **named).loss

    return from_losses(losses)
