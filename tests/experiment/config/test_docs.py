"""What docs/experiments.md shows is valid and runs."""

import re
from pathlib import Path

import pytest

from sgdlab.experiment.config.experiment import load_experiment
from sgdlab.experiment.config.schema import Config
from sgdlab.experiment.reading.parsing import parse

TEXT = (Path(__file__).parents[3] / "docs" / "experiments.md").read_text()
BASE = {
    "name": "base",
    "task": {"name": "quadratic", "curvature": 1.0},
    "rule": {"name": "sgd", "learning_rate": 0.1},
    "protocol": "synchronous",
    "seconds": 10.0,
}


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.split(":")[0])
def test_every_yaml_block_is_a_config_or_a_part_of_one(block):
    data = parse(block, "docs")
    assert load_experiment({**BASE, **data}).points


def test_every_python_block_runs(capsys):
    for block in blocks("python"):
        exec(compile(block, "docs/experiments.md", "exec"), {})
    assert "(2, 200)" in capsys.readouterr().out


def test_every_key_is_documented():
    rows = re.findall(r"^\| (`.*?`) \|", TEXT, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert {*Config.model_fields, "sweep"} <= named


def test_every_fence_is_run_checked_or_marked_as_text():
    assert set(re.findall(r"^```(\w+)$", TEXT, re.MULTILINE)) == {"yaml", "python", "text"}
