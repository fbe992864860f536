"""Updates for bfloat16 parameters without float32 master weights: what rounds away is not lost.

A bfloat16 weight near 1 has neighbours 2⁻⁷ above and 2⁻⁸ below: an update smaller than half of
that is rounded away at every step, and training stalls. Either round at random, so that the
expected weight is right, or remember what was rounded away.

Both transforms wrap a rule. They return the update q − w in float32, where q is the bfloat16
value that the weight w shall take: w + (q − w) is q exactly whenever the exponents of w and q are
at most 16 apart. Only a weight that shrinks by more than 2¹⁶ at once misses q, by 2⁻²⁵|w|.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sgdlab.precision.trees import cast_floating


class StochasticRoundingState(NamedTuple):
    """State of `stochastic_rounding`.

    Attributes:
      rule: state of the rule inside, in float32.
      count: int32 scalar, updates made; the draws of update t come from `fold_in(key, t)`.
    """

    rule: Any
    count: jax.Array


class KahanState(NamedTuple):
    """State of `kahan`.

    Attributes:
      rule: state of the rule inside, in float32.
      compensation: like the parameters, bfloat16: what the last rounding took from each weight;
        `optax.MaskedNode()` for leaves of other dtypes.
    """

    rule: Any
    compensation: Any


def stochastic_rounding(
    rule: optax.GradientTransformation, key: int | jax.Array = 0
) -> optax.GradientTransformationExtraArgs:
    """Round updated bfloat16 weights to one of their two neighbours at random, without bias.

        q = the neighbour above w + u with probability (w + u − below)/(above − below),
            else the one below;  E[q] = w + u

    The rule sees parameters and gradients in float32, so its state is float32 too. Leaves of
    other dtypes than bfloat16 get the rule's update as it is.

    Args:
      rule: gives the update u.
      key: typed key, consumed, or an integer seed in [0, 2³²).

    Returns:
      A transform with `StochasticRoundingState`. Its updates are float32, so `optax.apply_updates`
      on bfloat16 parameters needs standard dtype promotion.

    Raises:
      ValueError: at init for float16 parameters; at update without `params`.

    Reference: Suyog Gupta et al., "Deep Learning with Limited Numerical Precision", 2015, in fixed
      point; Pedram Zamirai et al., "Revisiting BFloat16 Training", 2020, for these weights. Of both
      the abstracts were read, and of the second a summary.
    """
    inner = optax.with_extra_args_support(rule)
    key = jax.random.key(key) if isinstance(key, int | np.integer) else key

    def init(params):
        _check_params(params, "stochastic_rounding")
        return StochasticRoundingState(inner.init(_widen(params)), jnp.zeros((), jnp.int32))

    def update(updates, state, params=None, **extra_args):
        step_key = jax.random.fold_in(key, state.count)
        moves, rule_state = _wide_update(inner, updates, state.rule, params, extra_args)
        moves, structure = jax.tree.flatten(moves)
        for j, w in enumerate(structure.flatten_up_to(params)):
            if _is_bfloat16(w):
                wide = w.astype(jnp.float32)
                target = wide + moves[j].astype(jnp.float32)
                moves[j] = round_stochastically(target, jax.random.fold_in(step_key, j)) - wide
        count = jnp.asarray(optax.safe_increment(state.count))
        return structure.unflatten(moves), StochasticRoundingState(rule_state, count)

    return optax.GradientTransformationExtraArgs(init, update)


def kahan(rule: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Remember what rounding took from each bfloat16 weight, and add it to the next update.

        y = u + c;  q = bfloat16(w + y);  c ← bfloat16(y − (q − w))

    w + c carries about 16 significant bits, so an update is lost only below some 2⁻¹⁸|w|. The
    memory is that of float32 master weights, but every array is bfloat16. The rule sees parameters
    and gradients in float32, so its state is float32 too. Leaves of other dtypes than bfloat16 get
    the rule's update as it is.

    Args:
      rule: gives the update u.

    Returns:
      A transform with `KahanState`. Its updates are float32, so `optax.apply_updates` on bfloat16
      parameters needs standard dtype promotion.

    Raises:
      ValueError: at init for float16 parameters; at update without `params`.

    Reference: William Kahan, "Further remarks on reducing truncation errors", 1965;
      Pedram Zamirai et al., "Revisiting BFloat16 Training", 2020, where all arithmetic is 16-bit
      and c has the other sign, as a summary has it: of the paper itself the abstract was read.
    """
    inner = optax.with_extra_args_support(rule)

    def init(params):
        _check_params(params, "kahan")
        return KahanState(inner.init(_widen(params)), jax.tree.map(_no_compensation, params))

    def update(updates, state, params=None, **extra_args):
        moves, rule_state = _wide_update(inner, updates, state.rule, params, extra_args)
        moves, structure = jax.tree.flatten(moves)
        rests = structure.flatten_up_to(state.compensation)
        for j, w in enumerate(structure.flatten_up_to(params)):
            if _is_bfloat16(w):
                wide = w.astype(jnp.float32)
                wanted = moves[j].astype(jnp.float32) + rests[j].astype(jnp.float32)
                # reduce_precision, since XLA may drop a cast to bfloat16 and straight back.
                moves[j] = jax.lax.reduce_precision(wide + wanted, 8, 7) - wide
                rests[j] = (wanted - moves[j]).astype(jnp.bfloat16)
        return structure.unflatten(moves), KahanState(rule_state, structure.unflatten(rests))

    return optax.GradientTransformationExtraArgs(init, update)


def round_stochastically(x: jax.Array, key: jax.Array) -> jax.Array:
    """Round float32 numbers at random to numbers that bfloat16 holds, without bias.

    bfloat16 is the upper half of float32's bits, and float32's bits count up like its magnitudes:
    adding uniform bits to the lower half and cutting it off rounds up with the right probability.

    Args:
      x: any shape, float32; infinities and NaN pass.
      key: typed key, consumed.

    Returns:
      float32 of the same shape whose lower 16 bits are zero: either neighbour of x.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    rounded = (bits + noise) & jnp.uint32(0xFFFF0000)
    return jnp.where(jnp.isfinite(x), jax.lax.bitcast_convert_type(rounded, jnp.float32), x)


def _wide_update(inner, updates, rule_state, params, extra_args):
    """The rule's own update, computed in float32."""
    if params is None:
        raise ValueError("update: params is None; rounding needs the parameters themselves")
    return inner.update(_widen(updates), rule_state, _widen(params), **_widen(extra_args))


def _widen(tree):
    """The tree with its bfloat16 leaves in float32."""
    return jax.tree.map(lambda x: cast_floating(x, jnp.float32) if _is_bfloat16(x) else x, tree)


def _is_bfloat16(leaf) -> bool:
    return getattr(leaf, "dtype", None) == jnp.bfloat16


def _no_compensation(w):
    return jnp.zeros_like(w) if _is_bfloat16(w) else optax.MaskedNode()


def _check_params(params, where: str) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if getattr(leaf, "dtype", None) == jnp.float16:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(f"{where}: {name} is float16; 16-bit parameters must be bfloat16")
