"""A classifier's rows as people hand them over: taken, or refused by what is wrong."""

from typing import Any

import flax.linen as nn
import numpy as np
import pandas as pd
import pytest

from sgdlab import tasks

classifier: Any = tasks.classifier  # what a type checker would tell, before the call is made
ROWS = np.arange(8.0).reshape(4, 2)
LABELS = np.array([0, 1, 2, 1])
GIVEN = {"input": ROWS, "label": LABELS}
NETWORK = nn.Dense(3)


@pytest.mark.parametrize(
    "given",
    [
        {"input": ROWS.tolist(), "label": LABELS.tolist()},
        {"input": tuple(map(tuple, ROWS)), "label": tuple(LABELS)},
        (ROWS, LABELS),
        [ROWS.tolist(), LABELS.astype(float)],
        pd.DataFrame(ROWS, columns=["a", "b"]).assign(label=LABELS),
        {"input": pd.DataFrame(ROWS), "label": pd.Series(LABELS)},
    ],
    ids=["lists", "tuples", "pair", "list", "frame", "frames"],
)
def test_rows_in_any_form_are_the_same_task(given):
    made, expected = classifier(NETWORK, given, given), classifier(NETWORK, GIVEN, GIVEN)
    assert made.metadata["sha256"] == expected.metadata["sha256"]
    assert made.train["input"].dtype == np.float32
    assert made.labels.dtype == np.int32


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"label": [0, 1, 3, 1]}, "label 3 of row 2; allowed: 0 to 2"),
        ({"label": [0, -1, 2, 1]}, "label -1 of row 1; allowed: 0, 1, 2"),
        ({"label": [0, 0.5, 2, 1]}, "label 0.5 of row 1"),
        ({"label": [0, 1]}, "label is int64[2]; allowed: whole numbers [4]"),
        ({"label": ["a", "b", "c", "d"]}, "label is <U1[4]"),
        ({"input": np.where(ROWS == 4, np.nan, ROWS)}, "input of row 2 is not finite"),
        ({"input": ROWS[:, 0]}, "input is float64[4]; allowed: numbers [n, ...]"),
        ({"input": ROWS[:0], "label": LABELS[:0]}, "allowed: numbers [n, ...], one row at least"),
        ({"image": ROWS}, "dict given; allowed"),
    ],
)
@pytest.mark.parametrize("part", ["train", "test"])
def test_rows_that_no_network_learns_from_are_refused_at_their_row(part, change, line):
    given = {"train": GIVEN, "test": GIVEN, part: {**GIVEN, **change}}
    with pytest.raises(ValueError, match=f"^{part}: ") as error:
        classifier(NETWORK, given["train"], given["test"])
    assert line in str(error.value)
