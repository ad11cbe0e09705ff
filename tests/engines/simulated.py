"""Run by test_flower_simulated.py in a process of its own: Ray starts others and changes the environment."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from common import penalised, random_rows
from engines import over_flower
from localgd import InProcess, Message, consensus, local_gd, modified_local_gd, scaffold, train
from localgd.problems.metrics import Evaluate

METHODS = [local_gd(local_steps=20), modified_local_gd(), penalised(scaffold(local_steps=20), 1.0), consensus()]
SEPARABLE = random_rows(5, n_nodes=3)
FOUND: dict[str, object] = {}


def main(grid: Grid, context: Context) -> None:  # noqa: ARG001
    FOUND["contract"] = over_flower.outcomes(grid)
    engine = over_flower.federation(grid, SEPARABLE, poll=0.01)
    here = InProcess(SEPARABLE)
    message = Message(0, np.arange(5.0))
    report, expected = (held.round(Evaluate(), message) for held in (engine, here))
    FOUND["report"] = max(abs(float(report.sums[name] - expected.sums[name])) for name in expected.sums)
    for method in METHODS:
        begin = time.perf_counter()
        run, same = (train(held, method, n_rounds=50) for held in (engine, here))
        away = float(np.abs(run.w - same.w).max())
        FOUND[method.name] = {"away": away, "rounds": run.n_rounds, "seconds": time.perf_counter() - begin}
    FOUND["bytes"] = engine.bytes_up, engine.bytes_down


if __name__ == "__main__":
    server = ServerApp()
    server.main()(main)
    run_simulation(
        server,
        over_flower.client,
        num_supernodes=3,
        backend_config={
            "client_resources": {"num_cpus": 0.5, "num_gpus": 0.0},
            "init_args": {"num_cpus": 2, "include_dashboard": False, "log_to_driver": False},
        },
    )
    sys.stdout.write(json.dumps(FOUND))
