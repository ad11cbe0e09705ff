"""What a rank keeps of a training that it may go on with: written at syncs, when all ranks stand at one point."""

from __future__ import annotations

import io
import os
import random
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from localgd.errors import extra, listing, shown
from localgd.nets.ranks import RankError, Ranks
from localgd.run.whole import whole

with extra("torch", "torch"):
    import torch

KEPT = 2
"""Checkpoints kept in each rank: ranks that were ended may be one sync apart."""


def rng_state(device: Any) -> dict[str, Any]:
    """Return the states of torch's, Python's and NumPy's generators."""
    own = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    kind, words, *rest = np.random.get_state()  # noqa: NPY002  what programs draw from without naming it
    held = [kind, np.asarray(words).tolist(), *rest]
    return {"torch": torch.get_rng_state(), "device": own, "python": random.getstate(), "numpy": held}


def set_rng_state(state: dict[str, Any], device: Any) -> None:
    """Put these generators where they were."""
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    np.random.set_state(tuple(state["numpy"]))  # noqa: NPY002
    if state["device"] is not None:
        torch.cuda.set_rng_state(state["device"], device)


def check_plain(extra_state: Any) -> None:
    """Refuse what would be written, and not be read again.

    Examples
    --------
    >>> check_plain({"epoch": 3, "sampler": torch.Generator().get_state()})
    >>> check_plain({"epoch": 3, "draws": [random.Random()]})
    Traceback (most recent call last):
    TypeError: extra_state must be made of plain values and tensors, as nothing else is read again: leave out
    extra_state['draws'][0], a Random
    """
    if (error := _unread(extra_state)) is None:
        return
    where, odd = _odd("extra_state", extra_state)
    held = hasattr(odd, "state_dict") and not isinstance(odd, type)
    remedy = f"give the state_dict() of {where}" if held else f"leave out {where}"
    raise TypeError(
        "extra_state must be made of plain values and tensors, as nothing else is read again: "
        f"{remedy}, a {type(odd).__name__}"
    ) from error


def _unread(value: Any) -> Exception | None:
    """Return why a value cannot be read again, once it is written; None if it can."""
    held = io.BytesIO()
    try:
        torch.save(value, held)
        held.seek(0)
        torch.load(held, weights_only=True)
    except Exception as error:  # noqa: BLE001  of any kind; what torch says is of its own pickles
        return error
    return None


def _odd(where: str, value: Any) -> tuple[str, Any]:
    """Return the innermost part of a value that cannot be read again, and where it is."""
    parts: list[tuple[str, Any]] = []
    if type(value) is dict:
        parts = [(f"a key of {where}", key) for key in value] + [(f"{where}[{shown(k)}]", v) for k, v in value.items()]
    elif type(value) in {list, tuple}:
        parts = [(f"{where}[{place}]", part) for place, part in enumerate(value)]
    return next((_odd(name, part) for name, part in parts if _unread(part) is not None), (where, value))


def check_free(folder: Path, ranks: Ranks) -> None:
    """Refuse a folder with files of another run, which those of this one would take the place of.

    Raises
    ------
    FileExistsError
        If this rank has any there.
    """
    if numbers := _numbers(folder, ranks):
        raise FileExistsError(
            f"{folder} has checkpoints of another run, of syncs {listing(map(str, sorted(numbers)))}; go on from them "
            "with resume(), or give another folder"
        )


def write(folder: Path, state: dict[str, Any], ranks: Ranks) -> None:
    """Write this rank's file of a sync, whole or not at all, and take away all but it and the last one before.

    Whether there was none before is kept: a first one that not all ranks have is no loss.
    """
    number = state["number"]
    first = _numbers(folder, ranks) <= {number}
    with whole(_path(folder, number, ranks)) as fresh, fresh.open("wb") as file:
        torch.save({**state, "first": first}, file)
        file.flush()
        os.fsync(file.fileno())
    _tidy(folder, number, ranks)


