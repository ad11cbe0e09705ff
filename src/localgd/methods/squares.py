"""Methods for ridge and least squares, and the choice between them: give `train` a ``problem=LeastSquares(alpha=…)``.

All need every node in every round.
"""

from __future__ import annotations

from dataclasses import replace

from localgd.methods.method import Method
from localgd.problems.least_squares import LeastSquares, Squares
from localgd.problems.sizes import DataSizes
from localgd.problems.triangle import MOST_MB, megabytes
from localgd.rules.squares import ConjugateGradients, NormalEquations


def normal_equations(*, max_mb: float = MOST_MB, tol: float = 0.0) -> Method:
    """Return the normal equations: XᵀX once, and rounds that refine the solution until float64 knows no better.

    Parameters
    ----------
    max_mb : float > 0
        Refuse where XᵀX is more megabytes a node.
    tol : float, at least 0
        Stop once the gradient has come down to this part of what it is at w = 0; 0 goes on until rounding stops it.

    Examples
    --------
    >>> normal_equations().problem
    LeastSquares(alpha=0.0, intercept=False, positive=False)
    """
    return Method("normal-equations", Squares(), NormalEquations(tol=tol, max_mb=max_mb), LeastSquares(), exact=True)


def conjugate_gradients(*, tol: float = 0.0) -> Method:
    """Return conjugate gradients: the pooled solution from a d-vector each way a round, for any number of columns.

    Parameters
    ----------
    tol : float, at least 0
        As for `normal_equations`.

    Examples
    --------
    >>> conjugate_gradients(tol=1e-6).merge.tol
    1e-06
    """
    return Method("conjugate-gradients", Squares(), ConjugateGradients(tol=tol), LeastSquares(), exact=True)


def solver(sizes: DataSizes, alpha: float, *, max_mb: float, tol: float) -> Method:
    """Return the method that costs less for rows of these sizes, and why.

    Examples
    --------
    >>> found = solver(DataSizes(100, 10_000, 1.0, 1), 0.0, max_mb=64.0, tol=0.0)
    >>> found.name, found.why
    ('conjugate-gradients', 'XᵀX would be 400 MB a node, more than max_mb=64')
    """
    cost, n_rows = megabytes(sizes.n_features), sizes.n_rows
    why = ""
    if cost > max_mb:
        why = f"XᵀX would be {cost:.3g} MB a node, more than max_mb={max_mb:g}"
    elif alpha > 0 and 4 * n_rows < sizes.n_features:
        why = f"about {n_rows} rounds, one a row, cost less than XᵀX of {cost:.3g} MB"
    if why:
        return replace(conjugate_gradients(tol=tol), why=why)
    return replace(normal_equations(max_mb=max_mb, tol=tol), why=f"XᵀX, once, is no more than {cost:.3g} MB a node")
