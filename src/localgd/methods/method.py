"""A method: a task for the nodes and a merge for the server. What it looks for is the problem's matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import FunctionType
from typing import Any, Protocol, runtime_checkable

from localgd.core import Engine, Merge, Message, Problem, Task
from localgd.duals.compressors import Compressor
from localgd.errors import all_of, check_flag, check_kind
from localgd.losses import Loss
from localgd.problems.hard_margin import HardMargin
from localgd.problems.metrics import Weighting
from localgd.problems.own_model import OwnModel
from localgd.problems.sizes import DataSizes
from localgd.rules.compressed import Compressed
from localgd.rules.late import Late
from localgd.rules.server import End, Server

UNLIKE = {
    True: "it fits real targets, and cannot look for the {} model; take auto, or another method",
    False: "it is for signed rows, and cannot look for the {} solution; take auto or conjugate-gradients",
}
"""What is said to a problem by margins, or not by margins, that a method is not for."""


class LocalTask(Task, Protocol):
    """A task that trains: it has a loss to report and a weighting of the nodes."""

    @property
    def loss(self) -> Loss | None:
        """The loss that the history shows; None for the problem's own, until `Method.bind`."""

    @property
    def weighted_by(self) -> Weighting | None:
        """How the nodes are weighted in the mean; None likewise."""


@runtime_checkable
class Bindable(Protocol):
    """A task that has something to find out before the first round, by one round at most, or a merge to take over."""

    def bound(self, problem: Problem, *about: Any) -> Any:
        """Return the task for this problem, engine and sizes, or the merge for this problem and task.

        Raises
        ------
        ValueError
            If it has no meaning for the problem; says what has.
        """


@runtime_checkable
class LookMerge(Protocol):
    """A merge whose rounds ask for more than how its model stands, or for something else."""

    def look(self, state: Any) -> Message:
        """Return what the nodes get in a round that only looks at the model."""


