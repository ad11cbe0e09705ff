"""What a rank keeps of a training that it may go on with: written at syncs, when all ranks stand at one point."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

from localgd.errors import extra
from localgd.nets.ranks import RankError, Ranks
from localgd.run.whole import whole

with extra("torch", "torch"):
    import torch

KEPT = 2
"""Checkpoints kept in each rank: ranks that were ended may be one sync apart."""


def rng_state(device: Any) -> dict[str, Any]:
    """Return the states of torch's and Python's generators."""
    own = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return {"torch": torch.get_rng_state(), "device": own, "python": random.getstate()}


def set_rng_state(state: dict[str, Any], device: Any) -> None:
    """Put these generators where they were."""
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    if state["device"] is not None:
        torch.cuda.set_rng_state(state["device"], device)


def write(folder: Path, state: dict[str, Any], ranks: Ranks) -> None:
    """Write this rank's file of a sync, whole or not at all, and take away those before the last two."""
    with whole(_path(folder, state["number"], ranks)) as path:
        torch.save(state, path)
    for number in sorted(_numbers(folder, ranks))[:-KEPT]:
        _path(folder, number, ranks).unlink(missing_ok=True)


def read(folder: Path, ranks: Ranks) -> dict[str, Any] | None:
    """Return this rank's file of the last sync that all ranks have, None if no rank has any.

    Raises
    ------
    RankError
        In all ranks, if there is none that all of them have, or files are of different runs, or one cannot be read.
    """
    told = ranks.everyone(sorted(_numbers(folder, ranks)))
    if not any(told):
        return None
    common = set.intersection(*map(set, told))
    if not common:
        lists = "; ".join(f"rank {rank} has {numbers}" for rank, numbers in enumerate(told))
        raise RankError(f"{folder}: no checkpoint that all ranks have ({lists}); give the folder of one run")
    path = _path(folder, max(common), ranks)
    state, trouble = None, ""
    try:
        state = torch.load(path, weights_only=True)
    except Exception as error:  # noqa: BLE001  torch raises any kind for a damaged file; all ranks are told
        trouble = f"{path} cannot be read ({type(error).__name__}); delete it to go on from the one before"
    words = ranks.everyone((trouble, "" if state is None else str(state["session"])))
    if failed := [said for said, _ in words if said]:
        raise RankError("; ".join(failed))
    if len({session for _, session in words}) > 1:
        raise RankError(f"{folder}: the ranks' files are of different runs; give the folder of one run")
    return state


def _path(folder: Path, number: int, ranks: Ranks) -> Path:
    return folder / f"sync-{number:08d}-rank-{ranks.rank}-of-{ranks.world}.pt"


def _numbers(folder: Path, ranks: Ranks) -> set[int]:
    pattern = re.compile(rf"sync-(\d+)-rank-{ranks.rank}-of-{ranks.world}\.pt")
    names = (pattern.fullmatch(path.name) for path in folder.glob("sync-*.pt"))
    return {int(name[1]) for name in names if name}
