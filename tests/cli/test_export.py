"""``localgd export``: a model for other programs."""

from __future__ import annotations

import io

import joblib
import numpy as np
import polars as pl
import pytest

from command import localgd
from export.models import model_of, raw
from localgd import Model


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    place = tmp_path_factory.mktemp("model") / "model.json"
    model_of("two", text=True).save(place)
    return place


def test_coefficients_go_to_standard_output_or_a_file(path, tmp_path):
    table = Model.load(path).coefficients()
    printed = localgd("export", path, "--to", "csv").stdout
    assert pl.read_csv(io.StringIO(printed))["coefficient"].to_list() == table["coefficient"].to_list()
    assert localgd("export", path, "--to", "csv", "--out", tmp_path / "c.csv").returncode == 0
    assert (tmp_path / "c.csv").read_text() == printed


def test_a_pipeline_is_read_by_joblib_and_by_skops(path, tmp_path):
    expected = model_of("two", text=True).predict_proba(raw(text=True))
    done = localgd("export", path, "--to", "sklearn", "--out", tmp_path / "model.joblib")
    assert "read it with joblib.load" in done.stdout
    np.testing.assert_allclose(joblib.load(tmp_path / "model.joblib").predict_proba(raw(text=True)), expected)
    skops = pytest.importorskip("skops.io", reason="localgd[skops] is not installed")
    assert localgd("export", path, "--to", "skops", "--out", tmp_path / "model.skops").returncode == 0
    trusted = skops.get_untrusted_types(file=tmp_path / "model.skops")
    assert not any("localgd" in name for name in trusted)
    np.testing.assert_allclose(
        skops.load(tmp_path / "model.skops", trusted=trusted).predict_proba(raw(text=True)), expected
    )


def test_a_graph_is_written(tmp_path):
    pytest.importorskip("onnx", reason="localgd[onnx] is not installed")
    model_of("two").save(tmp_path / "model.json")
    done = localgd("export", tmp_path, "--to", "onnx", "--out", tmp_path / "model.onnx")
    assert "written to" in done.stdout
    assert (tmp_path / "model.onnx").stat().st_size > 1000


def test_what_has_no_meaning_is_refused_in_words(path, tmp_path):
    def refused(*words):
        done = localgd("export", *words)
        assert done.returncode == 2
        return done.stderr

    assert "--out FILE is needed: where onnx goes" in refused(path, "--to", "onnx")
    assert "exists already" in refused(path, "--to", "sklearn", "--out", path)
    (tmp_path / "other.json").write_text('{"coef": [1.0, 2.0]}')
    assert "says nothing of columns" in refused(
        tmp_path / "other.json", "--to", "sklearn", "--out", tmp_path / "m.joblib"
    )
    assert "column 'note' is a text" in refused(path, "--to", "onnx", "--out", tmp_path / "m.onnx")
