"""A method: a task for the nodes and a merge for the server."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, Self, runtime_checkable

from localgd.core import Engine, Merge, Task
from localgd.losses import Loss, among
from localgd.problems.metrics import Evaluate, Weighting
from localgd.problems.regularised import Appraise, Curvature, Penalty


class LocalTask(Task, Protocol):
    """A task that trains: it has a loss to report and a weighting of the nodes."""

    @property
    def loss(self) -> Loss:
        """The loss that the history shows."""

    @property
    def weighted_by(self) -> Weighting:
        """How the nodes are weighted in the mean."""


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
    why : str
        Why it was chosen, if it was not asked for by name.
    reserves : tuple of Reserve
        Which method takes over where this one cannot go on.
    """

    name: str
    task: LocalTask
    merge: Merge
    why: str = ""
    reserves: tuple[Reserve, ...] = ()

    def reserve(self, ended: str) -> Method | None:
        """Return the method that takes over after such an end, if there is one."""
        return next((reserve.method for reserve in self.reserves if reserve.when == ended), None)

    @property
    def penalty(self) -> Penalty | None:
        """The penalised objective that it minimises; None if it is after the max-margin model."""
        return getattr(self.task, "penalty", None)

    @property
    def softmax(self) -> bool:
        """Whether it minimises a loss of several margins a sample, about whose minimiser nothing is proved."""
        return self.penalty is not None and self.task.loss.versus > 1

    @property
    def look(self) -> Task:
        """The task of a round that only looks at the model."""
        if self.penalty is None:
            return Evaluate(self.task.loss, self.task.weighted_by)
        if isinstance(self.task, Curvature):
            return self.task
        return Appraise(self.task.loss, self.penalty)

    def among(self, versus: int) -> Method:
        """Return the method for samples that `versus` rows speak for: logistic then means softmax."""
        task: Any = self.task
        merge: Any = self.merge
        loss = among(task.loss, versus)
        if loss != task.loss:
            task = replace(task, loss=loss)
        if self.penalty is not None and versus > 1:
            penalty = replace(self.penalty, blocks=versus + 1)
            task, merge = replace(task, penalty=penalty), replace(merge, penalty=penalty)
        return replace(self, task=task, merge=merge)

    def tuned(self, engine: Engine) -> Method:
        """Return the method with what it needs to know of the data found, by one round, if it was "auto"."""
        if not isinstance(self.task, Tunable):
            return self
        task = self.task.tuned(engine)
        merge = self.merge.informed(task) if isinstance(self.merge, Informed) else self.merge
        return replace(self, task=task, merge=merge)


@dataclass(frozen=True)
class Reserve:
    """A method in reserve.

    Parameters
    ----------
    when : "stalled" or "inseparable"
        It takes over if the method before it makes no progress, or finds that nothing separates the rows.
    method : Method
        What takes over, from the start.
    """

    when: Literal["stalled", "inseparable"]
    method: Method


@runtime_checkable
class Choice(Protocol):
    """A choice of a method that waits for the data."""

    @property
    def name(self) -> str:
        """What users call it."""

    def chosen(self, engine: Engine) -> Method:
        """Return the method for these nodes."""


@runtime_checkable
class Tunable(Protocol):
    """A task with a setting that depends on the data."""

    def tuned(self, engine: Engine) -> Self:
        """Return the task with that setting found, by one round."""


@runtime_checkable
class Informed(Protocol):
    """A merge with a setting that it shares with the task."""

    def informed(self, task: Any) -> Self:
        """Return the merge with that setting taken over."""
