"""What a node does for a server elsewhere, and nothing else: tasks, and ways to encode its rows."""

from __future__ import annotations

from localgd.core import Task
from localgd.data.coding import ClassCounts
from localgd.data.recipe import Recipe
from localgd.data.survey import Moments, Survey, Tally
from localgd.evaluation.counting import Decisions, Histogram, Residuals, SigmoidLoss
from localgd.problems.least_squares import Squares
from localgd.problems.metrics import Evaluate
from localgd.problems.regularised import Appraise, Curvature
from localgd.rules.compressed import Compressed
from localgd.rules.consensus import DualPart
from localgd.rules.interior import InteriorPoint
from localgd.rules.local import GradientSteps
from localgd.rules.local_squares import SquaresSteps
from localgd.rules.newton_cg import Along
from localgd.rules.probes import Sizes, Smoothness, TemperedDual
from localgd.rules.project import Project

TASKS: tuple[type[Task], ...] = (
    *(Survey, Tally, Moments, ClassCounts),
    *(Sizes, Smoothness, Evaluate, TemperedDual),
    *(GradientSteps, Project, Compressed, DualPart, InteriorPoint),
    *(Appraise, Curvature, Along),
    *(Squares, SquaresSteps),
    *(Decisions, Histogram, SigmoidLoss, Residuals),
)
"""What methods, certificates, preparation and evaluation ask of a node: all that it runs for a server elsewhere."""

ENCODERS: tuple[type, ...] = (Recipe,)
"""What a node puts its rows through for a server elsewhere."""