def read(folder: Path, ranks: Ranks) -> dict[str, Any] | None:
    """Return this rank's file of the last sync that all ranks have whole, None if there is none yet.

    Files of later syncs, which some ranks have, are taken away: those to come under their names are of this run.

    Raises
    ------
    RankError
        In all ranks, if there is none that all of them have whole, or files are of different runs, or of a program of
        more or fewer ranks.
    """
    own = sorted(_numbers(folder, ranks))
    begun = not own or (len(own) == 1 and bool(_loaded(_path(folder, own[0], ranks))[0].get("first")))
    told = ranks.everyone((own, begun, _worlds(folder)))
    common = sorted(set.intersection(*(set(numbers) for numbers, _, _ in told)), reverse=True)
    if not any(numbers for numbers, _, _ in told) and (odd := {world for _, _, worlds in told for world in worlds}):
        raise RankError(
            f"{folder}: its checkpoints are of {listing(map(str, sorted(odd)))} ranks, and there are {ranks.world}; "
            "start as many, or give another folder"
        )
    if not common and all(first for _, first, _ in told):
        if some := [f"{rank}" for rank, (numbers, _, _) in enumerate(told) if numbers]:
            warnings.warn(
                f"{folder}: of all ranks only {listing(some)} came to the end of a first save, so this begins afresh; "
                "save in all ranks",
                RuntimeWarning,
                stacklevel=3,
            )
        _tidy(folder, -1, ranks)
        return None
    failed: list[str] = []
    for number in common:
        state, trouble = _loaded(_path(folder, number, ranks))
        words = ranks.everyone((trouble, str(state.get("session"))))
        if any(said for said, _ in words):
            failed += [said for said, _ in words if said]
            continue
        if len({session for _, session in words}) > 1:
            raise RankError(f"{folder}: the ranks' files are of different runs; give the folder of one run")
        _tidy(folder, number, ranks)
        if number < common[0]:
            warnings.warn(f"{'; '.join(failed)}: this goes on from sync {number}", RuntimeWarning, stacklevel=3)
        return state
    lists = "; ".join(f"rank {rank} has {numbers}" for rank, (numbers, _, _) in enumerate(told))
    raise RankError(
        f"{folder}: no checkpoint that all ranks have whole ({'; '.join([lists, *failed])}); "
        "give the folder of one run, or begin in another"
    )


def _loaded(path: Path) -> tuple[dict[str, Any], str]:
    """Return what is in a file, or why it cannot be read."""
    try:
        with zipfile.ZipFile(path) as held:
            if held.testzip() is not None:  # torch does not look at the sums that it writes
                return {}, f"{path} cannot be read: its sums are wrong"
        return dict(torch.load(path, weights_only=True)), ""
    except Exception as error:  # noqa: BLE001  torch raises any kind for a damaged file; all ranks are told
        return {}, f"{path} cannot be read: {type(error).__name__}"


def _tidy(folder: Path, upto: int, ranks: Ranks) -> None:
    """Take away all files of this rank but the last of syncs up to this one, with what a killed process left."""
    known = sorted(_numbers(folder, ranks))
    kept = [number for number in known if number <= upto][-KEPT:]
    for number in set(known) - set(kept):
        _path(folder, number, ranks).unlink(missing_ok=True)
    for left in folder.glob(f".sync-*-rank-{ranks.rank}-of-{ranks.world}.pt.*.tmp"):
        left.unlink(missing_ok=True)


def _path(folder: Path, number: int, ranks: Ranks) -> Path:
    return folder / f"sync-{number:08d}-rank-{ranks.rank}-of-{ranks.world}.pt"


def _numbers(folder: Path, ranks: Ranks) -> set[int]:
    pattern = re.compile(rf"sync-(\d+)-rank-{ranks.rank}-of-{ranks.world}\.pt")
    names = (pattern.fullmatch(path.name) for path in folder.glob("sync-*.pt"))
    return {int(name[1]) for name in names if name}


def _worlds(folder: Path) -> list[int]:
    """Return of how many ranks the programs were that wrote here."""
    names = (re.fullmatch(r"sync-\d+-rank-\d+-of-(\d+)\.pt", path.name) for path in folder.glob("sync-*.pt"))
    return sorted({int(name[1]) for name in names if name})
