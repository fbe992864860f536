"""A decoder-only Transformer: pre-norm, rotary positions, layers under a scan.

Matrix products run in the dtype of the parameters; normalisation, rotations, softmax and logits in
float32. The parameters of all layers are stacked on a leading axis, so compile time doesn't grow
with depth.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.spmd import with_logical_constraint

from sgdlab.tasks.initializers import embedding_normal, fan_in_normal
from sgdlab.tasks.losses import at_least_float32

Backend = Literal["xla", "cudnn"]


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Shape of a Transformer.

    Attributes:
      width: E, of the residual stream.
      layers: number of blocks.
      heads: number of attention heads; E/heads must be even.
      vocabulary: V, number of tokens.
      expansion: hidden width of a block's MLP in units of E.
      tied: whether the head is the transposed embedding.
      rematerialise: whether a block's activations are computed again in the backward pass instead
        of kept: memory for time.
      dropout: share of the entries of each block's two contributions that is zeroed in training.
      rotary_base: wavelengths of the positions run from 2π to 2π·base.
      attention: "xla", or "cudnn" for 16-bit parameters on NVIDIA devices (see `attend`).
    """

    width: int
    layers: int
    heads: int
    vocabulary: int = 256
    expansion: int = 4
    tied: bool = True
    rematerialise: bool = False
    dropout: float = 0.0
    rotary_base: float = 10_000.0
    attention: Backend = "xla"

    def __post_init__(self):
        if min(self.width, self.layers, self.heads, self.vocabulary, self.expansion) < 1:
            raise ValueError(f"transformer: {self}; sizes must be integers above 0")
        if self.width % (2 * self.heads):
            raise ValueError(
                f"transformer: width {self.width} with {self.heads} heads; "
                "width must be an even multiple of heads"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"transformer: dropout is {self.dropout}; it must be in [0, 1)")
        if self.attention not in ("xla", "cudnn"):
            raise ValueError(f"transformer: attention is {self.attention!r}; 'xla' or 'cudnn'")


# About 12·layers·width² parameters plus the embedding.
SIZES: dict[str, TransformerConfig] = {
    "0.3M": TransformerConfig(width=112, layers=2, heads=4),
    "1M": TransformerConfig(width=128, layers=5, heads=4),
    "3M": TransformerConfig(width=256, layers=4, heads=8),
    "10M": TransformerConfig(width=384, layers=6, heads=6),
    "30M": TransformerConfig(width=512, layers=10, heads=8),
    "100M": TransformerConfig(width=768, layers=14, heads=12),
    "300M": TransformerConfig(width=1024, layers=24, heads=16),
    "1B": TransformerConfig(width=2048, layers=20, heads=16),
}


class Transformer(nn.Module):
    """Logits of the next token at every position, each from its past alone.

        x = embedding[tokens];  per block: x += attention(norm(x)), x += MLP(norm(x));
        logits = norm(x)·head

    Attributes:
      config: its shape.

    Reference: Ashish Vaswani et al., "Attention Is All You Need", 2017; Jianlin Su et al.,
      "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021; Biao Zhang, Rico
      Sennrich, "Root Mean Square Layer Normalization", 2019.
    """

    config: TransformerConfig

    @nn.compact
    def __call__(self, tokens: jax.Array, deterministic: bool = True) -> jax.Array:
        """Predict.

        Args:
          tokens: `[B, L]` integers in [0, V).
          deterministic: whether dropout is off; otherwise an rng named "dropout" is needed.

        Returns:
          `[B, L, V]` float32 logits.
        """
        config = self.config
        shape = (config.vocabulary, config.width)
        embedding = self.param("embedding", embedding_normal, shape)
        x = _spread(embedding[tokens.astype(jnp.int32)], "embed")
        x = _stack(config)(config, deterministic, name="blocks")(x)[0]
        x = Norm(name="final_norm")(x)
        untied = None if config.tied else self.param("head", fan_in_normal(1.0), shape[::-1])
        head = embedding.T if untied is None else untied
        logits = wide_product("ble,ev->blv", x.astype(head.dtype), head)
        return _spread(jnp.asarray(logits), "vocabulary")


