"""What can't be held is refused before anything is compiled."""

import os

import numpy as np
import pytest

from sgdlab.training import memory


def test_a_minibatch_is_its_rows_and_its_row_numbers(monkeypatch):
    monkeypatch.setattr(memory, "memory_bytes", lambda: 1000)
    train = {"x": np.zeros((7, 2), np.float32), "y": np.zeros(7, np.int32)}
    memory.check_batch_size(50, train, 2)  # 50 × (12 + 2 × 4)
    with pytest.raises(ValueError, match=r"51 rows take .* and there are .* at most 50"):
        memory.check_batch_size(51, train, 2)


def test_a_host_has_no_more_than_its_memory():
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 2**20 < memory.memory_bytes() <= physical
