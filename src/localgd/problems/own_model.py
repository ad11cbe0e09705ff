"""Problems whose model is no vector of coefficients, one a column of the rows."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from localgd.core import Engine, Problem, Report, Task
from localgd.problems.sizes import DataSizes
from localgd.rounding import FloatArray


@runtime_checkable
class OwnModel(Problem, Protocol):
    """A problem that knows itself how long its model is, where it begins and how it steps.

    A network is one: what columns, margins and step sizes of a linear model are has no meaning for it.
    """

    @property
    def dtype(self) -> str:
        """What the numbers of the model travel as: "float32", if that holds all of them, or "float64"."""

    def sizes(self, engine: Engine) -> DataSizes:
        """Return how many samples the nodes hold, by one round, and how many numbers the model has."""

    def start(self) -> FloatArray:
        """Return the model (d,) that training begins with."""

    def steps(self, task: Any, engine: Engine) -> Task:
        """Return the task of local steps with the settings of a method's own; a ValueError if that has no meaning."""

    def settled(self, state: Any, report: Report) -> Any:
        """Return a server's state after a round with what of the model no merge knows of, such as statistics."""
