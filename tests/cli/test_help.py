"""What the command says of itself: every flag in a panel, examples that can be copied, commands that a shell takes."""

from __future__ import annotations

import os
import re
import shlex

import click
import pytest
import typer

from command import TRAIN, instead, localgd
from localgd.cli.app import app
from localgd.cli.panels import EXAMPLES, PANELS, Command

GROUP = typer.main.get_command(app)
COMMANDS = {"localgd": GROUP, **GROUP.commands}
PLAIN = os.environ | {"NO_COLOR": "1", "COLUMNS": "100"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_stands_in_a_panel(name):
    command = COMMANDS[name]
    params = command.get_params(click.Context(command))
    placed = {param.name: param.rich_help_panel for param in params if isinstance(param, click.Option)}
    assert set(placed.values()) <= PANELS.keys(), "add the flag's name to a line of PANELS"


def test_no_flag_stands_in_two_panels():
    names = [name for lines in PANELS.values() for line in lines for name in line.split()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_in_examples_that_the_command_takes(name):
    words = () if name == "localgd" else (name,)
    shown = localgd(*words, "--help", env=PLAIN).stdout
    _, _, examples = shown.partition("Examples:\n")
    lines = [line.strip() for line in examples.splitlines() if line.strip()]
    assert 2 <= len(lines) <= 4
    for line in lines:
        program, called, *rest = shlex.split(line)
        assert program == "localgd"
        assert name in {called, "localgd"}
        COMMANDS[called].make_context(called, rest)  # raises if it does not take them


def test_every_command_has_examples_and_panels_and_no_other_has():
    assert EXAMPLES.keys() == COMMANDS.keys()
    assert all(isinstance(command, Command) for command in GROUP.commands.values())


def test_the_panels_are_those_of_the_work_in_its_order():
    shown = localgd("train", "--help", env=PLAIN).stdout
    assert re.findall(r"╭─ (.*?) ─+╮", shown) == ["Arguments", *PANELS]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_flag_that_takes_one_value_is_refused_where_it_is_given_twice(name):
    command = COMMANDS[name]
    for param in command.get_params(click.Context(command)):
        if not isinstance(param, click.Option) or param.is_eager:
            continue
        both = [param.opts[-1], *(param.secondary_opts or param.opts)[:1]]
        words = both if param.is_flag else [word for flag in both for word in (flag, "1")]
        refused = "are both given" if param.secondary_opts else "is given twice, and takes one value"
        once = param.secondary_opts or not (param.is_flag or param.multiple)
        try:
            said = f"{command.make_context(name, words)}"
        except (click.UsageError, click.exceptions.Exit) as error:  # what is asked for is not all there
            said = str(error)
        assert (refused in said) is bool(once), words


def test_the_command_line_says_which_flag_is_given_twice():
    done = localgd("train", "heart", "--C", "1", "--fit-intercept", "--C", "2", "--C", "3", env=PLAIN)
    assert done.returncode == 2
    assert "--C is given 3 times, and takes one value: give it once" in done.stderr
    pair = localgd("train", "heart", "--fit-intercept", "--no-fit-intercept", env=PLAIN)
    assert "--fit-intercept and --no-fit-intercept are both given: leave one out" in pair.stderr
    assert "Examples:" in localgd("train", "heart", "--C", "1", "--C", "2", "--help", env=PLAIN).stdout
    assert localgd("datasets", "--json", "--json").returncode == 0


def test_the_nearest_command_is_suggested_once():
    assert localgd("trian", env=PLAIN).stderr.count("Did you mean 'train'?") == 1


def test_arguments_are_explained():
    assert "Rows to label: CSV, Parquet" in localgd("predict", "--help", env=PLAIN).stdout


def test_a_printed_command_can_be_copied_whatever_the_folder_is_called(table):
    out = table.with_name("O'Neil & sons") / "first run"
    done = localgd("train", table, *instead(TRAIN, n_rounds=2), "--out", out)
    further = next(line for line in done.stdout.splitlines() if "it can go on: " in line).partition(": ")[2]
    assert shlex.split(further) == ["localgd", "resume", str(out), "--n-rounds", "4"]
    assert localgd(*shlex.split(further)[1:]).returncode == 0


def test_a_run_that_ended_before_its_rounds_goes_on_to_those_that_it_was_begun_with(table):
    out = table.with_name("CUT")
    words = ("train", table, *instead(TRAIN, n_rounds=10**6), "--out", out)
    done = localgd(*words, "--max-seconds", "0.1")
    assert f"it can go on: localgd resume {out}\n" in done.stdout


def test_a_book_in_a_cell_is_no_book_in_the_error(tmp_path):
    lines = [f"{row},{row % 2}" for row in range(50)]
    (tmp_path / "rows.csv").write_text("\n".join(["x,y", *lines, f"{'war and peace ' * 100_000},1"]))
    done = localgd("train", tmp_path / "rows.csv", "--label", "y")
    assert done.returncode == 2
    assert "(1,400,000 characters)" in done.stderr
    assert len(done.stderr) < 600
