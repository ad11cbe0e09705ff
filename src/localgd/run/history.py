"""What a run leaves behind, and who takes part in a round."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from localgd.core import Engine, Failure
from localgd.data.probabilities import Probabilities
from localgd.duals.dual import Dual
from localgd.errors import check_flag, check_kind, check_whole
from localgd.losses import Logistic, Softmax
from localgd.methods.method import Method
from localgd.problems.certificate import Certificate
from localgd.problems.regularised import Regularised
from localgd.rounding import FloatArray, is_number
from localgd.rules.server import End

if TYPE_CHECKING:
    from localgd.data.model import Model
    from localgd.data.recipe import Recipe


@dataclass(frozen=True)
class Row:
    """The shared model after `round` rounds: one row of the history.

    Parameters
    ----------
    round : int
        Rounds done; row 0 is the start.
    loss : float
        F(w) = Σ p_m f_m(w).
    accuracy : float
        Share of all training rows that w gets right, 0 to 1; as the loss, of the nodes that took part. NaN for w = 0.
    low, high : float
        Best proved bounds on the pooled margin so far.
    angle_deg_max : float
        Certified angle to the pooled model in degrees; NaN if there is none.
    floats_up, floats_down : int
        Numbers sent by and to all nodes since the run began, of 64 bits each; codes count as what they take.
    seconds : float
        Wall time since the run began.
    margin : float
        The model's own margin min z_i·w/|w| (a lower bound); NaN if not all nodes took part.
    true_angle_deg : float
        Angle to the pooled model where pooling is allowed, else NaN.
    gap : float
        Upper bound on how far a penalised objective is above its least; NaN for max-margin.
    n_nodes : int
        Nodes whose reports were merged.
    drift : float
        Of networks: RMS distance of the models that nodes made of this one from their mean; else NaN.
    """

    round: int
    loss: float
    accuracy: float
    low: float
    high: float
    angle_deg_max: float
    floats_up: int
    floats_down: int
    seconds: float
    margin: float
    true_angle_deg: float = math.nan
    gap: float = math.nan
    n_nodes: int = 0
    drift: float = math.nan


class RoundInfo(NamedTuple):
    """What a run tells its caller after every round.

    Parameters
    ----------
    row : Row
        The row of the history.
    certificate : Certificate
        What is proved.
    w : (d,) float64 array
        The model that both are about.
    """

    row: Row
    certificate: Certificate
    w: FloatArray


@dataclass(frozen=True, eq=False)
class Run:
    """What came out of `train`.

    Parameters
    ----------
    w : (d,) float64 array
        The shared model, bias last if the rows have a bias column.
    certificate : Certificate
        What is proved about it.
    history : tuple of Row
        One row per round, from round 0.
    method : Method
        The method with the step size it used.
    failures : tuple of Failure
        What nodes failed at, round by round, and what was done about it.
    end : End
        How it came to its end.
    unfinished : bool
        Whether it was cut short, so that more rounds could go on from its last checkpoint.
    weighted : bool
        Whether samples have weights: loss and accuracy then count each by its own.
    told : tuple of str
        What the certificate says, beside its numbers, of how the model came to be.
    dual : Dual, optional
        The model as a combination of rows, with what is proved of it as one: a start for a run over the same rows.
    """

    w: FloatArray
    certificate: Certificate
    history: tuple[Row, ...]
    method: Method
    failures: tuple[Failure, ...] = ()
    end: End = End.OUT_OF_ROUNDS
    unfinished: bool = False
    weighted: bool = False
    told: tuple[str, ...] = ()
    dual: Dual | None = None

    @property
    def n_rounds(self) -> int:
        """Rounds that made the model."""
        return self.history[-1].round

    @property
    def probabilities(self) -> Probabilities | None:
        """How scores of the model become probabilities: as its loss says, None if it minimises neither of the two."""
        problem = self.method.problem
        # what is derived from one of them is another loss
        odds = isinstance(problem, Regularised) and type(problem.loss) in (Logistic, Softmax)
        return Probabilities() if odds else None

    def model(self, recipe: Recipe) -> Model:
        """Return the model as it is kept, with how rows were prepared for it."""
        from localgd.data.model import Model  # noqa: PLC0415  it brings polars, which a run itself can do without
        from localgd.data.recipe import Recipe  # noqa: PLC0415

        check_kind("recipe", recipe, Recipe, "a Recipe, as prepare returns it")
        n_parts = len(recipe.classes) if len(recipe.classes) > 2 else 1
        if self.w.size != n_parts * len(recipe.feature_names):
            made = f"{n_parts} × {len(recipe.feature_names)}"
            raise ValueError(f"recipe is not that of the run: it makes {made} coefficients, the run has {self.w.size}")
        return Model.from_vector(
            self.w,
            fit_intercept=recipe.intercept,
            classes=recipe.classes,
            recipe=recipe,
            probabilities=self.probabilities,
        )

    def save(self, folder: str | Path, recipe: Recipe, *, force: bool = False) -> None:
        """Write the run as ``localgd train --out`` does, but for its figure; the commands on runs then take it.

        Parameters
        ----------
        folder : str or Path
            The folder to make.
        recipe : Recipe
            How rows were prepared, as `localgd.prepare` returned it.
        force : bool, default False
            Replace a run folder that is there.

        Raises
        ------
        FileExistsError
            If the folder is there and `force` is off, or holds what no run leaves.
        ValueError
            If the recipe is not that of the rows.
        """
        from localgd.run import folder as record  # noqa: PLC0415  it brings polars

        check_kind("folder", folder, str | Path, "a path")
        check_flag("force", force)
        record.save(Path(folder), self, recipe, force=force)

    def columns(self) -> dict[str, list[Any]]:
        """Return the history column by column, ready for a data frame."""
        rows = [asdict(row) for row in self.history]
        return {name: [row[name] for row in rows] for name in rows[0]}


@dataclass(frozen=True)
class SampledNodes:
    """Partial participation: every round a fresh random share of the nodes, at least one.

    Parameters
    ----------
    fraction : float in (0, 1]
        Share of the nodes.
    seed : int, at least 0
        Nodes are drawn from ``default_rng([seed, round])``.

    Examples
    --------
    >>> len(SampledNodes(0.5, seed=1)(0, ("a", "b", "c", "d")))
    2
    """

    fraction: float
    seed: int = 0

    def __post_init__(self) -> None:
        """Check both fields."""
        if not (is_number(self.fraction) and 0 < self.fraction <= 1):
            raise ValueError(f"fraction of the nodes must be above 0 and at most 1, got {self.fraction!r}")
        check_whole("seed", self.seed, 0)

    def __call__(self, round_: int, node_ids: Sequence[str]) -> Collection[str]:
        """Return the nodes of a round."""
        rng = np.random.default_rng([self.seed, round_])
        size = max(1, round(self.fraction * len(node_ids)))
        return [str(node_id) for node_id in rng.choice(np.asarray(node_ids), size=size, replace=False)]


class CommunicationLog:
    """Counts from the start of a run: seconds, and the engine's own count of floats sent."""

    def __init__(self, engine: Engine) -> None:
        self._begin = time.perf_counter()
        self._up, self._down = engine.floats_up, engine.floats_down

    def go_on(self, engine: Engine, row: Row) -> None:
        """Count on from a row of a run that was cut short."""
        self._begin = time.perf_counter() - row.seconds
        self._up, self._down = engine.floats_up - row.floats_up, engine.floats_down - row.floats_down

    def entries(self, engine: Engine) -> dict[str, Any]:
        """Return the counts so far."""
        return {
            "floats_up": engine.floats_up - self._up,
            "floats_down": engine.floats_down - self._down,
            "seconds": time.perf_counter() - self._begin,
        }
