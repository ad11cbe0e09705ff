"""What a run is judged by in the end: rows that nodes set aside, or nodes that trainings leave out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from localgd.core import Message
from localgd.data.holdout import hold_out
from localgd.data.model import Model
from localgd.data.recipe import Recipe
from localgd.data.survey import Survey
from localgd.data.unmet import unmet
from localgd.errors import NodeError, from_all
from localgd.evaluation.evaluate import evaluate
from localgd.evaluation.left_out import LeftOut, leave_one_node_out
from localgd.report import evaluation, text
from localgd.report.figure import Panel, figure_of
from localgd.report.progress import Progress
from localgd.rules.probes import Sizes
from localgd.run import folder as record


@dataclass(frozen=True)
class Judged:
    """What came of it: the findings, and what they are about in words."""

    of: str
    found: Any

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {"of": self.of, **self.found.to_dict()}

    def tell(self) -> list[Any]:
        """Return lines and tables, in the order in which they are read."""
        tables: Any = evaluation.left_out if isinstance(self.found, LeftOut) else evaluation.set_aside
        return [*tables(self.found), f"{self.of}: {evaluation.in_short(self.found)}"]

    def panels(self) -> list[Panel]:
        """Return the figure: each panel says which rows it is of."""
        which = "nodes left out" if isinstance(self.found, LeftOut) else "rows set aside"
        return [replace(one, title=f"{one.title}, {which}") for one in evaluation.panels(self.found)]

    def leave(self, folder: Path) -> None:
        """Write all of it, and draw it."""
        entries = json.dumps(self.to_dict(), indent=1, allow_nan=False)
        (folder / record.METRICS).write_text(entries + "\n", encoding="utf-8")
        if panels := self.panels():
            figure_of(panels).savefig(folder / record.METRICS_FIGURE, dpi=130)


@dataclass(frozen=True)
class Judge:
    """How a run is to be judged, as its flags say.

    Parameters
    ----------
    flags : namespace
        Those of ``localgd train``.
    engine, training : Engine or None
        All nodes, with their tables, and what is trained on; None once that is over and nothing else needs them.
    held_out : Engine, optional
        What nodes set aside, if they do.
    """

    flags: SimpleNamespace
    engine: Any
    training: Any
    held_out: Any = None

    @classmethod
    def of(cls, flags: SimpleNamespace, engine: Any, n_processes: int) -> Judge:
        """Set rows aside, if that is asked for; refuse what has no meaning together."""
        if flags.leave_one_node_out and flags.holdout is not None:
            raise ValueError("--holdout sets rows aside, --leave-one-node-out whole nodes; choose one of them")
        if flags.leave_one_node_out and flags.fraction is not None:
            raise ValueError("--leave-one-node-out asks all other nodes in every round; leave --fraction out")
        if flags.leave_one_node_out and flags.max_seconds is not None and n_processes > 1:
            raise ValueError("--leave-one-node-out in several processes cannot stop by time; leave --max-seconds out")
        return cls.apart(flags, engine, classes=flags.task == "classification")

    @classmethod
    def apart(cls, flags: SimpleNamespace, engine: Any, *, classes: bool = True) -> Judge:
        """Set rows aside, if that is asked for: the same ones for every command."""
        if flags.holdout is None:
            return cls(flags, engine, engine)
        how = {"seed": flags.seed, "min_group": flags.min_group, "classes": classes}
        return cls(flags, engine, *hold_out(engine, flags.holdout, **how))

    def counted(self) -> list[str]:
        """Return what to say of the rows that were set aside, where nothing is learned of how to read them."""
        return [] if self.held_out is None else self._said(from_all(self.held_out, Survey(), Message()).n_rows)

    def prepared(self, recipe: Recipe) -> list[str]:
        """Return what to say of the rows that were set aside, after a look that they can be read as the others are."""
        if self.held_out is None:
            return []
        try:
            rows = self.held_out.map(_lenient(recipe))
        except NodeError as error:
            raise ValueError(
                f"among the rows set aside by --holdout, node {error.node_id!r}: {error.__cause__}; another --seed "
                "sets other rows aside"
            ) from error
        odd = text.unmet(unmet(self.held_out, recipe, self.flags.min_group))
        return [*self._said(from_all(rows, Sizes(), Message()).n_rows), *odd]

    def _said(self, n_rows: int) -> list[str]:
        there, all_nodes = self.held_out.node_ids, self.engine.node_ids
        of = f"{text.counted(n_rows, 'row')} of {text.counted(len(there), 'node')}"
        said = [f"{of} set aside, to judge the model by; they take no part"]
        if lacking := sorted(set(all_nodes) - set(there)):
            group = f", or fewer than {self.flags.min_group} of a class" if self.flags.min_group > 1 else ""
            much = self.flags.holdout > 0.5
            few = f"{'none would be left to train on' if much else 'they are too few'}{group}"
            named = ", ".join(map(repr, lacking[:10])) + (", …" if len(lacking) > 10 else "")
            said.append(f"no row is set aside at {text.counted(len(lacking), 'node')}, as {few}: {named}")
        return said

    def judged(self, model: Model, fit: Callable[[Any], Model] | None, progress: Progress) -> Judged | None:
        """Return how well the model does on what was set aside, or models at nodes left out; None if not asked for.

        What cannot be told is said, and ends no run.
        """
        min_group = self.flags.min_group
        try:
            if self.held_out is not None and model.recipe is not None:
                lenient = replace(model, recipe=_lenient(model.recipe))
                return Judged("rows set aside", evaluate(lenient, self.held_out, min_group=min_group))
            if fit is not None:
                progress.say(f"training once without each of {text.counted(len(self.engine.node_ids), 'node')}")
                found = leave_one_node_out(self.engine, fit, min_group=min_group)
                if progress.interrupted is not None:  # these trainings were cut short
                    return None
                return Judged("nodes left out, each judged by the model of all others", found)
        except (ValueError, NodeError) as error:
            progress.note(f"the model is not judged: {error}")
        return None


def _lenient(recipe: Recipe) -> Recipe:
    """Return a recipe that reads a category of rows set aside that no row of training has as none."""
    return replace(recipe, unseen="zeros")
