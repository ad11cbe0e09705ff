"""Train a network in every rank, of which one is lost in a way of its own: killed, stopped, or left by an error."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from torch.nn import functional

from localgd import torch_processes
from localgd.nets import LocalSGD, diloco
from nets.models import OPTIMIZERS, batches, made

STEPS, EVERY, TIMEOUT = 40, 4, 6.0


def lose(fault):
    """Do to this rank what the test is about."""
    if fault == "leave":
        raise KeyError("no such column")
    os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[fault])


def main(folder, fault="", lost=-1, at=STEPS // 2 + 1):
    with torch_processes(timeout=60.0) as (rank, _):
        model = made("cnn with batch normalisation", torch.float32)
        optimizer = OPTIMIZERS["momentum"](model.parameters())
        with LocalSGD(model, optimizer, sync_every=EVERY, outer=diloco(), timeout=TIMEOUT) as local:
            found = local.resume(folder)
            began = 0 if found is None else found[1]
            for k, (x, y) in enumerate(batches(rank, STEPS, dtype=torch.float32)):
                if k < began:
                    continue
                if k == at and rank == lost:
                    lose(fault)
                optimizer.zero_grad()
                functional.cross_entropy(model(x), y).backward()
                optimizer.step()
                if local.step((x, y)) is not None:
                    local.save(folder, k + 1)
        torch.save(model.state_dict(), Path(folder, f"model-{rank}.pt"))


if __name__ == "__main__":
    main(sys.argv[1], *sys.argv[2:3], *map(int, sys.argv[3:]))
