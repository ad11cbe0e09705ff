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

HERE = Path(__file__).parent


@pytest.mark.deployed
def test_a_simulation_keeps_the_contract_and_makes_the_same_models_as_in_process(tmp_path):
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    paths = [str(Path(localgd.__file__).parents[1]), str(HERE.parent)]
    done = subprocess.run(
        [sys.executable, str(HERE / "simulated.py")],
        env=os.environ | quiet | {"PYTHONPATH": os.pathsep.join(paths), "FLWR_HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert_kept(found["contract"])
    assert found["report"] <= OTHER_ORDER
    for name in ("local-gd", "modified-local-gd", "scaffold", "consensus"):
        assert found[name]["away"] == 0.0, name
        assert found[name]["rounds"] == 50 or name == "modified-local-gd"
