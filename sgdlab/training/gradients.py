"""The gradient that a worker computes: a precision policy and a loss scale around a task's loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sgdlab.precision import LayerPolicies, Policy, compute_in_parameter_dtype
from sgdlab.tasks import RowLoss, Task
from sgdlab.tasks.rows import count_rows, has_sparse, take_rows
from sgdlab.training.blocks import BLOCK_BYTES, measure_in_blocks
from sgdlab.training.devices.collectives import Average

_SPARSE_BLOCK = 2**22  # bytes that a block of sparse rows may compute in any case


def make_value_and_grad(
    task: Task,
    policy: Policy,
    loss_scale,
    average: Callable | None = None,
    microbatches: int = 1,
) -> Callable:
    """Differentiate a task's loss in the policy's compute dtype.

    Parameters and batch are cast to the compute dtype, the loss is multiplied by the scale S before
    it is differentiated, and the gradient is cast to the reduce dtype (what travels), divided by S
    in float32, and cast to the parameters' dtype. For powers of two that division is exact, so a
    gradient below fp16's range survives (Micikevicius et al., "Mixed precision training", 2018).

    Args:
      task: its `loss(params, batch, key)` is differentiated.
      policy: dtypes of parameters, computation, reduction and output.
      loss_scale: an object with `scale` and `unscale`.
      average: makes a gradient over a mesh of one over a part of the batch
        (`sgdlab.training.devices.collectives.Average`); by default there is one device.
      microbatches: in how many parts a device computes its gradient (`accumulate`).

    Returns:
      `value_and_grad(params, batch, key) -> ((loss, metrics), gradient)`; the gradient has the
      parameters' structure, shapes and dtypes; the loss is unscaled, in the output dtype.
    """

    compute_loss = _in_layers_dtypes(task.loss, policy)

    def scaled_loss(params, batch, key):
        loss, metrics = compute_loss(params, batch, key)
        return loss_scale.scale(loss), (loss, metrics)

    def local(params, batch, key):
        compute_params, compute_batch = policy.cast_to_compute(params), policy.cast_batch(batch)
        gradient, aux = jax.grad(scaled_loss, has_aux=True)(compute_params, compute_batch, key)
        return policy.cast_to_output(aux), policy.cast_to_reduce(gradient)

    part = local if microbatches == 1 else accumulate(local, microbatches)
    spread = part if average is None else average(part)

    def value_and_grad(params, batch, key):
        aux, gradient = spread(params, batch, key)
        return aux, policy.cast_to_param(loss_scale.unscale(gradient))

    return value_and_grad


def accumulate(local: Callable, microbatches: int) -> Callable:
    """Compute a gradient in K parts, one after another, so that activations are those of one part.

        ∇ mean_{B rows} ℓ(w) = (1/K) Σ_i ∇ mean_{rows ≡ i mod K} ℓ(w)

    Every K-th row, and not B/K neighbours, so that each part lies on all of the devices that the
    rows are spread over. The sum is kept in float32 at least.

    Args:
      local: `local(params, batch, key) -> (aux, gradient)`, means over the rows of `batch`.
      microbatches: K, which divides B.

    Returns:
      The same function. Part i draws from `fold_in(key, i)`.
    """

    def value_and_grad(params, batch, key):
        def split(leaf):  # one that has no columns, too
            rows = len(leaf) // microbatches
            return jnp.moveaxis(leaf.reshape(rows, microbatches, *leaf.shape[1:]), 1, 0)

        parts = jax.tree.map(split, batch)

        def one(index):
            rows = jax.tree.map(lambda leaf: leaf[index], parts)
            return local(params, rows, None if key is None else jax.random.fold_in(key, index))

        def add(total, index):
            part = one(index)
            return jax.tree.map(lambda sum, leaf: sum + leaf.astype(sum.dtype), total, part), None

        shapes = jax.eval_shape(one, jnp.int32(0))
        zeros = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, max(leaf.dtype, jnp.float32, key=_width)), shapes
        )
        total, _ = jax.lax.scan(add, zeros, jnp.arange(microbatches, dtype=jnp.int32))
        return jax.tree.map(
            lambda sum, leaf: (sum / jnp.asarray(microbatches, sum.dtype)).astype(leaf.dtype),
            total,
            shapes,
        )

    return value_and_grad


def _width(dtype: Any) -> int:
    return jnp.dtype(dtype).itemsize


def make_evaluate(task: Task, policy: Policy, average: Average | None = None) -> Callable:
    """The task's loss and metrics on held-out data, without noise or dropout.

    Args:
      task: a loss that is a `RowLoss` is evaluated in blocks where there are many rows.
      policy: dtypes of computation and output.
      average: whose devices share the rows of such a block, unless the bits are not to depend on
        how many there are; by default there is one device.

    Returns:
      `evaluate(params, test) -> {"loss": scalar, metric: scalar, …}`, in the output dtype.
    """

    loss = task.loss
    if isinstance(loss, RowLoss):
        mesh = None if average is None or average.reduction == "canonical" else average.mesh
        loss = RowLoss(partial(_in_blocks, loss.measure, mesh), loss.summarise)
    compute_loss = _in_layers_dtypes(loss, policy)

    def evaluate(params, test):
        compute_params, compute_test = policy.cast_to_compute(params), policy.cast_batch(test)
        loss, metrics = compute_loss(compute_params, compute_test, None)
        return policy.cast_to_output({"loss": loss, **metrics})

    return evaluate


def _in_blocks(
    measure: Callable, mesh: Mesh | None, params: Any, batch: Any, key: jax.Array | None
) -> Any:
    if not has_sparse(batch):
        return measure_in_blocks(lambda rows: measure(params, rows, key), batch, mesh=mesh)
    # The rows of a block are padded, so a block is no larger than all of them without.
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(batch))
    return measure_in_blocks(
        lambda rows: measure(params, take_rows(batch, rows), key),
        jnp.arange(count_rows(batch), dtype=jnp.int32),
        block_bytes=min(max(held, _SPARSE_BLOCK), BLOCK_BYTES),
        mesh=mesh,
    )


def _in_layers_dtypes(task_loss: Callable, policy: Policy | LayerPolicies) -> Callable:
    """The loss; a policy of its own for each layer is not undone by promotion between layers."""
    if not isinstance(policy, LayerPolicies):
        return task_loss

    def loss(params, batch, key):
        with compute_in_parameter_dtype():
            return task_loss(params, batch, key)

    return loss
