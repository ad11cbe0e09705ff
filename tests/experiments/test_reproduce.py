"""The runner: same results whatever the processes, nothing computed twice, nothing lost, nothing of others touched."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

import toys
from localgd.experiments import NAMES, ROOMS, cells, experiments
from localgd.experiments.folder import FILES
from localgd.experiments.reproduce import missing, publish
from toys import grid, kept, run, toy

HERE = Path(cells.__file__).parent


CODE_DIGEST = cells.code_digest.__wrapped__


@pytest.fixture(autouse=True, scope="module")
def settled_code():
    """The package does not change while a test runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "code_digest", lambda: "this code")
        yield


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    out = tmp_path_factory.mktemp("first") / "OUT"
    run(out, toy())
    return out


@pytest.fixture
def made(first, tmp_path):
    """A finished run of the toy, to do with as one likes."""
    return Path(shutil.copytree(first, tmp_path / "OUT"))


def test_the_number_of_processes_changes_no_byte(tmp_path):
    several = (toy(), toy("other", quick=grid(5, 3, 4)), toy("raises", toys.broken))
    for n_jobs in (1, 2):
        run(tmp_path / str(n_jobs), *several, n_jobs=n_jobs)
    for name in (
        "raises/verdict.json",
        "toy/rows.csv",
        "toy/figure.svg",
        "toy/verdict.json",
        "other/rows.csv",
        "other/figure.png",
    ):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name
    slopes = pl.read_csv(tmp_path / "2" / "other" / "rows.csv")["slope"].to_list()
    assert slopes == [5, 5, 3, 3, 4, 4], "rows come in the order of the grid"


def test_rows_keep_params_seed_none_and_nan(made):
    frame = pl.read_parquet(made / "toy" / "rows.parquet")
    assert frame.columns == ["data", "replicate", "slope", "note", "seed", "x", "y", "odd", "big"]
    assert frame["odd"].dtype == pl.Float64
    assert frame["odd"].is_null().to_list() == [True, True, False, False]
    assert frame["odd"].is_nan().to_list() == [None, None, True, True]
    assert frame["big"].dtype == pl.Boolean
    assert set(frame["seed"]) == {toy().seed(grid(1)[0])}
    assert set(made.joinpath("toy").iterdir()) == {made / "toy" / name for name in FILES}
    facts = pl.read_parquet_metadata(made / "toy" / "rows.parquet")
    assert {"experiment", "date", "machine", "cores", "python", "localgd", "numpy", "scipy", "numba"} <= set(facts)
    assert {"polars", "scikit-learn"} <= set(facts)


def test_the_verdict_is_on_disk_with_every_check(made):
    found = json.loads((made / "toy" / "verdict.json").read_text())
    assert found["word"] == found["text"] == "holds"
    assert found["quick"] is True
    assert found["cells"] == 2
    assert [set(check) for check in found["checks"]] == [{"what", "measured", "limit", "sense", "passes", "limits"}] * 2


def test_a_second_run_measures_nothing_and_changes_nothing(made):
    before = {path: path.stat().st_mtime_ns for path in kept(made)}
    rows = (made / "toy" / "rows.csv").read_bytes()
    _, watcher = run(made, toy())
    assert (watcher.counts, watcher.done) == ((2, 2), 0)
    assert {path: path.stat().st_mtime_ns for path in kept(made)} == before
    assert (made / "toy" / "rows.csv").read_bytes() == rows


def test_quick_and_full_share_cells_and_keep_each_others(made):
    _, watcher = run(made, toy(), quick=False)
    assert watcher.counts == (4, 2)
    _, watcher = run(made, toy(), quick=True)
    assert watcher.counts == (2, 2)
    assert len(kept(made)) == 4, "the full run's cells are still there"


def test_results_of_other_code_are_never_mixed_in(made, monkeypatch):
    before = set(kept(made))
    (made / "cells" / "toy" / "notes.parquet").write_text("mine")
    monkeypatch.setattr(cells, "code_digest", lambda: "other code")
    _, watcher = run(made, toy())
    assert watcher.counts == (2, 0)
    after = set(kept(made))
    assert not before & after
    assert len(after) == 3, "two cells, and the user's own file"


