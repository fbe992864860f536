"""Strict models from argument tables: one for each row, chosen by `name`.

A table is `name -> {argument: (annotation, default)}`. Unions are told apart before anything is
validated, by name or by kind of value, so that a wrong value has one error and not one for each
alternative. The tags that pydantic puts into an error's location begin with NUL, which no YAML text
can contain.
"""

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    Tag,
    create_model,
    model_validator,
)

from sgdlab.arguments import MayBeInfinite

Row = Mapping[str, tuple[Any, Any]]

KIND, NAME = "\0kind ", "\0name "


class Strict(BaseModel):
    """No unknown key, no conversion of types, no infinity unless it is asked for, no change."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        protected_namespaces=(),
        defer_build=True,
    )


class Alternative(Strict):
    """One alternative of a tagged union; the bare name stands for it with its defaults."""

    name: str

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, value: Any) -> Any:
        return {} if isinstance(value, str) else value


class Named(Alternative):
    """An alternative that becomes a call: of a rule, a protocol, a task."""

    def arguments(self) -> dict[str, Any]:
        """Everything but the name."""
        return self.model_dump(exclude={"name"})


@dataclass(frozen=True)
class Chosen:
    """Metadata of an annotation: what is really validated there, where a type checker sees less."""

    annotation: Any

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        """The schema of the annotation."""
        return handler.generate_schema(self.annotation)


# What stands behind a tag, and the names of each tagged union: filled as unions are made.
_behind: dict[str, Any] = {}
_names: dict[str, tuple[str, ...]] = {}


def tagged(
    kind: str,
    rows: Mapping[str, Row],
    default: str | None = None,
    base: type[Alternative] = Named,
    **more: Any,
) -> Any:
    """The annotation of a tagged union.

    Args:
      kind: what the union is of, unique: "rule".
      rows: the argument table.
      default: the name where only arguments are given; by default a name is needed.
      base: of the models of its rows.
      **more: arguments that every row has besides its own.

    Returns:
      An annotation for a field of a pydantic model.
    """

    def choose(value: Any) -> str:
        name = getattr(value, "name", value)
        if isinstance(value, Mapping):
            name = value.get("name", default)
        return f"{NAME}{kind} {name}"

    parts = []
    for name, row in rows.items():
        fields = {key: (refine(hint), value) for key, (hint, value) in {**row, **more}.items()}
        # The literal is checked by the choice itself: a bare name has none.
        fields = {"name": (Literal[name], name), **fields}
        model = create_model(f"{kind} {name}", __base__=base, **fields)
        tag = f"{NAME}{kind} {name}"
        _behind[tag] = model
        parts.append(Annotated[model, Tag(tag)])
    _names[kind] = tuple(rows)
    return Annotated[Union[tuple(parts)], Discriminator(choose)]  # noqa: UP007  a tuple of parts


def behind(tag: str) -> Any:
    """The model, or the annotation, that a tag in an error's location stands for."""
    return _behind[tag]


def names_of(kind: str) -> tuple[str, ...]:
    """The names that a tagged union has."""
    return _names[kind]


def kind_of(value: Any) -> str:
    """What kind of YAML value this is."""
    if isinstance(value, bool):
        return "true or false"
    for kinds, name in (
        ((int, float), "a number"),
        (str, "a text"),
        ((list, tuple), "a list"),
        (type(None), "nothing"),
    ):
        if isinstance(value, kinds):
            return name
    return "a mapping"


def by_kind(*annotations: Any) -> Any:
    """A union of annotations that take different kinds of values."""
    prefix = f"{KIND}{len(_behind)} "
    parts = []
    for annotation in annotations:
        tag = prefix + _takes(annotation)
        _behind[tag] = annotation
        parts.append(Annotated[annotation, Tag(tag)])
    choose = Discriminator(lambda value: prefix + kind_of(value))
    return Annotated[Union[tuple(parts)], choose]  # noqa: UP007  a tuple of parts


def refine(annotation: Any) -> Any:
    """The annotation with its unions told apart by kind, and infinity where it is marked."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner, *metadata = parts
        if any(isinstance(extra, Discriminator) for extra in metadata):
            return annotation
        if MayBeInfinite in metadata:
            metadata = [m for m in metadata if m is not MayBeInfinite]
            metadata.append(Field(allow_inf_nan=True))
        return reduce(lambda hint, extra: Annotated[hint, extra], metadata, refine(inner))
    if origin not in (Union, types.UnionType):
        return annotation
    some = [refine(part) for part in parts if part is not type(None)]
    kinds = {_takes(part) for part in some}
    union = by_kind(*some) if 1 < len(some) == len(kinds) else reduce(or_, some)
    return union | None if type(None) in parts else union


def replace(annotation: Any, old: Any, new: Any) -> Any:
    """The annotation with one of its parts put in place of another."""
    if annotation == old:
        return new
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner, *metadata = parts
        return reduce(
            lambda hint, extra: Annotated[hint, extra], metadata, replace(inner, old, new)
        )
    if origin in (Union, types.UnionType):
        return Union[tuple(replace(part, old, new) for part in parts)]  # noqa: UP007
    if origin is list:
        return list[replace(parts[0], old, new)]
    return annotation


def replace_rows(rows: Mapping[str, Row], old: Any, new: Any) -> dict[str, Row]:
    """A table with one annotation put in place of another throughout."""
    return {
        name: {key: (replace(hint, old, new), value) for key, (hint, value) in row.items()}
        for name, row in rows.items()
    }


def read_row(function: Callable, skip: Sequence[str] = ()) -> dict[str, tuple[Any, Any]]:
    """The row of an annotated function or dataclass: its own signature."""
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    return {
        each.name: (each.annotation, ... if each.default is each.empty else each.default)
        for each in parameters
        if each.name not in skip
    }


def _takes(annotation: Any) -> str:
    """The kind of value that an annotation takes."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _takes(parts[0])
    if origin is Literal:
        return kind_of(parts[0])
    kind = origin or annotation
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        return "a number"
    if kind is str:
        return "a text"
    if isinstance(kind, type) and issubclass(kind, Sequence):
        return "a list"
    return "a mapping"
