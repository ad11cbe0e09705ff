"""Files that somebody damaged, or wrote in bad faith: one line that names the file, and exit code 2."""

from __future__ import annotations

import copy
import io
import json
import os
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from command import localgd
from common import examples
from export.models import KINDS, model_of, raw
from localgd import Checkpoints, InProcess, Model, Shard, local_gd, train
from localgd.cli.options import check_flags
from localgd.cli.train import train_command
from localgd.engine import serialize
from localgd.run.checkpoint import FILE
from localgd.run.folder import known, remembered
from localgd.stored import arrays_of, parsed

ODD = [None, True, -1, 0, 1e308, 10**400, "x", "", "\x1b[2J\n", [], {}, [[]], {"x": None}, [1, "x"], ["x", "x"], [None]]


def places(tree, path=()):
    """Every place in a tree of JSON."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(place for key, part in inside for place in places(part, (*path, key)))]


@st.composite
def mutated(draw, tree):
    """The text of a tree, with some parts of it changed, gone, said twice, or cut off."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(tree)))
        if not path:
            continue
        parent = tree
        for key in path[:-1]:
            parent = parent[key]
        if draw(st.booleans()):
            parent[path[-1]] = copy.deepcopy(draw(st.sampled_from(ODD)))
        else:
            del parent[path[-1]]
    text = json.dumps(tree)
    match draw(st.integers(0, 5)):
        case 0:
            return text[: draw(st.integers(0, len(text)))]
        case 1:
            return text.replace("1", draw(st.sampled_from(["NaN", "-Infinity", "1e999", "[" * 2000])), 1)
    return text


def refused(function, *words):
    """What a function says of a file that it refuses, in a line that can be printed; None if it takes it."""
    try:
        function(*words)
    except ValueError as error:
        said = f"{error}"
    else:
        return None
    assert said.isprintable()
    return said


@settings(max_examples=examples(400))
@given(data=st.data())
def test_a_damaged_model_is_refused_or_predicts(data, tmp_path_factory):
    kind = data.draw(st.sampled_from(KINDS))
    path = tmp_path_factory.getbasetemp() / "mutated.json"
    path.write_text(data.draw(mutated(model_of(kind, text=True).to_dict())))
    why = refused(Model.load, path)
    if why is not None:
        assert path.name in why
        return
    model = Model.load(path)
    with suppress(ValueError):
        model.predict(raw(text=True).head(3))
    model.coefficients()


def config_of(folder):
    """A run folder, and what its config says."""
    done = localgd("train", "heart", "--method", "local-gd", "--n-rounds", "2", "--out", folder)
    assert done.returncode in {0, 3}, done.stderr
    return json.loads((folder / "config.json").read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "RUN"
    return folder, config_of(folder)


@settings(max_examples=examples(400))
@given(data=st.data())
def test_a_damaged_config_is_refused_or_remembered(data, run, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "mutated-config"
    folder.mkdir(exist_ok=True)
    text = data.draw(mutated(run[1]))
    (folder / "config.json").write_text(text)
    why = refused(remembered, folder)
    assert why is None or "config.json" in why
    recipe = json.loads((run[0] / "checkpoint" / "recipe.json").read_text())

    def resumed():
        content = json.dumps([parsed(text, "config.json"), recipe]).encode()
        check_flags(known(content)[0].get("flags", {}), train_command, "config.json")

    refused(resumed)


ONE_NUMBER = (
    b'{"coef": [1, 2], "classes": [0, 1], "scaling": {"columns": [{"kind": "number", "name": "a"}], '
    b'"classes": [0, 1], "intercept": false, "sparse": false}}'
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"coef": ' + b"[" * 900 + b"1" + b"]" * 900 + b"}", "nested too deeply"),
        (b'{"coef": [1.0], "coef": [2.0]}', "'coef' twice"),
        (b'{"coef": [Infinity]}', "Infinity where a finite number is meant"),
        (b'{"coef": [1e999]}', "must be finite"),
        (b'{"coef": ["1"]}', "must be numbers"),
        (b'{"coef": [1], "classes": ["a", "a"]}', "distinct"),
        (b'{"coef": [1], "scaling": 3}', "no recipe"),
        (ONE_NUMBER, "2 coefficients, but the rows have 1"),
        (b"\xff\xfe{}", "damaged"),
        (b"", "no JSON"),
    ],
)
def test_a_model_in_bad_faith_is_refused_in_a_line(content, said, tmp_path):
    (tmp_path / "model.json").write_bytes(content)
    done = localgd("certify", tmp_path / "model.json", "heart")
    assert done.returncode == 2
    assert said in done.stderr
    assert "model.json" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert len(done.stderr) < 700


def npy(header, rest=b""):
    """An NPY file whose header says this."""
    text = f"{header}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + rest


@pytest.mark.parametrize(
    "array",
    [
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}", b"\0" * 8),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}", b"\0" * 8),
        npy("{'descr': '<U1000000000', 'fortran_order': False, 'shape': (1000,)}"),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"cos\nsystem\n(S'true'\ntR."),
        npy("(" * 5000),
        b"",
    ],
)
def test_an_array_that_claims_more_than_there_is_is_refused_before_memory_is_taken(array, tmp_path):
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "model.npz", "w", compression) as file:
            file.writestr("coef.npy", array)
        assert "model.npz cannot be read" in refused(Model.load, tmp_path / "model.npz")


