"""The methods by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import localgd
from localgd.core import Problem
from localgd.duals.compressors import compressor_named
from localgd.errors import nearest
from localgd.losses import Loss, SquaredHinge, loss_named
from localgd.methods.method import Choice, Method
from localgd.methods.options import ALIASES, NAMES, meant, named, taken
from localgd.problems.hard_margin import HardMargin
from localgd.problems.least_squares import LeastSquares
from localgd.problems.regularised import Regularised

METHODS: dict[str, Callable[..., Method | Choice]] = {name: getattr(localgd, name.replace("-", "_")) for name in NAMES}
"""The methods by name, which is that of a public function with dashes for its underscores."""


def method_named(name: str, **options: Any) -> Method | Choice:
    """Return the method called `name`, here or elsewhere (`localgd.methods.options.ALIASES`), with these options.

    Raises
    ------
    ValueError
        If no method has that name (the nearest is suggested) or the method has no such option.

    Examples
    --------
    >>> method_named("local-gd", local_steps=10).task.local_steps
    10
    >>> method_named("local-gd", compress="int8") == localgd.local_gd().compressed(localgd.Int8())
    True
    >>> method_named("local-dg")
    Traceback (most recent call last):
    ValueError: unknown method 'local-dg'; did you mean 'local-gd'? Known are: auto, local-gd, ...
    """
    if named(name) not in METHODS:
        raise ValueError(f"unknown method {name!r}{nearest(name, [*METHODS, *ALIASES])}")
    known = taken(name)
    for option in options:
        if option not in known:
            which = f"its options are {', '.join(known)}" if known else "it has no options"
            raise ValueError(f"{option} has no meaning for method {name!r}; {which}")
    given = {option: known[option].parsed(value) for option, value in options.items()}
    code, late = given.pop("compress", None), given.pop("late", None)
    method = METHODS[named(name)](**given)
    if isinstance(method, Method) and late is not None:
        method = method.late(late)
    if isinstance(method, Method) and code is not None:
        method = method.compressed(compressor_named(code))
    return method


def asked(
    name: str,
    *,
    problem: str | None = None,
    task: str = "classification",
    C: float | None = None,
    alpha: float | None = None,
    intercept: bool = False,
    loss: str | Loss | None = None,
    **options: Any,
) -> tuple[Method | Choice, Problem | None]:
    """Return the method of that name, and the problem that these settings mean: None for the method's own.

    A loss is the problem's where there is a penalty, or the method is for a minimiser; else the method's.

    The task is "classification", or "regression" for real targets. `C`, the penalty of a loss, is as in scikit-learn's
    ``LogisticRegression``; `alpha`, that of real targets, as in its ``Ridge``, 1 unless given. With `intercept` the
    last column is a bias, and free of either. Or the `problem` is named, and says task, loss and C, where they are not
    given: `localgd.methods.options.PROBLEMS`. The options are the method's own; None is not given.

    Examples
    --------
    >>> asked("local-gd", C=1.0)[1]
    Regularised(loss=Logistic(), C=1.0, intercept=False, n_blocks=1)
    >>> asked("local-gd", loss="exponential")[1] is None
    True
    """
    given = {option: value for option, value in options.items() if value is not None}
    task, C, loss = meant(problem, task=task, C=C, loss=loss).values()
    if task not in ("classification", "regression"):
        raise ValueError(f"task must be 'classification' or 'regression', got {task!r}")
    if task == "regression":
        if C is not None or loss is not None:
            raise ValueError(f"{'C' if C is not None else 'loss'} is for classes; for real targets there is alpha")
        return method_named(name, **given), LeastSquares(1.0 if alpha is None else alpha, intercept)
    if alpha is not None:
        raise ValueError("alpha is for real targets: say so, by the task regression; the penalty for classes is C")
    if not method_named(name).problem.by_margins:
        raise ValueError(
            f"{name} fits real targets, not classes: say so (`localgd train --task regression`), or take auto"
        )
    if problem == "svm" and C is None:
        return method_named(name, **given), HardMargin()
    minimises = C is not None or loss == SquaredHinge.name or isinstance(method_named(name).problem, Regularised)
    if not minimises:
        return method_named(name, **given, **({} if loss is None else {"loss": loss})), None
    chosen = loss_named("logistic" if loss is None else loss)
    sought = Regularised(chosen, math.inf if C is None else C, intercept and C is not None)
    return method_named(name, **given), sought
