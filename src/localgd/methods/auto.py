"""The method that suits the data: chosen from its sizes, with others to fall back on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from localgd.core import Problem
from localgd.methods.exact import consensus, interior_point, newton, newton_cg
from localgd.methods.method import Fallback, Method
from localgd.methods.squares import normal_equations, solver
from localgd.problems.hard_margin import HardMargin
from localgd.problems.least_squares import LeastSquares
from localgd.problems.own_model import OwnModel
from localgd.problems.regularised import Regularised
from localgd.problems.sizes import DataSizes
from localgd.problems.triangle import MOST_MB, Affordable, megabytes
from localgd.rules.server import End
from localgd.rules.squares import check_tol

CHEAP_MB = 2.0
"""d×d sums up to here (d up to 700) are sent to have the max-margin model in a fixed number of rounds."""

UNTOLD = "no plane separates the rows by more than 1e-8 of their size"


@dataclass(frozen=True)
class Auto(Affordable):
    """A choice that is made when the sizes of the data are known: by sizes and limits only, never by a clock.

    After the max-margin model: second-order rounds where N > d and a d×d sum is at most 2 MB, as they take some 40
    rounds however hard the problem; else consensus. Where one makes no progress the other takes over, if it can be
    afforded. Where nothing separates the rows, the minimiser of the logistic loss. After a penalised minimiser:
    Newton's method up to the same size, beyond it Newton's method by vectors. For real targets: XᵀX where it is at most
    `max_mb`, unless a penalty and few rows make conjugate gradients the cheaper way.
    """

    name: ClassVar[str] = "auto"
    problem: ClassVar[Problem] = HardMargin()

    tol: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_tol(self.tol)

    def chosen(self, problem: Problem, sizes: DataSizes) -> Method:
        """Return the method for rows of these sizes, with what takes over from it."""
        if isinstance(problem, OwnModel):
            remedy = "take one that averages: local-sgd, slowmo, fedexp or fedprox"
            raise ValueError(  # noqa: TRY004  a problem of another kind is a bad value
                f"auto: it chooses between methods for rows, and none is for a {problem.kind}; {remedy}"
            )
        if isinstance(problem, LeastSquares) and problem.positive:
            equations = normal_equations(max_mb=self.max_mb, tol=self.tol)
            return replace(equations, why="coefficients of one sign are found from XᵀX")
        if isinstance(problem, LeastSquares):
            return solver(sizes, problem.alpha, max_mb=self.max_mb, tol=self.tol)
        if self.tol:
            raise ValueError(
                f"tol={self.tol!r} has no meaning for the {problem.kind} model; leave it out, or give a goal"
            )
        if isinstance(problem, Regularised):
            return self._minimiser(sizes)
        return self._max_margin(sizes)

    def _max_margin(self, sizes: DataSizes) -> Method:
        n_rows, n_features = sizes.n_rows, sizes.n_features
        cost = megabytes(n_features)
        last = self.apart(sizes)
        together = replace(consensus(), why="its rounds send d numbers a node", fallbacks=last)
        if cost > self.max_mb:
            return replace(together, why=f"second-order rounds would send {cost:,.3g} MB a node")
        why = f"{n_features} columns make sums of {cost:.2g} MB a node"
        inner = replace(interior_point(max_mb=self.max_mb), why=why, fallbacks=last)
        if n_rows > n_features and cost <= CHEAP_MB:
            second = Fallback(replace(together, why="the interior point stalled"))
            return replace(inner, fallbacks={**last, End.STALLED: second})
        why = "there are more columns than rows" if n_rows <= n_features else f"d×d sums are {cost:.2g} MB a node"
        second = Fallback(replace(inner, why=f"consensus stalled, and {inner.why}"))
        return replace(together, why=why, fallbacks={**last, End.STALLED: second})

    def apart(self, sizes: DataSizes) -> dict[End, Fallback]:
        """Return what takes over where nothing separates the rows."""
        minimiser = replace(self._minimiser(sizes), fallbacks={})
        why = f"{UNTOLD}, and {minimiser.why}"
        return {End.INSEPARABLE: Fallback(replace(minimiser, why=why), Regularised())}

    def _minimiser(self, sizes: DataSizes) -> Method:
        cost = megabytes(sizes.n_features)
        why = f"{sizes.n_features} columns make sums of {cost:.2g} MB a node"
        second = replace(newton(max_mb=self.max_mb), why=why)
        if cost <= min(CHEAP_MB, self.max_mb):
            return second
        first = replace(newton_cg(), why=f"d×d sums would be {cost:,.3g} MB a node")
        if cost > self.max_mb:
            return first
        return replace(first, fallbacks={End.STALLED: Fallback(replace(second, why=f"newton-cg stalled, and {why}"))})


@dataclass(frozen=True)
class OrMinimiser:
    """A method for rows that some plane separates, and the minimiser of the logistic loss where none does.

    Parameters
    ----------
    method : Method
        What is tried first.

    Examples
    --------
    >>> sizes = DataSizes(n_samples=2, n_features=2, radius=1.0, versus=1)
    >>> OrMinimiser(consensus()).chosen(HardMargin(), sizes).fallbacks[End.INSEPARABLE].method.name
    'newton'
    """

    method: Method

    @property
    def name(self) -> str:
        """Its name."""
        return self.method.name

    @property
    def problem(self) -> Problem:
        """What it looks for."""
        return self.method.problem

    def chosen(self, problem: Problem, sizes: DataSizes) -> Method:
        """Return the method, with what takes over from it."""
        fallbacks = Auto().apart(sizes) if isinstance(problem, HardMargin) else {}
        return replace(self.method, fallbacks=fallbacks)


def auto(*, max_mb: float = MOST_MB, tol: float = 0.0) -> Auto:
    """Return the choice of a method by problem and sizes of the data, made when training starts; see `Auto`.

    It needs every node in every round.

    Parameters
    ----------
    max_mb : float > 0
        Largest d×d sum that a node may be asked for, in megabytes.
    tol : float, at least 0
        For real targets: stop once the gradient has come down to this part of what it is at w = 0.

    Raises
    ------
    ValueError
        If `max_mb` is not positive, or `tol` not below 1.

    Examples
    --------
    >>> sizes = DataSizes(n_samples=2, n_features=2, radius=1.0, versus=1)
    >>> auto().chosen(HardMargin(), sizes).name, auto().chosen(Regularised(C=1.0), sizes).name
    ('consensus', 'newton')
    """
    return Auto(max_mb, tol)
