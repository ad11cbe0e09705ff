"""The method that suits the data: chosen from its sizes, with another one in reserve."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from localgd.core import Engine, Message
from localgd.errors import from_all
from localgd.methods.exact import consensus, interior_point, lbfgs, newton
from localgd.methods.method import Method, Reserve
from localgd.problems.regularised import Penalty
from localgd.problems.triangle import MOST_MB, check_limit, megabytes
from localgd.rules.probes import Sizes, rows_a_sample

CHEAP_MB = 2.0
"""d×d sums up to here (d up to 700) are sent to have the max-margin model in a fixed number of rounds."""

UNTOLD = "no plane separates the rows by more than 1e-8 of their size"


@dataclass(frozen=True)
class Auto:
    """A choice that is made when the sizes of the data are known, by one round.

    After the max-margin model (C not given): second-order rounds where N > d and a d×d sum is at most 2 MB, as they
    take some 40 rounds however hard the problem; else consensus. Where one makes no progress the other takes over, if
    it can be afforded. Where nothing separates the rows, the minimiser of the logistic loss. With `C`, the penalised
    minimiser: by Newton's method up to the same size, beyond it by L-BFGS.

    Parameters
    ----------
    C : float > 0, optional
        As in `localgd.newton`.
    intercept : bool
        With `C`: the last column is a bias, and free of the penalty.
    max_mb : float > 0
        Largest d×d sum that a node may be asked for, in megabytes.
    """

    name = "auto"

    C: float | None = None
    intercept: bool = False
    max_mb: float = MOST_MB

    def __post_init__(self) -> None:
        """Check every field once."""
        if self.C is not None:
            Penalty(self.C)
        check_limit(self.max_mb)

    def chosen(self, engine: Engine) -> Method:
        """Return the method for these nodes, with its reserves."""
        sizes = from_all(engine, Sizes(), Message())
        n_features = int(sizes.maxs["n_features_max"])
        if self.C is not None:
            return self._minimiser(self.C, n_features)
        cost = megabytes(n_features)
        apart = replace(self._minimiser(math.inf, n_features), reserves=())
        last = Reserve(
            "inseparable",
            replace(apart, why=f"{UNTOLD}, and {apart.why}"),
        )
        together = replace(consensus(), why="its rounds send d numbers a node", reserves=(last,))
        if cost > self.max_mb:
            return replace(together, why=f"second-order rounds would send {cost:,.3g} MB a node")
        inner = replace(
            interior_point(max_mb=self.max_mb),
            why=f"{n_features} columns make sums of {cost:.2g} MB a node",
            reserves=(last,),
        )
        n_rows = sizes.n_rows * rows_a_sample(sizes)
        if n_rows > n_features and cost <= CHEAP_MB:
            second = Reserve("stalled", replace(together, why="the interior point stalled"))
            return replace(inner, reserves=(last, second))
        why = "there are more columns than rows" if n_rows <= n_features else f"d×d sums are {cost:.2g} MB a node"
        second = Reserve("stalled", replace(inner, why=f"consensus stalled, and {inner.why}"))
        return replace(together, why=why, reserves=(last, second))

    def _minimiser(self, C: float, n_features: int) -> Method:
        cost = megabytes(n_features)
        why = f"{n_features} columns make sums of {cost:.2g} MB a node"
        second = replace(newton(C=C, intercept=self.intercept, max_mb=self.max_mb), why=why)
        if cost <= min(CHEAP_MB, self.max_mb):
            return second
        first = replace(lbfgs(C=C, intercept=self.intercept), why=f"d×d sums would be {cost:,.3g} MB a node")
        if cost > self.max_mb:
            return first
        return replace(first, reserves=(Reserve("stalled", replace(second, why=f"lbfgs stalled, and {why}")),))


def auto(*, C: float | None = None, intercept: bool = False, max_mb: float = MOST_MB) -> Auto:
    """Return the choice of a method by the sizes of the data, made when training starts; see the fields of `Auto`.

    Parameters
    ----------
    C : float > 0, optional
        Minimise the penalised logistic loss, with C as in scikit-learn's ``LogisticRegression``; default is to go for
        the max-margin model, or for the minimiser of the loss where nothing separates the rows.
    intercept : bool
        With `C`: the last column is a bias, and free of the penalty.
    max_mb : float > 0
        Largest d×d sum that a node may be asked for, in megabytes.

    Returns
    -------
    Auto
        A method for `train`, which needs every node in every round.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Examples
    --------
    >>> from localgd.rows import Shard
    >>> from localgd.engine.inprocess import InProcess
    >>> engine = InProcess([Shard("a", [[1.0, 0.2]]), Shard("b", [[1.0, -0.2]])])
    >>> auto().chosen(engine).name, auto(C=1.0).chosen(engine).name
    ('consensus', 'newton')
    """
    return Auto(C, intercept, max_mb)
