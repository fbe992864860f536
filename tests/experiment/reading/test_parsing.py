"""YAML is read as YAML 1.2 means it, and what is ambiguous or active is refused."""

import math

import pytest
import yaml
from hypothesis import example, given, settings, strategies as st

from sgdlab.experiment.errors import ConfigError
from sgdlab.experiment.reading.parsing import MAX_DEPTH, MAX_VALUES, dump, parse

SCALARS = {
    "1e-3": 0.001,
    "1E5": 1e5,
    ".5": 0.5,
    "-3.": -3.0,
    "010": 10,
    "-7": -7,
    ".inf": math.inf,
    "-.inf": -math.inf,
    "true": True,
    "false": False,
    "null": None,
    "~": None,
    "": None,
    "1_000": "1_000",
    "0x10": "0x10",
    "1:30": "1:30",
    "2020-01-01": "2020-01-01",
    "inf": "inf",
    "momentum": "momentum",
    '"yes"': "yes",
    "'1e-3'": "1e-3",
    '"true"': "true",
}


@pytest.mark.parametrize("text", SCALARS)
def test_a_scalar_means_one_thing(text):
    value = parse(f"key: {text}", "x")["key"]
    assert value == SCALARS[text]
    assert type(value) is type(SCALARS[text])


def test_not_a_number_is_read_as_such():
    assert math.isnan(parse("key: .nan", "x")["key"])


@pytest.mark.parametrize("text", ["yes", "no", "on", "off", "y", "N", "True", "FALSE", "Null"])
def test_what_older_yaml_takes_for_a_boolean_is_refused(text):
    with pytest.raises(
        ConfigError, match=rf"^x: line 1: {text} is ambiguous; allowed: .*\"{text}\"$"
    ):
        parse(f"key: {text}", "x")


REFUSED = {
    "!!python/object/apply:os.system [echo]": "the tag",
    "!!str 3": "the tag",
    "! x": "the tag",
    "a: &x 1": "the anchor &x",
    "a: [&x 1, *x]": "the alias *x",
    "a: 1\na: 2": "line 2: the key a stands twice",
    "1.5: a": "a key that is no text",
    "true: a": "a key that is no text",
    "? [a]\n: b": "a key that is no text",
    "a: 1e999": "too large",
    f"a: {'9' * 5000}": "5000 digits",
    "a: 1\n---\nb: 2": "a second document",
    "%YAML 1.1\n---\na: 1": "a directive",
    "a: [1": "line",
    "a: b: c": "line 1: mapping values are not allowed here",
    "a: \x00": "special characters",
    "[" * (MAX_DEPTH + 1): "too much",
    "[" + "1," * (MAX_VALUES + 1) + "]": "too much",
    "a: " + "x" * 300_000: "allowed: 262144 bytes",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: repr(text[:20]))
def test_what_is_not_plain_data_is_refused_in_one_line(text):
    with pytest.raises(ConfigError) as caught:
        parse(text, "x.yaml")
    assert any(REFUSED[text] in problem for problem in caught.value.problems)
    assert all(problem.startswith("x.yaml: ") for problem in caught.value.problems)
    assert not any("\n" in problem for problem in caught.value.problems)


def test_all_problems_of_a_text_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        parse("a: yes\nb: !!str 3\na: 1\nc: off", "x")
    assert [p.split(": ")[1] for p in caught.value.problems] == [f"line {n}" for n in (1, 2, 3, 4)]


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(min_codepoint=32, max_codepoint=126)), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(plain)
@settings(max_examples=60, deadline=None)
@example(["1e-3", "Y", "no", "010", "~", ".inf", "<<", "=", "1:30", "", " a", "a: b", "#"])
@example(["\x85", "a\u2028b", "\u2029", "x\x85 y"])
def test_what_is_dumped_is_read_back(data):
    assert parse(dump(data), "x") == data


@given(st.text(max_size=80))
@settings(max_examples=100, deadline=None)
def test_any_text_is_data_or_a_config_error(text):
    problems: tuple[str, ...] = ()
    try:
        parse(text, "x")
    except ConfigError as error:
        problems = error.problems
    assert all(p.startswith("x: ") and len(p.splitlines()) == 1 for p in problems)


@given(st.from_regex(r"[-+]?[0-9]{1,8}(\.[0-9]{1,5})?([eE][-+]?[0-9]{1,2})?", fullmatch=True))
@settings(max_examples=60, deadline=None)
def test_decimal_numbers_are_pythons(text):
    assert parse(f"a: {text}", "x") == {"a": float(text)}


def test_pyyaml_itself_would_misread_them():
    # The reason for a reader of our own.
    assert yaml.safe_load("[1e-3, on, 010]") == ["1e-3", True, 8]
