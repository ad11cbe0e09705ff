"""A run of which one rank may be lost: python lost.py FOLDER ROUND [kill|stop RANK]."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np

from common import METHODS, random_rows
from engines.spread import RANK, WORLD
from localgd import TorchDistributed, torch_processes, train
from localgd.run.checkpoint import Checkpoints

TIMEOUT = 4.0


def main(folder: str, round_: str = "0", fault: str = "", rank: str = "0") -> None:
    """Train, with checkpoints; the rank named is killed, or stands still, in the middle of it."""

    def lose(info):
        if fault and info.row.round == int(round_) and int(rank) == RANK:
            os.kill(os.getpid(), signal.SIGKILL if fault == "kill" else signal.SIGSTOP)

    with torch_processes(timeout=TIMEOUT):
        engine = TorchDistributed(random_rows(5)[RANK::WORLD], timeout=TIMEOUT)
        checkpoints = Checkpoints(Path(folder) / "held", every_rounds=3)
        run = train(engine, METHODS["consensus"], n_rounds=20, checkpoints=checkpoints, on_round=lose)
    columns = {name: values for name, values in run.columns().items() if name != "seconds"}
    np.savez(Path(folder) / f"run-{RANK}.npz", w=run.w, **columns)


if __name__ == "__main__":
    main(*sys.argv[1:])
