"""The example of the page, as its reader starts it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from engines.ranks import in_ranks

EXAMPLE = "examples/torchrun/train_digits.py"


@pytest.mark.processes
def test_the_example_learns_and_goes_on_from_its_checkpoints(tmp_path):
    first = in_ranks(2, [EXAMPLE, "--outer", "average", "--checkpoints", f"{tmp_path}"])
    assert [rank.code for rank in first] == [0, 0], first[0].output
    rates = [float(rate) for rate in re.findall(r"([\d.]+)% right", first[0].output)]
    assert len(rates) == 10
    assert rates[-1] > 90
    again = in_ranks(2, [EXAMPLE, "--checkpoints", f"{tmp_path}"])
    assert [rank.code for rank in again] == [0, 0], again[0].output
    assert "epoch" not in again[0].output


def test_without_torch_the_error_names_the_extra():
    program = "import sys; sys.modules['torch'] = None\nimport localgd.nets"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith("torch is missing; get it with: pip install 'localgd[torch]'")


def test_the_page_names_what_there_is():
    from localgd import nets

    page = (Path(__file__).parents[2] / "docs" / "networks.md").read_text(encoding="utf-8")
    for name in set(nets.__all__) - {"Outer", "RankError"}:
        assert name in page
