"""What a checkpoint of a replay holds: the state and its members' records, as trees of arrays.

A record is lists while a replay runs, and arrays of the same numbers in a file. Of the slots a file
holds what is still needed, in the order in which it was stored, wherever it lay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from sgdlab.training.checkpoints.archive import Header


class Record(Protocol):
    """What one member has brought so far, as the host's loop keeps it."""

    updates: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    error: str | None
    done: bool
    params: Any

    @property
    def update(self) -> int:
        """Updates made and recorded."""
        ...


def to_tree(record: Record) -> dict[str, Any]:
    """A member's record as arrays; its parameters only where it has ended before the others."""
    rows = {
        name: np.array([row[name] for row in record.rows], np.float64) for name in record.rows[0]
    }
    updates = jax.tree.map(lambda *parts: np.concatenate(parts), *record.updates)
    return {"updates": updates, "rows": rows, "params": record.params if record.done else ()}


def like_record(facts, place: int, params, metrics, updates, axis: int) -> dict[str, Any]:
    """What `to_tree` gave, as abstract leaves."""

    def updates_leaf(leaf):
        return jax.ShapeDtypeStruct((facts["made"], *leaf.shape[axis + 1 :]), leaf.dtype)

    def params_leaf(leaf):
        return leaf if axis == 0 else leaf[place]

    row = jax.ShapeDtypeStruct((facts["rows"],), np.float64)
    return {
        "updates": jax.tree.map(updates_leaf, updates),
        "rows": dict.fromkeys(["update", "time", *metrics], row),
        "params": jax.tree.map(params_leaf, params) if facts["done"] else (),
    }


def fill_record(
    record: Record, facts: Mapping[str, Any], tree: dict[str, Any], names: list[str]
) -> None:
    """Give a member back what `to_tree` took, the columns in the order of `names`."""
    record.updates.append(tree["updates"])
    for values in zip(*(tree["rows"][name].tolist() for name in names), strict=True):
        row = dict(zip(names, values, strict=True))
        record.rows.append({**row, "update": int(row["update"])})
    record.error, record.done = facts["error"], facts["done"]
    if record.done:
        record.params = tree["params"]


def forget_end(record: Record, update: int) -> None:
    """Leave out the evaluation that a run made only because it ended after this update.

    Where it was this one that met a stop, the member goes on.
    """
    if record.rows and record.rows[-1]["update"] == update:
        record.rows.pop()
        if record.error is None:
            record.done, record.params = False, None


def as_saved(tree: dict[str, Any], header: Header) -> dict[str, Any]:
    """The tree with its slots in the layout that they were saved in.

    Rows are flat where every device holds all of them, and have the parameters' shapes where they
    are spread by their axes: the same numbers, in the same order.
    """
    shapes = {leaf.path: leaf.shape for leaf in header.leaves}

    def leaf(path, rows: Any) -> Any:
        name = f"state/slots/{jax.tree_util.keystr(path, simple=True, separator='/')}".rstrip("/")
        shape = shapes.get(name) or rows.shape
        if shape == rows.shape or math.prod(shape) != math.prod(rows.shape):
            return rows
        whole = rows.sharding if rows.sharding.is_fully_replicated else None
        return jax.ShapeDtypeStruct(shape, rows.dtype, sharding=whole)

    slots = jax.tree_util.tree_map_with_path(leaf, tree["state"].slots)
    return {**tree, "state": tree["state"]._replace(slots=slots)}


def place_leaf(leaf: Any, like: Any) -> Any:
    """A leaf where it belongs: a copy that the compiled step may donate, never the host's own."""
    leaf = leaf if leaf.shape == like.shape else leaf.reshape(like.shape)
    sharding = getattr(like, "sharding", None)
    if sharding is None or not isinstance(leaf, np.ndarray):
        return leaf
    return jax.device_put(leaf, sharding, may_alias=False)


def take_rows(slots: Any, places: np.ndarray, axis: int) -> list[Any]:
    """What lies in some of the slots, a tree each; views where the host holds the memory."""

    def leaf(place: int, rows: Any) -> Any:
        if rows.is_fully_replicated:
            return np.asarray(rows)[(slice(None),) * axis + (place,)]
        return _take_row(rows, np.uint32(place), axis, _sharding_of_row(rows, axis))

    return [jax.tree.map(partial(leaf, place), slots) for place in places.tolist()]


def like_rows(slots: Any, axis: int) -> Any:
    """What `take_rows` gives of each, as abstract leaves."""

    def leaf(rows: Any) -> Any:
        shape = (*rows.shape[:axis], *rows.shape[axis + 1 :])
        return jax.ShapeDtypeStruct(shape, rows.dtype, sharding=_sharding_of_row(rows, axis))

    return jax.tree.map(leaf, slots)


def put_rows(slots: Any, rows: Mapping[int, Any], axis: int) -> Any:
    """The slots with what belongs into some of them; their memory is taken over."""
    for place, row in rows.items():
        slots = _put_row(slots, np.uint32(place), row, axis)
    return slots


def _sharding_of_row(rows: Any, axis: int) -> Any:
    if not isinstance(rows.sharding, NamedSharding):
        return rows.sharding
    spec = (*rows.sharding.spec[:axis], *rows.sharding.spec[axis + 1 :])
    return NamedSharding(rows.sharding.mesh, PartitionSpec(*spec))


@partial(jax.jit, static_argnums=(2, 3))
def _take_row(rows: jax.Array, place: jax.Array, axis: int, sharding: Any) -> jax.Array:
    row = jax.lax.dynamic_index_in_dim(rows, place, axis, keepdims=False)
    return jax.lax.with_sharding_constraint(row, sharding)


@partial(jax.jit, static_argnums=3, donate_argnums=0)
def _put_row(slots: Any, place: jax.Array, row: Any, axis: int) -> Any:
    def leaf(old: jax.Array, new: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_index_in_dim(old, new, place, axis)

    return jax.tree.map(leaf, slots, row)