def test_the_code_digest_hears_of_every_file(tmp_path, monkeypatch):
    package = tmp_path / "package"
    (package / "experiments").mkdir(parents=True)
    for name in ("a.py", "kernels.py", "data.gz"):
        (package / name).write_text(name)
    monkeypatch.setattr(cells, "__file__", str(package / "experiments" / "cells.py"))
    seen = {CODE_DIGEST()}
    (package / "kernels.py").write_text("other")
    seen.add(CODE_DIGEST())
    (package / "data.gz").rename(package / "rows.gz")
    seen.add(CODE_DIGEST())
    assert len(seen) == 3
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "a.pyc").write_text("compiled")
    assert CODE_DIGEST() in seen


def test_other_versions_of_numpy_make_other_cells(monkeypatch):
    before = cells.key(toy(), grid(1)[0])
    monkeypatch.setattr(cells, "versions", lambda _: {"numpy": "0.0.1"})
    assert cells.key(toy(), grid(1)[0]) != before
    assert cells.key(toy(), grid(1)[0]) != cells.key(toy(), grid(2)[0]) != cells.key(toy("other"), grid(2)[0])


@pytest.mark.parametrize("damage", [b"", b"PAR1", None])
def test_a_damaged_cell_is_measured_again(made, damage):
    rows = (made / "toy" / "rows.csv").read_bytes()
    victim = kept(made)[0]
    victim.write_bytes(victim.read_bytes()[:-20] if damage is None else damage)
    _, watcher = run(made, toy())
    assert watcher.counts == (2, 1)
    assert (made / "toy" / "rows.csv").read_bytes() == rows


FAILURES = {
    "raises": (
        toy("raises", toys.broken),
        "raises (data=toy, replicate=0, slope=2, note=None): RuntimeError: the toy is",
    ),
    "clash": (toy("clash", toys.clash), "rows have ['slope'], but params (or the seed) have that name already"),
    "empty": (toy("empty", toys.nothing), "the cell measured nothing"),
    "seed": (toy("seed", quick=[{"seed": 3, "slope": 1}]), "a param is named 'seed'"),
    "judge": (toy("judge", judge=toys.ill_judged), "judge: ColumnNotFoundError"),
    "draw": (toy("draw", draw=lambda _: []), "a figure needs at least one panel"),
    "unchecked": (toy("unchecked", judge=lambda _: {}), "needs at least one check"),
}


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    out = tmp_path_factory.mktemp("failed") / "OUT"
    results, _ = run(out, *(experiment for experiment, _ in FAILURES.values()), toy())
    publish(results, out, known={}, command="again")
    return out, {result.experiment.name: result for result in results}


def test_the_page_keeps_what_the_same_code_found_before(tmp_path, monkeypatch):
    one, two = toy("one"), toy("two")
    known = {"one": one, "two": two}
    run(tmp_path / "OUT", one)
    results, _ = run(tmp_path / "OUT", two)
    html = publish(results, tmp_path / "OUT", known=known, command="again").read_text()
    assert html.index('<section id="one">') < html.index('<section id="two">')
    assert html.count("measured by an earlier run") == 1
    monkeypatch.setattr("localgd.experiments.folder.code_digest", lambda: "other code")
    html = publish(results, tmp_path / "OUT", known=known, command="again").read_text()
    assert '<section id="one">' not in html


def test_rows_of_code_that_changed_under_way_are_not_kept(tmp_path):
    path = tmp_path / "cell.parquet"
    assert "changed during the run" in cells.measure(toys.line, toy().quick[0], 0, path, "other code")
    assert not path.exists()


def test_a_cell_that_cannot_be_written_is_no_fault_of_the_experiment(tmp_path):
    params = toy().quick[0]
    (tmp_path / "no_folder").write_text("")
    with pytest.raises(OSError, match="no_folder"):
        cells.measure(toy().run, params, 0, tmp_path / "no_folder" / "cell.parquet", cells.digest_now())


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_named_where_it_is(failed, name):
    out, results = failed
    message = FAILURES[name][1]
    assert results[name].word == "failed"
    assert message in str(results[name])
    assert "Traceback (most recent call last)" in results[name].fault
    said = json.loads((out / name / "verdict.json").read_text())
    assert said["word"] == "failed"
    assert message in said["text"]


def test_failures_do_not_end_the_others_and_are_on_the_page(failed):
    out, results = failed
    assert list(results) == [*FAILURES, "toy"]
    assert results["toy"].word == "holds"
    assert (out / "toy" / "rows.csv").exists()
    assert (out / "index.html").read_text().count("where it failed") == len(FAILURES)