def test_what_unpacks_to_more_than_anybody_means_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("localgd.stored.MOST_BYTES", 2**20)
    np.savez_compressed(tmp_path / "model.npz", coef=np.zeros(2**18))
    assert "unpack to more than" in refused(Model.load, tmp_path / "model.npz")
    (tmp_path / "model.json").write_bytes(b" " * (2**20 + 1))
    assert "1,048,577 bytes" in refused(Model.load, tmp_path / "model.json")


def test_pipes_and_links_in_place_of_files_keep_nobody_waiting(tmp_path):
    os.mkfifo(tmp_path / "model.json")
    assert "is no plain file" in localgd("certify", tmp_path / "model.json", "heart").stderr
    (tmp_path / "nowhere.json").symlink_to(tmp_path / "gone.json")
    (tmp_path / "around.json").symlink_to(tmp_path / "around.json")
    assert "no such model file" in refused(Model.load, tmp_path / "nowhere.json")
    assert "around.json cannot be read" in refused(Model.load, tmp_path / "around.json")
    config_of(tmp_path / "RUN")
    for name in ("config.json", "checkpoint/recipe.json", "checkpoint/server.npz"):
        path = tmp_path / "RUN" / name
        whole = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        done = localgd("resume", tmp_path / "RUN", "--n-rounds", "4")
        assert done.returncode == 2, (name, done)
        assert "is no" in done.stderr
        path.unlink()
        path.write_bytes(whole)
    assert localgd("resume", tmp_path / "RUN", "--n-rounds", "4").returncode in {0, 3}


def test_a_flag_of_another_type_is_named(tmp_path):
    config = config_of(tmp_path / "RUN")
    for name, value in (("n_rounds", "many"), ("label", [1]), ("weighted_by", 3), ("scale", "big"), ("drop", "x")):
        damaged = {**config, "flags": {**config["flags"], name: value}}
        (tmp_path / "RUN" / "config.json").write_text(json.dumps(damaged))
        done = localgd("resume", tmp_path / "RUN")
        assert done.returncode == 2
        assert f"--{name.replace('_', '-')} {value!r}: it is damaged, or of another version" in done.stderr


@pytest.mark.parametrize(
    "problem",
    [
        {"rule": "LeastSquares", "alpha": 1.0, "intercept": True},
        {"rule": "Regularised", "loss": {"rule": "Logistic"}, "C": -1.0, "intercept": True},
        {"rule": "Regularised", "C": 1.0},
        [],
    ],
)
def test_a_problem_that_the_run_never_had_is_refused(problem, tmp_path):
    config = config_of(tmp_path / "RUN")
    damaged = {**config, "method": {**config["method"], "problem": problem}}
    (tmp_path / "RUN" / "config.json").write_text(json.dumps(damaged))
    done = localgd("certify", tmp_path / "RUN", "heart")
    assert done.returncode == 2
    assert "config.json is damaged" in done.stderr


@pytest.mark.parametrize("part", ["proof", "server", "loop"])
def test_an_edited_proof_is_refused(part, tmp_path):
    shards = [Shard("a", [[2.0, 1.0], [1.0, 0.5]]), Shard("b", [[1.0, -0.5]])]
    train(InProcess(shards), local_gd(), n_rounds=3, checkpoints=Checkpoints(tmp_path))
    arrays = arrays_of((tmp_path / FILE).read_bytes(), FILE)
    text = bytes(arrays[part]).decode()
    edited = text.replace("1", "2", 1)
    assert edited != text
    arrays[part] = np.frombuffer(edited.encode(), dtype=np.uint8)
    file = io.BytesIO()
    np.savez(file, **arrays)
    (tmp_path / FILE).write_bytes(file.getvalue())
    with pytest.raises(ValueError, match=r"server\.npz was changed since it was written"):
        train(InProcess(shards), local_gd(), n_rounds=6, checkpoints=Checkpoints(tmp_path))


def test_a_checkpoint_with_a_flipped_bit_is_refused(tmp_path):
    shards = [Shard("a", [[2.0, 1.0], [1.0, 0.5]]), Shard("b", [[1.0, -0.5]])]
    train(InProcess(shards), local_gd(), n_rounds=3, checkpoints=Checkpoints(tmp_path))
    whole = (tmp_path / FILE).read_bytes()
    expected, n_refused = serialize.read(whole, FILE), 0
    for place in np.random.default_rng(0).integers(len(whole), size=100):
        changed = bytearray(whole)
        changed[place] ^= 4
        try:  # not every bit of a zip file says something of what is in it
            found = serialize.read(bytes(changed), FILE)
        except ValueError:
            n_refused += 1
        else:
            assert {name: part.text for name, part in found.items()} == {n: part.text for n, part in expected.items()}
    assert n_refused > 50
