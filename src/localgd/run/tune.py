"""C by cross-validation as rounds: all folds in one message, and C along a warm path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from localgd.core import Engine
from localgd.data.holdout import folds, left_out
from localgd.data.unmet import ByColumn, unmet
from localgd.data.unmet import together as in_all
from localgd.engine.lanes import AT_ONCE, Lane, Together
from localgd.errors import check_flag, check_kind, check_positive, check_whole
from localgd.evaluation.names import Scoring
from localgd.evaluation.scoring import Scores, check_scoring, scores
from localgd.methods.auto import auto
from localgd.methods.method import Choice, Method
from localgd.problems.regularised import Regularised
from localgd.rounding import FloatArray, is_whole, real_array
from localgd.run.goals import Gap
from localgd.run.history import RoundInfo, Run
from localgd.run.loop import train

if TYPE_CHECKING:
    from localgd.data.recipe import Recipe

NEAR = 1e-15
"""A model of the path is proved to be so near to the least of its objective before the next C is taken up.

A loss on other rows is off by about the root of that, as these do not stand at their least.
"""

LEAVE_ONE_OUT = "leave-one-node-out"
"""Folds of which each holds one node out."""

Preparing: TypeAlias = "Callable[[Engine], tuple[Engine, Recipe]]"


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
        The score of each on the rows that each fold held out; more is better. NaN for folds where it has no meaning.
    runs : tuple of Run
        The models of all rows, one for each C.
    fold_runs : tuple of tuples of Run
        Those of each fold.
    n_rounds : int
        Rounds that all of it took.
    doubt : float
        How far a score may be from that of the pooled rows: above 0 for areas only, which lie between two bounds.
    majority : float
        The mean accuracy over the folds of whoever always says the class that is the most frequent one over all.
    recipe : Recipe or None
        How all rows were prepared, if that was asked for.
    folds : tuple of str
        What folds are called: by their numbers, or, where each holds one out, by the nodes.
    unmet : mapping from node to mapping from column to int or None
        In how many rows that were held out is a category that the others of the fold lack, which was read as none; None
        where they are fewer than `min_group` in a fold.
    """

    Cs: FloatArray
    scores: FloatArray
    runs: tuple[Run, ...]
    fold_runs: tuple[tuple[Run, ...], ...]
    n_rounds: int
    doubt: float = 0.0
    majority: float = 0.0
    recipe: Recipe | None = None
    folds: tuple[str, ...] = ()
    unmet: ByColumn = field(default_factory=dict)

    @property
    def told(self) -> FloatArray:
        """The scores of the folds where they have a meaning."""
        return self.scores[~np.isnan(self.scores).any(axis=1)]

    @property
    def means(self) -> FloatArray:
        """The mean score of each C over those folds."""
        return np.asarray(self.told.mean(axis=0))

    @property
    def best(self) -> int:
        """The place of the C of the best mean score; of several the least, the strongest penalty.

        Scores that may be the same, for all that is known of areas, count as the same.
        """
        return int((self.means >= self.means.max() - 2 * self.doubt).argmax())

    @property
    def strongest(self) -> int:
        """The place of the least C whose mean score is no more than a standard error of the mean below the best."""
        best = self.told[:, self.best]
        error = best.std(ddof=1) / np.sqrt(best.size) if best.size > 1 else 0.0
        return int((self.means >= self.means[self.best] - error).argmax())


def ascending(Cs: Any) -> FloatArray:
    """Return values of C, ascending: those given, or so many of `path`.

    Examples
    --------
    >>> ascending(3).tolist(), ascending([1.0, 0.5]).tolist()
    ([0.0001, 1.0, 10000.0], [0.5, 1.0])
    """
    if is_whole(Cs, 1) and Cs == 1:
        raise ValueError("Cs=1 says how many, and one leaves nothing to choose; give 2 or more, or the value: [1.0]")
    if is_whole(Cs, 2):
        return path(int(Cs))
    values = real_array("Cs", Cs)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"Cs must be a number of values, at least 2, or a list of them, got {Cs!r}")
    for C in values:
        check_positive("Cs", float(C))
    return np.sort(values)


