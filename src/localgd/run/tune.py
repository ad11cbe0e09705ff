"""C by cross-validation as rounds: all folds in one message, and C along a warm path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from localgd.core import Engine, Message
from localgd.engine.lanes import Lane, Together
from localgd.errors import check_positive, from_all
from localgd.methods.auto import auto
from localgd.methods.method import Choice, Method
from localgd.problems.metrics import total
from localgd.problems.regularised import Regularised
from localgd.rounding import FloatArray
from localgd.rules.probes import Standings
from localgd.run.goals import Gap
from localgd.run.history import Run
from localgd.run.loop import train

Scoring: TypeAlias = Literal["accuracy", "neg_log_loss"]

NEAR = 1e-12
"""A model of the path is proved to be so near to the least of its objective before the next C is taken up."""


def path(n: int = 10) -> FloatArray:
    """Return `n` values of C from 1e-4 to 1e4, in equal ratios.

    Examples
    --------
    >>> path(3).tolist()
    [0.0001, 1.0, 10000.0]
    """
    return np.logspace(-4, 4, n)


@dataclass(frozen=True, eq=False)
class Tuned:
    """What cross-validation has found.

    Parameters
    ----------
    Cs : (n,) float64 array
        The values of C, ascending.
    scores : (folds, n) float64 array
        The score of each on the rows that each fold held out; more is better.
    runs : tuple of Run
        The models of all rows, one for each C.
    fold_runs : tuple of tuples of Run
        Those of each fold.
    n_rounds : int
        Rounds that all of it took.
    """

    Cs: FloatArray
    scores: FloatArray
    runs: tuple[Run, ...]
    fold_runs: tuple[tuple[Run, ...], ...]
    n_rounds: int

    @property
    def best(self) -> int:
        """The place of the C of the best mean score; of several the least, the strongest penalty."""
        return int(self.scores.mean(axis=0).argmax())


def tune(
    engine: Engine,
    split: Callable[[Any], Sequence[tuple[Any, Any]]],
    n_folds: int,
    *,
    Cs: FloatArray,
    intercept: bool,
    method: Method | Choice | None = None,
    scoring: Scoring = "accuracy",
) -> Tuned:
    """Train for every C on all rows but those of each fold, score on those, and train on all rows.

    Parameters
    ----------
    engine : Engine
        The federation; its nodes hold shards.
    split : callable
        From what a node holds to the rows to train on and those to score on, for each fold; None instead of no rows.
    n_folds : int
        How many folds that makes.
    Cs : (n,) float64 array
        Values of C, above 0, ascending.
    intercept : bool
        Whether the last column is that of a bias, which is free of C.
    method : Method or Choice, optional
        One that proves how near its model is, and keeps nothing on the nodes; default is `localgd.auto`.
    scoring : "accuracy" or "neg_log_loss"
        What a model is judged by.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """
    if scoring not in get_args(Scoring):
        raise ValueError(f"scoring must be one of {', '.join(get_args(Scoring))}, got {scoring!r}")
    for C in Cs:
        check_positive("Cs", float(C))

    def parts(held: Any) -> list[Any]:
        return [part for fold in split(held) for part in fold] + [held]

    how = auto() if method is None else method
    together = Together.over(engine, parts)

    def along(lane: Lane) -> tuple[Run, ...]:
        runs: list[Run] = []
        for C in Cs:
            start = runs[-1].w if runs else None
            runs.append(
                train(lane, how, problem=Regularised(C=float(C), intercept=intercept), goal=Gap(NEAR), w0=start)
            )
        return tuple(runs)

    def on_fold(fold: int) -> tuple[tuple[Run, ...], FloatArray]:
        runs = along(together.lane(fold, 2 * fold))
        held_out = together.lane(fold, 2 * fold + 1)
        return runs, scores(held_out, [run.w for run in runs], scoring)

    jobs: list[Callable[[], Any]] = [lambda fold=fold: on_fold(fold) for fold in range(n_folds)]  # type: ignore[misc]
    *folds, runs = together.run([*jobs, lambda: along(together.lane(n_folds, 2 * n_folds))])
    of_folds = np.array([found for _, found in folds])
    return Tuned(np.asarray(Cs), of_folds, runs, tuple(of_fold for of_fold, _ in folds), together.n_rounds)


def scores(engine: Engine, models: Sequence[FloatArray], scoring: Scoring) -> FloatArray:
    """Return the score of each model on the rows of a federation, by one round."""
    report = from_all(engine, Standings(len(models)), Message(w=np.concatenate(models)))
    name = "correct" if scoring == "accuracy" else "loss"
    share = report.sums[name] / total(report)
    return np.asarray(share if scoring == "accuracy" else -share)
