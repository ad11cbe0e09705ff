"""A method: a task for the nodes and a merge for the server."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, cast, runtime_checkable

from localgd.core import Engine, Loss, Merge, Task
from localgd.losses import among
from localgd.rules.probes import Weighting


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
    """

    name: str
    task: LocalTask
    merge: Merge

    def among(self, versus: int) -> Method:
        """Return the method for samples that `versus` rows speak for: logistic then means softmax."""
        loss = among(self.task.loss, versus)
        return self if loss == self.task.loss else replace(self, task=replace(cast(Any, self.task), loss=loss))

    def tuned(self, engine: Engine) -> Method:
        """Return the method with what it needs to know of the data found, by one round, if it was "auto"."""
        return replace(self, task=self.task.tuned(engine)) if isinstance(self.task, Tunable) else self


@runtime_checkable
class Tunable(Protocol):
    """A task with a setting that depends on the data."""

    def tuned(self, engine: Engine) -> Self:
        """Return the task with that setting found, by one round."""
