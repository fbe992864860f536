"""YAML as plain data, read strictly: no tags, no aliases, no scalar that means two things.

Plain scalars are YAML 1.2's: `1e-3` is a number, `010` is ten, dates and `1:30` are text, and the
only booleans are `true` and `false`. What older YAML takes for a boolean (`yes`, `off`, `True`) is
refused unless it is quoted. The parser's events are turned into data here, without PyYAML's
constructors, so that no document can name a Python object.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

from sgdlab.experiment.errors import ConfigError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 16
MAX_VALUES = 20_000

_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}
_PLAIN = {"": None, "~": None, "null": None, "true": True, "false": False}
_AMBIGUOUS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
_MAX_DIGITS = 40


def parse(text: str, source: str) -> Any:
    """The data of one YAML document.

    Args:
      text: the document.
      source: where it comes from; problems begin with it.

    Returns:
      Dicts, lists, str, int, float, bool and None; None for an empty document.

    Raises:
      ConfigError: with every problem of the text.
    """
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise ConfigError([f"{source}: {len(text)} characters; allowed: {MAX_BYTES} bytes"])
    builder = _Builder(text)
    try:
        data = builder.document()
    except yaml.YAMLError as error:
        builder.problems.append(_explain(error))
        data = None
    if builder.problems:
        raise ConfigError([f"{source}: {problem}" for problem in builder.problems])
    return data


def resolve(text: str) -> Any:
    """What a plain scalar stands for.

    Raises:
      ValueError: it means different things to different readers, or is no float64.
    """
    if text in _PLAIN:
        return _PLAIN[text]
    if text.lower() in _AMBIGUOUS:
        raise ValueError(f'{text} is ambiguous; allowed: true, false, or the text "{text}"')
    if text.lower() in _SPECIAL:
        return _SPECIAL[text.lower()]
    if _INTEGER.fullmatch(text):
        if len(text) > _MAX_DIGITS:
            raise ValueError(f"a number of {len(text)} digits; allowed: {_MAX_DIGITS}")
        return int(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if math.isinf(number):
            raise ValueError(f"{text} is too large; allowed: what a float64 holds, or .inf")
        return number
    return text


_BREAKS = {"\x85", "\u2028", "\u2029"}  # which YAML takes for ends of lines


class _Dumper(yaml.SafeDumper):
    """Writes what `parse` reads back."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        try:
            style = None if resolve(text) == text else "'"
        except ValueError:
            style = "'"
        if _BREAKS & {*text}:  # unescaped they would be read back as spaces
            style = '"'
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)


def dump(data: Any) -> str:
    """Plain data as YAML that `parse` reads back: no aliases, keys in their order."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Builder:
    """One document from the parser's events, with the problems met on the way."""

    def __init__(self, text: str) -> None:
        self.problems: list[str] = []
        self.values = 0
        self.events: Iterator[Any] = yaml.parse(text, Loader=yaml.SafeLoader)

    def document(self) -> Any:
        data, documents = None, 0
        for event in self.events:
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            documents += 1
            if event.tags or event.version:
                self.refuse(event, "a directive; allowed: none")
            if documents > 1:
                self.refuse(event, "a second document; allowed: one")
                break
            data = self.value(next(self.events), 1)
        return data

    def value(self, event: Any, depth: int) -> Any:
        self.values += 1
        if self.values > MAX_VALUES or depth > MAX_DEPTH:
            limit = f"{MAX_VALUES} values, {MAX_DEPTH} deep"
            raise yaml.MarkedYAMLError(None, None, f"too much; allowed: {limit}", event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            return self.refuse(event, f"the alias *{event.anchor}; allowed: the value itself")
        if event.anchor:
            self.refuse(event, f"the anchor &{event.anchor}; allowed: plain values")
        if event.tag:
            self.refuse(event, f"the tag {event.tag}; allowed: plain values")
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(depth)
        return self.mapping(depth)

    def scalar(self, event: Any) -> Any:
        if event.style:
            return event.value
        try:
            return resolve(event.value)
        except ValueError as error:
            return self.refuse(event, str(error))

    def sequence(self, depth: int) -> list[Any]:
        items = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.value(event, depth + 1))
        return items

    def mapping(self, depth: int) -> dict[Any, Any]:
        items: dict[Any, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.value(event, depth + 1)
            if not isinstance(key, str | int) or isinstance(key, bool):
                self.refuse(event, "a key that is no text; allowed: text or whole numbers as keys")
                key = str(key)
            elif key in items:
                self.refuse(event, f"the key {key} stands twice; allowed: once")
            items[key] = self.value(next(self.events), depth + 1)
        return items

    def refuse(self, event: Any, what: str) -> None:
        self.problems.append(f"line {event.start_mark.line + 1}: {what}")


def _explain(error: yaml.YAMLError) -> str:
    """A syntax error in one line."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        return where + " ".join(str(error.problem or error.context).split())
    return " ".join(str(error).split())[:200]
