"""The options of methods, listed once: flags, help, run-config keys and checks are made from this table.

It imports nothing that takes time, so that whoever only wants to say what there is need not wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar


@dataclass(frozen=True)
class Option:
    """One option of some methods.

    Parameters
    ----------
    name : str
        As in Python; a flag has dashes for its underscores.
    kind : type
        float, int, bool or str.
    help : str
        What it is, in a line.
    defaults : mapping from method to text
        The methods that take it, and what holds if it is not given.
    """

    name: str
    kind: type[float | int | bool | str]
    help: str
    defaults: Mapping[str, str]

    @property
    def key(self) -> str:
        """Its name with dashes."""
        return self.name.replace("_", "-")

    @property
    def shown(self) -> str:
        """What holds if it is not given, in words."""
        (usual, _), *_ = Counter(self.defaults.values()).most_common(1)
        others = [f"{text} for {method}" for method, text in self.defaults.items() if text != usual]
        return "; ".join([usual, *others])

    @property
    def described(self) -> str:
        """Its help, after the methods that take it if those are few."""
        takers = self.defaults if len(self.defaults) <= 3 else {}
        return f"{', '.join(takers)}: {self.help}" if takers else self.help

    def parsed(self, text: Any) -> Any:
        """Return the value that a text stands for: a number where it can be one and may.

        Raises
        ------
        ValueError
            If it must be a number and is none; names the option.

        Examples
        --------
        >>> BY_NAME["prox"].parsed("0.5")
        0.5
        >>> BY_NAME["prox"].shown
        '0.01; 0.001 for modified-local-gd'
        """
        if self.kind is bool:
            if not isinstance(text, bool):
                raise ValueError(f"{self.key} must be true or false, got {text!r}")
            return text
        if self.kind is int and isinstance(text, float):  # which int() would cut
            return text
        try:
            return self.kind(text)
        except ValueError:
            raise ValueError(f"{self.key} must be a number, got {text!r}") from None


@dataclass(frozen=True)
class ByNodeOption(Option):
    """A number, or where it has a meaning a word; or a number for each node: ``a=10,b=200``.

    Parameters
    ----------
    number : type
        int or float.
    words : bool
        A text that is no number is a word, which the method refuses by name if it does not know it.
    """

    number: type[int | float] = float
    words: bool = True

    def parsed(self, text: Any) -> Any:
        """Return the number, the word, or the mapping from nodes to numbers.

        Examples
        --------
        >>> BY_NAME["local_steps"].parsed("a=10, b=200"), BY_NAME["weighted_by"].parsed("uniform")
        ({'a': 10, 'b': 200}, 'uniform')
        >>> BY_NAME["lr"].parsed("0.5"), BY_NAME["lr"].parsed("auto"), BY_NAME["local_steps"].parsed(5)
        (0.5, 'auto', 5)
        """
        if not isinstance(text, str):
            return text
        if "=" in text:
            return self._by_node(text)
        try:
            return self.number(text)
        except ValueError:
            if self.words:
                return text
            raise ValueError(f"{self.key} must be a {self._kind}, got {text!r}") from None

    @property
    def _kind(self) -> str:
        return "whole number" if self.number is int else "number"

    def _by_node(self, text: str) -> dict[str, int | float]:
        numbers: dict[str, int | float] = {}
        for part in text.split(","):
            name, _, number = (piece.strip() for piece in part.rpartition("="))
            if not name or name in numbers:
                raise ValueError(f"{self.key} by node is NODE=NUMBER,NODE=NUMBER, each node once, got {text!r}")
            try:
                numbers[name] = self.number(number)
            except ValueError:
                raise ValueError(f"{self.key} of node {name!r} must be a {self._kind}, got {number!r}") from None
        return numbers


@dataclass(frozen=True)
class OfMethod(Option):
    """An option of the method that a function returns, not of the function: ``local_gd().compressed(Int8())``."""


ON_METHOD = {"compress": "compressed(localgd.Int8())", "late": "late()"}
"""How an `OfMethod` is given to the method that a function returned."""

Given = ParamSpec("Given")
Made = TypeVar("Made")


def makes(function: Callable[Given, Made]) -> Callable[Given, Made]:
    """Have a function that makes a method say where options go that it has not, and the method has.

    Examples
    --------
    >>> makes(lambda *, lr=1.0: lr)(compress="int8")
    Traceback (most recent call last):
    TypeError: compress is an option of the method that <lambda> returns: <lambda>(…).compressed(localgd.Int8())
    """
    own = signature(function).parameters

    @wraps(function)
    def checked(*args: Given.args, **options: Given.kwargs) -> Made:
        for option, call in ON_METHOD.items():
            if option in options and option not in own:
                name = getattr(function, "__name__", "it")
                raise TypeError(f"{option} is an option of the method that {name} returns: {name}(…).{call}")
        return function(*args, **options)

    return checked


def _all(default: str, *methods: str, **others: str) -> dict[str, str]:
    return dict.fromkeys(methods, default) | {name.replace("_", "-"): text for name, text in others.items()}


AVERAGING = ("local-gd", "local-sgd", "fedexp", "fedprox", "slowmo")
LOCAL = (*AVERAGING, "modified-local-gd")
SECOND_ORDER = ("auto", "interior-point", "newton", "normal-equations")

OPTIONS = (
    ByNodeOption(
        "local_steps",
        str,
        "Gradient steps per node and round; by node: a=10,b=200.",
        _all("100", *LOCAL, "normalised-local-gd", "scaffold"),
        number=int,
        words=False,
    ),
    ByNodeOption(
        "lr",
        str,
        "Step size: a number, auto (1/smoothness) or paper (that over the local steps); by node: a=0.1,b=0.5.",
        _all("auto", *LOCAL, "scaffold", normalised_local_gd="paper"),
    ),
    Option(
        "lr_schedule",
        str,
        "How lr goes down by round: inverse-sqrt, inverse-time, step:ROUNDS[:GAMMA] or cosine:ROUNDS[:ALPHA].",
        _all("constant", *LOCAL, "normalised-local-gd"),
    ),
    Option(
        "loss",
        str,
        "logistic or exponential; with C also squared_hinge (LinearSVC's), for whatever method goes down a loss.",
        _all("logistic", *LOCAL, normalised_local_gd="exponential"),
    ),
    ByNodeOption(
        "weighted_by",
        str,
        "How nodes weigh in the mean: uniform, num-examples, or by node: a=1,b=2.5.",
        _all("uniform; num-examples with C", *LOCAL, "normalised-local-gd"),
    ),
    Option("batch_size", int, "rows per step.", _all("32", "local-sgd")),
    Option("replacement", bool, "draw batches with replacement.", _all("no", "local-sgd")),
    Option("seed", int, "seed of the batches.", _all("0", "local-sgd")),
    Option("form", str, "projection or proximal.", _all("projection", "modified-local-gd")),
    Option("prox", float, "λ of the pull to the shared model.", _all("0.01", "fedprox", modified_local_gd="0.001")),
    Option("momentum", float, "momentum of the server.", _all("0.7", "slowmo")),
    Option("server_lr", float, "step of the server.", _all("1", "slowmo")),
    Option("nesterov", bool, "Nesterov's form, as DiLoCo.", _all("no", "slowmo")),
    OfMethod(
        "compress",
        str,
        "How updates travel: int8, int4, sign or topk:SHARE (as topk:0.05); what that loses is sent later.",
        _all("no", *LOCAL, "normalised-local-gd"),
    ),
    OfMethod(
        "late",
        bool,
        "Hand out the late direction: what was added in the last half of the rounds.",
        _all("no", *AVERAGING, normalised_local_gd="yes"),
    ),
    Option("memory", int, "rounds that are looked back on.", _all("30", "lbfgs", "scaffold", consensus="40")),
    Option("max_mb", float, "largest d×d sum a node is asked for, in megabytes.", _all("64", *SECOND_ORDER)),
    Option(
        "tol",
        float,
        "regression: stop once the gradient has come down to this part of what it is at 0.",
        _all("0", "auto", "normal-equations", "conjugate-gradients"),
    ),
)
"""The options, in the order in which they are shown."""

BY_NAME: Mapping[str, Option] = {option.name: option for option in OPTIONS}

NAMES = (
    *("auto", "local-gd", "local-sgd", "modified-local-gd", "normalised-local-gd", "fedexp", "fedprox", "slowmo"),
    *("consensus", "interior-point", "newton", "newton-cg", "lbfgs", "scaffold"),
    *("normal-equations", "conjugate-gradients"),
)
"""The methods, in the order in which they are shown."""

ALIASES: Mapping[str, str] = {"fedavg": "local-gd", "fedavgm": "slowmo"}
"""Names that methods have elsewhere: FedAvg, and FedAvgM, which is SlowMo with a server step of 1."""

PROBLEMS: Mapping[str, str] = {
    "svm": "the max-margin model; with C that of LinearSVC, of squared hinge loss",
    "logistic": "LogisticRegression; C is 1 unless given",
    "ridge": "Ridge: numbers to fit; alpha is 1 unless given",
}
"""What problems are called elsewhere."""


def named(method: str) -> str:
    """Return what a method is called here.

    Examples
    --------
    >>> named("fedavg"), named("newton")
    ('local-gd', 'newton')
    """
    return ALIASES.get(method, method)


def meant(
    problem: str | None, *, task: str = "classification", C: float | None = None, loss: Any = None
) -> dict[str, Any]:
    """Return task, C and loss of a problem by one of its names in `PROBLEMS`, or as they are without one.

    Raises
    ------
    ValueError
        If nothing is called so, or the others say something else.

    Examples
    --------
    >>> meant("logistic"), meant("svm", C=2.0)["loss"], meant("ridge")["task"]
    ({'task': 'classification', 'C': 1.0, 'loss': 'logistic'}, 'squared_hinge', 'regression')
    """
    if problem is None:
        return {"task": task, "C": C, "loss": loss}
    if problem not in PROBLEMS:
        raise ValueError(f"problem must be one of {', '.join(PROBLEMS)}, got {problem!r}")
    if problem == "ridge":
        return {"task": "regression", "C": C, "loss": loss}
    if task != "classification":
        raise ValueError(f"problem={problem!r} is one of classes, but the task is {task!r}; leave one of them out")
    own = "logistic" if problem == "logistic" else "squared_hinge" if C is not None else None
    if loss not in (None, own):
        raise ValueError(f"problem={problem!r} says which loss, so loss={loss!r} cannot; leave one of them out")
    return {"task": task, "C": 1.0 if problem == "logistic" and C is None else C, "loss": own}


def taken(method: str) -> dict[str, Option]:
    """Return the options of a method by name.

    Examples
    --------
    >>> list(taken("lbfgs"))
    ['memory']
    """
    return {option.name: option for option in OPTIONS if named(method) in option.defaults}
