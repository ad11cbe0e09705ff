"""Ridge and least squares over nodes: the pooled solution by rounds, and how far from it the result is at most."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from localgd.core import Engine, Message, Report, Task
from localgd.errors import from_all
from localgd.problems.least_squares import Moments, Product, Reduced, Residuals, Spectrum, folded, spectrum
from localgd.problems.least_squares_certificate import SquaresCertificate, squares_certificate
from localgd.problems.triangle import MOST_MB, megabytes
from localgd.rounding import TINY, UNIT_ROUNDOFF, FloatArray, norm
from localgd.rows import sealed
from localgd.rules.probes import Sizes
from localgd.run.history import Ledger

MOST_ALPHA = 1e100
"""Beyond, products of α and the squares of what the rows may hold might leave float64."""

LOOK_EVERY = 50
"""Conjugate gradients update their residual; so often the true one takes its place."""

WELL_BELOW = 64
"""The bound on the rounding of a gradient is of the worst case: it can usually be brought so far below."""

PROGRESS = 0.9
"""A refinement that leaves more than this part of what is missing is the last."""

SETTLED = "no further round brings the gradient down in float64"


@dataclass(frozen=True)
class SquaresRow:
    """One round of `fit_squares`: one row of the history.

    Parameters
    ----------
    round : int
        Rounds done before it.
    asked : str
        What the nodes were asked for: "sizes", "residuals", "moments" or "product".
    slope : float
        Norm of the gradient, the intercept at its best; NaN in a round that has no residuals.
    residual : float
        |y − Xw|; NaN likewise.
    floats_up, floats_down : int
        Numbers sent by and to all nodes since the run began.
    seconds : float
        Wall time since the run began.
    """

    round: int
    asked: str
    slope: float
    residual: float
    floats_up: int
    floats_down: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Regression:
    """What came out of `fit_squares`.

    Parameters
    ----------
    w : (d,) float64 array
        The model, its intercept last if there is one.
    certificate : SquaresCertificate
        What is proved about it.
    history : tuple of SquaresRow
        One row per round.
    why : str
        Which way was taken, and why.
    ended : str
        Why it ended.
    converged : bool
        Whether it ended because it was done, not because it was stopped.
    """

    w: FloatArray
    certificate: SquaresCertificate
    history: tuple[SquaresRow, ...]
    why: str
    ended: str
    converged: bool

    @property
    def n_rounds(self) -> int:
        """Rounds that were run."""
        return len(self.history)

    def records(self) -> list[dict[str, Any]]:
        """Return the history, one dict per round."""
        return [asdict(row) for row in self.history]


def fit_squares(
    engine: Engine,
    *,
    alpha: float = 0.0,
    intercept: bool = False,
    tol: float = 0.0,
    n_rounds: int = 10_000,
    max_mb: float = MOST_MB,
    on_round: Callable[[SquaresRow], bool | None] | None = None,
) -> Regression:
    """Minimise |y − Xw|² + α|w|² over the rows of all nodes, and prove how far the result is from the minimiser.

    Nodes send XᵀX once where that is affordable; the server solves, and rounds that look at the residuals refine the
    solution until float64 knows no better. Else conjugate gradients: a d-vector each way a round, from w = 0, so that w
    stays in the span of the rows and, for α = 0, tends to the shortest of the solutions.

    Parameters
    ----------
    engine : Engine
        The federation; its nodes hold `localgd.Samples`.
    alpha : float, 0 to 1e100
        α, as in scikit-learn's ``Ridge``, whatever the number of nodes; 0 is least squares, and where there are many
        solutions the one of least norm.
    intercept : bool
        The last column is ones, and its coefficient is free of the penalty and of the norm.
    tol : float, at least 0
        Stop once the gradient has come down to this part of what it is at w = 0; 0 goes on until rounding stops it.
    n_rounds : int, at least 4
        Most rounds to run.
    max_mb : float
        Largest XᵀX, in megabytes, that a node is asked for; 0 for conjugate gradients always.
    on_round : callable, optional
        Called with every history row; a true answer ends the run with a last look.

    Returns
    -------
    Regression
        Model, certificate and history.

    Raises
    ------
    ValueError
        If a parameter is out of its range or nodes differ in their columns.
    NodeError
        If a node fails, as one without targets, or without a last column of ones where `intercept` needs it.

    Examples
    --------
    >>> from localgd.engine.inprocess import InProcess
    >>> from localgd.rules.local_squares import Samples
    >>> nodes = [Samples("a", [[1.0, 0.0, 0.0]], [2.0]), Samples("b", [[1.0, 1.0, 0.0]], [3.0])]
    >>> fit = fit_squares(InProcess(nodes))
    >>> fit.w.round(12).tolist(), fit.certificate.kind, fit.certificate.distance < 1e-12
    ([2.0, 1.0, 0.0], 'minimum-norm', True)
    """
    if not 0 <= alpha <= MOST_ALPHA:
        raise ValueError(f"alpha must be a number from 0 to {MOST_ALPHA:g}, got {alpha!r}; 0 is least squares")
    if not (math.isfinite(tol) and tol >= 0):
        raise ValueError(f"tol must be a number of at least 0, got {tol!r}; 0 goes on until rounding stops it")
    if n_rounds < 4 or n_rounds != int(n_rounds):
        raise ValueError(f"n_rounds must be a whole number of at least 4, got {n_rounds!r}")
    if not max_mb >= 0:
        raise ValueError(f"max_mb must be a number of at least 0, got {max_mb!r}")
    return Fitting(engine, Limits(float(tol), n_rounds, max_mb, on_round)).run(float(alpha), intercept=intercept)


def choice(n_columns: int, n_rows: int, alpha: float, max_mb: float) -> tuple[bool, str]:
    """Return whether to ask for XᵀX, and what is done and why.

    Examples
    --------
    >>> choice(10_000, 100, 0.0, 64.0)
    (False, 'conjugate gradients, as XᵀX would be 400 MB a node, more than max_mb=64')
    """
    cost = megabytes(n_columns)
    if cost > max_mb:
        return False, f"conjugate gradients, as XᵀX would be {cost:.3g} MB a node, more than max_mb={max_mb:g}"
    if alpha > 0 and 4 * n_rows < n_columns:
        return False, f"conjugate gradients, as about {n_rows} rounds, one a row, cost less than XᵀX of {cost:.3g} MB"
    return True, f"XᵀX, once, as it is no more than {cost:.3g} MB a node"


@dataclass(frozen=True)
class Limits:
    """What ends a fit: see `fit_squares`."""

    tol: float
    n_rounds: int
    max_mb: float
    on_round: Callable[[SquaresRow], bool | None] | None


@dataclass(frozen=True, eq=False)
class Point:
    """A model that the nodes have looked at.

    Parameters
    ----------
    w : (d,) float64 array
        The model.
    report : Report
        Its residuals.
    h : (k,) float64 array
        Half of the way down.
    astray : float
        Upper bound on its distance from the span of the rows.
    """

    w: FloatArray
    report: Report
    h: FloatArray
    astray: float = math.inf


@dataclass(eq=False)
class Fitting:
    """A fit under way: the nodes, what is known of the problem, and what has been done."""

    engine: Engine
    limits: Limits
    reduced: Reduced = field(default_factory=lambda: Reduced(0.0, 0, 0))
    history: list[SquaresRow] = field(default_factory=list)
    stopping: bool = False
    ended: str = ""

    def run(self, alpha: float, *, intercept: bool) -> Regression:
        """Run to the end."""
        self.ledger = Ledger(self.engine)
        sizes = self._ask(Sizes(), np.zeros(0), "sizes")
        fewest, most = int(sizes.mins["n_features_min"]), int(sizes.maxs["n_features_max"])
        if fewest != most:
            raise ValueError(f"nodes differ in their number of columns ({fewest} to {most}); give all the same")
        self.reduced = Reduced(alpha, sizes.n_rows, fewest)
        if intercept:
            ones = self._ask(Product(), np.eye(1, fewest, fewest - 1)[0], "product")
            columns, error = sealed(ones.sums["pull"][:-1]), folded(ones)
            self.reduced = Reduced(alpha, sizes.n_rows, fewest, columns, error)
        self.look_task = Residuals(intercept)
        start = self._look(np.zeros(fewest), 0.0)
        if intercept and self._left > 0:  # the mean target: what is left to do is then seen in h alone
            start = self._look(self.reduced.centred(start.w, start.report.sums["pull"]), 0.0)
        second_order, why = choice(fewest, sizes.n_rows, alpha, self.limits.max_mb)
        known, end = None, start
        if self._left < 1:
            why = "nothing was done, as no round was left"
        elif second_order:
            known = spectrum(self._ask(Moments(fewest), np.zeros(0), "moments"), self.reduced)
            end = self._refined(start, known)
        else:
            end = self._conjugate(start)
        proved = squares_certificate(end.w, end.report, start.report, self.reduced, known, astray=end.astray)
        ended = self.ended or "it was stopped, or out of rounds"
        return Regression(sealed(end.w), proved, tuple(self.history), why, ended, bool(self.ended))

    @property
    def _left(self) -> int:
        """How many rounds are left."""
        return 0 if self.stopping else self.limits.n_rounds - len(self.history)

    def _ask(self, task: Task, w: FloatArray, asked: str) -> Report:
        """Run a round and note it."""
        report = from_all(self.engine, task, Message(len(self.history), w))
        slope = residual = math.nan
        if asked == "residuals":
            slope = 2 * norm(self.reduced.downhill(w, report))
            residual = math.sqrt(float(report.sums["square"]))
        row = SquaresRow(len(self.history), asked, slope, residual, **self.ledger.entries(self.engine))
        self.history.append(row)
        if self.limits.on_round is not None and self.limits.on_round(row):
            self.stopping = True
        return report

    def _look(self, w: FloatArray, astray: float = math.inf) -> Point:
        """Look at the residuals of a model."""
        report = self._ask(self.look_task, w, "residuals")
        return Point(w, report, self.reduced.downhill(w, report), astray)

    def _refined(self, here: Point, known: Spectrum) -> Point:
        """Solve with what is known of XᵀX, look, and solve for what is left, as long as that brings anything."""
        reduced, goal = self.reduced, self.limits.tol * norm(here.h)
        fits = known.spans and known.independent  # then residuals go to 0, and say more than the gradient does

        def missed(point: Point) -> float:
            return math.sqrt(float(point.report.sums["square"])) if fits else norm(point.h)

        while True:
            if norm(here.h) <= goal or missed(here) == 0.0:
                self.ended = "the gradient is as small as asked" if missed(here) else "the gradient is 0"
                return here
            if self._left < 1 + known.spans:
                return here
            move, astray = known.solved(here.h), math.inf
            if known.spans:  # a sum that nodes form is in the span of the rows, whatever it is a sum of
                sent = self._ask(Product(), reduced.lifted(known.solved(move)), "product")
                move = reduced.of(sent.sums["pull"])
                astray = here.astray + reduced.error(sent)
            w = reduced.centred(here.w, here.report.sums["pull"]) + reduced.lifted(move)
            astray += 4 * UNIT_ROUNDOFF * (norm(reduced.free(w)) + norm(reduced.free(here.w))) + w.size * TINY
            there = self._look(w, astray * (1 + 8 * UNIT_ROUNDOFF))
            if not missed(there) <= PROGRESS * missed(here):
                self.ended = SETTLED
                return there if missed(there) < missed(here) else here
            here = there

    def _conjugate(self, here: Point) -> Point:
        """Go down by conjugate gradients; return the best point that was looked at."""
        reduced, goal = self.reduced, self.limits.tol * norm(here.h)
        best, direction = here, here.h
        while True:
            rounding = reduced.downhill_error(here.w, here.report) + reduced.blurred(here.report)
            target = max(goal, rounding / WELL_BELOW)
            if norm(here.h) <= target:
                self.ended = "the gradient is as small as asked" if norm(here.h) <= goal else SETTLED
                return best
            if self._left < 2:
                return best
            w, h, direction = self._descended(here, direction, target)
            here = self._look(w)
            if norm(h) <= target and not norm(here.h) <= norm(best.h) / 2:
                self.ended = SETTLED
            best = here if norm(here.h) <= norm(best.h) else best
            if self.ended:
                return best
            if not norm(here.h - h) <= norm(here.h) / 10:
                direction = here.h  # what was kept up to date is not the true gradient any more: start afresh

    def _descended(
        self, here: Point, direction: FloatArray, target: float
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the model after some steps, its h as kept up to date, and the next direction."""
        reduced, h = self.reduced, here.h
        w = reduced.centred(here.w, here.report.sums["pull"])
        for _ in range(LOOK_EVERY):
            product = self._ask(Product(), reduced.lifted(direction), "product").sums["pull"]
            image = reduced.of(product) + reduced.alpha * direction
            curved, square = float(direction @ image), float(h @ h)
            if not curved > 0:  # rounding is all that is left of this direction
                return w, np.zeros(h.size), here.h
            w = w + reduced.lifted(float(h @ direction) / curved * direction)
            h = h - float(h @ direction) / curved * image
            direction = h + float(h @ h) / square * direction
            if norm(h) <= target or self._left < 2:
                break
        return w, h, direction
