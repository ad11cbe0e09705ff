"""Four methods over a Flower deployment on this machine: seconds and bytes a round, and the same model as in-process.

    python benchmarks/flower_deployed.py [--rounds 50] [--methods local-gd modified-local-gd scaffold consensus]

Three SuperNodes with TLS and node authentication, real processes on 127.0.0.1. A round takes several seconds, as Flower
starts a process for every message, so 4 × 50 rounds take half an hour or more.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from engines.fleet import Fleet
from localgd import InProcess, Regularised, load, prepare, train
from localgd.methods.table import method_named

NAMES = ("east", "north", "south")
METHODS = ("local-gd", "modified-local-gd", "scaffold", "consensus")


def write_sites(folder: Path) -> None:
    """Rows that a plane separates, one file per node."""
    rng = np.random.default_rng(0)
    normal = rng.standard_normal(20)
    for name in NAMES:
        x = rng.standard_normal((200, 20)) + 0.3 * rng.standard_normal(20)
        y = x @ normal > 0
        x += np.where(y, 0.05, -0.05)[:, None] * normal
        frame = pl.DataFrame({f"x{j}": x[:, j] for j in range(20)} | {"ill": np.where(y, "yes", "no")})
        frame.write_csv(folder / f"{name}.csv")


def main() -> None:
    """Run and print one line per method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or the SuperNodes would be left behind
    with tempfile.TemporaryDirectory(prefix="flower-") as place:
        folder = Path(place)
        for name in ("sites", "fleet"):
            (folder / name).mkdir()
        write_sites(folder / "sites")
        here = prepare(InProcess(load(folder / "sites", label="ill")), scale="standard")[0]
        mine = {"label": "ill", "secret": "the same on all of these, as one person runs them"}
        configs = [mine | {"data-path": f"{folder}/sites/{name}.csv", "node-name": name} for name in NAMES]
        print(
            f"{'method':20} {'rounds':>6} {'s/round':>8} {'floats up':>10} {'floats down':>11} {'away':>8}", flush=True
        )
        with Fleet(folder / "fleet", configs) as fleet:
            for method in asked.methods:
                out = folder / method
                problem = Regularised(C=1.0, intercept=True) if method == "scaffold" else None
                job = {"data": "", "n-nodes": 3, "method": method, "n-rounds": asked.rounds}
                run = fleet.run(**job, out=str(out), C="" if problem is None else problem.C)
                status = fleet.wait(run, 200 + 20 * asked.rounds, out)
                assert status == "finished:completed", fleet.told(run)  # noqa: S101
                history = pl.read_csv(out / "history.csv")
                model = json.loads((out / "model.json").read_text())
                expected = train(here, method_named(method), problem=problem, n_rounds=asked.rounds).w
                away = float(np.abs(np.append(model["coef"], model["intercept"]) - expected).max())
                first, last = history.row(0, named=True), history.row(-1, named=True)
                rounds = max(1, last["round"])
                seconds = (last["seconds"] - first["seconds"]) / rounds
                up, down = (last[name] / (rounds + 1) for name in ("floats_up", "floats_down"))
                print(f"{method:20} {rounds:6} {seconds:8.2f} {up:10.0f} {down:11.0f} {away:8.1e}", flush=True)


if __name__ == "__main__":
    main()
