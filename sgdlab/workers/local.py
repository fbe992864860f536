"""Local steps: a worker descends on its own before it speaks (Local SGD, DiLoCo)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from sgdlab.arguments import read_arguments, show
from sgdlab.workers.program import ValueAndGrad, WorkerProgram
from sgdlab.workers.table import WORKERS


@read_arguments({name: WORKERS["local_steps"][name] for name in ("steps", "keep_state")})
def local_steps(
    steps: int, rule: optax.GradientTransformation, *, keep_state: bool = False
) -> WorkerProgram:
    """A message is the way that H inner steps have gone: the pseudo-gradient w_read − w_local.

        w₀ = w_read;  wₕ₊₁ = wₕ + rule(∇f(wₕ; batch h));  message = w_read − w_H

    The server's rule is then the outer optimizer. With H = 1, inner SGD(η) and outer SGD(1) this is
    synchronous SGD(η). DiLoCo is inner AdamW with `keep_state=True`, outer Nesterov with learning
    rate 0.7 and momentum 0.9.

    Args:
      steps: H ≥ 1, inner steps (and gradients) in a message.
      rule: the inner rule; learning rate schedules count the inner steps that its state has seen,
        and can count nothing else.
      keep_state: whether the inner rule's state (momentum, Adam's moments) lives on in the worker
        from message to message, as in DiLoCo; otherwise it starts fresh with every message.

    Returns:
      A `WorkerProgram` with `gradients_per_message` H; its state is the inner rule's, or `()`.
      Step h gives the loss `fold_in(key, h)`; for H = 1 the key itself.

    Raises:
      ValueError: `steps` is not a positive integer, or `rule` is no rule.

    Reference: Sebastian U. Stich, "Local SGD Converges Fast and Communicates Little", 2019;
      Arthur Douillard et al., "DiLoCo: Distributed Low-Communication Training of Language
      Models", 2023, Algorithm 1 and section 6.1 (each replica has its own AdamW state), with 0.7
      and 0.9 as DiPaCo, of the same authors, repeats them.
    """
    if not isinstance(rule, optax.GradientTransformation):
        raise ValueError(
            f"local_steps: rule is {show(rule)}; allowed: an optax transform, as rules.sgd(0.1)"
        )

    def init(params):
        return _init_rule(rule, params) if keep_state else ()

    def compute(value_and_grad: ValueAndGrad, params, state, batches, key):
        def step(carry, inputs):
            local, rule_state = carry
            h, batch = inputs
            step_key = key if key is None or steps == 1 else jax.random.fold_in(key, h)
            (loss, _), grad = value_and_grad(local, batch, step_key)
            return _apply(rule, grad, rule_state, local), loss.astype(jnp.float32)

        start = params, state if keep_state else _init_rule(rule, params)
        (local, rule_state), losses = jax.lax.scan(step, start, (jnp.arange(steps), batches))
        message = jax.tree.map(jnp.subtract, params, local)
        return message, rule_state if keep_state else state, {"loss": jnp.mean(losses)}

    return WorkerProgram(init, compute, gradients_per_message=steps)


# optax's bias corrections and schedules promote dtypes, so the inner rule runs under "standard".
def _init_rule(rule, params):
    with jax.numpy_dtype_promotion("standard"):
        return rule.init(params)


def _apply(rule, gradient, state, params):
    with jax.numpy_dtype_promotion("standard"):
        updates, state = rule.update(gradient, state, params)
        return optax.apply_updates(params, updates), state
