"""Flower's own simulation: nodes in processes that Ray has started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import localgd
from common import OTHER_ORDER
from engines.over_flower import assert_kept
from engines.test_flower_page import BLOCKS

HERE = Path(__file__).parent


def simulated(folder, *arguments):
    """What a program printed that Flower's simulation ran."""
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    paths = [str(Path(localgd.__file__).parents[1]), str(HERE.parent)]
    done = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | quiet | {"PYTHONPATH": os.pathsep.join(paths), "FLWR_HOME": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return done.stdout.splitlines()[-1]


@pytest.mark.deployed
def test_a_simulation_keeps_the_contract_and_makes_the_same_models_as_in_process(tmp_path):
    found = json.loads(simulated(tmp_path, str(HERE / "simulated.py")))
    assert_kept(found["contract"])
    assert found["report"] <= OTHER_ORDER
    for name in ("local-gd", "modified-local-gd", "scaffold", "consensus"):
        assert found[name]["away"] == 0.0, name
        assert found[name]["rounds"] == 50 or name == "modified-local-gd"


@pytest.mark.deployed
@pytest.mark.parametrize("place", range(len(BLOCKS)), ids=[title for title, _ in BLOCKS])
def test_the_programs_of_the_page_run_in_a_simulation_as_they_are(place, tmp_path):
    said = simulated(tmp_path, str(HERE / "simulated_page.py"), str(place))
    assert said.startswith(("certified: within ", "farther than asked: at least "))