def tune(
    engine: Engine,
    preparing: Preparing,
    *,
    Cs: int | Sequence[float] | FloatArray = 10,
    cv: int | str = 5,
    scoring: Scoring = "accuracy",
    method: Method | Choice | None = None,
    intercept: bool = True,
    seed: int = 0,
    min_group: int = 1,
    on_round: Callable[[RoundInfo], bool] | None = None,
) -> Tuned:
    """Choose C by how well models do on rows that they were not trained on; columns are prepared inside each fold.

    The scores are those of scikit-learn's ``LogisticRegressionCV`` on the pooled rows, each fold prepared by its own
    rows to train on. All folds share their rounds, and every C starts from the model of the one before.

    Parameters
    ----------
    engine : Engine
        Its nodes hold `Table`s.
    preparing : callable
        From an engine of tables to one of shards, and the recipe, as `localgd.prepare` does. A category that only rows
        held out have is read as none.
    Cs : int or sequence of float > 0, default 10
        Values of C; a number is so many from 1e-4 to 1e4, in equal ratios.
    cv : int, at least 2, or "leave-one-node-out", default 5
        So many folds, each with as many rows of each class of a node as the others, to within one; or each node is one.
    scoring : str, default "accuracy"
        What a model is judged by: a name of scikit-learn's, see `localgd.LocalGDClassifierCV`.
    method : Method or Choice, optional
        One that proves how near its model is; default is `localgd.auto`.
    intercept : bool, default True
        Whether `preparing` appends a bias, which is free of C.
    seed : int, at least 0
        Another one deals rows out to folds in another way.
    min_group : int, at least 1
        A node that holds out fewer rows of a class (but some) in a fold is not judged there.
    on_round : callable, optional
        Called after every round of every training; a true answer ends that training.

    Returns
    -------
    Tuned
        The scores, the models of all rows, which C is the best, and the recipe.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or the score has no meaning on the rows of any fold.

    Examples
    --------
    >>> from localgd import InProcess, load, prepare
    >>> found = tune(InProcess(load("heart")), lambda part: prepare(part, scale="standard"), Cs=[0.01, 1.0], cv=2)
    >>> found.scores.shape, float(found.Cs[found.best])
    ((2, 2), 0.01)
    """
    check_kind("engine", engine, Engine, "an engine such as InProcess(tables)")
    check_kind("preparing", preparing, "__call__", "a function such as prepare, from tables to rows and a recipe")
    check_flag("intercept", intercept)
    check_whole("seed", seed, 0)
    check_whole("min_group", min_group, 1)
    if method is not None:
        check_kind("method", method, Method | Choice, "a Method such as newton()")
    if on_round is not None:
        check_kind("on_round", on_round, "__call__", "a function of a RoundInfo")
    split, names = _folds(cv, engine.node_ids, seed, min_group)
    options: dict[str, Any] = {"Cs": ascending(Cs), "intercept": intercept, "method": method, "scoring": scoring}
    options |= {"preparing": preparing, "on_round": on_round, "min_group": min_group}
    found = cross_validated(engine, split, len(names), **options)
    return replace(found, folds=names)


def _folds(cv: Any, nodes: tuple[str, ...], seed: int, min_group: int) -> tuple[Callable[[Any], Any], tuple[str, ...]]:
    """Return how a node splits its table, and the names of the folds."""
    if isinstance(cv, str) and cv == LEAVE_ONE_OUT:
        if len(nodes) < 2:
            raise ValueError(f"cv={cv!r}: one node leaves no row to train on; give more nodes, or a number of folds")
        return partial(left_out, nodes=nodes), nodes
    if not is_whole(cv, 2):
        raise ValueError(f"cv must be a number of folds, at least 2, or {LEAVE_ONE_OUT!r}, got {cv!r}")
    return partial(folds, n_folds=int(cv), seed=seed, min_group=min_group), tuple(f"{k + 1}" for k in range(cv))