def test_a_failure_takes_away_what_an_earlier_run_found(made):
    results, _ = run(made, toy(judge=toys.ill_judged))
    assert results[0].word == "failed"
    assert [path.name for path in (made / "toy").iterdir()] == ["verdict.json"]


def test_a_process_that_dies_is_a_failure_and_not_the_end(tmp_path):
    results, _ = run(tmp_path / "OUT", toy("dead", toys.killed, quick=grid(1)), n_jobs=2)
    assert "process" in results[0].fault
    assert "fewer --n-jobs" in results[0].fault


def test_a_missing_extra_is_skipped_in_words(tmp_path):
    needy = toy("needy", requires="embed", module="no_such_module.deep")
    results, watcher = run(tmp_path / "OUT", needy, toy())
    assert str(results[0]) == "skipped: needy needs the extra embed: pip install 'localgd[embed]'"
    assert watcher.counts == (2, 0)
    assert (
        "pip install &#39;localgd[embed]&#39;"
        in publish(results, tmp_path / "OUT", known={}, command="again").read_text()
    )
    assert missing(toy()) is None
    assert missing(toy(requires="embed", module="polars")) is None


def test_a_skipped_experiment_keeps_no_verdict_of_an_earlier_run(made):
    lack = "toy needs the extra embed: pip install 'localgd[embed]'"
    run(made, toy(requires="embed", module="no_such_module"))
    assert [path.name for path in (made / "toy").iterdir()] == ["verdict.json"]
    said = json.loads((made / "toy" / "verdict.json").read_text())
    assert (said["word"], said["text"]) == ("skipped", lack)
    assert len(kept(made)) == 2, "what was measured is there for when the extra is"


def test_workers_read_all_code_before_their_first_cell():
    code = "import sys; from localgd.experiments import pool; pool._settle(); print(*sys.modules)"
    words = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert {f"localgd.experiments.{room}" for room in ROOMS.values()} <= set(words.stdout.split())


def test_a_folder_that_holds_something_else_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "index.html").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"thesis holds something .* \(index.html\)"):
        run(tmp_path / "thesis", toy())
    (tmp_path / "thesis" / "reproduce.json").write_text('{"mine": true}')
    with pytest.raises(FileExistsError, match="did not write"):
        run(tmp_path / "thesis", toy())
    assert {path.name for path in (tmp_path / "thesis").iterdir()} == {"index.html", "reproduce.json"}
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="is a file"):
        run(tmp_path / "file", toy())
    with pytest.raises(FileExistsError, match="is a file"):
        run(tmp_path / "file" / "out", toy())


def test_files_the_user_adds_stay(made):
    for name in ("notes.txt", "toy/notes.txt", "cells/toy/notes.txt"):
        (made / name).write_text("mine")
    run(made, toy())
    for name in ("notes.txt", "toy/notes.txt", "cells/toy/notes.txt"):
        assert (made / name).read_text() == "mine"


def test_bad_calls_are_refused(tmp_path):
    for faulty, message in ((grid(1, 1), "in its grid twice"), ((), "has no cells")):
        with pytest.raises(ValueError, match=message):
            run(tmp_path / "OUT", toy(quick=faulty))
    with pytest.raises(ValueError, match="n_jobs must be at least 1, got 0"):
        run(tmp_path / "OUT", toy(), n_jobs=0)
    assert not (tmp_path / "OUT").exists()


def test_leftovers_of_killed_runs_are_swept_only_when_old(made):
    folder = made / "cells" / "toy"
    for name, age in (("old", 3600), ("new", 0)):
        path = folder / f".{'0a' * 16}.{name}.tmp"
        path.write_text("half")
        os.utime(path, (time.time() - age,) * 2)
    run(made, toy())
    assert [path.name for path in folder.glob(".*")] == [f".{'0a' * 16}.new.tmp"]


ROOMS_THERE = [name for name in NAMES if (HERE / f"{ROOMS[name]}.py").exists()]


@pytest.mark.parametrize("name", ROOMS_THERE)
def test_every_experiment_can_be_run_by_a_process(name, tmp_path):
    experiment = experiments([name])[name]
    assert experiment.name == name
    assert pickle.loads(pickle.dumps(experiment.run)) is experiment.run  # noqa: S301  our own
    for each in (experiment.quick, experiment.full):
        assert cells.cells(experiment, each, tmp_path)
    assert (experiment.requires is None) == (experiment.module is None)
