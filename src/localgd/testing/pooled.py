"""Whether a linear model over groups of rows is the one that pooled training gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array, issparse

from localgd.data.groups import blocks, node_names
from localgd.data.heads import LastLayer, head_rows
from localgd.engine.inprocess import InProcess
from localgd.errors import shown
from localgd.layouts.csr import biased
from localgd.methods.auto import auto
from localgd.problems.certificate import Certificate, Status
from localgd.problems.hard_margin import HardMargin
from localgd.problems.regularised import Regularised
from localgd.rounding import FloatArray, angle_deg, at_least, at_most, real_array
from localgd.run.certify import certify
from localgd.run.goals import Angle
from localgd.run.loop import train

REMEDY = (
    "its training has not come to the pooled model: take more rounds, fewer local steps or smaller ones, weigh nodes "
    "alike in every round, or let localgd.auto() find it"
)


def assert_matches_pooled(
    model: Any,
    X: Any,
    y: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    angle_tol_deg: float = 1.0,
    C: float | None = None,
    n_rounds: int = 500,
) -> Certificate:
    """Assert that a linear classifier is the one that pooled training would give, by a certificate.

    Parameters
    ----------
    model : object with ``coef_`` and ``intercept_``, or array
        A fitted linear classifier, such as scikit-learn's or the one that federated training made; or its coefficients,
        (d,) or (C, d) for C classes, with one more at the end for a bias.
    X : (n, d) array or CSR
        All rows, as the model takes them.
    y : (n,) array
        Their labels; of two, the larger one (or the second of ``classes_``) is on the positive side.
    groups : (n,) array, optional
        Which node holds a row; the certificate is then made as the nodes would make it.
    angle_tol_deg : float, 0 to 90
        Degrees that the model may be apart.
    C : float, optional
        Compare with the minimiser of ½|w|² + C Σ loss (logistic, softmax), bias free: ``LogisticRegression(C=C)``.
        Without it with the max-margin model, whose bias is a coefficient like others.
    n_rounds : int, at least 0
        Most rounds to look for the pooled model.

    Returns
    -------
    Certificate
        What is proved of the model.

    Raises
    ------
    AssertionError
        If it is farther, or nothing so near could be proved; says by how much, and what to do.
    ValueError
        If model, rows and labels do not fit each other.

    Examples
    --------
    >>> X, y = [[2.0, 0.3], [1.0, -0.2], [-2.0, 0.1], [-1.0, -0.4]], [1, 1, 0, 0]
    >>> assert_matches_pooled(np.array([1.0, 0.01]), X, y, groups=["a", "b", "a", "b"]).angle_deg_max < 1
    True
    >>> assert_matches_pooled(np.array([1.0, 0.5]), X, y)
    Traceback (most recent call last):
    AssertionError: the model is at least 26...° (and at most 26...°) from the pooled max-margin model, ...
    """
    tol = Angle(angle_tol_deg)
    layer, classes = _layer(model, np.shape(X)[-1]), _classes(model, y)
    problem = HardMargin() if C is None else Regularised(C=C, intercept=layer.intercept is not None)
    engine = _nodes(layer, classes, X, y, groups)
    w = layer.vector(shared=C is not None)
    goal = tol if C is None else None
    found = certify(w, engine, problem=problem, goal=goal, n_rounds=n_rounds)
    if not tol.met(found) and isinstance(problem, Regularised):
        found = _near(w, engine, problem.among(max(1, len(classes) - 1)), found, n_rounds)
    if not tol.met(found):
        raise AssertionError(_words(found, tol, C))
    return found


def _words(found: Certificate, tol: Angle, C: float | None) -> str:
    """Return how far a model is from the pooled one, and what to do."""
    pooled = "max-margin model" if C is None else f"minimiser for C={C:g}"
    asked = f"{tol.deg:g}° is asked for"
    if found.angle_deg_min > tol.deg:
        most = f" (and at most {at_most(found.angle_deg_max)}°)" if found.angle_deg_max < 90 else ""
        least = f"the model is at least {at_least(found.angle_deg_min)}°{most} from the pooled {pooled}"
        return f"{least}, and {asked}: {REMEDY}"
    if C is None and not found.separable:
        return (
            f"no plane is proved to separate all rows, so there is no max-margin model to compare with: give C, as of "
            f"the loss that the model was trained with ({found.status})"
        )
    so_far = f"within {at_most(found.angle_deg_max)}°" if found.angle_deg_max < 90 else "nothing"
    return (
        f"{so_far} is proved of the model and the pooled {pooled}, and {asked} ({found.status}): give more n_rounds, "
        "or a larger angle_tol_deg"
    )


def _near(w: FloatArray, engine: InProcess, problem: Regularised, own: Certificate, n_rounds: int) -> Certificate:
    """Return the certificate with both bounds on the angle, from that to a minimiser which is looked for."""
    run = train(engine, auto(), problem=problem, n_rounds=n_rounds)
    if not run.certificate.angle_deg_max < 90:
        return own
    apart, off = angle_deg(problem.pull(w), problem.pull(run.w)), run.certificate.angle_deg_max + 1e-9
    most = float(np.fmin(own.angle_deg_max, apart + off))
    return replace(own, angle_deg_max=most, angle_deg_min=max(0.0, apart - off), verdict=Status.CERTIFIED)


def _layer(model: Any, d: int) -> LastLayer:
    """Return the coefficients of a model of d columns."""
    if hasattr(model, "coef_"):
        coef = np.atleast_2d(real_array("coef_", model.coef_))
        intercept = np.atleast_1d(real_array("intercept_", getattr(model, "intercept_", 0.0)))
        has_bias = getattr(model, "fit_intercept", True) and hasattr(model, "intercept_")
        intercept = np.broadcast_to(intercept, len(coef))
    else:
        if not isinstance(model, np.ndarray | list | tuple):
            raise TypeError(
                f"model must have coef_ and intercept_, or be an array of coefficients, got {type(model).__name__}; of "
                "a pipeline give the last step, and the rows as the others make them"
            )
        each = np.atleast_2d(real_array("model", model))
        has_bias = each.shape[-1] == d + 1
        coef, intercept = (each[:, :-1], each[:, -1]) if has_bias else (each, np.zeros(len(each)))
    if coef.ndim != 2 or coef.shape[1] != d:
        raise ValueError(f"the model has coefficients of shape {coef.shape}, and X has {d} columns")
    return LastLayer(coef, intercept if has_bias else None)


def _classes(model: Any, y: ArrayLike) -> NDArray[Any]:
    return np.asarray(model.classes_ if hasattr(model, "classes_") else np.unique(np.asarray(y)))


def _nodes(layer: LastLayer, classes: NDArray[Any], X: Any, y: ArrayLike, groups: ArrayLike | None) -> InProcess:
    """Return a federation of the rows of all groups."""
    if len(classes) != layer.n_classes:
        raise ValueError(f"the model tells {layer.n_classes} classes apart, and there are {len(classes)}")
    labels = np.asarray(y)
    sparse = issparse(X)
    rows: Any = csr_array(X, dtype=np.float64) if sparse else real_array("X", X)
    if labels.shape != rows.shape[:1]:
        raise ValueError(f"X has {rows.shape[0]} rows, and y the shape {labels.shape}; give one label a row")
    if (strange := ~np.isin(labels, classes)).any():
        first = shown(labels[strange].tolist()[0])
        raise ValueError(f"y holds {first}, which is no class of the model: {classes.tolist()}")
    order = np.argsort(classes)
    codes = order[np.searchsorted(classes, labels, sorter=order)]
    names = np.full(len(labels), "0") if groups is None else node_names(groups, len(labels))

    def own(index: NDArray[np.intp]) -> Any:
        if sparse:
            return csr_array(rows[index]) if layer.intercept is None else biased(csr_array(rows[index]))
        ones = np.ones((index.size, int(layer.intercept is not None)))
        return np.hstack([rows[index], ones])

    return InProcess(head_rows(name, own(index), codes[index], len(classes)) for name, index in blocks(names))
