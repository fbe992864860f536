"""Transforms that weigh a message by its staleness τ, the updates applied since it was read.

Each is one factor c(τ) ∈ [0, 1] on the whole message with c(0) = 1 exactly, so a fresh message
passes bit for bit. `update` takes the keyword-only `staleness`: an int32 scalar where the transform
receives messages one by one, the float32 mean over an update's messages inside a rule.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sgdlab.rules.arguments import transform
from sgdlab.rules.extras import as_float, require, scale


@transform
def scale_by_staleness(
    power: float | jax.Array = 1.0,
) -> optax.GradientTransformationExtraArgs:
    """Polynomial decay: g·(1+τ)^(−a).

    Args:
      power: a ≥ 0.

    Returns:
      A transform without state.

    Raises:
      ValueError: in `update`, where no `staleness` is given.

    Reference:
      The polynomial weight of Xie, Koyejo and Gupta, "Asynchronous federated optimization", 2019
      (FedAsync), as in Xie's code (`async_fl`), on a gradient; FedAsync itself mixes models with
      it, as `mix_models` does.
    """
    return _weigh("scale_by_staleness", lambda tau: (1.0 + tau) ** -power)


@transform
def divide_by_staleness() -> optax.GradientTransformationExtraArgs:
    """Learning rate over staleness: g/max(τ, 1), so that τ = 0 and τ = 1 have full weight.

    Returns:
      A transform without state.

    Raises:
      ValueError: in `update`, where no `staleness` is given.

    Reference:
      Zhang, Gupta, Lian and Liu, "Staleness-aware async-SGD for distributed deep learning", 2016,
      whose rate is α₀/τ for each gradient, τ counted from 0; that a fresh one is divided by 1 was
      read in ElasticDL's parameter server, which cites it.
    """
    return _weigh("divide_by_staleness", lambda tau: 1.0 / jnp.maximum(tau, 1.0))


@transform
def hinge_staleness(
    a: float | jax.Array = 10.0, b: float | jax.Array = 4.0
) -> optax.GradientTransformationExtraArgs:
    """Full weight up to a bound, hyperbolic decay above it: 1 if τ ≤ b, else 1/(a(τ−b)+1).

    Args:
      a: how fast the weight falls above b, a ≥ 0, per unit of staleness.
      b: the largest staleness of full weight, b ≥ 0.

    Returns:
      A transform without state.

    Raises:
      ValueError: in `update`, where no `staleness` is given.

    Reference:
      The hinge weight of Xie, Koyejo and Gupta, "Asynchronous federated optimization", 2019
      (FedAsync), as in Xie's code (`async_fl`), on a gradient; behind `mix_models(power=0)` it is
      FedAsync's own.
    """
    return _weigh(
        "hinge_staleness",
        lambda tau: 1.0 / (a * jnp.maximum(tau - b, 0.0) + 1.0),
    )


@transform
def clip_by_delay(
    concurrency: float | jax.Array, drop: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Learning rate capped in proportion to 1/τ: g·min(1, τ_c/τ), and g at τ = 0.

    Args:
      concurrency: τ_c > 0, the mean number of busy workers (N where all are always busy).
      drop: weight 0 above τ_c in place of τ_c/τ.

    Returns:
      A transform without state.

    Raises:
      ValueError: in `update`, where no `staleness` is given.

    Reference:
      Koloskova, Stich and Jaggi, "Sharper convergence guarantees for asynchronous SGD for
      distributed and federated learning", 2022 (delay-adaptive step, and dropping); Mishchenko,
      Bach, Even and Woodworth, "Asynchronous SGD beats minibatch SGD under arbitrary delays", 2022
      (delay-adaptive step). Of both the abstracts alone were found; whole up to a threshold and
      in proportion to 1/τ above it is how FADAS (Wang et al., 2024) describes the step it takes
      from them.
    """
    if drop:
        return _drop_above("clip_by_delay", concurrency)
    # c/c is 1 exactly, so nothing changes up to τ = τ_c.
    return _weigh("clip_by_delay", lambda tau: concurrency / jnp.maximum(tau, concurrency))


@transform
def drop_stale(bound: float | jax.Array) -> optax.GradientTransformationExtraArgs:
    """Weight 0 above a bound: g if τ ≤ bound, else 0.

    A dropped message becomes zero whatever it held (NaN included) and still counts in the mean of
    its update.

    Args:
      bound: the largest staleness that passes, ≥ 0.

    Returns:
      A transform without state.

    Raises:
      ValueError: in `update`, where no `staleness` is given.

    Reference:
      Ho et al., "More effective distributed ML via a stale synchronous parallel parameter server",
      2013, bounds the staleness by waiting; Koloskova, Stich and Jaggi, 2022, by dropping.
    """
    return _drop_above("drop_stale", bound)


class WorkerDelayState(NamedTuple):
    """What the server remembers of each worker: `[N]` int32 messages, `[N]` float32 mean τ."""

    messages: jax.Array
    mean_staleness: jax.Array


@transform
def scale_by_worker_delay(
    num_workers: int, power: float | jax.Array = 1.0
) -> optax.GradientTransformationExtraArgs:
    """Polynomial decay in a worker's usual staleness: g·(1+mᵢ)^(−a). Ours, of no paper.

    mᵢ is the mean staleness of the messages of worker i so far, this one included: a slow worker
    gets a steady small weight where `scale_by_staleness` gives each message its own.

    Args:
      num_workers: N, which fixes the state's shape.
      power: a ≥ 0.

    Returns:
      A transform whose state is a `WorkerDelayState`.

    Raises:
      ValueError: in `update`, where no `staleness` or no `worker` is given.
    """

    def init(params):
        del params
        return WorkerDelayState(
            jnp.zeros(num_workers, jnp.int32), jnp.zeros(num_workers, jnp.float32)
        )

    def update(updates, state, params=None, *, staleness=None, worker=None, **extra_args):
        del params, extra_args
        staleness = as_float(require("scale_by_worker_delay", "staleness", staleness))
        worker = require("scale_by_worker_delay", "worker", worker)
        messages = state.messages.at[worker].add(1)
        mean = state.mean_staleness[worker]
        mean = mean + (staleness - mean) / messages[worker].astype(jnp.float32)
        updates = scale(updates, (1.0 + mean) ** -power)
        return updates, WorkerDelayState(messages, state.mean_staleness.at[worker].set(mean))

    return optax.GradientTransformationExtraArgs(init, update)


def _weigh(
    name: str, weight: Callable[[jax.Array], jax.Array]
) -> optax.GradientTransformationExtraArgs:
    """A stateless transform that multiplies a message by weight(τ), τ as float32."""

    def update(updates, state, params=None, *, staleness=None, **extra_args):
        del params, extra_args
        return scale(updates, weight(as_float(require(name, "staleness", staleness)))), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def _drop_above(name: str, bound: float | jax.Array) -> optax.GradientTransformationExtraArgs:
    def update(updates, state, params=None, *, staleness=None, **extra_args):
        del params, extra_args
        keep = as_float(require(name, "staleness", staleness)) <= as_float(bound)
        return jax.tree.map(lambda g: jnp.where(keep, g, jnp.zeros_like(g)), updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)
