"""The suite that every engine passes, over the nodes of a real Flower app: deployed or simulated."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from engines import tasks
from localgd import Shard
from localgd.flower import FlowerEngine, Limits, answer
from localgd.methods.served import ENCODERS, TASKS

GRIDS: list[Any] = []
"""The grid of the app that this process serves, if it is one."""

N_NODES = 3


@dataclass(frozen=True)
class Given:
    """Rows of all nodes, as plain numbers: each takes its own. Flower's nodes are sent data, not shards."""

    rows: tuple[tuple[tuple[float, ...], ...], ...]

    def __call__(self, shard: Shard) -> Shard:
        return Shard(shard.node_id, self.rows[int(shard.node_id.partition("-")[2])])


def called(context: Any) -> Shard:
    """Something under the node's name: its rows come with a view."""
    config = context.node_config
    config.setdefault("share-errors", True)  # simulated nodes have no operator who could
    return Shard(str(config.get("node-name", f"node-{config.get('partition-id')}")), [[1.0]])


client = answer(
    ClientApp(),
    called,
    tasks=[*TASKS, *tasks.TASKS],
    encoders=[*ENCODERS, *tasks.ENCODERS, Given],
    limits=Limits(min_rows=1, min_batch=1, min_group=1),  # its nodes have fewer than eight rows
)


@cache
def met(grid: Any) -> FlowerEngine:
    """The nodes of a grid, asked for their names once: a round of a deployment takes seconds."""
    return FlowerEngine(grid, n_nodes=N_NODES, timeout=60.0)


def federation(grid: Any, shards: list[Shard], **options: Any) -> FlowerEngine:
    """A federation whose nodes hold these rows."""
    rows = tuple(tuple(map(tuple, np.asarray(shard.rows).tolist())) for shard in shards)
    nodes = FlowerEngine(grid, **{"n_nodes": N_NODES, "timeout": 60.0, **options}) if options else met(grid)
    engine = nodes.map(Given(rows))
    engine.failures = []
    return engine


class Outcomes(dict):
    """How each test ended, for pytest to fill in."""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            as_expected = report.outcome == "skipped" and hasattr(report, "wasxfail")  # a fault that is known
            said = "passed" if as_expected else report.longreprtext[-2000:] or report.outcome
            self[report.nodeid.rpartition("::")[2]] = said


def outcomes(grid: Any) -> dict[str, str]:
    """Run the suite over this grid."""
    GRIDS.append(grid)
    found = Outcomes()
    words = ["-q", "-p", "no:cacheprovider", "-k", "over_flower"]
    words += ["--timeout-method=thread"]  # Flower may run this in a thread, where no signal ends what hangs
    words += ["-o", "filterwarnings="]  # warnings of Flower and Ray, in threads of theirs, are not ours to raise
    pytest.main([str(Path(__file__).with_name("test_contract.py")), *words], [found])
    return dict(found)


def assert_kept(found: dict[str, str]) -> None:
    """Every test of the suite was run, and passed."""
    from engines import test_contract

    assert set(found.values()) == {"passed"}, "\n".join(found.values())
    suite = {
        name
        for name, test in vars(test_contract).items()
        if test_contract.engines.mark in getattr(test, "pytestmark", [])
    }
    assert {name.partition("[")[0] for name in found} == suite


server = ServerApp()


@server.main()
def main(grid: Any, context: Any) -> None:
    """Run the suite, and write down how each test ended."""
    Path(context.run_config["results"]).write_text(json.dumps(outcomes(grid)))
