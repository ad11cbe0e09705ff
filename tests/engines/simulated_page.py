"""Run by test_flower_simulated.py: a program of docs/flower.md, by its place on the page, in Flower's simulation."""

from __future__ import annotations

import sys
from types import ModuleType

from flwr.simulation import run_simulation

from engines.test_flower_page import BLOCKS

if __name__ == "__main__":
    program = ModuleType("program")
    exec(BLOCKS[int(sys.argv[1])][1], program.__dict__)  # noqa: S102  our own page
    run_simulation(
        program.server,
        program.client,
        num_supernodes=3,
        backend_config={
            "client_resources": {"num_cpus": 0.5, "num_gpus": 0.0},
            "init_args": {"num_cpus": 2, "include_dashboard": False, "log_to_driver": False},
        },
    )