def _stack(config: TransformerConfig):
    """The class of `config.layers` blocks in sequence, as one scan over stacked parameters."""
    return nn.scan(
        nn.remat(Block, prevent_cse=False) if config.rematerialise else Block,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        length=config.layers,
    )


class Block(nn.Module):
    """Causal self-attention and an MLP, each on normalised input and added to the stream.

    Attributes:
      config: the Transformer's.
      deterministic: whether dropout is off.
    """

    config: TransformerConfig
    deterministic: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, None]:
        """Args: x: `[B, L, E]`. Returns: the same, and nothing for the scan to collect."""
        config = self.config
        drop = nn.Dropout(config.dropout, deterministic=self.deterministic)
        attended = Attention(config, name="attention")(Norm(name="attention_norm")(x))
        x = _spread(x + drop(attended).astype(x.dtype), "embed")
        up = self._product("up", config.expansion * config.width, Norm(name="mlp_norm")(x))
        hidden = nn.gelu(_spread(up, "mlp"))
        # Contributions start small with depth, so the stream's variance doesn't grow with it.
        y = self._product("down", config.width, hidden, 1 / (2 * config.layers))
        return _spread(x + drop(y).astype(x.dtype), "embed"), None

    def _product(self, name: str, features: int, x: jax.Array, gain: float = 1.0) -> jax.Array:
        kernel = self.param(name, fan_in_normal(gain), (x.shape[-1], features))
        return x.astype(kernel.dtype) @ kernel


