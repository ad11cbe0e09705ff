"""Rows that are not what their arrays say."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import numpy as np
from scipy.sparse import csr_array
from localgd import Samples, Shard

given = csr_array((3, 5))
given.data = np.ones(3)
given.indices, given.indptr = (np.array(eval(part), dtype=np.int32) for part in sys.argv[2:])
try:
    shard = Shard("a", given) if sys.argv[1] == "Shard" else Samples("a", given, np.ones(3))
except ValueError as error:
    print("refused:", error)
else:
    print("taken:", shard.rows @ np.ones(5))
"""


@pytest.mark.parametrize(
    ("kind", "indices", "starts"),
    [
        ("Shard", [0, 1, 90_000_000], [0, 1, 2, 3]),
        ("Samples", [0, 1, 90_000_000], [0, 1, 2, 3]),
        ("Shard", [0, 1, 5], [0, 1, 2, 3]),
        ("Shard", [0, 1, -1], [0, 1, 2, 3]),
        ("Shard", [0, 1, 2], [0, 2, 1, 3]),
        ("Shard", [0, 1, 2], [0, 1, 2, 30]),
    ],
    ids=["far beyond", "far beyond, targets", "just beyond", "negative", "starts that fall", "an end beyond"],
)
def test_csr_arrays_that_do_not_fit_each_other_are_refused_and_touch_no_memory_of_others(kind, indices, starts):
    """Found by an attack: foreign memory is read and written, so it runs in a process of its own."""
    words = [sys.executable, "-c", PROGRAM, kind, str(indices), str(starts)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0
    assert done.stdout.startswith("refused:")
