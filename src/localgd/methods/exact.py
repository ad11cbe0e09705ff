"""Methods that reach the pooled model itself, in tens of rounds.

Every function returns a method for `train`, and raises ValueError if a parameter is out of its range.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from localgd.many.by_node import by_node
from localgd.methods.method import Method
from localgd.problems.regularised import Appraise, Curvature, Regularised
from localgd.problems.triangle import MOST_MB
from localgd.rules.consensus import MEMORY, Consensus, DualPart
from localgd.rules.descent import ControlVariates, LimitedMemory, Newton
from localgd.rules.interior import InteriorPoint, Mehrotra
from localgd.rules.local import GradientSteps
from localgd.rules.newton_cg import Along, NewtonCG


def consensus(*, memory: int = MEMORY) -> Method:
    """Return consensus: the pooled max-margin model by projections, a memory vector a node, and acceleration.

    Needs rows that are separable, each node's by more than 1e-8 of their length, and every node in every round.

    Parameters
    ----------
    memory : int, 0 or at least 5
        Rounds that the acceleration looks back on; 0 is the plain iteration.

    Notes
    -----
    Each round costs one projection a node, d numbers each way and about 2·memory more. The rounds it takes grow with
    the number of nodes and how much their supporting rows depend on each other, not with their number of rows.

    Examples
    --------
    >>> consensus().name
    'consensus'
    """
    return Method(
        "consensus", DualPart(memory=memory), Consensus(memory=memory), remedy="use auto or local-gd", exact=True
    )


def interior_point(*, max_mb: float = MOST_MB) -> Method:
    """Return second-order rounds for the hard margin: the pooled max-margin model to machine precision.

    About 14 Newton steps of two or three rounds each, however hard the problem; every third round sends d²/2 numbers.

    Parameters
    ----------
    max_mb : float > 0
        Refuse where that is more megabytes.

    Examples
    --------
    >>> interior_point().name
    'interior-point'
    """
    return Method("interior-point", InteriorPoint(), Mehrotra(max_mb=max_mb), exact=True)


def newton(*, max_mb: float = MOST_MB) -> Method:
    """Return second-order rounds for the logistic loss: the pooled minimiser to machine precision in about ten.

    Parameters
    ----------
    max_mb : float > 0
        Refuse where the d×d sums are more megabytes a node and round.

    Examples
    --------
    >>> newton().problem
    Regularised(loss=Logistic(), C=inf, intercept=False, n_blocks=1)
    """
    return Method("newton", Curvature(), Newton(max_mb=max_mb), Regularised(), exact=True)


def lbfgs(*, memory: int = 30) -> Method:
    """Return L-BFGS by rounds: the pooled minimiser from one gradient a node and round, for any number of columns.

    Parameters
    ----------
    memory : int, at least 1
        Steps that the server remembers.

    Examples
    --------
    >>> lbfgs().name
    'lbfgs'
    """
    return Method("lbfgs", Appraise(), LimitedMemory(memory=memory), Regularised(), exact=True)


def newton_cg() -> Method:
    """Return Newton's method by vectors: each step's system is solved by rounds of conjugate gradients.

    A round sends d numbers each way, as one of `lbfgs`, and takes three passes over the rows; where columns are of
    unlike size or rows are sparse, a fraction of the rounds does.

    Examples
    --------
    >>> newton_cg().name
    'newton-cg'
    """
    return Method("newton-cg", Along(), NewtonCG(), Regularised(), exact=True)


def scaffold(
    *,
    local_steps: int | Mapping[str, int] = 100,
    lr: float | Literal["auto"] | Mapping[str, float] = "auto",
    memory: int = 30,
) -> Method:
    """Return SCAFFOLD: local steps with control variates, so that any number of them has the pooled minimiser as limit.

    Parameters
    ----------
    local_steps : int, at least 1, or mapping from node to that
        Gradient steps per node and step of the server, which takes two rounds. Corrected steps stay at the minimiser,
        however many a node takes and of whichever size.
    lr : float > 0 or "auto", or mapping from node to float
        Step size; "auto" is 1/(β + λ).
    memory : int, at least 0
        Moves that the server's acceleration looks back on; 0 for none.

    Examples
    --------
    >>> scaffold(local_steps=10).task.variates
    True
    """
    steps = GradientSteps(local_steps=by_node(local_steps, "local_steps"), lr=by_node(lr, "lr"), variates=True)
    return Method("scaffold", steps, ControlVariates(memory=memory), Regularised(), remedy="lower lr", exact=True)
