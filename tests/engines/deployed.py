"""A Flower app whose server runs the suite that every engine passes, over nodes in processes of their own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from engines import tasks
from localgd import Shard
from localgd.flower import FlowerEngine, answer
from localgd.rules.named import ENCODERS, TASKS

GRIDS: list[Any] = []
"""The grid of the app that this process serves, if it is one."""

N_NODES = 3


@dataclass(frozen=True)
class Given:
    """Rows of all nodes, as plain numbers: each takes its own. Flower's nodes are sent data, not shards."""

    rows: tuple[tuple[tuple[float, ...], ...], ...]

    def __call__(self, shard: Shard) -> Shard:
        return Shard(shard.node_id, self.rows[int(shard.node_id.partition("-")[2])])


client = answer(
    ClientApp(),
    lambda context: Shard(str(context.node_config["node-name"]), [[1.0]]),
    tasks=[*TASKS, *tasks.TASKS],
    encoders=[*ENCODERS, *tasks.ENCODERS, Given],
)


def deployed(shards: list[Shard], **options: Any) -> FlowerEngine:
    """A federation whose nodes hold these rows."""
    engine = FlowerEngine(GRIDS[0], **{"n_nodes": N_NODES, "timeout": 60.0, **options})
    rows = tuple(tuple(map(tuple, np.asarray(shard.rows).tolist())) for shard in shards)
    return engine.map(Given(rows))


class Outcomes(dict):
    """How each test ended, for pytest to fill in."""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            self[report.nodeid.rpartition("::")[2]] = report.longreprtext[-2000:] or report.outcome


server = ServerApp()


@server.main()
def main(grid: Any, context: Any) -> None:
    """Run the suite, and write down how each test ended."""
    GRIDS.append(grid)
    suite = str(Path(__file__).with_name("test_contract.py"))
    outcomes = Outcomes()
    words = ["-q", "-p", "no:cacheprovider", "-k", "deployed"]
    words += ["--timeout-method=thread"]  # Flower may run this in a thread, where no signal ends what hangs
    words += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # Flower has loaded some of pytest's plugins
    pytest.main([suite, *words], [outcomes])
    Path(context.run_config["results"]).write_text(json.dumps(outcomes))
