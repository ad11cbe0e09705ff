"""The Gaussian problems, against the recipe they were first drawn with."""

import hashlib

import numpy as np
import pytest

from localgd.data.synthetic import KNOWN, gaussian_problem

# SHA-256 of all signed rows, as the first drawing of each problem gave them.
CHECKSUMS = {
    "gauss-400": "4002da09401616cf",
    "gauss-400-shifted": "2192f043265f7fb1",
    "gauss-2000": "dc41312e9768f1e9",
    "gauss-2000-shifted": "cd75b60719a95731",
    "hard": "52ec70fe33617d53",
    "many-nodes": "5ebddb605a8232dc",
    "rate-law": "2a02177d6178c3df",
}


def test_unknown_names_are_corrected() -> None:
    with pytest.raises(ValueError, match="name='gaus-400' is no known problem; did you mean 'gauss-400'"):
        gaussian_problem("gaus-400")


@pytest.mark.parametrize("name", KNOWN)
def test_problems_are_drawn_bit_for_bit(name: str) -> None:
    rows = np.stack([shard.rows for shard in gaussian_problem(name)])
    problem = KNOWN[name]
    assert rows.shape == (problem.n_nodes, problem.rows_per_node, problem.n_features)
    assert hashlib.sha256(rows.tobytes()).hexdigest().startswith(CHECKSUMS[name])


@pytest.mark.parametrize("name", KNOWN)
def test_the_largest_row_has_norm_one(name: str) -> None:
    assert max(shard.radius for shard in gaussian_problem(name)) == pytest.approx(1.0, abs=1e-9)