@dataclass(frozen=True)
class Method:
    """A task for the nodes and a merge for the server.

    Parameters
    ----------
    name : str
        What the history and the run folder call it.
    task : LocalTask
        What a node does in a round.
    merge : Merge
        What the server does with the sum of the reports.
    problem : Problem
        What it looks for unless `train` is told otherwise.
    why : str
        Why it was chosen, if it was not asked for by name.
    remedy : str
        What to do where it fails.
    exact : bool
        Whether it reaches the pooled model itself, so that it is to end with a proof.
    fallbacks : mapping from End to Fallback
        Which method takes over where this one cannot go on.
    """

    name: str
    task: LocalTask
    merge: Merge
    problem: Problem = HardMargin()  # noqa: RUF009  frozen, so sharing one is safe
    why: str = ""
    remedy: str = ""
    exact: bool = False
    fallbacks: Mapping[End, Fallback] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every field; what task and merge must have, `bind` looks at."""
        for name in ("task", "merge"):
            if isinstance(value := getattr(self, name), type | FunctionType):
                raise TypeError(f"{name} must be what {value.__name__}(…) makes, not {value.__name__} itself; call it")
        for name in ("name", "why", "remedy"):
            check_kind(name, getattr(self, name), str, "a text")
        check_kind("problem", self.problem, Problem, "a Problem such as HardMargin()")
        check_flag("exact", self.exact)
        check_kind("fallbacks", self.fallbacks, Mapping, "a mapping from End to Fallback")
        for end, fallback in self.fallbacks.items():
            check_kind("fallbacks", end, End, "a mapping from End to Fallback")
            check_kind("fallbacks", fallback, Fallback, "a mapping from End to Fallback")

    @property
    def whole_rounds(self) -> str:
        """Why it needs every node in every round; empty if it does not."""
        return self.merge.whole_rounds

    def look(self, state: Any) -> Message:
        """Return what the nodes get in a round that only looks at the model."""
        return self.merge.look(state) if isinstance(self.merge, LookMerge) else self.merge.message(state)

    def late(self, on: bool = True) -> Method:
        """Return the method with the late direction for its model, or without; see `localgd.rules.late.Late`.

        Examples
        --------
        >>> from localgd.methods.averaging import local_gd
        >>> type(local_gd().late().merge).__name__, local_gd().late().late(False) == local_gd()
        ('Late', True)
        """
        plain = self.merge.merge if isinstance(self.merge, Late) else self.merge
        return replace(self, merge=Late(plain) if on else plain)

    def compressed(self, compressor: Compressor | None) -> Method:
        """Return the method with updates that travel in a code, or as they are; see `localgd.rules.compressed`.

        What a code loses is kept back by the node and sent later; certificates count what is still kept back.

        Parameters
        ----------
        compressor : Compressor or None
            ``Int8()``, ``Int4()``, ``SignSGD()``, ``TopK(share)``, or one of your own; None for no code.

        Raises
        ------
        ValueError
            If the method needs sums that are exact.

        Examples
        --------
        >>> from localgd.duals.compressors import Int8
        >>> from localgd.methods.averaging import local_gd
        >>> local_gd().compressed(Int8()).task.compressor, local_gd().compressed(Int8()).compressed(None) == local_gd()
        (Int8(), True)
        """
        task: Any = self.task.task if isinstance(self.task, Compressed) else self.task
        if compressor is None:
            return replace(self, task=task)
        check_kind("compressor", compressor, Compressor, "a Compressor such as Int8(), or None")
        if self.exact:
            raise ValueError(
                f"{self.name} needs sums that are exact, so there is nothing to compress; leave compress out, or take "
                "a method that averages, such as local-gd"
            )
        return replace(self, task=Compressed(task, compressor))

    def bind(self, problem: Problem, engine: Engine, sizes: DataSizes) -> Method:
        """Return the method for this problem on these nodes: all that was left to them is found.

        Raises
        ------
        ValueError
            If it has no meaning for the problem.
        """
        lacks = [name for name in ("schema", "run") if not callable(getattr(self.task, name, None))]
        lacks += [name for name in ("loss", "weighted_by") if not hasattr(self.task, name)]
        lacks += [name for name in ("init", "message", "step") if not callable(getattr(self.merge, name, None))]
        lacks += [] if hasattr(self.merge, "whole_rounds") else ["whole_rounds"]
        if lacks:
            raise TypeError(f"{self.name}: its task or merge lacks {', '.join(lacks)}; see localgd.core.Task and Merge")
        own = problem if isinstance(problem, OwnModel) else None
        if own is None and problem.by_margins != self.problem.by_margins:
            raise ValueError(f"{self.name}: {UNLIKE[problem.by_margins].format(problem.kind)}")
        try:
            _, task = all_of(
                lambda: self.merge.refuse(problem) if isinstance(self.merge, Server) else None,
                lambda: self._task_for(problem, engine, sizes) if own is None else own.steps(self.task, engine),
            )
            merge = self.merge.bound(problem, task) if isinstance(self.merge, Bindable) else self.merge
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error
        return replace(self, task=task, merge=merge, problem=problem)

    def _task_for(self, problem: Problem, engine: Engine, sizes: DataSizes) -> Any:
        return self.task.bound(problem, engine, sizes) if isinstance(self.task, Bindable) else self.task


@dataclass(frozen=True)
class Fallback:
    """A method that takes over from the start.

    Parameters
    ----------
    method : Method
        What takes over.
    problem : Problem, optional
        What it looks for; default is what was looked for before.
    """

    method: Method
    problem: Problem | None = None

    def __post_init__(self) -> None:
        """Check both fields."""
        check_kind("method", self.method, Method, "a Method such as newton()")
        if self.problem is not None:
            check_kind("problem", self.problem, Problem, "a Problem such as HardMargin()")


@runtime_checkable
class Choice(Protocol):
    """A choice of a method that waits for the data."""

    @property
    def name(self) -> str:
        """What users call it."""

    @property
    def problem(self) -> Problem:
        """What is looked for unless `train` is told otherwise."""

    def chosen(self, problem: Problem, sizes: DataSizes) -> Method:
        """Return the method for this problem on rows of these sizes."""
