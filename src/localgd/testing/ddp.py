"""Whether a training loop over ranks, one local step a sync, is DistributedDataParallel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from localgd.errors import check_flag, check_positive, check_whole, extra, listing
from localgd.testing.ranks import in_ranks

Facts = dict[str, Any]

MISTAKES = {
    "still": "train leaves the model as it was; it is to train the one that it is given, and not a copy",
    "added": "updates (or gradients) of the ranks are added up, where they should be averaged",
    "updates": (
        "updates of the ranks are added up, where they should be averaged: divide by the number of ranks; what the "
        "optimizer adds to a gradient by itself, as weight decay, counts once a rank"
    ),
    "weights": "ranks count by {theirs}, where {ours} was asked for (weights={other!r} if that is what is meant)",
    "reset": "the optimizer's state is reset at every sync; average it, as it is the momentum of the mean model",
    "once": "ranks are averaged once, at the end, and not after every step",
    "every": "ranks are averaged after every {every} steps only (momentum {momentum}), and not after every step",
    "models": (
        "models are averaged after steps of {optimizer}, whose update is not linear in the gradient: no averaging of "
        "models makes that DistributedDataParallel. Test with SGD"
    ),
}
"""What a training that is not DistributedDataParallel is tried for, and how it is told."""

COUNTED = {"equal": "nothing (all alike)", "batch": "the size of their batches"}


def assert_matches_ddp(
    train: Callable[[Any, Any, Sequence[Any]], object],
    build: Callable[[], tuple[Any, Any]],
    batches: Callable[[int, int], Sequence[Any]] | Sequence[Sequence[Any]],
    loss: Callable[[Any, Any], Any],
    *,
    world: int = 2,
    rtol: float | None = None,
    weights: Literal["equal", "batch"] = "equal",
    buffers: bool = True,
    optimizer_state: bool = True,
    timeout: float = 300.0,
) -> float:
    """Assert that training code, with one local step a sync, is DistributedDataParallel on the same batches.

    With SGD, momentum or not, averaging models (and momentum) after every step is averaging gradients, to within
    rounding: whatever differs is a fault of the code. It is held against torch's own wrapper in ranks of gloo on the
    processor, which are started here; in a program that has a process group already, all of its ranks call this.

    Parameters
    ----------
    train : callable
        The code under test: ``train(model, optimizer, batches)`` trains the model in this rank, one step of the
        optimizer on each batch and one sync after it. It runs inside a process group.
    build : callable
        Returns ``(model, optimizer)``, the same numbers each time after ``torch.manual_seed(0)``. Float64 models make
        the sharper test.
    batches : callable or list of lists
        ``batches(rank, world)`` returns the rank's own batches, as many in each; or a list of them for every rank.
    loss : callable
        ``loss(model, batch)``, the mean over the batch: what `train` goes down.
    world : int, at least 1, default 2
        How many ranks are started.
    rtol : float > 0, optional
        How far tensors may be apart, as a part of their size (of the size of all of them, for those that are smaller).
        By default 1e-10 in float64, 1e-4 in float32 and 2e-2 in fewer bits.
    weights : "equal" or "batch", default "equal"
        How ranks with batches of unlike sizes count: all alike, as in DistributedDataParallel, or by their size, so
        that a step is that on the union of the batches.
    buffers, optimizer_state : bool, default True
        Whether all ranks must end with the same buffers (statistics of batch normalisations), and with the state that
        DistributedDataParallel's optimizer has; of an optimizer that `train` makes for itself nothing is known.
    timeout : float > 0, default 300
        Seconds until ranks are stopped.

    Returns
    -------
    float
        The largest distance that was found.

    Raises
    ------
    AssertionError
        If it is not: names the tensors, by how much they are off, and the mistake that it looks like.
    ValueError
        If `build` makes other numbers each time, or ranks have unlike numbers of batches.

    Examples
    --------
    A test of one's own ``average_every_step``, with functions that the test module has anyway::

        def test_it_is_ddp():
            assert_matches_ddp(average_every_step, build, batches, loss, world=2)
    """
    for what, one in (("train", train), ("build", build), ("loss", loss)):
        if not callable(one):
            raise TypeError(f"{what} must be a function, got {one!r}")
    for what, flag in (("buffers", buffers), ("optimizer_state", optimizer_state)):
        check_flag(what, flag)
    check_whole("world", world, 1)
    if rtol is not None:
        check_positive("rtol", rtol)
    if weights not in COUNTED:
        raise ValueError(f"weights must be 'equal' or 'batch', got {weights!r}")
    with extra("torch", "torch"):
        import torch.distributed as dist  # noqa: PLC0415  this module is imported by those without torch, too
    from localgd.testing.beside import compared  # noqa: PLC0415  it needs torch

    if dist.is_available() and dist.is_initialized():
        facts = compared(train, build, batches, loss, (rtol, weights))
    else:
        if not callable(batches) and len(batches) != world:
            raise ValueError(f"batches are those of {len(batches)} ranks, and world is {world}")
        facts = in_ranks(compared, train, build, batches, loss, (rtol, weights), world=world, timeout=timeout)[0]
    if faults := [*_faults(facts, weights, buffers=buffers, optimizer_state=optimizer_state)]:
        head = f"not DistributedDataParallel ({facts['world']} ranks, {facts['steps']} steps)"
        raise AssertionError("\n- ".join([f"{head}:", *faults]))
    return float(facts["worst"])


def _faults(facts: Facts, weights: str, *, buffers: bool, optimizer_state: bool) -> list[str]:
    """Return what is wrong, a sentence or two each, the most telling first."""
    rtol, out = facts["rtol"], list[str]()
    local, off = _above(facts["parameters"]["ranks"], rtol), _above(facts["parameters"]["ddp"], rtol)
    if local:
        n_trained = len(facts["parameters"]["ranks"])
        what = f"{_worst(local)}: after the last sync ranks hold other numbers there. "
        if facts["looks"]:
            what += f"It looks like this: {_mistake(facts, weights)}, nor after the last"
        elif len(local) == n_trained:
            what += "No parameter is the same in all ranks: train does not sync after its last step, or not at all"
        else:
            what += (
                f"{n_trained - len(local)} other parameters are the same in all ranks: the sync leaves these out, as "
                "the last bucket, what does not fit in one, or what a filter drops"
            )
        out.append(what)
    elif off:
        known = _mistake(facts, weights)
        like = f"It looks like this: {known}" if known else "It is no mistake that is known here"
        out.append(f"{_worst(off)}: off from DistributedDataParallel, the same in all ranks. {like}")
    if buffers and (apart := _above(facts["buffers"], rtol)):
        out.append(
            f"buffer {_worst(apart)}: not the same in all ranks, so one network answers otherwise in each; "
            "average buffers, too (statistics of a batch normalisation: those of the union of the batches)"
        )
    if optimizer_state:
        kept, state = _above(facts["state"]["ranks"], rtol), _above(facts["state"]["ddp"], rtol)
        if kept and not local:
            out.append(f"{_worst(kept)}: each rank keeps its own; average the optimizer's state, too")
        elif state and not (local or off):
            out.append(f"{_worst(state)}: off from DistributedDataParallel's, though parameters are not")
    return out


def _mistake(facts: Facts, weights: str) -> str:
    """Return in words the mistake that a training looks like, "" if it is none that is known."""
    looks, _, averaged = str(facts["looks"] or ("" if facts["optimizer"] == "SGD" else "models")).partition(", ")
    kind, _, every = looks.partition(" ")
    other = "batch" if weights == "equal" else "equal"
    filled = {
        "theirs": COUNTED[other],
        "ours": COUNTED[weights],
        "other": other,
        "optimizer": facts["optimizer"],
        "every": every,
        "momentum": "averaged, too" if averaged else "kept in each",
    }
    return MISTAKES[kind].format(**filled) if kind else ""


def _above(apart: dict[str, float], rtol: float) -> dict[str, float]:
    return {name: value for name, value in apart.items() if not value <= rtol}


def _worst(apart: dict[str, float]) -> str:
    """Return names, and how far apart the worst of them is."""
    names = sorted(apart, key=lambda name: -apart[name])
    return f"{listing(names)} (by {apart[names[0]]:.1e} of its size)"
