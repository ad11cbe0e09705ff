"""The command as its user runs it: in this process, and in one of its own where that is what is asked about."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from command import LOCALGD, OPEN, TRAIN, found_in, localgd, spawned
from common import SAME_ORDER

COLUMNS = ["round", "loss", "accuracy", "low", "high", "angle_deg_max", "floats_up", "floats_down", "seconds"]


def test_a_users_own_csv_trains_and_leaves_a_whole_run_folder(run):
    assert {path.name for path in run.iterdir()} == OPEN
    history = pl.read_csv(run / "history.csv")
    assert history.columns[:9] == COLUMNS
    assert history["round"].to_list() == list(range(61))
    certificate = json.loads((run / "certificate.json").read_text())
    names = {"kind", "margin_low", "margin_high", "angle_deg_max", "separable", "status"}
    assert names <= set(certificate)
    assert certificate["separable"] is True
    assert certificate["status"].startswith("certified: within ")
    model = json.loads((run / "model.json").read_text())
    assert model["classes"] == ["ill", "well"]
    assert model["feature_names"] == ["age", "marker", "smoker=former", "smoker=no", "smoker=yes"]
    assert len(model["coef"]) == 5
    assert {column["name"] for column in model["scaling"]["columns"]} == {"age", "marker", "smoker"}
    config = json.loads((run / "config.json").read_text())
    assert config["method"]["task"]["local_steps"] == 20
    assert config["flags"]["label"] == "outcome"
    assert pl.read_csv(run / "history.csv")["round"][-1] == 60


def test_a_figure_is_drawn_where_it_is_asked_for_and_again_when_the_run_goes_on(table, tmp_path):
    done = localgd("train", table, *TRAIN, "--plot", "--out", tmp_path / "RUN")
    assert done.returncode == 0, done.stderr
    drawn = (tmp_path / "RUN" / "convergence.png").read_bytes()
    assert drawn[:4] == b"\x89PNG"
    assert localgd("resume", tmp_path / "RUN", "--n-rounds", "90").returncode == 0
    assert (tmp_path / "RUN" / "convergence.png").read_bytes() != drawn
    for command in ("train", "tune"):
        refused = localgd(command, table, *TRAIN[:4], "--plot")
        assert refused.returncode == 2
        assert "--plot is about the run folder; name one with --out, or leave it out" in refused.stderr


def test_predict_labels_rows_with_the_trained_model(run, table, tmp_path):
    done = localgd("predict", run, table)
    predicted = done.stdout.split()[1:]
    truth = pl.read_csv(table)["outcome"].to_list()
    assert predicted == truth
    saved = localgd("predict", run / "model.json", table, "--out", tmp_path / "labels.csv")
    assert saved.returncode == 0, saved.stderr
    assert pl.read_csv(tmp_path / "labels.csv")["prediction"].to_list() == truth
    assert json.loads(spawned("predict", run, table, "--json").stdout) == truth


def test_predict_refuses_an_unseen_category_by_row_and_name(run, table, tmp_path):
    strange = tmp_path / "strange.csv"
    strange.write_text(table.read_text().splitlines()[0] + "\n61.0,0.2,sometimes,north,ill\n")
    done = localgd("predict", run, strange)
    assert done.returncode == 2
    assert "strange.csv, row 2: column 'smoker' holds 'sometimes'" in done.stderr
    assert localgd("predict", run, strange, "--unseen", "zeros").returncode == 0


def test_the_runs_own_model_is_certified_and_agrees_with_its_run(run, table):
    words = ("certify", run, table, "--label", "outcome", "--node", "site")
    found = json.loads(localgd(*words, "--json").stdout)
    own = json.loads((run / "certificate.json").read_text())
    assert found["separable"] is True
    assert found["margin_low"] <= own["margin_high"]
    assert own["margin_low"] <= found["margin_high"]
    short = localgd(*words, "--angle-tol-deg", "0.001")
    assert short.returncode == 3
    assert short.stdout.startswith("farther than asked: at least ")
    enough = localgd(*words, "--angle-tol-deg", str(own["angle_deg_max"]), "--json")
    assert enough.returncode == 0
    assert 0 <= json.loads(enough.stdout)["angle_deg_min"] <= own["angle_deg_max"]


def test_a_run_with_a_penalty_is_held_against_its_own_minimiser_whether_or_not_an_angle_is_asked_for(table, tmp_path):
    data = (table, "--label", "outcome", "--node", "site")
    assert localgd("train", *data, "--C", "0.5", "--out", tmp_path / "RUN").returncode == 0
    own, said, angle = (
        found_in(localgd("certify", tmp_path / "RUN", *data, *words, "--json"))
        for words in ((), ("--C", "0.5"), ("--angle-tol-deg", "80"))
    )
    assert own == said == angle
    assert own["kind"] == "minimiser"
    assert own["gap"] < 1e-9


def test_a_model_from_elsewhere_is_certified(table, tmp_path):
    np.savez(tmp_path / "other.npz", coef=np.array([[-0.1, -2.0, 0.0, 0.0, -1.0]]), intercept=np.array([6.0]))
    done = spawned("certify", tmp_path / "other.npz", table, "--label", "outcome", "--node", "site", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["separable"] is True
    (tmp_path / "few.json").write_text('{"coef": [1, 2], "intercept": 0}')
    few = localgd("certify", tmp_path / "few.json", table, "--label", "outcome", "--node", "site")
    assert few.returncode == 2
    assert "2 coefficients, but" in few.stderr
    assert "the rows have 5 (age, marker, smoker=former" in few.stderr


def test_a_folder_with_one_file_per_node_gives_the_same_model(run, table, tmp_path):
    folder = tmp_path / "sites"
    folder.mkdir()
    for (site,), part in pl.read_csv(table).group_by("site"):
        part.drop("site").write_csv(folder / f"{site}.csv")
    done = localgd("train", folder, "--label", "outcome", *TRAIN[4:], "--out", tmp_path / "FOLDER")
    assert done.returncode == 0, done.stderr
    a, b = (json.loads((path / "model.json").read_text()) for path in (run, tmp_path / "FOLDER"))
    assert a["coef"] == b["coef"]


def test_json_prints_one_object_only(table):
    done = spawned("train", table, *TRAIN, "--json", "--compare", "pooled")
    assert done.returncode == 0
    entries = json.loads(done.stdout)
    assert done.stderr == ""
    assert entries["rounds"] == 60
    assert 0 < entries["true_angle_deg"] <= entries["angle_deg_max"]


def test_falling_short_of_the_angle_asked_for_exits_3_and_keeps_the_run(table, tmp_path):
    done = localgd("train", table, *TRAIN, "--angle-tol-deg", "0.01", "--out", tmp_path / "RUN")
    assert done.returncode == 3
    assert "not proved, as asked: within" in done.stdout
    assert (tmp_path / "RUN" / "model.json").exists()
    reached = localgd("train", table, *TRAIN, "--angle-tol-deg", "40")
    assert reached.returncode == 0
    assert reached.stdout.startswith("certified: within ")


def entry(config, path):
    """What config.json says of the method at a path such as task.loss.rule."""
    found = config["method"]
    for name in path.split("."):
        found = found[int(name) if isinstance(found, list) else name]
    return found


@pytest.mark.parametrize(
    ("words", "reached"),
    [
        ("--method local-sgd --batch-size 4 --seed 3", {"task.batch_size": 4, "task.seed": 3}),
        ("--method local-sgd --replacement", {"task.replacement": True, "task.batch_size": 32, "task.seed": 0}),
        ("--method modified-local-gd", {"task.rule": "Project", "merge.rule": "Anchored"}),
        (
            "--method modified-local-gd --form proximal --prox 0.01",
            {"task.rule": "GradientSteps", "task.prox": 0.01, "merge.rule": "Anchored"},
        ),
        (
            "--method local-gd --loss exponential --lr 0.01 --weighted-by num-examples",
            {"task.loss.rule": "Exponential", "task.lr": 0.01, "task.weighted_by": "num-examples"},
        ),
        ("--method local-gd --local-steps 7", {"task.local_steps": 7, "task.batch_size": None, "merge.rule": "Chain"}),
        (
            "--method local-gd --fraction 0.5 --max-seconds 60 --scale none --late",
            {"task.local_steps": 100, "task.loss.rule": "Logistic", "merge.rule": "Late", "merge.merge.rule": "Chain"},
        ),
        ("--margin-ratio 0.01 --n-jobs 2 --no-fit-intercept", {"name": "interior-point", "merge.max_mb": 64.0}),
        ("", {"name": "interior-point", "merge.max_mb": 64.0}),
        ("--C 1.0", {"name": "newton", "merge.problem.C": 1.0, "task.problem.intercept": True}),
        ("--C 1.0 --max-mb 0.00001", {"name": "newton-cg", "merge.problem.C": 1.0, "task.problem.C": 1.0}),
        ("--method newton --C 2 --max-mb 3", {"name": "newton", "merge.problem.C": 2.0, "merge.max_mb": 3.0}),
        (
            "--method scaffold --C 0.1 --local-steps 5 --no-fit-intercept",
            {"task.local_steps": 5, "task.problem.C": 0.1, "merge.problem.C": 0.1, "task.problem.intercept": False},
        ),
        ("--method normalised-local-gd", {"merge.rule": "Late", "merge.merge.rule": "Normalised"}),
        ("--method normalised-local-gd --no-late", {"merge.rule": "Normalised"}),
        (
            "--method slowmo --momentum 0.9 --server-lr 0.3 --nesterov",
            {"merge.parts.0.momentum": 0.9, "merge.parts.0.server_lr": 0.3, "merge.parts.0.nesterov": True},
        ),
        (
            "--method slowmo",
            {"merge.parts.0.momentum": 0.7, "merge.parts.0.server_lr": 1.0, "merge.parts.0.nesterov": False},
        ),
        ("--method fedprox --prox 0.1", {"task.prox": 0.1, "merge": {"rule": "Chain", "parts": []}}),
        ("--method consensus", {"task.rule": "DualPart", "merge.rule": "Consensus"}),
        ("--method interior-point --max-mb 1", {"task.rule": "InteriorPoint", "merge.max_mb": 1.0}),
    ],
)
def test_flags_reach_the_method(table, words, reached):
    config = trained(table, *words.split())
    assert {path: entry(config, path) for path in reached} == reached
    if "--method" in words:
        assert config["method"]["name"] == words.split()[1]


def trained(table, *words):
    """The config.json of 20 rounds."""
    done = localgd("train", table, *TRAIN[:4], "--n-rounds", "20", *words, "--out", table.with_name("RUN"), "--force")
    assert done.returncode == 0, done.stderr
    return json.loads((table.with_name("RUN") / "config.json").read_text())


@pytest.mark.parametrize("more", ["", "--loss exponential --weighted-by num-examples"], ids=["logistic", "exponential"])
def test_the_papers_step_size_is_the_stable_one_over_the_local_steps(table, more):
    words = [*TRAIN[6:], *more.split(), "--lr"]
    stable, papers = (trained(table, *words, name)["method"]["task"]["lr"] for name in ("auto", "paper"))
    assert papers == pytest.approx(stable / 20, rel=SAME_ORDER)


SHOWS = {
    "--fraction 0.5": lambda history, model: history["n_nodes"][5] == 2,  # noqa: ARG005
    "--max-seconds 1e-9": lambda history, model: history.height < 21,  # noqa: ARG005
    "--margin-ratio 0.01": lambda history, model: history.height < 21,  # noqa: ARG005
    "--angle-tol-deg 60": lambda history, model: history.height < 21,  # noqa: ARG005
    "--scale none": lambda history, model: {c.get("scale", 1.0) for c in model["scaling"]["columns"]} == {1.0},  # noqa: ARG005
    "--no-fit-intercept": lambda history, model: model["intercept"] == 0.0,  # noqa: ARG005
    "--drop age": lambda history, model: "age" not in model["feature_names"],  # noqa: ARG005
}


@pytest.mark.parametrize("words", SHOWS)
def test_flags_reach_the_run(table, words):
    run, seen = table.with_name("RUN"), []
    for more in ([], words.split()):
        trained(table, *TRAIN[6:], *more)
        seen.append(SHOWS[words](pl.read_csv(run / "history.csv"), json.loads((run / "model.json").read_text())))
    assert seen == [False, True], "without the flag, and with it"


def test_threads_change_no_bit(table):
    models = []
    for n_jobs in ("1", "2"):
        trained(table, *TRAIN[6:], "--n-jobs", n_jobs)
        models.append((table.with_name("RUN") / "model.json").read_bytes())
    assert models[0] == models[1]


def test_an_existing_run_is_kept_without_force_and_replaced_whole_with_it(run, table):
    before = (run / "model.json").read_text()
    refused = localgd("train", table, *TRAIN, "--out", run)
    assert refused.returncode == 2
    assert "exists already" in refused.stderr
    assert (run / "model.json").read_text() == before
    forced = localgd("train", table, *TRAIN, "--lr", "0.01", "--out", run, "--force")
    assert forced.returncode == 0, forced.stderr
    assert (run / "model.json").read_text() != before
    assert {path.name for path in run.iterdir()} == OPEN
    assert {path.name for path in run.parent.iterdir()} == {"patients.csv", "RUN"}


def test_force_never_replaces_what_is_no_run_folder(table, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    for force in ((), ("--force",)):
        done = localgd("train", table, *TRAIN, "--out", tmp_path / "thesis", *force)
        assert done.returncode == 2
        assert "exists already and is not a run folder; choose another name" in done.stderr
        assert "--force" not in done.stderr
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_an_empty_folder_becomes_the_run_folder(table, tmp_path, force):
    (tmp_path / "RUN").mkdir()
    done = localgd("train", table, *TRAIN, "--out", tmp_path / "RUN", *force)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "RUN").iterdir()} == OPEN
    assert not list(tmp_path.glob(".RUN*"))


def test_force_keeps_files_that_are_not_the_runs_own(run, table):
    (run / "notes.txt").write_text("call the lab")
    done = localgd("train", table, *TRAIN, "--out", run, "--force")
    assert done.returncode == 2
    assert "also holds notes.txt" in done.stderr
    assert (run / "notes.txt").read_text() == "call the lab"


def test_projections_of_rows_that_cannot_be_separated_fail_and_leave_no_model_to_predict_with(tmp_path):
    done = localgd("train", "heart", "--method", "modified-local-gd", "--out", tmp_path / "H")
    assert done.returncode == 1
    assert "use local-gd, or form='proximal'" in done.stdout
    assert "the model is 0 in every entry" in done.stdout
    predicted = localgd("predict", tmp_path / "H", tmp_path / "H" / "history.csv")
    assert predicted.returncode == 2
    assert "0 in every entry" in predicted.stderr


def test_a_terminal_without_degree_signs_gets_everything_else(table):
    env = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = spawned("train", table, *TRAIN, env=env)
    assert done.returncode == 0, done.stderr
    assert "certified: within" in done.stdout


FOREIGN = {"coef": [-0.1, -2.0, 0.0, 0.0, -1.0], "intercept": 6.0}


def certified(tmp_path, table, **entries):
    (tmp_path / "foreign.json").write_text(json.dumps(FOREIGN | entries))
    words = ("certify", tmp_path / "foreign.json", table, "--label", "outcome", "--node", "site", "--json")
    return localgd(*words)


def test_a_foreign_model_is_read_by_its_own_classes_and_column_names(table, tmp_path):
    plain = json.loads(certified(tmp_path, table).stdout)
    assert plain["accuracy"] == 1.0
    names = ["age", "marker", "smoker=former", "smoker=no", "smoker=yes"]
    turned = {"coef": [0.1, 2.0, 0.0, 0.0, 1.0], "intercept": -6.0, "classes": ["well", "ill"]}
    assert json.loads(certified(tmp_path, table, **turned).stdout) == plain
    swapped = {"coef": FOREIGN["coef"][::-1], "feature_names": names[::-1]}
    assert json.loads(certified(tmp_path, table, **swapped).stdout) == plain
    for entries, message in (
        ({"classes": ["x", "y"]}, "has classes"),
        ({"feature_names": ["a", "b", "c", "d", "e"]}, "feature_names"),
    ):
        refused = certified(tmp_path, table, **entries)
        assert refused.returncode == 2
        assert message in refused.stderr


def test_flags_that_a_run_makes_meaningless_are_refused(run, table):
    done = localgd("certify", run, table, "--label", "outcome", "--node", "site", "--scale", "standard")
    assert done.returncode == 2
    assert "brings its own preparation" in done.stderr


def test_golub_needs_a_partition_and_bundled_names_train(tmp_path):
    done = localgd("train", "golub", "--partition", "by_label", "--n-nodes", "5", "--method", "modified-local-gd")
    assert done.returncode == 0, done.stderr
    assert "5 nodes, 38 rows" in done.stderr
    again = localgd(
        "train", "golub", "--partition", "by_label", "--n-nodes", "5", "--n-rounds", "3", "--out", tmp_path / "G"
    )
    assert again.returncode == 0
    found = localgd("certify", tmp_path / "G", "golub", "--partition", "by_label", "--n-nodes", "5")
    assert found.returncode == 0, found.stderr


def test_the_pooled_minimiser_to_compare_with_is_that_of_the_loss_that_auto_minimises():
    """Nodes of heart differ in size: weighting them equally would be another loss, 11 degrees away."""
    done = localgd("train", "heart", "--compare", "pooled", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["true_angle_deg"] < 1e-3


def test_datasets_lists_what_is_bundled():
    done = localgd("datasets")
    for name in ("mushroom", "sentences", "heart", "bladder", "golub"):
        assert name in done.stdout
    assert len(json.loads(spawned("datasets", "--json").stdout)) == 5


@pytest.mark.parametrize("start", [LOCALGD, [sys.executable, "-m", "localgd"]], ids=["script", "module"])
@pytest.mark.parametrize(
    ("words", "code"),
    [("certify RUN patients.csv --label outcome --node site", 0), ("train nowhere.csv", 2), ("nosuch", 2)],
)
def test_a_process_of_its_own_says_and_returns_what_main_does(start, words, code, run, table):
    here = localgd(*words.split(), cwd=run.parent)
    done = subprocess.run([*start, *words.split()], cwd=table.parent, capture_output=True, check=False, timeout=120)
    assert here.returncode == done.returncode == code
    assert (here.stdout, here.stderr) == (done.stdout.decode(), done.stderr.decode())


def test_help_names_the_commands():
    done = localgd("--help", env=os.environ | {"NO_COLOR": "1", "COLUMNS": "100"})
    for name in ("demo", "train", "certify", "predict", "datasets"):
        assert name in done.stdout


def test_the_demo_shows_certified_angles_above_the_true_ones():
    done = spawned("demo", "--n-rounds", "200", env=os.environ | {"COLUMNS": "120"})
    assert done.returncode == 0, done.stderr
    assert "modified-local-gd" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if "≤" in line]
    assert len(rows) == 3
    for row in rows:
        certified, true = (float(word.rstrip("°")) for word in row if word.endswith("°"))
        assert true <= certified
