"""Methods that reach the pooled model itself, in tens of rounds."""

from __future__ import annotations

from localgd.rules.consensus import MEMORY, Consensus, DualPart
from localgd.rules.curvature import MOST_MB
from localgd.rules.interior import InteriorPoint, Mehrotra
from localgd.rules.method import Method


def consensus(*, memory: int = MEMORY) -> Method:
    """Return consensus: the pooled max-margin model by projections, a memory vector a node, and acceleration.

    Needs rows that are separable, each node's by more than 1e-8 of their length, and every node in every round.

    Parameters
    ----------
    memory : int, at least 0
        Rounds that the acceleration looks back on; 0 is the plain iteration, several times slower.

    Returns
    -------
    Method
        A method for `train`.

    Raises
    ------
    ValueError
        If `memory` is out of its range.

    Notes
    -----
    Each round costs one projection a node, d numbers each way and about 2·memory more. The rounds it takes grow with
    the number of nodes and how much their supporting rows depend on each other, not with their number of rows.

    Examples
    --------
    >>> consensus().name
    'consensus'
    """
    patience = min(5, max(memory - 1, 0))
    return Method("consensus", DualPart(memory=memory), Consensus(memory=memory, patience=patience))


def interior_point(*, max_mb: float = MOST_MB) -> Method:
    """Return second-order rounds for the hard margin: the pooled max-margin model to machine precision.

    About 14 Newton steps of two or three rounds each, however hard the problem; every third round sends d²/2 numbers.

    Parameters
    ----------
    max_mb : float > 0
        Refuse where that is more megabytes.

    Returns
    -------
    Method
        A method for `train`, which needs every node in every round.

    Raises
    ------
    ValueError
        If `max_mb` is not positive.

    Examples
    --------
    >>> interior_point().name
    'interior-point'
    """
    return Method("interior-point", InteriorPoint(), Mehrotra(max_mb=max_mb))
