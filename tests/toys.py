"""Experiments that take no time, for the runner: spawned processes find them by this module's name."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import numpy as np

from localgd.experiments.claim import Experiment, at_most
from localgd.experiments.reproduce import Interrupted, reproduce
from localgd.report.figure import Line, Panel


class Silent:
    """A watcher that shows nothing and notes what it was told."""

    def __init__(self):
        self.interrupted = None
        self.counts = None
        self.done = 0
        self.lines = []

    def begin(self, n_cells, n_kept):
        self.counts = (n_cells, n_kept)

    def running(self, names, *, alone=False):
        pass

    def advance(self):
        self.done += 1

    def say(self, line):
        self.lines.append(line)


def line(params, seed):
    """Two rows with every kind of value."""
    noise = np.random.default_rng(seed).random()
    none = None if params["slope"] == 1 else math.nan if params["slope"] == 2 else 0.5
    return [{"x": x, "y": params["slope"] * x + noise, "odd": none, "big": np.float64(x) > 1} for x in (1, 2)]


def slow(params, seed):
    time.sleep(0.3)
    return line(params, seed)


def sleeper(params, seed):
    time.sleep(3600 if params["slope"] == 2 else 0)  # longer than any test may take
    return line(params, seed)


def broken(params, seed):
    if params["slope"] == 2:
        raise RuntimeError("the toy is broken")
    return line(params, seed)


def killed(*_):
    os._exit(9)


def nothing(*_):
    return []


def clash(*_):
    return [{"slope": 3.0, "y": 1.0}]


def ill_judged(frame):
    return {"no such column": at_most(1.0, frame["nowhere"].max())}


def judge(frame):
    return {
        "largest y (units)": at_most(100.0, frame["y"].max()),
        "largest slope": at_most(2.0, frame["slope"].max(), "slopes up to 2 only"),
    }


def refuse(frame):
    return {"largest y (units)": at_most(0.0, frame["y"].max())}


def draw(frame):
    return [Panel("A line", "x (units)", "y (units)", [Line(frame["x"], frame["y"], "y", style="points")])]


def grid(*slopes):
    return [{"data": "toy", "replicate": 0, "slope": slope, "note": None} for slope in slopes]


def toy(name="toy", run=line, **changes):
    options = {
        "title": f"The {name} & its line",
        "claim": "A line is <straight>.",
        "source": "ours",
        "quick": grid(1, 2),
        "full": grid(1, 2, 3, 4),
        "judge": judge,
        "draw": draw,
        "caption": "Points of a line.",
    }
    return Experiment(name=name, run=run, **(options | changes))


def run(out, *chosen, quick=True, n_jobs=1, watcher=None):
    watcher = watcher or Silent()
    results = reproduce({e.name: e for e in chosen}, out, quick=quick, n_jobs=n_jobs, progress=watcher)
    return results, watcher


def kept(out, name="toy"):
    return sorted((out / "cells" / name).glob("*.parquet"))


def main():
    """Run slow toys with the real progress bar, as the command does: OUT N_CELLS."""
    import sys

    from localgd.report.bar import Bar

    chosen = {"slow": toy("slow", slow, quick=grid(*range(int(sys.argv[2]))))}
    try:
        with Bar() as bar:
            results = reproduce(chosen, Path(sys.argv[1]), quick=True, n_jobs=2, progress=bar)
    except Interrupted as stop:
        sys.stderr.write(f"{stop}\n")
        sys.exit(128 + stop.number)
    sys.stdout.write("".join(f"{result}\n" for result in results))


if __name__ == "__main__":
    main()
