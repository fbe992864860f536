"""Loss scales: lift gradients out of float16's underflow, and find out how far they can be lifted.

The loss is multiplied by S before it is differentiated, and the gradient divided by S in float32.
All three are pytrees with the same methods, so a step can be written once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgdlab.arguments import show
from sgdlab.precision.trees import is_floating


def _register(cls):
    """Make a dataclass a pytree whose static fields are those marked so.

    `jax.tree_util.register_dataclass` rebuilds through the constructor, which would run our checks
    on whatever a `tree.map` puts into the leaves (axes, specs, placeholders); this does not.
    """
    fields = dataclasses.fields(cls)
    meta = [field.name for field in fields if field.metadata.get("static")]
    data = [field.name for field in fields if field.name not in meta]

    def flatten_with_keys(scale):
        children = [(jax.tree_util.GetAttrKey(name), getattr(scale, name)) for name in data]
        return children, tuple(getattr(scale, name) for name in meta)

    def flatten(scale):
        return [getattr(scale, name) for name in data], tuple(getattr(scale, n) for n in meta)

    def unflatten(static, children):
        scale = object.__new__(cls)
        for name, value in (*zip(meta, static, strict=True), *zip(data, children, strict=True)):
            object.__setattr__(scale, name, value)
        return scale

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def _fix_dtypes(scale, **dtypes):
    """Give Python numbers a dtype, so that the first step has the types of the second."""
    for name, dtype in dtypes.items():
        value = getattr(scale, name)
        if getattr(value, "ndim", 0) and type(value).__module__ == "numpy":
            raise ValueError(
                f"{type(scale).__name__}: {name} is {show(value)}; allowed: one number"
            )
        if isinstance(value, int | float) and not isinstance(value, np.generic):
            if name != "counter" and not value > 0:
                raise ValueError(f"{type(scale).__name__}: {name} is {value}; it must be positive")
            object.__setattr__(scale, name, np.asarray(value, dtype))
        elif name != "counter" and not jnp.issubdtype(jnp.result_type(value), jnp.floating):
            kind = jnp.result_type(value)
            raise ValueError(f"{type(scale).__name__}: {name} is {kind}; it must be floating")


@_register
@dataclasses.dataclass(frozen=True)
class NoOpLossScale:
    """No scaling: what bfloat16 and float32 need."""

    @property
    def loss_scale(self) -> float:
        """S = 1."""
        return 1.0

    def scale(self, tree: Any) -> Any:
        """The tree itself."""
        return tree

    def unscale(self, tree: Any) -> Any:
        """The tree itself."""
        return tree

    def adjust(self, grads_finite: Any) -> NoOpLossScale:
        """Itself, whatever the gradients."""
        del grads_finite
        return self


@_register
@dataclasses.dataclass(frozen=True)
class StaticLossScale:
    """Scaling by a constant.

    Attributes:
      loss_scale: S, floating scalar; best a power of two, which rounds nothing.
    """

    loss_scale: Any

    def __post_init__(self):
        _fix_dtypes(self, loss_scale=np.float32)

    def scale(self, tree: Any) -> Any:
        """The tree times S; see `DynamicLossScale.scale`."""
        return _scale(tree, self.loss_scale)

    def unscale(self, tree: Any) -> Any:
        """The tree divided by S; see `DynamicLossScale.unscale`."""
        return _unscale(tree, self.loss_scale)

    def adjust(self, grads_finite: Any) -> StaticLossScale:
        """Itself, whatever the gradients."""
        del grads_finite
        return self


@_register
@dataclasses.dataclass(frozen=True)
class DynamicLossScale:
    """The largest scale that keeps gradients finite, found by trial.

    After `period` finite steps in a row S ← S·factor (unless that overflows); after a non-finite
    one S ← max(S/factor, min_loss_scale) and the count starts again.

    Attributes:
      loss_scale: S, floating scalar.
      counter: int32 scalar, finite steps since S last changed.
      period: finite steps after which S grows; static.
      factor: by how much S grows and shrinks; static.
      min_loss_scale: floating scalar, S never falls below it.

    Reference: jmp's `DynamicLossScale`, and TensorFlow's, whose defaults these are. Paulius
      Micikevicius et al., "Mixed Precision Training", 2018, section 3.2 as others quote it, has a
      constant scale, and an update that is skipped after an overflow.
    """

    loss_scale: Any = 2.0**15
    counter: Any = 0
    period: int = dataclasses.field(default=2000, metadata={"static": True})
    factor: float = dataclasses.field(default=2, metadata={"static": True})
    min_loss_scale: Any = 1.0

    def __post_init__(self):
        _fix_dtypes(self, loss_scale=np.float32, counter=np.int32, min_loss_scale=np.float32)

    def scale(self, tree: Any) -> Any:
        """The tree times S.

        Args:
          tree: floating leaves are scaled, in the wider of their dtype and S's; others pass.

        Returns:
          The scaled tree: a float16 loss under a float32 scale becomes float32.
        """
        return _scale(tree, self.loss_scale)

    def unscale(self, tree: Any) -> Any:
        """The tree divided by S.

        Args:
          tree: floating leaves are divided, in the wider of their dtype and S's; others pass.

        Returns:
          The unscaled tree: float16 gradients under a float32 scale become float32, so that what
          the scale has saved is not flushed to zero here.
        """
        return _unscale(tree, self.loss_scale)

    def adjust(self, grads_finite: Any) -> DynamicLossScale:
        """The scale for the next step.

        Args:
          grads_finite: bool scalar, whether this step's gradients are all finite.

        Returns:
          A scale with the same static fields and dtypes.

        Raises:
          ValueError: `grads_finite` is not a bool scalar.
        """
        finite = jnp.asarray(grads_finite)
        if finite.ndim != 0 or finite.dtype != jnp.bool_:
            raise ValueError(
                f"adjust: grads_finite is {finite.dtype}{list(finite.shape)}; "
                "it must be a bool scalar"
            )
        scale = jnp.asarray(self.loss_scale)
        factor = jnp.asarray(self.factor, scale.dtype)
        counter = jnp.asarray(self.counter)
        grows = counter >= jnp.asarray(self.period - 1, counter.dtype)
        larger = jnp.where(jnp.isfinite(scale * factor), scale * factor, scale)
        smaller = jnp.maximum(jnp.asarray(self.min_loss_scale).astype(scale.dtype), scale / factor)
        return dataclasses.replace(
            self,
            loss_scale=jnp.where(finite, jnp.where(grows, larger, scale), smaller),
            counter=jnp.where(finite & ~grows, counter + jnp.ones_like(counter), 0),
        )


LossScale = NoOpLossScale | StaticLossScale | DynamicLossScale

LOSS_SCALES: dict[str, Callable[..., LossScale]] = {
    "none": NoOpLossScale,
    "static": StaticLossScale,
    "dynamic": DynamicLossScale,
}


def make_loss_scale(name: str, **arguments: Any) -> LossScale:
    """The loss scale of that name.

    Args:
      name: "none", "static" or "dynamic".
      **arguments: its fields.

    Returns:
      The loss scale.

    Raises:
      ValueError: the name is unknown.
    """
    if name not in LOSS_SCALES:
        allowed = ", ".join(LOSS_SCALES)
        raise ValueError(f"loss_scale: the name {name!r} is unknown; it must be {allowed}")
    return LOSS_SCALES[name](**arguments)


def _scale(tree, scale):
    return _combine(jnp.multiply, tree, scale)


def _unscale(tree, scale):
    # Division, not the product with 1/S: from S = 2¹²⁷ on that reciprocal is flushed to zero.
    return _combine(jnp.divide, tree, scale)


def _combine(operation, tree, scale):
    scale = jnp.asarray(scale)

    def leaf(x):
        if not is_floating(x) and not isinstance(x, float):
            return x
        x = jnp.asarray(x)
        # Python's float takes the scale's dtype; promotion is by name, so it holds under "strict".
        with jax.numpy_dtype_promotion("standard"):
            dtype = jnp.promote_types(x.dtype, scale.dtype) if not x.weak_type else scale.dtype
        return operation(x.astype(dtype), scale.astype(dtype))

    return jax.tree.map(leaf, tree)
