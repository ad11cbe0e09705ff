"""The late direction: what was added to a model in the last half of the rounds, handed out instead of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from localgd.core import Message, Problem, Report
from localgd.duals.dual import Dual
from localgd.problems.regularised import hard_margin_only
from localgd.rounding import FloatArray
from localgd.rules.server import Additive, Chain, Server, ServerState


@dataclass(frozen=True)
class Late(Server):
    """Hand out the late direction w_k − w_j of a merge that only adds, j at most k/2 and near to it, instead of w_k.

    On separable data ``w(t) = ŵ log t + ρ + o(1)``, and the constant ρ cancels. What was added since round j is itself
    a combination of rows with coefficients >= 0, so its certificate is the same theorem.
    """

    hard_margin_as: ClassVar[str] = "the late direction is no model, and a penalised loss has a finite minimiser"

    merge: Any = Chain()  # noqa: RUF009  frozen, so sharing one is safe

    def __post_init__(self) -> None:
        """Refuse what does not only add."""
        if not isinstance(self.merge, Additive):
            raise ValueError(  # noqa: TRY004  a merge of another kind is a bad value
                f"late has no meaning for {type(self.merge).__name__}, which does not only add to it; leave it out"
            )

    def refuse(self, problem: Problem) -> None:
        """Refuse what the merge does, and a model that is near a finite minimiser."""
        self.merge.refuse(problem)
        hard_margin_only(problem, self.hard_margin_as, "leave late out (late=False, --no-late)")

    @property
    def whole_rounds(self) -> str:  # type: ignore[override]
        """As the merge."""
        return str(self.merge.whole_rounds)

    def init(self, w0: FloatArray) -> Any:
        """Start with one tail."""
        return replace(self.merge.init(w0), tails=(ServerState(Dual.zeros(np.size(w0))),))

    def message(self, state: Any) -> Message:
        """Send what the merge sends, and the model that is handed out."""
        plain: Message = self.merge.message(state)
        return replace(plain, extra={"readout": state.readout.vector, **plain.extra})

    def step(self, state: Any, report: Report) -> Any:
        """Return what the merge does."""
        return self.merge.step(state, report)