def cross_validated(
    engine: Engine,
    split: Callable[[Any], Sequence[tuple[Any, Any]]],
    n_folds: int,
    *,
    Cs: FloatArray,
    intercept: bool,
    method: Method | Choice | None = None,
    scoring: Scoring = "accuracy",
    preparing: Preparing | None = None,
    on_round: Callable[[RoundInfo], bool] | None = None,
    min_group: int = 1,
) -> Tuned:
    """Train for every C on all rows but those of each fold, score on those, and train on all rows.

    Parameters
    ----------
    engine : Engine
        The federation; its nodes hold shards, or, where they are yet to be prepared, tables.
    split : callable
        From what a node holds to the rows to train on and those to score on, for each fold; None instead of no rows.
        Shards to score on have a bias as their last column, whatever `intercept`.
    n_folds : int
        How many folds that makes.
    Cs : (n,) float64 array
        Values of C, above 0, ascending.
    intercept : bool
        Whether the last column of rows to train on is that of a bias, which is free of C.
    method : Method or Choice, optional
        One that proves how near its model is; default is `localgd.auto`.
    scoring : str
        What a model is judged by, by its name in scikit-learn.
    preparing : callable, optional
        From an engine of tables to one of shards, and the recipe for it, as `localgd.prepare` does: each fold is
        prepared by its own rows to train on, and a category that these lack is read as none.
    on_round : callable, optional
        Called after every round of every training; a true answer ends that training.
    min_group : int
        Fewest rows whose number is told.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or the score has no meaning on the rows of any fold.
    """
    check_scoring(scoring, 2)

    way = _Path(Cs, intercept, auto() if method is None else method, scoring, preparing, on_round, min_group)
    (*folds, (runs, recipe)), n_rounds = _at_once(engine, split, range(min(n_folds, AT_ONCE)), way, whole=True)
    for begin in range(AT_ONCE, n_folds, AT_ONCE):
        more, and_rounds = _at_once(engine, split, range(begin, min(n_folds, begin + AT_ONCE)), way, whole=False)
        folds, n_rounds = [*folds, *more], n_rounds + and_rounds
    found = [of_fold for _, of_fold, _ in folds]
    if all(np.isnan(of_fold.values).any() for of_fold in found):
        raise ValueError(
            f"scoring={scoring!r} has no meaning on held-out rows that lack a class, and in every fold they do; take "
            "accuracy or neg_log_loss, or other folds"
        )
    weights = np.array([of_fold.weights for of_fold in found])
    most = int(weights.sum(axis=0).argmax())
    return Tuned(
        np.asarray(Cs),
        np.array([of_fold.values for of_fold in found]),
        runs,
        tuple(of_fold for of_fold, _, _ in folds),
        n_rounds,
        max(of_fold.doubt for of_fold in found),
        float((weights[:, most] / weights.sum(axis=1)).mean()),
        recipe,
        unmet=in_all([met_nowhere for _, _, met_nowhere in folds]),
    )


def _at_once(
    engine: Engine, split: Callable[[Any], Sequence[tuple[Any, Any]]], chosen: range, way: _Path, *, whole: bool
) -> tuple[list[Any], int]:
    """Return what comes of these folds, then, if asked for, of all rows, and how many rounds they took together."""

    def parts(held: Any) -> list[Any]:
        own = [part for fold in split(held)[chosen.start : chosen.stop] for part in fold]
        return [*own, held] if whole else own

    together = Together.over(engine, parts)
    for job, fold in enumerate(chosen):
        for part, what in enumerate(("trains on", "holds out")):
            if not together.lane(job, 2 * job + part).node_ids:
                raise ValueError(f"fold {fold + 1} {what} no row; take fewer folds")
    jobs: list[Callable[[], Any]] = [
        lambda job=job: way.on_fold(together.lane(job, 2 * job), together.lane(job, 2 * job + 1))  # type: ignore[misc]
        for job in range(len(chosen))
    ]
    jobs += [lambda: way.along(together.lane(len(chosen), 2 * len(chosen)))] if whole else []
    return together.run(jobs), together.n_rounds


@dataclass(frozen=True)
class _Path:
    """What is done on each part of the rows: the parameters are those of `tune`."""

    Cs: FloatArray
    intercept: bool
    method: Method | Choice
    scoring: Scoring
    preparing: Preparing | None
    on_round: Callable[[RoundInfo], bool] | None
    min_group: int

    def along(self, lane: Lane) -> tuple[tuple[Run, ...], Recipe | None]:
        """Prepare the rows and train for one C after the other; return the models, and how rows were prepared."""
        rows, recipe = (lane, None) if self.preparing is None else self.preparing(lane)
        runs: list[Run] = []
        for C in self.Cs:
            start, problem = runs[-1].w if runs else None, Regularised(C=float(C), intercept=self.intercept)
            runs.append(train(rows, self.method, problem=problem, goal=Gap(NEAR), w0=start, on_round=self.on_round))
        return tuple(runs), recipe

    def on_fold(self, inside: Lane, outside: Lane) -> tuple[tuple[Run, ...], Scores, ByColumn]:
        """Train on the rows inside, score on those outside, and tell what the former never met of these."""
        runs, recipe = self.along(inside)
        n_blocks = _n_blocks(runs[0])
        check_scoring(self.scoring, max(2, n_blocks))
        met_nowhere = unmet(outside, recipe, self.min_group)  # before its rows are prepared, which replaces them
        rows = outside if recipe is None else outside.map(replace(recipe.unweighted, intercept=True, unseen="zeros"))
        models = [run.w if self.intercept else _with_bias(run.w, n_blocks) for run in runs]
        return runs, scores(rows, models, self.scoring, max(2, n_blocks)), met_nowhere


def _n_blocks(run: Run) -> int:
    problem = run.method.problem
    return problem.n_blocks if isinstance(problem, Regularised) else 1


def _with_bias(w: FloatArray, n_blocks: int) -> FloatArray:
    """Return a model without a bias as one with a bias of 0, for each class."""
    return np.pad(w.reshape(n_blocks, -1), ((0, 0), (0, 1))).ravel()
