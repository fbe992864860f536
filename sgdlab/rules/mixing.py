"""Asynchronous federated averaging: the server mixes a worker's model into its own."""

from typing import NamedTuple

import jax
import optax

from sgdlab.rules.arguments import transform
from sgdlab.rules.extras import as_float, moved, require


class MixModelsState(NamedTuple):
    """Nothing; its type says that messages are models, which a rule must apply as they are."""


@transform
def mix_models(
    alpha: float | jax.Array = 0.6, power: float | jax.Array = 0.5
) -> optax.GradientTransformationExtraArgs:
    """A model in place of a step: w ← (1−α_τ)w + α_τ·w_new, α_τ = α(1+τ)^(−a).

    A message g = w_read − w_new (as `local_steps` sends it) becomes α_τ(w − w_read + g), which the
    rule `sgd(1.0)` subtracts. So what others have done since w_read is undone in part, where a
    step, `scale_by_staleness` for one, would be added to it. Another weight s(τ) than the
    polynomial goes behind: `[mix_models(alpha, power=0), hinge_staleness(a, b)]`.

    Args:
      alpha: α in (0, 1], the share of a fresh model.
      power: a ≥ 0; 0 is a constant share.

    Returns:
      A transform without arrays in its state. `replay` refuses it beside another rule than
      `sgd(1.0)`, or where an update has several messages.

    Raises:
      ValueError: in `update`, where no `staleness`, `stale_params` or `params` is given.

    Reference:
      Xie, Koyejo and Gupta, "Asynchronous federated optimization", 2019 (FedAsync and its
      polynomial weight), as in Xie's code (`async_fl`), where a fresh message counts 0, as here.
    """

    def init(params):
        del params
        return MixModelsState()

    def update(updates, state, params=None, *, staleness=None, stale_params=None, **extra_args):
        del extra_args
        gap = moved("mix_models", params, stale_params)
        tau = as_float(require("mix_models", "staleness", staleness))
        share = alpha * (1.0 + tau) ** -power
        mixed = jax.tree.map(lambda g, d: share.astype(g.dtype) * (d + g), updates, gap)
        return mixed, state

    return optax.GradientTransformationExtraArgs(init, update)
