"""The resamples of two streams; what they are for is tested with the claims."""

import numpy as np

from sgdlab.statistics import RESAMPLES, Resamples


def test_another_stream_is_independent():
    values = np.arange(8.0)[None]
    one, other = (Resamples(1, 8, stream=k).combine(values, "mean") for k in (0, 1))
    assert one[0] == other[0] == 3.5
    # of independent means the correlation has a standard deviation of 1/√2000
    assert abs(np.corrcoef(one[1:], other[1:])[0, 1]) < 5 / np.sqrt(RESAMPLES)
