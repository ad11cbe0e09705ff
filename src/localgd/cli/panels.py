"""Help in panels: where a flag stands, and what to copy.

A flag is put into a panel by adding its name, as the command's parameter is called, to a line of `PANELS`; a command
shows the examples that `EXAMPLES` has under its name.
"""

from __future__ import annotations

import inspect
from collections import Counter
from typing import Any, get_args

import click
import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import ArgumentInfo

from localgd.cli.wording import flags_of
from localgd.methods.options import OPTIONS

PANELS = {
    "Data in": (
        "label node node_map drop fill_missing_columns decimal encoding missing_values weight categorical",
        "text_column scale dates label_map category_map n_classes min_group unseen partition n_nodes",
    ),
    "The model asked for": (
        "task problem C Cs alpha fit_intercept class_weight",
        "quick",
    ),
    "The method": (
        "method methods fraction",
        " ".join(option.name for option in OPTIONS if option.name != "seed"),
    ),
    "Goal and proof": (
        "n_rounds angle_tol_deg margin_ratio max_seconds compare pooled",
        "holdout leave_one_node_out cv scoring threshold by_node",
    ),
    "Output": (
        "out to force plot proba row_id as_json",
        "checkpoint_seconds checkpoint_rounds",
    ),
    "Running": (
        "seed n_jobs engine own_data on_failure min_nodes retries timeout",
        "list_ show help",
    ),
}
"""The panels of every command, in their order, and the parameters that stand in each."""

_PANEL_OF = {name: panel for panel, lines in PANELS.items() for line in lines for name in line.split()}
_PLACE_OF = {name: place for place, name in enumerate(_PANEL_OF)}

TRAIN, USE, LEARN = "Train", "Use a model", "Look around"
"""The panels of the commands."""

EXAMPLES = {
    "localgd": (
        "localgd demo",
        "localgd train heart --out RUN",
        "localgd train patients.csv --label outcome --node hospital --C 1 --out RUN",
        "localgd predict RUN new_patients.csv --proba --id patient --out labels.csv",
    ),
    "train": (
        "localgd train heart --C 1",
        "localgd train sites/ --label outcome --C 1 --drop patient_id --out RUN",
        "localgd train patients.csv --label outcome --node hospital --C 1 --holdout 0.2 --out runs/first",
        "localgd train costs.parquet --label cost --node hospital --task regression --alpha 1",
    ),
    "resume": (
        "localgd resume RUN",
        "localgd resume RUN --n-rounds 2000",
        "localgd resume RUN --angle-tol-deg 0.1",
    ),
    "tune": (
        "localgd tune heart",
        "localgd tune patients.csv --label outcome --node hospital --cv leave-one-node-out --out RUN",
        "localgd tune patients.csv --label outcome --node hospital --Cs 0.1,1,10 --scoring roc_auc --out RUN",
    ),
    "compare": (
        "localgd compare heart --C 1",
        "localgd compare heart --methods local-gd,auto --n-rounds 50 --pooled",
        "localgd compare patients.csv --label outcome --node hospital --out compared",
    ),
    "certify": (
        "localgd certify RUN patients.csv",
        "localgd certify RUN patients.csv --angle-tol-deg 1",
        "localgd certify other.json patients.csv --label outcome --node hospital --C 1",
    ),
    "predict": (
        "localgd predict RUN new_patients.csv",
        "localgd predict RUN new_patients.csv --proba --id patient --out labels.parquet",
        "localgd predict RUN new_patients.csv --threshold 0.2 --out labels.csv",
    ),
    "export": (
        "localgd export RUN --to csv",
        "localgd export RUN --to sklearn --out model.joblib",
        "localgd export RUN --to onnx --out model.onnx",
    ),
    "evaluate": (
        "localgd evaluate RUN patients.csv",
        "localgd evaluate RUN patients.csv --threshold 0.2 --out evaluated.json",
        "localgd evaluate RUN sites/ --label outcome --min-group 10 --json",
    ),
    "calibrate": (
        "localgd calibrate RUN held_out.csv --label outcome --node hospital --out calibrated.json",
        "localgd calibrate RUN sites/ --label outcome --min-group 10 --out calibrated.json",
    ),
    "datasets": (
        "localgd datasets",
        "localgd datasets --json",
    ),
    "demo": (
        "localgd demo",
        "localgd demo --n-rounds 100 --out figures/demo",
    ),
    "reproduce": (
        "localgd reproduce --list",
        "localgd reproduce --quick --out SCIENCE",
        "localgd reproduce rate-law direction --n-jobs 2 --out SCIENCE",
    ),
}
"""What to copy, by command; the first of each is the plainest."""


class _Panelled(click.Command):
    """A command whose flags stand in panels, and whose help ends in examples."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the parameters in the order of the panels."""
        params = super().get_params(ctx)
        said = _said_of_arguments(self.callback)
        for param in params:
            shown: Any = param
            shown.rich_help_panel = _PANEL_OF.get(_name(param))
            if isinstance(param, click.Argument):  # click 8.5 forgets what typer was told
                shown.help = shown.help or said.get(_name(param))
        return sorted(params, key=_place)  # stable: arguments stay in the order in which they are given

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words of a command; of a flag that takes one value, said twice, the last would count: refuse it."""
        *_, said = self.make_parser(ctx).parse_args([*args])
        for param, times in Counter(said).items():
            if isinstance(param, click.Option) and times > 1 and not any(one.is_eager for one in said):  # as --help is
                yes, no = ([one for one in side if one in args] for side in (param.opts, param.secondary_opts))
                if param.is_flag and yes and no:
                    raise click.UsageError(f"{yes[0]} and {no[0]} are both given: leave one out", ctx=ctx)
                if not param.is_flag and not param.multiple:
                    often = "twice" if times == 2 else f"{times} times"
                    flag = flags_of([param])[param.name or ""]
                    raise click.UsageError(f"{flag} is given {often}, and takes one value: give it once", ctx=ctx)
        return super().parse_args(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show the help, then the examples, unbroken and without a frame, so that a copy of them runs."""
        super().format_help(ctx, formatter)
        typer.echo(" Examples:")
        for line in EXAMPLES.get(ctx.info_name or "", ()):
            typer.echo(f"   {line}")
        typer.echo()


def _name(param: click.Parameter) -> str:
    return "help" if "--help" in param.opts else param.name or ""


def _place(param: click.Parameter) -> int:
    """Return where a parameter stands in the help: arguments first, what no panel names last."""
    return -1 if isinstance(param, click.Argument) else _PLACE_OF.get(_name(param), len(_PLACE_OF))


def _said_of_arguments(callback: Any) -> dict[str, str | None]:
    """Return the help of a command's arguments, as its signature says it."""
    parameters = inspect.signature(callback, eval_str=True).parameters if callback else {}
    infos = {name: info for name, p in parameters.items() for info in get_args(p.annotation)[1:]}
    return {name: info.help for name, info in infos.items() if isinstance(info, ArgumentInfo)}


class Command(_Panelled, TyperCommand):
    """A command with its help in panels, whose errors speak of its flags."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error takes along what its flags are called."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            vars(error)["flags"] = flags_of(self.params)
            raise


class Group(_Panelled, TyperGroup):
    """The command line, with the commands in the order in which they were named."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the command; for one that is not there the nearest is suggested once."""
        self.suggest_commands = not hasattr(click.exceptions, "NoSuchCommand")  # that of click 8.4 suggests one itself
        return super().resolve_command(ctx, args)
