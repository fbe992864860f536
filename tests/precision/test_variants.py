"""The arithmetic of precision is the same with and without compilation."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from sgdlab.precision import DynamicLossScale, StaticLossScale, kahan, parse_policy

TREE = {"kernel": np.float32([[1.5, -(2.0**-26)], [3.0, 0.0]]), "bias": np.float32([2.0**-13])}


class Compiled(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_a_power_of_two_scales_and_unscales_without_rounding(self):
        there_and_back = self.variant(lambda scale, tree: scale.unscale(scale.scale(tree)))
        for scale in (StaticLossScale(1024.0), DynamicLossScale(2.0**15)):
            chex.assert_trees_all_equal(there_and_back(scale, TREE), TREE)

    @chex.variants(with_jit=True, without_jit=True)
    def test_a_cast_rounds_to_half_a_spacing(self):
        cast = self.variant(parse_policy("mixed_bfloat16").cast_to_compute)(TREE)
        chex.assert_trees_all_close(
            jax.tree.map(lambda leaf: leaf.astype(jnp.float32), cast), TREE, rtol=2.0**-9
        )
        assert {leaf.dtype for leaf in jax.tree.leaves(cast)} == {jnp.dtype(jnp.bfloat16)}

    @chex.variants(with_jit=True, without_jit=True)
    def test_a_dynamic_scale_halves_at_once_and_doubles_after_its_period(self):
        adjust = self.variant(lambda scale, finite: scale.adjust(finite))
        scale, found = DynamicLossScale(8.0, period=2, min_loss_scale=2.0), []
        for finite in (True, True, False, False, False, False, True):
            scale = adjust(scale, jnp.bool_(finite))
            found.append(float(scale.loss_scale))
        assert found == [8.0, 16.0, 8.0, 4.0, 2.0, 2.0, 2.0]

    @chex.variants(with_jit=True, without_jit=True)
    def test_kahan_keeps_what_bfloat16_rounds_away(self):
        """256 steps of −2⁻¹² from 1 are −1/16, and each is below half a spacing of bfloat16."""
        rule = kahan(optax.sgd(1.0))

        @self.variant
        def step(w, state):
            updates, state = rule.update(jnp.full_like(w, 2.0**-12), state, w)
            return optax.apply_updates(w, updates), state

        w = {"w": jnp.ones(3, jnp.bfloat16)}["w"]
        state = rule.init(w)
        with jax.numpy_dtype_promotion("standard"):
            for _ in range(256):
                w, state = step(w, state)
        chex.assert_trees_all_close(np.asarray(w, np.float32), np.full(3, 1 - 2.0**-4, np.float32))
