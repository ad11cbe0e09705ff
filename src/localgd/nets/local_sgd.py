"""Local-SGD and DiLoCo around a training loop of one's own: local steps, and now and then a sync of all ranks."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from localgd.nets.beside import Beside, Loss
from localgd.nets.checkpoint import check_free, check_plain, read, rng_state, set_rng_state, write
from localgd.nets.codes import Code
from localgd.nets.exchange import Exchange, Standing
from localgd.nets.optimizer_state import Rule
from localgd.nets.outer import Outer, average
from localgd.nets.overlap import Overlapping
from localgd.nets.plots import write as write_report
from localgd.nets.ranks import Ranks
from localgd.nets.record import Distance, Sync
from localgd.nets.schedule import Every, Period
from localgd.nets.settings import check_settings
from localgd.nets.steps import Steps


class LocalSGD:
    """Let every rank of a program take local steps, and average the models every `sync_every` of them.

    A sync moves all ranks to ``anchor + outer(Σ w_m Δ_m)``, where Δ_m is how far rank m came since the anchor,
    where all ranks last were. With one local step of plain SGD that is DistributedDataParallel.

    Parameters
    ----------
    model : torch.nn.Module
        The same in all ranks but for its numbers: at the beginning all take those of rank 0.
    optimizer : torch.optim.Optimizer
        Of the model's parameters, in this rank.
    sync_every : int ≥ 1 or a rule, default 32
        Local steps between two syncs; `qsr` and `until_drift` decide at each sync.
    outer : Outer, default `average()`
        What is done with the mean update: `average`, `slowmo`, `diloco`.
    optimizer_state : "average", "keep" or "reset", default "average"
        What happens to momentum at a sync. The mean of SGD's buffers is the momentum of the mean model; Adam's second
        moments are averaged as well, though no such law holds for them.
    weights : "batch", "examples" or "equal", default "batch"
        w_m: by the mean batch size of a rank, over all ranks, so that one that has no data left counts as standing
        still. "examples" weighs by examples since the last sync, which counts a rank with more steps twice: its update
        is already longer. "equal" looks at no batch. Sizes are known from ``step(batch)``; else all are alike.
    compress : "bf16", "int8" or "int4", optional
        Send updates in fewer bits, a scale for 256 numbers; what the codes lose is sent the next time. It takes a copy
        of the parameters, three in a sync, and time: it pays on slow links. Optimizer state travels in full: "keep"
        sends none.
    overlap : bool, default False
        Go on with local steps while a sync's sum is on its way, and use it at the next one: ``anchor ← anchor +
        outer(Σ w_m p_m)``, then ``x_m ← anchor + p'_m``, of p_m, what rank m did in one period, and p'_m in the next.
        `step` returns what the sync before said. All else, the optimizer's state included, is each rank's own until
        `finish`, after which all hold the same bits. It takes one more copy of the parameters, and goes with no code.
    warmup : int ≥ 0, default 0
        First steps, after each of which ranks sync.
    buffers : dict of str to "mean", "max" or "equal", optional
        Rules for buffers, by name or pattern, that are neither statistics of a normalisation (pooled as if the
        batches had been one), nor counters (the largest), nor constants (checked to be equal).
    on_failure : "raise" or "skip", default "raise"
        What to do about a rank whose update is not finite: end all ranks, or leave it out and move it to the mean.
    timeout : float > 0, default 300
        Seconds to wait in a sync for the other ranks before the run ends, with words that name who is missing.
    callback : callable, optional
        Called with each `Sync`.
    loss : callable, optional
        ``loss(model, batch)``, the mean loss of a batch as the loop computes it: for `compare_every` and `shadow`,
        which train copies of the model on copies of the batches that ``step(batch)`` is given. Neither changes a bit of
        the run. They know of gradients, the optimizer and its settings, and of nothing else that a loop may do, as
        clipping.
    compare_every : int ≥ 1, optional
        At every so many syncs, take the ranks' steps once more from the anchor, synchronously, as
        DistributedDataParallel does, and say in `Sync.against_synchronous` how the mean update compares with that. It
        takes a copy of model and optimizer and the batches since the anchor, and the time of these steps with a sum
        over the ranks in each.
    shadow : bool, default False
        Run synchronous training on the same batches beside, and, as a yardstick, on other batches; say at every sync in
        `Sync.distance` how far the run is from it. It takes two copies of model and optimizer, and twice the time of
        all steps with a sum over the ranks in each.
    probe : tensor or (inputs, …), optional
        What `shadow` asks the models about; with labels, a batch as `loss` takes it. Ranks may give parts of their own.
    other : iterable of batches, optional
        What the yardstick trains on, in each rank: best a second loader of the same data with another seed; it is begun
        again where it ends. Else batches are drawn at random, with replacement, from the last 256 that the rank
        trained on, which are kept.

    Attributes
    ----------
    history : list of Sync
        What each sync said.

    Raises
    ------
    TypeError, ValueError
        If the model or optimizer has a part without a rule; the message names it.
    RankError
        In all ranks, if one of them ended, hangs, left, or has another program; the model is as it was before.

    Examples
    --------
    ``torchrun --nproc-per-node 4 train.py`` with::

        with localgd.torch_processes(), LocalSGD(model, optimizer, sync_every=32) as local:
            for epoch in range(10):
                for x, y in loader:
                    loss_fn(model(x), y).backward()
                    optimizer.step()
                    optimizer.zero_grad()
                    local.step((x, y))
                local.finish()
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        *,
        sync_every: int | Period = 32,
        outer: Outer | None = None,
        optimizer_state: Rule = "average",
        weights: Literal["batch", "examples", "equal"] = "batch",
        compress: Code | None = None,
        overlap: bool = False,
        warmup: int = 0,
        buffers: Mapping[str, str] | None = None,
        on_failure: Literal["raise", "skip"] = "raise",
        timeout: float = 300.0,
        callback: Callable[[Sync], object] | None = None,
        loss: Loss | None = None,
        compare_every: int | None = None,
        shadow: bool = False,
        probe: Any = None,
        other: Iterable[Any] | None = None,
    ) -> None:
        period = Every(sync_every) if isinstance(sync_every, int) else sync_every
        outer = average() if outer is None else outer
        check_settings(locals())
        self._ranks = Ranks(timeout)
        self._beside = Beside(
            model,
            optimizer,
            self._ranks,
            loss=loss,
            compare_every=compare_every,
            shadow=shadow,
            probe=probe,
            other=other,
            rules=buffers or {},
        )
        self._exchange = (Overlapping if overlap else Exchange)(
            model,
            optimizer,
            self._ranks,
            outer=outer,
            state=optimizer_state,
            rules=buffers or {},
            settings=f"{period} {outer} {optimizer_state} {weights} {compress} {overlap} {warmup} {on_failure} "
            f"{compare_every} {shadow}",
            compress=compress,
            idle=weights != "examples",
            skip=on_failure == "skip",
        )
        self._period, self._weights, self._warmup, self._callback = period, weights, warmup, callback
        self.history: list[Sync] = []
        self._number, self._folder = 0, Path()
        self._session = self._ranks.everyone(secrets.token_hex(8))[0]
        self._done = 0
        self._steps = Steps(optimizer)
        self._left = self._next(0, self._exchange.lr, 0.0)
        self._beside.start(self._exchange.parameters.anchor, self._number)

    def _next(self, before: int, lr: float, drift: float) -> int:
        """Return how many steps come before the next sync; what it rests on is the same in all ranks."""
        return 1 if self._done < self._warmup else self._period.next(before, lr, drift)

    def step(self, batch: Any = None) -> Sync | None:
        """Count a step of the optimizer, and sync if it is time.

        Call it once after each ``optimizer.step()``: every call counts as a step, in `sync_every` and `Sync.steps`,
        even if the optimizer made none. Where gradients of several batches add up to a step, give these as one.

        Parameters
        ----------
        batch : optional
            What was trained on: a number of examples, a tensor, or tensors in a tuple, list or dict, of which the first
            has as many rows as there are examples. `compare_every` and `shadow` need it as `loss` takes it.

        Returns
        -------
        Sync or None
            What the sync said, if there was one; with `overlap` the one before, if there was.

        Raises
        ------
        ValueError
            If the batch is none; another optimizer than `optimizer` makes the steps; or, with `compare_every` or
            `shadow`, the optimizer made no step or several since the last call.
        """
        self._steps.add(batch)
        self._beside.keep(batch)
        if self._steps.number < self._left:
            return None
        self._ranks.tell("in local steps, or step()")
        return self._sync(finished=False)

    def finish(self) -> None:
        """Sync until all ranks have come here: a rank with less data answers the others until they are done, too.

        Call it at the end of every epoch, in all ranks.
        """
        with self._ranks.calling("finish()"):
            while (sync := self._sync(finished=True)) is None or not sync.last:
                pass
            if self._exchange.is_behind:
                self._exchange.sync(self._standing(finished=True))
                self._steps.begin()

    def _standing(self, *, finished: bool) -> Standing:
        """Return where this rank stands, and count a sync."""
        steps = self._steps
        weight = {"batch": steps.mean_batch(), "examples": float(steps.examples), "equal": 0.0}[self._weights]
        standing = Standing(self._number, steps.number, weight, finished=finished)
        self._number += 1
        return standing

    def _sync(self, *, finished: bool) -> Sync | None:
        bring = self._exchange.sync if self._done < self._warmup else self._exchange.pass_on
        sync = bring(self._standing(finished=finished), self._beside.meanwhile)
        self._steps.begin()
        if sync is not None and any(sync.steps):
            sync = self._measured(sync)
            self._done += max(sync.steps)
            self.history.append(sync)
            self._left = self._next(max(sync.steps), sync.lr, sync.relative)
            if self._callback is not None:
                self._callback(sync)
        self._beside.begin(self._number)
        return sync

    def _measured(self, sync: Sync) -> Sync:
        """Return what a sync says with the distance to synchronous training, and the time that this took."""
        begin = time.perf_counter()
        distance = self._beside.distance()
        if distance is None:
            return sync
        took = sync.seconds["beside"] + time.perf_counter() - begin
        return replace(sync, distance=distance, seconds={**sync.seconds, "beside": took})

    def distance(self) -> Distance:
        """Return how far the run is from synchronous training, with `shadow`; to be called in all ranks.

        What `Sync.distance` says of the last sync, and, if the probe has labels, barriers and gradients.

        Raises
        ------
        RuntimeError
            If there is no shadow, or there were local steps since the last sync.
        """
        if self._steps.number:
            raise RuntimeError(f"{self._steps.number} local steps came since the last sync, and ranks may stand apart")
        with self._ranks.calling("distance()"):
            found = self._beside.distance(full=True)
        if found is None:
            raise RuntimeError("there is no synchronous run to compare with; ask for it with shadow=True")
        return found

    def report(self, folder: str | Path) -> None:
        """Write the history as ``history.csv``, and drawn as ``history.png`` and ``.svg``: in rank 0, which knows all.

        Parameters
        ----------
        folder : path
            It is made.
        """
        if self._ranks.rank == 0:
            write_report(self.history, Path(folder))

    def state_dict(self) -> dict[str, Any]:
        """Return all that this rank needs to go on: model, optimizer, anchor, outer momentum, counters, generators.

        Raises
        ------
        RuntimeError
            If there were local steps since the last sync: ranks may stand at different points.
        """
        if self._steps.number:
            raise RuntimeError(
                f"{self._steps.number} local steps came since the last sync, and a checkpoint is of a sync; "
                "save where step() returned one, or after finish()"
            )
        counters = {"number": self._number, "done": self._done, "left": self._left, "batch": self._steps.batch}
        generators = {"generators": rng_state(self._exchange.device)}
        beside = {"beside": self._beside.state(), "session": self._session}
        return {**self._exchange.state_dict(), **counters, **generators, **beside}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned in this rank, in all ranks alike."""
        self._exchange.load_state_dict(dict(state))
        self._number, self._done, self._left = state["number"], state["done"], state["left"]
        self._steps.batch, self._session = state["batch"], state["session"]
        self._steps.begin()
        set_rng_state(state["generators"], self._exchange.device)
        self._beside.load(state["beside"], self._number)

    def save(self, folder: str | Path, extra_state: Any = None) -> None:
        """Write this rank's checkpoint of the last sync, once for a sync; the two last ones are kept.

        It is there whole or not at all, whenever the process is killed.

        Parameters
        ----------
        folder : path
            The same for all ranks, or one in each; it is made.
        extra_state : optional
            Of the program's own, such as the epoch and the state of a sampler: plain values and tensors.

        Raises
        ------
        TypeError
            If `extra_state` holds anything else, which could not be read again.
        FileExistsError
            If the folder has checkpoints of a run that this one did not `resume`.
        """
        check_plain(extra_state)
        if Path(folder) != self._folder:
            check_free(Path(folder), self._ranks)
        write(Path(folder), {**self.state_dict(), "extra": extra_state}, self._ranks)
        self._folder = Path(folder)

    def resume(self, folder: str | Path) -> tuple[int, Any] | None:
        """Go on, in all ranks, from the last sync that all of them have a whole checkpoint of.

        Returns
        -------
        (int, object) or None
            How many syncs there were, and the program's own state; None if there is no checkpoint yet.

        Raises
        ------
        RankError
            If there are some, but none that all ranks have whole, or of different runs, or of more or fewer ranks.
        """
        with self._ranks.calling("resume()"):
            state, self._folder = read(Path(folder), self._ranks), Path(folder)
        if state is None:
            return None
        self.load_state_dict(state)
        return self._number, state["extra"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._ranks.leave(error)
        else:
            self.finish()  # whatever this rank has done: others may have steps that wait for it
            self._exchange.close()
            self._beside.close()
            self._steps.close()
