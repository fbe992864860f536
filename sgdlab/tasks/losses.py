"""What tasks share: losses and metrics in float32 whatever dtype comes in, facts about data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax


def at_least_float32(x: jax.Array) -> jax.Array:
    """`x` in float32, or in float64 where it already is: for losses, softmax, normalisation."""
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


class Measures(NamedTuple):
    """Of predictions.

    Attributes:
      loss: `[…]` float32, nats.
      right: `[…]` bool, whether the largest logit is the label's; never where one is NaN, since
        there is no largest then.
    """

    loss: jax.Array
    right: jax.Array


def measure_logits(logits: jax.Array, labels: jax.Array) -> Measures:
    """Cross-entropy of each prediction, and whether its largest logit is the label's.

    Args:
      logits: `[…, C]` in any float dtype.
      labels: `[…]` int32 class numbers.
    """
    logits, labels = at_least_float32(logits), jnp.asarray(labels)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    right = jnp.argmax(logits, -1).astype(labels.dtype) == labels
    return Measures(losses, right & ~jnp.isnan(jnp.max(logits, -1)))


def means(rows: Measures) -> tuple[jax.Array, jax.Array]:
    """`(loss, accuracy)`, float32 scalars."""
    return jnp.mean(rows.loss), jnp.mean(rows.right.astype(jnp.float32))


def fingerprint(arrays: Mapping[str, Any]) -> str:
    """SHA-256 of arrays by name, with their shapes and dtypes: which data a run has seen."""
    digest = hashlib.sha256()
    for path, array in jax.tree_util.tree_leaves_with_path(dict(arrays)):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
