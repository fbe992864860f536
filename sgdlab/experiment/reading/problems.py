"""Validation errors as lines that a person can act on: path, what is wrong, what is allowed."""

import difflib
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, Tag, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from sgdlab.arguments import is_told
from sgdlab.experiment.reading.unions import KIND, NAME, Chosen, behind, kind_of, names_of

Problem = tuple[tuple[str, ...], str]
"""The path of a key, and what is wrong there."""

_BOUNDS = {Gt: (">", "gt"), Ge: (">=", "ge"), Lt: ("<", "lt"), Le: ("<=", "le")}
_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    list: "a list",
    dict: "a mapping",
    type(None): "nothing",
}


def explain(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """The problems of one validation, in the order of the model's keys."""
    return [_explain(each, model) for each in error.errors(include_url=False)]


def suggest(wrong: Any, allowed: list[str]) -> str:
    """The near match, if there is one, and all that is allowed."""
    near = difflib.get_close_matches(str(wrong), allowed, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{hint}allowed: {', '.join(allowed) or 'none'}"


def show(value: Any) -> str:
    """A value as it would stand in YAML, in at most 60 characters."""
    words = {True: "true", False: "false", None: "nothing"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _explain(error: ErrorDetails, model: type[BaseModel]) -> Problem:
    path, owner, hint = _walk(error["loc"], model)
    kind, value = error["type"], error["input"]
    if kind == "extra_forbidden":
        return path, f"unknown key; {suggest(path[-1], _keys(owner))}"
    if kind == "missing":
        return path, f"missing; allowed: {describe(hint)}"
    if kind == "union_tag_invalid":
        return _explain_tag(error, path, hint)
    if kind in ("value_error", "assertion_error"):
        return path, str(error["msg"]).removeprefix("Value error, ")
    if kind == "string_pattern_mismatch":
        pattern = error.get("ctx", {}).get("pattern")
        return path, f"{show(value)} given; allowed: a text that matches {pattern}"
    if kind in ("too_short", "too_long"):
        return path, f"{show(value)} given; allowed: another length: {error['msg']}"
    return path, f"{show(value)} given; allowed: {describe(hint, value)}"


def _explain_tag(error: ErrorDetails, path: tuple[str, ...], hint: Any) -> Problem:
    """A name that no row has, or a kind of value that no alternative takes."""
    tag, value = error.get("ctx", {})["tag"], error["input"]
    if tag.startswith(KIND):
        return path, f"{show(value)} given; allowed: {describe(hint)}"
    kind = next(k for k in _kinds_in(hint) if tag.startswith(f"{NAME}{k} "))
    names = list(names_of(kind))
    if isinstance(value, dict):
        if "name" not in value:
            return (*path, "name"), f"missing; {suggest('', names)}"
        return (*path, "name"), _unknown(value["name"], names)
    if isinstance(value, str):
        return path, _unknown(value, names)
    return path, f"{show(value)} given; allowed: {{name: ...}} with {', '.join(names)}"


def _unknown(name: Any, names: list[str]) -> str:
    return f"unknown name {show(name)}; {suggest(name, names)}"


def _walk(location: tuple[str | int, ...], model: Any) -> tuple[tuple[str, ...], Any, Any]:
    """The path of an error, the model that owns its last key, and what that key may hold."""
    path: list[str] = []
    owner, hint = model, model
    for step in location:
        if isinstance(step, str) and step.startswith((NAME, KIND)):
            hint = behind(step)
        elif step != "[key]":
            path.append(str(step))
            owner = _model_in(hint)
            hint = _below(hint, owner, step)
    return tuple(path), owner, hint


def _below(hint: Any, owner: Any, step: str | int) -> Any:
    """What may stand under one key or index."""
    if owner is not None:
        return _hint(owner.model_fields[step]) if step in owner.model_fields else None
    for inner in _alternatives(hint):
        origin, parts = get_origin(_strip(inner)), get_args(_strip(inner))
        if parts and origin not in (Literal, None):
            return parts[-1]
    return None


def _hint(field: FieldInfo) -> Any:
    hint = field.annotation
    for extra in field.metadata:
        hint = Annotated[hint, extra]
    return hint


def _strip(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _metadata(hint: Any) -> tuple[Any, ...]:
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()


def _alternatives(hint: Any) -> Iterator[Any]:
    """The parts of a union, nested ones too; a hint that is none is its own only part."""
    inner = _strip(hint)
    chosen = [extra for extra in _metadata(hint) if isinstance(extra, Chosen)]
    if chosen:
        yield from _alternatives(chosen[0].annotation)
    elif get_origin(inner) in (Union, types.UnionType):
        for part in get_args(inner):
            yield from _alternatives(part)
    else:
        yield hint


def _model_in(hint: Any) -> Any:
    """The one model that a hint allows, if there is just one."""
    found = [_strip(each) for each in _alternatives(hint)]
    models = [each for each in found if isinstance(each, type) and issubclass(each, BaseModel)]
    return models[0] if len(models) == 1 else None


def _keys(owner: Any) -> list[str]:
    return list(owner.model_fields) if owner is not None else []


def _kinds_in(hint: Any) -> list[str]:
    """The tagged unions within a hint, longest first."""
    tags = [tag for each in _alternatives(hint) for tag in _tags(each) if tag.startswith(NAME)]
    kinds = {tag.removeprefix(NAME).rpartition(" ")[0] for tag in tags}
    return sorted(kinds, key=len, reverse=True)


def _tags(hint: Any) -> list[str]:
    return [extra.tag for extra in _metadata(hint) if isinstance(extra, Tag)]


def describe(hint: Any, value: Any = None) -> str:
    """What a hint allows, in words; a far limit only where the value passes it."""
    words: list[str] = []
    for each in _alternatives(hint):
        word = _describe_one(each, _strip(each), value)
        if word not in (*words, "nothing"):
            words.append(word)
    return " or ".join(words) or "a value"


def _describe_one(hint: Any, inner: Any, value: Any) -> str:
    if get_origin(inner) is Literal:
        return " or ".join(show(choice) for choice in get_args(inner))
    if isinstance(inner, type) and issubclass(inner, BaseModel):
        names = any(tag.startswith(NAME) for tag in _tags(hint))
        return "{name: ...}" if names else f"{{{', '.join(inner.model_fields)}}}"
    if inner is Any or inner is None:
        return "a value"
    word = _KINDS.get(get_origin(inner) or inner, "a list" if get_origin(inner) else str(inner))
    if word == "a list" and get_args(inner):
        word = f"a list, each {describe(get_args(inner)[0], value)}"
    bounds = [
        f"{_BOUNDS[type(extra)][0]} {getattr(extra, _BOUNDS[type(extra)][1])}"
        for extra in _metadata(hint)
        if type(extra) in _BOUNDS and is_told(extra, value)
    ]
    return " ".join([word, " and ".join(bounds)]).strip()


def wrong_kind(value: Any, allowed: str) -> str:
    """A value of the wrong kind where no model was asked."""
    return f"{kind_of(value)} given; allowed: {allowed}"
