"""Flax modules as pure functions: what `init` draws, and logits with and without dropout."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import errors, traverse_util

from sgdlab.tasks.tracing import draws

# Arguments by which modules are told whether they train, and what each is then.
_MODES = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
}


class Pure(NamedTuple):
    """A network without state.

    Attributes:
      init: `init(key) -> params`, a nested dict of arrays.
      apply: `apply(params, x, key) -> logits`; with a key it trains (dropout draws from it), with
        `None` it is evaluated.
    """

    init: Callable[[jax.Array], Any]
    apply: Callable[[Any, jax.Array, jax.Array | None], Any]


def purify(network: Any, example: jax.Array) -> Pure:
    """A Flax module as pure functions.

    Args:
      network: a Linen module; or an NNX module, whose own parameters are then where every run
        starts; or `make(rngs) -> NNX module`, called with the run's key.
      example: `[1, …]` one row of the network's input.

    Returns:
      The `Pure` network.

    Raises:
      ValueError: it keeps a state besides its parameters, such as BatchNorm's means, or draws in
        evaluation, or has a dropout that nobody can turn on.
    """
    if isinstance(network, nn.Module):
        return _purify_linen(network, example)
    if callable(network):
        return _purify_nnx(network, example)
    raise ValueError(
        f"classifier: network is {type(network).__name__}; allowed: a Flax Linen or NNX module, or "
        "a function from nnx.Rngs to one"
    )


def _purify_linen(network: nn.Module, example: jax.Array) -> Pure:
    evaluated, trained = (_in_mode(network, training) for training in (False, True))

    def init(key: jax.Array) -> Any:
        return evaluated(lambda module, *args, **modes: module.init(key, *args, **modes), example)

    try:
        variables = jax.eval_shape(init, jax.random.key(0))
    except errors.InvalidRngError:
        raise ValueError(_DRAWS) from None
    _check_state(sorted(set(variables) - {"params"}))

    def apply(params: Any, x: jax.Array, key: jax.Array | None) -> Any:
        # A stream that has no name here is drawn from "params".
        rngs = {} if key is None else {"dropout": key, "params": jax.random.fold_in(key, 1)}
        run = evaluated if key is None else trained
        return run(
            lambda module, *args, **modes: module.apply(
                {"params": params}, *args, rngs=rngs, **modes
            ),
            x,
        )

    _check_dropout(apply, variables.get("params", {}), example)
    return Pure(lambda key: init(key).get("params", {}), apply)


_DRAWS = (
    "classifier: the network draws random numbers in evaluation; allowed: one whose __call__ has "
    "an argument train=False or deterministic=True, by which that is turned off"
)


def _in_mode(network: nn.Module, training: bool) -> Callable:
    """`run(function, x)` calls `function(module, x, **modes)` with the module told its mode."""
    modes = {name: value == training for name, value in _MODES.items()}
    takes = inspect.signature(type(network).__call__).parameters
    fields = {field.name for field in dataclasses.fields(network)} - set(takes)
    changes: dict[str, Any] = {name: modes[name] for name in modes if name in fields}
    module = network.clone(**changes)
    arguments = {name: modes[name] for name in modes if name in takes}
    return lambda function, x: function(module, x, **arguments)


def _check_state(names: list[str]) -> None:
    if names:
        raise ValueError(
            f"classifier: the network keeps a state in {', '.join(map(repr, names))}, which no "
            "message of a worker carries; allowed: parameters alone (LayerNorm or GroupNorm in "
            "place of BatchNorm)"
        )


def _check_dropout(apply: Callable, params: Any, example: jax.Array) -> None:
    """A dropout that stays off in training is no part of what its author means to train."""
    off: list[str] = []

    def look(run: Callable, arguments: Any, keywords: Any, context: Any) -> Any:
        module = context.module
        if isinstance(module, nn.Dropout) and context.method_name == "__call__" and module.rate:
            given = keywords.get("deterministic", arguments[1] if len(arguments) > 1 else None)
            if given or (given is None and module.deterministic):
                off.append("/".join(module.path))
        return run(*arguments, **keywords)

    def trace(params: Any, key: jax.Array | None) -> Any:
        return apply(params, example, key)

    try:
        jax.eval_shape(lambda params: trace(params, None), params)
    except errors.InvalidRngError:
        raise ValueError(_DRAWS) from None
    with nn.intercept_methods(look):
        jax.eval_shape(trace, params, jax.random.key(0))
    if off:
        raise ValueError(
            f"classifier: the network's dropout {off[0]} stays off in training; allowed: a "
            f"__call__ that takes one of {', '.join(_MODES)} and hands it on"
        )


def _purify_nnx(network: Any, example: jax.Array) -> Pure:
    """Split into a graph, which is static, and arrays: `nnx.jit` would cost more than the step."""
    from flax import nnx

    make = (lambda rngs: network) if isinstance(network, nnx.Module) else network
    graphs: dict[bool, Any] = {}

    def split(key: jax.Array) -> tuple[Any, ...]:
        module = make(nnx.Rngs(key))
        if not isinstance(module, nnx.Module):
            raise ValueError(
                f"classifier: network makes {type(module).__name__}; allowed: a Flax NNX module"
            )
        for training in (False, True):
            graph, *states = nnx.split(module)
            copy = nnx.merge(graph, *states)  # what is told its mode is nobody else's
            modes = {name: value == training for name, value in _MODES.items()}
            copy.set_attributes(**modes, raise_if_not_found=False)
            graphs[training], params, streams, rest = nnx.split(copy, nnx.Param, nnx.RngState, ...)
        _check_state(sorted({type(each).__name__ for _, each in nnx.to_flat_state(rest)}))
        return params, streams

    params, streams = jax.eval_shape(split, jax.random.key(0))
    places = [_place(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]

    def init(key: jax.Array) -> Any:
        leaves = jax.tree.leaves(split(key)[0])
        return traverse_util.unflatten_dict(dict(zip(places, leaves, strict=True)))

    def run(training: bool, params_: Any, x: jax.Array, key: jax.Array) -> Any:
        flat = traverse_util.flatten_dict(params_)
        states = (
            jax.tree.unflatten(jax.tree.structure(params), [flat[place] for place in places]),
            jax.tree.unflatten(jax.tree.structure(streams), _restart(streams, key)),
        )
        module = nnx.merge(graphs[training], *states)
        takes = inspect.signature(type(module).__call__).parameters
        arguments: dict[str, Any] = {
            name: value == training for name, value in _MODES.items() if name in takes
        }
        if "rngs" in takes and training:
            arguments["rngs"] = nnx.Rngs(default=jax.random.fold_in(key, 1))
        return module(x, **arguments)

    def apply(params: Any, x: jax.Array, key: jax.Array | None) -> Any:
        return run(key is not None, params, x, jax.random.key(0) if key is None else key)

    shapes = jax.eval_shape(init, jax.random.key(0))
    if draws(lambda key, params: run(False, params, example, key), shapes):
        raise ValueError(_DRAWS)
    return Pure(init, apply)


def _place(path: Any) -> tuple[str, ...]:
    """Where a parameter stands, without the attribute that holds its array."""
    names = tuple(part for part in path if not isinstance(part, jax.tree_util.GetAttrKey))
    return tuple(jax.tree_util.keystr(names, simple=True, separator="/").split("/"))


def _restart(streams: Any, key: jax.Array) -> list[jax.Array]:
    """The module's streams of random numbers, each begun anew from the key."""

    def restart(index: int, leaf: Any) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.zeros(leaf.shape, leaf.dtype)
        own = jax.random.fold_in(key, 2 + index)
        return jax.random.split(own, leaf.shape) if leaf.shape else own

    return [restart(index, leaf) for index, leaf in enumerate(jax.tree.leaves(streams))]
