"""The experiments that come with sgdlab: whole files, with claims, and their table."""

import re
from pathlib import Path

import pytest

from sgdlab.experiment import load_experiment

FOLDER = Path(__file__).parents[3] / "experiments"
FILES = sorted(FOLDER.rglob("*.yaml"))
CLAIMING = [path for path in FILES if path.parent.name != "devices"]  # which not all machines have
TABLE = (FOLDER / "README.md").read_text()


def named(path):
    return path.relative_to(FOLDER).as_posix()


def count(claims):
    """How the table writes what these claims come to."""
    refuted = sum(claim.refuted is not None for claim in claims)
    held = f"{len(claims) - refuted} hold"
    return f"{held}, {refuted} refuted" if refuted else held


@pytest.mark.parametrize("path", CLAIMING, ids=named)
def test_a_file_says_what_it_asks_and_what_came_out(path):
    text = path.read_text()
    experiment = load_experiment(path)
    assert experiment.claims
    for word in ("Question:", "Command:", "Run time:", "Expected:"):
        assert f"\n# {word}" in f"\n{text}"
    assert f" experiments/{named(path)}" in text.split("\nname:")[0]
    (row,) = [line for line in TABLE.splitlines() if f"]({named(path)})" in line]
    assert f"| {count(experiment.claims)} |" in row
    assert ("*fast*" in row) == ("fast" in experiment.tags)


def test_the_table_has_every_file_and_adds_them_up():
    linked = set(re.findall(r"\]\(([\w/.-]+\.yaml)\)", TABLE))
    assert linked == {named(path) for path in FILES}
    claims = [claim for path in CLAIMING for claim in load_experiment(path).claims]
    refuted = [claim for claim in claims if claim.refuted]
    total = f"{len(claims)} claims, of which {len(claims) - len(refuted)} hold"
    assert f"{total} and {len(refuted)} are refuted" in " ".join(TABLE.split())