class Attention(nn.Module):
    """Causal multi-head self-attention with rotary positions and no bias.

    Attributes:
      config: the Transformer's.
    """

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Args: x: `[B, L, E]`. Returns: `[B, L, E]` in the parameters' dtype."""
        width, heads = self.config.width, self.config.heads
        qkv = self.param("qkv", fan_in_normal(1.0, inputs=1), (width, 3, heads, width // heads))
        out = self.param(
            "out", fan_in_normal(1 / (2 * self.config.layers)), (heads, width // heads, width)
        )
        projected = jnp.einsum("ble,ekhd->kblhd", x.astype(qkv.dtype), qkv)
        query, key = (rotate(each, self.config.rotary_base) for each in projected[:2])
        mixed = attend(query, key, projected[2], self.config.attention)
        return jnp.einsum("blhd,hde->ble", mixed.astype(out.dtype), out)


class Norm(nn.Module):
    """Root-mean-square normalisation in float32: x/√(mean(x²) + ε) · scale."""

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Args: x: `[…, E]`. Returns: the same shape and dtype."""
        scale = self.param("scale", nn.initializers.ones_init(), (x.shape[-1],))
        wide = at_least_float32(x)
        normal = wide * jax.lax.rsqrt(jnp.mean(wide**2, -1, keepdims=True) + self.epsilon)
        return (normal * scale.astype(wide.dtype).reshape((1,) * (x.ndim - 1) + (-1,))).astype(
            x.dtype
        )


def attend(query: jax.Array, key: jax.Array, value: jax.Array, backend: Backend) -> jax.Array:
    """Causal attention: softmax(q·k/√D over the past)·v, the softmax in float32.

    Args:
      query: `[B, L, heads, D]`.
      key: the same.
      value: the same.
      backend: "xla", or "cudnn": `jax.nn.dot_product_attention` fused by cuDNN, which never stores
        the `[L, L]` scores; for 16-bit floats on NVIDIA devices.

    Returns:
      `[B, L, heads, D]` in the value's dtype.
    """
    if backend == "cudnn":
        return jax.nn.dot_product_attention(
            query, key, value, is_causal=True, implementation="cudnn"
        )
    # Spelled out, because the gradient of JAX's own XLA form is not lowered for bfloat16 where
    # implicit promotion is forbidden.
    length, width = query.shape[1], query.shape[3]
    scores = jnp.asarray(wide_product("bqhd,bkhd->bhqk", query, key))
    past = np.tril(np.ones((1, 1, length, length), bool))
    scores = jnp.where(past, scores / np.sqrt(width).astype(scores.dtype), -jnp.inf)
    weights = jax.nn.softmax(scores)
    return jnp.einsum("bhqk,bkhd->bqhd", weights.astype(value.dtype), value)


def rotate(x: jax.Array, base: float = 10_000.0) -> jax.Array:
    """Rotary positions: each pair of coordinates turns by an angle proportional to the position.

        (x_i, x_{i+D/2}) at position p  →  rotated by p·base^(−2i/D),  i = 0 … D/2 − 1

    so the inner product of two rotated vectors depends on their positions' difference alone.

    Args:
      x: `[B, L, heads, D]`, D even.
      base: of the wavelengths.

    Returns:
      The same shape and dtype; angles and products are taken in float32.

    Reference: Jianlin Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding",
      2021, which pairs neighbouring coordinates; the halves are GPT-NeoX's.
    """
    length, half = x.shape[1], x.shape[-1] // 2
    angles = np.outer(np.arange(length), base ** (-np.arange(half) / half))[None, :, None, :]
    wide = at_least_float32(x)
    cos, sin = (f(angles).astype(wide.dtype) for f in (np.cos, np.sin))
    first, second = wide[..., :half], wide[..., half:]
    turned = jnp.concatenate([first * cos - second * sin, first * sin + second * cos], -1)
    return turned.astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def wide_product(subscripts: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """A product of 16-bit arrays, summed and returned in float32, whose gradient takes 16 bits too.

    Differentiated as it stands, the product would have its float32 cotangent multiplied with `x`
    and `y` widened to float32: two of its three products at a fraction of the speed. The cotangent
    is cast to their dtype instead, as it is behind every other layer.

    Args:
      subscripts: as for `jnp.einsum`.
      x: the first operand.
      y: the second, of the same dtype.

    Returns:
      The product in float32, or float64 where the operands are.
    """
    return jnp.einsum(subscripts, x, y, preferred_element_type=_wide(x))


def _wide_product_forward(subscripts, x, y):
    return wide_product(subscripts, x, y), (x, y)


def _wide_product_backward(subscripts, operands, cotangent):
    product, pull_back = jax.vjp(functools.partial(jnp.einsum, subscripts), *operands)
    return pull_back(cotangent.astype(product.dtype))


wide_product.defvjp(_wide_product_forward, _wide_product_backward)


def _spread(x: jax.Array, last: str) -> jax.Array:
    """Say where activations `[B, L, …]` lie, wherever names have mesh axes: with their rows.

    Without it the partitioner may gather all devices' rows in place of a layer's parameters.

    Args:
      x: the activations.
      last: what their last axis means.
    """
    return with_logical_constraint(x, ("batch", *(None,) * (x.ndim - 2), last))


def _wide(x: jax.Array):
    return jnp.float64 if x.dtype == jnp.float64 else jnp.float32


# Logical axes of the parameters by the last part of their path; stacked ones have "layers" before.
_AXES: dict[str, tuple[str | None, ...]] = {
    "embedding": ("vocabulary", "embed"),
    "head": ("embed", "vocabulary"),
    "qkv": ("embed", None, "heads", "head_dim"),
    "out": ("heads", "head_dim", "embed"),
    "up": ("embed", "mlp"),
    "down": ("mlp", "embed"),
    "scale": ("embed",),
}


def logical_axes(params) -> Any:
    """What each axis of each parameter means, for rules that map meanings to mesh axes.

    Args:
      params: a tree of parameters, or of their shapes (`jax.eval_shape`).

    Returns:
      A tree like the parameters, each leaf a tuple of one name an axis: "layers", "vocabulary",
      "embed", "heads", "head_dim", "mlp", or `None`. All `None` for parameters that are not a
      Transformer's.
    """
    return jax.tree_util.tree_map_with_path(lambda keys, leaf: _axes(keys, leaf.ndim), params)


def _axes(keys, ndim: int) -> tuple[str | None, ...]:
    parts = jax.tree_util.keystr(keys, simple=True, separator="/").split("/")
    axes = ("layers",) * ("blocks" in parts) + _AXES.get(parts[-1], ())
    return axes if len(axes) == ndim else (None,) * ndim
