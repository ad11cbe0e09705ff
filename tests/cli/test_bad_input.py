"""Bad input ends in one clear line that names what is wrong and how to mend it, and exit code 2."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from command import localgd, patients

HEAD = "age,marker,site,outcome\n"


def write(path, text):
    path.write_text(text)
    return path


def refused(*words):
    done = localgd(*words)
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "patients.csv"
    patients().write_csv(path)
    return path


LABELS = ("--label", "outcome", "--node", "site")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--label", "outcom"), "--label 'outcom' is not a column of"),
        (("--label", "outcome", "--node", "sit"), "--node 'sit' is not a column of"),
        ((*LABELS, "--method", "local-dg"), "did you mean 'local-gd'"),
        ((*LABELS, "--method", "local-gd", "--local-steps", "0"), "--local-steps must be"),
        (
            (*LABELS, "--method", "local-gd", "--lr", "fast"),
            "--lr must be a positive number, 'auto' or 'paper', got 'fast'",
        ),
        ((*LABELS, "--n-rounds", "-1"), "error: --n-rounds must be"),
        ((*LABELS, "--angle-tol-deg", "0"), "--angle-tol-deg must be"),
        ((*LABELS, "--margin-ratio", "2"), "--margin-ratio must be"),
        ((*LABELS, "--fraction", "0"), "fraction of the nodes"),
        ((*LABELS, "--max-seconds", "0"), "--max-seconds must be"),
        ((*LABELS, "--batch-size", "8"), "--batch-size has no meaning for method 'auto'"),
        ((*LABELS, "--fraction", "0.5"), "take a method that averages, such as local-gd"),
        ((*LABELS, "--C", "1", "--compare", "pooled"), "it has no meaning with --C"),
        ((*LABELS, "--C", "-1"), "--C must be a positive number"),
        ((*LABELS, "--method", "newton", "--max-mb", "1e-6"), "MB a node and round"),
        ((*LABELS, "--method", "modified-local-gd", "--local-steps", "5"), "--local-steps has no meaning"),
        ((*LABELS, "--method", "local-gd", "--loss", "hinge"), "unknown loss 'hinge'"),
        ((*LABELS, "--method", "local-gd", "--weighted-by", "size"), "--weighted-by must be"),
        ((*LABELS, "--drop", "agee"), "--drop 'agee' is not a column of"),
        ((*LABELS, "--partition", "iid"), "--partition and --n-nodes go together"),
        ((*LABELS, "--partition", "iid", "--n-nodes", "2"), "has 3 nodes"),
        (("--label", "outcome", "--drop", "site", "--partition", "iid", "--n-nodes", "999"), "--n-nodes 999"),
        ((*LABELS, "--out", Path(__file__, "RUN")), "is a file, not a folder; choose another name"),
        ((*LABELS, "--min-nodes", "2"), "--min-nodes 2 has no meaning where a node that fails ends the run"),
        ((*LABELS, "--timeout", "5"), "--timeout is for the processes of torch"),
        ((*LABELS, "--own-data"), "--own-data is for the processes of torch"),
        ((*LABELS, "--checkpoint-rounds", "5"), "--checkpoint-rounds is about the run folder; name one with --out"),
        ((*LABELS, "--checkpoint-seconds", "0"), "--checkpoint-seconds is about the run folder"),
        ((*LABELS, "--force"), "--force is about the run folder"),
        ((*LABELS, "--method", "local-gd", "--local-steps", "north=5,west=2"), "no value for node 'south'"),
        ((*LABELS, "--method", "local-gd", "--lr", "north=x"), "--lr of node 'north' must be a number, got 'x'"),
        ((*LABELS, "--method", "local-gd", "--lr-schedule", "linear"), "--lr-schedule must be one of constant"),
        (
            (*LABELS, "--method", "scaffold", "--lr-schedule", "step:5"),
            "--lr-schedule has no meaning for method 'scaffold'",
        ),
        (("--node", "site"), "label"),
        ((*LABELS, "--category-map", "nope:x=1"), "error: --category-map 'nope' is not a column of"),
        ((*LABELS, "--dates", "nope"), "error: --dates 'nope' is not a column of"),
        ((*LABELS, "--weight", "outcome"), "error: column 'outcome' is said to be the label (--label) and the weight"),
        ((*LABELS, "--method", "local-gd", "--fraction", "7"), "error: --fraction of the nodes must be above 0"),
        (
            (*LABELS, "--method", "local-gd", "--local-steps", "north=5"),
            "local-gd: --local-steps has no value for node",
        ),
        ((*LABELS, "--seed", "-1", "--holdout", "0.2"), "error: --seed must be a whole number of at least 0, got -1"),
        (
            (*LABELS, "--holdout", "0.2", "--min-group", "90"),
            "error: --holdout 0.2 sets no row of any node",
        ),
        ((*LABELS, "--holdout", "0.2", "--min-group", "90"), "share, a smaller --min-group, or leave whole nodes out"),
        ((*LABELS, "--holdout", "0.2", "--min-group", "90"), "nodes out instead (--leave-one-node-out)"),
        ((*LABELS, "--min-nodes", "2"), "ends the run; give --on-failure 'skip', or leave it out"),
        ((*LABELS, "--min-group", "0"), "error: --min-group must be a whole number of at least 1, got 0"),
        (("--label", "age"), "to predict numbers is a regression: `localgd train --task regression`"),
        ((*LABELS, "--out", "."), ". has no name that a run folder could have; name one, such as RUN"),
        ((*LABELS, "--out", "/"), "/ has no name that a run folder could have; name one, such as /RUN"),
        ((*LABELS, "--out", ".."), ".. has no name that a run folder could have; name one, such as ../RUN"),
    ],
)
def test_bad_flags(table, words, message):
    assert message in refused("train", table, *words)


def test_flags_that_mean_nothing_without_another_are_refused(tmp_path, table):
    model = write(tmp_path / "m.json", '{"coef": [1, 1]}')
    assert "--seed is for --partition" in refused("certify", model, table, *LABELS, "--seed", "1")
    assert "--force replaces the file of --out" in refused("predict", model, table, "--force")
    assert "--timeout is for the processes of torch" in refused("resume", tmp_path, "--timeout", "5")


def test_flags_that_a_bundled_set_would_ignore_are_refused():
    assert "leave --text and --categorical out" in refused("train", "sentences", "--text", "sentence")


def test_unknown_sources_and_models_are_named(tmp_path, table):
    assert "mushroom" in refused("train", "mushrom")
    assert "nosuch.csv" in refused("train", tmp_path / "nosuch.csv", *LABELS)
    assert "no such model file" in refused("certify", tmp_path / "nosuch", table, *LABELS)
    assert "not a readable model" in refused("certify", table, table, *LABELS)
    assert "no 'coef'" in refused("certify", write(tmp_path / "m.json", "{}"), table, *LABELS)
    assert "finite" in refused("certify", write(tmp_path / "n.json", '{"coef": [NaN]}'), table, *LABELS)
    assert "predict" in refused("predict", write(tmp_path / "o.json", '{"coef": [1]}'), table)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "50,1,a,x\n51,inf,a,y\n", "row 3"),
        (HEAD + "".join(f"{i},1,a,{'xy'[i % 2]}\n" for i in range(30)) + "old,1,a,x\n", "'old'"),
        (HEAD + "50,1,a,x\n51,2,b,x\n", "'x'"),
        (HEAD + "50,1,a,x\n51,2,b,\n", "row 3"),
        (HEAD, "no rows"),
        ("", "empty"),
    ],
    ids=["inf", "text among numbers", "one class over all nodes", "no label", "no rows", "empty file"],
)
def test_bad_tables_are_refused_by_row(tmp_path, text, message):
    error = refused("train", write(tmp_path / "bad.csv", text), *LABELS)
    assert message in error
    assert "bad.csv" in error or "all 2 rows" in error


def test_columns_without_a_name_are_called_that(tmp_path):
    rows = "".join(f"{i},{i % 7},0,{'xy'[i % 2]}\n" for i in range(8))
    two = refused("train", write(tmp_path / "two.csv", ",,marker,outcome\n" + rows), "--label", "outcome")
    assert "two.csv, row 1: columns 1, 2 have no name; give them names, or take all but one away" in two
    one = write(tmp_path / "one.csv", "nr,,marker,outcome\n" + rows.replace("3,3,", "3,inf,"))
    unknown = refused("train", one, "--label", "outcme")
    assert "did you mean 'outcome'? Known are: nr, marker, outcome" in unknown
    assert "row 5: the column without a name holds 'inf', no finite number" in refused(
        "train", one, "--label", "outcome"
    )
    (tmp_path / "sites").mkdir()
    write(tmp_path / "sites" / "a.csv", "x,outcome,\n1,x,7\n2,y,8\n")
    write(tmp_path / "sites" / "b.csv", "x,outcome\n1,x\n2,y\n")
    assert "only " in (said := refused("train", tmp_path / "sites", "--label", "outcome"))
    assert "a.csv (node 'a') has a column without a name; give every node" in said


def test_columns_that_differ_between_nodes_name_both(tmp_path):
    (tmp_path / "sites").mkdir()
    write(tmp_path / "sites" / "north.csv", "age,marker,outcome\n50,1,x\n51,2,y\n")
    write(tmp_path / "sites" / "south.csv", "age,markr,outcome\n50,1,x\n51,2,y\n")
    error = refused("train", tmp_path / "sites", "--label", "outcome")
    for word in ("north.csv", "south.csv", "marker", "markr"):
        assert word in error


def test_an_empty_node_is_named(tmp_path):
    (tmp_path / "sites").mkdir()
    write(tmp_path / "sites" / "north.csv", "age,outcome\n50,x\n51,y\n")
    write(tmp_path / "sites" / "south.csv", "age,outcome\n")
    assert "south.csv" in refused("train", tmp_path / "sites", "--label", "outcome")


def test_truncated_files_are_named(tmp_path, table):
    whole = gzip.compress(table.read_bytes())
    (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    assert "cut.csv.gz" in refused("train", tmp_path / "cut.csv.gz", *LABELS)
    np.savez(tmp_path / "rows.npz", X=np.eye(4), y=[0, 1, 0, 1])
    (tmp_path / "cut.npz").write_bytes((tmp_path / "rows.npz").read_bytes()[:100])
    assert "cut.npz" in refused("train", tmp_path / "cut.npz")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and then nothing")
    assert "cut.parquet" in refused("train", tmp_path / "cut.parquet", *LABELS)


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "50,1,a,x\n50,1,a,y\n40,2,b,x\n30,3,b,y\n",
        HEAD + "50,1,a,x\n51,1,a,y\n52,1,b,x\n57,1,b,y\n",
        HEAD + "50,1,a,x\n51,2,a,x\n52,3,b,y\n57,4,b,y\n",
    ],
    ids=["contradictory rows", "a constant column", "single-class nodes"],
)
def test_odd_but_honest_tables_work(tmp_path, text):
    done = localgd("train", write(tmp_path / "odd.csv", text), *LABELS, "--n-rounds", "200")
    assert done.returncode == 0, done.stderr
