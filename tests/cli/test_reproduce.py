"""``localgd reproduce``, run as its user runs it; toys stand in where only the command's own part is asked."""

from __future__ import annotations

import json
import os

import pytest

import toys
from command import localgd, spawned
from localgd.experiments import NAMES

QUICKEST = "local-sgd"


def test_list_names_every_experiment():
    done = spawned("reproduce", "--list")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(NAMES)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("directon", "--out", "OUT"),
            "unknown experiment 'directon'; did you mean 'direction'? Known are: ",
        ),
        ((), "--out DIR is needed"),
        (("direction", "--out", "notes.txt/OUT"), "notes.txt is a file, not a folder"),
        (("direction", "--out", "OUT", "--n-jobs", "0"), "--n-jobs must be at least 1, got 0"),
        (("direction", "--out", "."), "holds something that localgd reproduce did not write (notes.txt)"),
    ],
)
def test_bad_flags(tmp_path, words, message):
    (tmp_path / "notes.txt").write_text("mine")
    done = localgd("reproduce", *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_help_tells_the_exit_codes():
    done = localgd("reproduce", "--help", env=os.environ | {"NO_COLOR": "1", "COLUMNS": "200"})
    assert "1 a claim does not hold, an experiment failed" in done.stdout


def test_a_real_experiment_runs_goes_on_and_leaves_one_page(tmp_path):
    words = ("reproduce", QUICKEST, "--quick", "--out", tmp_path / "OUT")
    done = localgd(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    line, last = done.stdout.splitlines()
    assert line.startswith(f"{QUICKEST} ")
    assert "holds" in line
    assert last == f"all on one page: {tmp_path / 'OUT' / 'index.html'}"
    html = (tmp_path / "OUT" / "index.html").read_text()
    assert f"localgd reproduce {QUICKEST} --quick --out {tmp_path / 'OUT'}" in html
    rows = (tmp_path / "OUT" / QUICKEST / "rows.csv").read_bytes()
    found = json.loads((tmp_path / "OUT" / QUICKEST / "verdict.json").read_text())
    assert line == f"{QUICKEST:15s} {found['text']}"
    again = localgd(*words)
    assert again.returncode == 0
    assert f"{found['cells']} cells, {found['cells']} of them kept from before" in again.stderr
    assert (tmp_path / "OUT" / QUICKEST / "rows.csv").read_bytes() == rows


@pytest.fixture
def called(monkeypatch, tmp_path):
    """Call the command with toys in place of the real experiments."""

    def call(*chosen, names=()):
        by_name = {e.name: e for e in chosen}
        monkeypatch.setattr("localgd.cli.reproduce.NAMES", tuple(by_name))
        monkeypatch.setattr("localgd.cli.reproduce.experiments", lambda asked: {name: by_name[name] for name in asked})
        return localgd("reproduce", *names, "--quick", "--n-jobs", "1", "--out", tmp_path / "OUT")

    return call


def test_exit_codes_tell_a_refuted_claim_from_one_that_holds(called):
    held = called(toys.toy())
    assert (held.returncode, held.stdout.splitlines()[0]) == (0, "toy             holds")
    refuted = called(toys.toy(judge=toys.refuse))
    assert refuted.returncode == 1
    assert refuted.stdout.startswith("toy             does not hold: largest y (units)")


def test_a_failure_shows_its_traceback_on_standard_error_and_exits_1(called):
    failed = called(toys.toy("bad", toys.broken))
    assert failed.returncode == 1
    assert failed.stdout.startswith("bad             failed: bad (data=toy, replicate=0, slope=2, note=None)")
    assert "RuntimeError: the toy is broken" in failed.stderr
    assert "Traceback (most recent call last)" in failed.stderr


def test_a_missing_extra_is_skipped_among_all_and_refused_by_name(called, tmp_path):
    needy = toys.toy("needy", requires="embed", module="no_such_module")
    among_all = called(needy, toys.toy())
    assert among_all.returncode == 0
    assert "skipped: needy needs the extra embed: pip install 'localgd[embed]'" in among_all.stdout
    assert "pip install" in (tmp_path / "OUT" / "index.html").read_text()
    named = called(needy, toys.toy(), names=["needy"])
    assert named.returncode == 2
    assert "error: needy needs the extra embed: pip install 'localgd[embed]'" in named.stderr
