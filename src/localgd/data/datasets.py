"""The bundled real data sets, each with its source, its licence and how it wants to be prepared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import polars as pl

from localgd.data.columns import alike
from localgd.data.files import read
from localgd.data.table import Table
from localgd.errors import nearest


@dataclass(frozen=True)
class Dataset:
    """What is known about a bundled data set: its name here, and what it is, as its title.

    `file` is in the folder ``bundled``; `rows` and `columns` are the size of the table, label and node columns not
    counted; `nodes` are its natural nodes, none if it needs a partitioner. `separable` says whether the pooled rows,
    prepared with `options` (scale, text, missing, drop, as in `prepare` and `load`) and a bias, can be separated.
    """

    name: str
    title: str
    file: str
    rows: int
    columns: int
    nodes: tuple[str, ...]
    node: str | None
    label: str
    source: str
    licence: str
    separable: bool
    scale: Literal["standard"] | None = None
    text: tuple[str, ...] = ()
    missing: Literal["category", "zeros", "most-frequent"] = "category"
    drop: tuple[str, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        """The defaults for `localgd.data.prepare.prepare`, as keyword arguments."""
        return {"scale": self.scale, "text": self.text, "missing": self.missing}


_ALL = (
    Dataset(
        name="mushroom",
        title="Edible or poisonous mushrooms by their looks; nodes are habitats",
        file="mushroom.csv.gz",
        rows=8124,
        columns=21,
        nodes=("grasses", "leaves", "meadows", "paths", "urban", "waste", "woods"),
        node="habitat",
        label="class",
        source="UCI Machine Learning Repository, id 73 (Mushroom), doi:10.24432/C5959T",
        licence="CC BY 4.0",
        separable=True,
        missing="zeros",
    ),
    Dataset(
        name="sentences",
        title="Positive or negative review sentences; nodes are web sites",
        file="sentences.csv.gz",
        rows=3000,
        columns=1,
        nodes=("amazon", "imdb", "yelp"),
        node="site",
        label="label",
        source="UCI Machine Learning Repository, id 331 (Sentiment Labelled Sentences), doi:10.24432/C57604",
        licence="CC BY 4.0",
        separable=True,
        text=("sentence",),
    ),
    Dataset(
        name="heart",
        title="Heart disease or not; nodes are four hospitals",
        file="heart.csv.gz",
        rows=920,
        columns=13,
        nodes=("Cleveland", "Hungary", "Switzerland", "VA Long Beach"),
        node="dataset",
        label="num",
        source="UCI Machine Learning Repository, id 45 (Heart Disease), doi:10.24432/C52P4X",
        licence="CC BY 4.0",
        separable=False,
        scale="standard",
        # a column for the two rows without restecg, both ill, would push its coefficient to infinity
        missing="most-frequent",
        drop=("id",),
    ),
    Dataset(
        name="bladder",
        title="Bladder cancer or normal tissue by gene expression; nodes are processing batches",
        file="bladder.npz",
        rows=57,
        columns=22283,
        nodes=("1", "2", "3", "4", "5"),
        node="batch",
        label="y",
        source="Bioconductor package bladderbatch (Dyrskjøt et al. 2004; Leek et al. 2010)",
        licence="Artistic-2.0",
        separable=True,
        scale="standard",
    ),
    Dataset(
        name="golub",
        title="Two kinds of leukaemia by gene expression; no natural nodes",
        file="golub.npz",
        rows=38,
        columns=3051,
        nodes=(),
        node=None,
        label="y",
        source="Bioconductor package multtest (Golub et al. 1999)",
        licence="LGPL",
        separable=True,
    ),
)

DATASETS: Mapping[str, Dataset] = MappingProxyType({dataset.name: dataset for dataset in _ALL})
"""The bundled data sets by name."""


def load_dataset(name: str) -> list[Table]:
    """Return a bundled data set, one table per natural node (one table in all if it has none).

    Parameters
    ----------
    name : str
        A key of `DATASETS`.

    Raises
    ------
    ValueError
        If there is no bundled data set of this name.

    Examples
    --------
    >>> [(table.node_id, table.n_rows) for table in load_dataset("heart")]
    [('Cleveland', 304), ('Hungary', 293), ('Switzerland', 123), ('VA Long Beach', 200)]
    """
    if name not in DATASETS:
        raise ValueError(f"name={name!r} is no bundled data set{nearest(name, DATASETS)}")
    dataset = DATASETS[name]
    tables = read(Path(__file__).with_name("bundled") / dataset.file, dataset.label, dataset.node)
    if name == "heart":
        tables = [replace(table, features=_heart(table.features)) for table in tables]
    return tables if dataset.file.endswith(".npz") else alike(tables, dataset.label, dataset.drop)


def _heart(frame: Any) -> Any:
    """Return heart rows with two classes, and blanks where a zero stands for 'not measured'."""
    not_measured = [
        pl.when(pl.col(name).cast(pl.Float64) != 0).then(pl.col(name)).alias(name) for name in ("chol", "trestbps")
    ]
    return frame.with_columns(*not_measured, num=(pl.col("num") != "0").cast(pl.Int8).cast(pl.String))
