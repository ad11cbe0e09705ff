"""The server's app: train as its run-config says, and leave a run folder that a later run goes on from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from localgd.core import Problem
from localgd.data.coding import said_weight
from localgd.data.datasets import DATASETS
from localgd.data.label_maps import said_label_map
from localgd.data.prepare import prepare
from localgd.data.recipe import Recipe
from localgd.data.spelling import said_maps
from localgd.engine.flower import FlowerEngine
from localgd.methods.method import Choice, Method
from localgd.methods.options import OPTIONS, meant
from localgd.methods.table import asked
from localgd.report import text
from localgd.report.plots import convergence
from localgd.run import folder as record
from localgd.run.checkpoint import Checkpoints
from localgd.run.goals import Angle
from localgd.run.history import RoundInfo, Run
from localgd.run.loop import train
from localgd.run.whole import check_place

KEYS: dict[str, Any] = {
    "task": "classification",
    "method": "auto",
    "n-rounds": 500,
    **dict.fromkeys(("angle-tol-deg", "max-seconds", "out", "problem", "C", "alpha"), ""),
    **{option.key: "" for option in OPTIONS},
    "n-nodes": "",
    "on-failure": "raise",
    "min-nodes": 1,
    "retries": 0,
    "timeout": 60.0,
    "poll": 0.05,
    **dict.fromkeys(("data", "scale", "text", "categorical", "missing"), ""),
    **dict.fromkeys(("label-map", "category-map", "n-classes", "class-weight"), ""),
    "min-group": 1,
    "intercept": True,
    "plot": False,
    "checkpoint-seconds": 30.0,
    "checkpoint-rounds": "",
}
"""What the run-config may say, and what holds if it does not; "" is what is not given, as TOML has no word for it."""

LOG = logging.getLogger("flwr")

FORGETFUL = (
    "no secret in the node-config, so this run cannot be gone on with if it is cut short, and a node of these that is "
    "started again meanwhile counts as lost"
)


@dataclass(frozen=True)
class RunConfig:
    """What a run-config asks for.

    Examples
    --------
    >>> config = RunConfig({"method": "local-gd", "local-steps": 5, "C": ""})
    >>> config.given("local-steps"), config.given("C"), config.given("n-rounds")
    (5, None, 500)
    """

    config: Mapping[str, Any]

    def given(self, key: str) -> Any:
        """Return what a key says; None if it is not given."""
        value = self.config.get(key, KEYS[key])
        return None if value == "" else value

    def number(self, key: str, kind: type[int | float] = float) -> Any:
        """Return the number that a key says, None if it is not given; a ValueError if it is no number."""
        value = self.given(key)
        try:
            return None if value is None else kind(value)
        except ValueError:
            raise ValueError(f"{key} must be a number, got {value!r}") from None

    def how(self) -> tuple[Method | Choice, Problem | None]:
        """Return method and problem, with the options that are given."""
        options: dict[str, Any] = {option.name: self.given(option.key) for option in OPTIONS}
        options |= {"problem": self.given("problem"), "C": self.number("C"), "alpha": self.number("alpha")}
        return asked(self.given("method"), task=self.given("task"), intercept=bool(self.given("intercept")), **options)

    def run(self, grid: Grid) -> Run:
        """Train, and leave what came out."""
        how, out = self.how(), None if self.given("out") is None else Path(self.given("out")).absolute()
        goal = [] if (angle := self.number("angle-tol-deg")) is None else [Angle(angle)]
        if out is not None:
            check_place(out, "out")
        with ExitStack() as hold:
            resumed: Recipe | None = None
            if out is not None and (record.partial(out).is_dir() or out.is_dir()):
                resumed = record.known(hold.enter_context(record.reopened(out)))[1]
            engine = self._federation(grid)
            if resumed is None:
                federation, recipe = prepare(engine, **self._preparation())
            else:
                federation, recipe = engine.map(resumed), resumed
                LOG.info("localgd: going on with %s", out)
            if out is not None and resumed is None:
                hold.enter_context(record.begun(out, self._config(), recipe, force=False))
            LOG.info("localgd: %s; %s", text.counted(len(federation.node_ids), "node"), recipe.columns_said)
            for note in recipe.notes:
                LOG.info("localgd: %s", note)
            run = self._trained(federation, how, goal, out)
            model = run.model(recipe)
            if out is not None:
                draw = convergence if self.given("plot") else None
                record.write(out, run, model, self._config(), draw=draw, force=resumed is not None)
        self._tell(run, federation, out)
        return run

    def _federation(self, grid: Grid) -> FlowerEngine:
        counts = {key.replace("-", "_"): self.number(key, int) for key in ("n-nodes", "min-nodes", "retries")}
        if counts["n_nodes"] is None:
            why = "n-nodes is missing: say how many nodes there are; what is proved is about all"
            raise ValueError(f"run-config: {why}")
        seconds = {key: self.number(key) for key in ("timeout", "poll")}
        return FlowerEngine(grid, on_failure=self.given("on-failure"), **counts, **seconds)

    def _trained(
        self, federation: FlowerEngine, how: tuple[Method | Choice, Problem | None], goal: list[Angle], out: Path | None
    ) -> Run:
        """Train, with checkpoints where the run will be kept."""
        every = (self.number("checkpoint-rounds", int), self.number("checkpoint-seconds"))
        if out is None and every[0] is not None:
            raise ValueError(
                "run-config: checkpoint-rounds is about the run folder; name one with out, or leave it out"
            )
        checkpoints = None if out is None else Checkpoints(record.checkpoints_of(out), *every)
        told = [0]

        def on_round(info: RoundInfo) -> bool:
            row = info.row
            if row.round == 0 and out is not None and federation.strangers:
                LOG.warning("localgd: %s: %s", ", ".join(federation.strangers), FORGETFUL)
            for failure in federation.failures[told[0] :]:
                what = (row.round, failure.node_id, failure.outcome, failure.error)
                LOG.warning("localgd: round %s: node %r %s: %s", *what)
            told[0] = len(federation.failures)
            LOG.info("localgd: %s", text.progress(row, info.certificate))
            return False

        return train(
            federation,
            how[0],
            problem=how[1],
            n_rounds=self.number("n-rounds", int),
            goal=goal,
            max_seconds=self.number("max-seconds"),
            on_round=on_round,
            checkpoints=checkpoints,
        )

    def _preparation(self) -> dict[str, Any]:
        options: dict[str, Any] = {"scale": "standard"}
        if self.given("data") in DATASETS:
            options = dict(DATASETS[self.given("data")].options)
        if (scale := self.given("scale")) is not None:
            options["scale"] = None if scale == "none" else scale
        for key in ("text", "categorical", "missing"):
            if (said := self.given(key)) is not None:
                options[key] = said if key == "missing" else tuple(name.strip() for name in said.split(","))
        if (said := self.given("label-map")) is not None:
            options["label_map"] = said_label_map(said.split(";"), "label-map", None)
        if (said := self.given("category-map")) is not None:
            options["category_map"] = said_maps(said.split(";"), "category-map")
        if (said := self.given("class-weight")) is not None:
            options["class_weight"] = said_weight(said, "class-weight")
        options["n_classes"] = self.number("n-classes", int)
        options |= {"min_group": self.number("min-group", int), "intercept": bool(self.given("intercept"))}
        return {**options, "classes": self.given("task") == "classification"}

    def _config(self) -> dict[str, Any]:
        said = {key: self.given(key) for key in KEYS}
        said |= meant(said["problem"], task=said["task"], C=self.number("C"), loss=said["loss"])
        return {"flower": said, "versions": record.versions("localgd", "flwr", "numpy")}

    def _tell(self, run: Run, federation: FlowerEngine, out: Path | None) -> None:
        for line in text.verdict(run.certificate, run.history[-1], weighted=run.weighted):
            LOG.info("localgd: %s", line)
        rounds = max(1, run.n_rounds)
        up, down = federation.bytes_up / rounds, federation.bytes_down / rounds
        LOG.info("localgd: %.0f bytes up and %.0f down a round, over all nodes", up, down)
        if out is not None:
            LOG.info("localgd: written to %s", out)
            if run.unfinished:
                LOG.info("localgd: it can go on: the same app with a larger n-rounds and the same out")


server = ServerApp()
"""A ServerApp that trains as its run-config says: see `KEYS`."""


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Run the job of the run-config."""
    strange = set(context.run_config) - set(KEYS)
    if strange:
        raise ValueError(f"run-config: unknown {', '.join(sorted(strange))}; known are {', '.join(KEYS)}")
    RunConfig(context.run_config).run(grid)
