"""From flags to rows: the tables of a source, and the federation they make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scipy.sparse import issparse

from localgd.cli.flags import Source
from localgd.data.datasets import DATASETS
from localgd.data.load import load, node_names
from localgd.data.partition import partition
from localgd.data.prepare import AnyEngine, prepare
from localgd.data.recipe import Recipe
from localgd.data.spelling import said_map, said_maps
from localgd.data.table import Table


def tables_of(source: Source, seed: int, share: tuple[int, int] = (0, 1)) -> list[Table]:
    """Return the tables of a source, split over nodes if asked; of so many processes, those of this one.

    Of a folder, a process opens the files of its own nodes only.
    """
    data, how, n_nodes = source.data, source.partition, source.n_nodes
    if (how is None) != (n_nodes is None):
        raise ValueError("--partition and --n-nodes go together; give both or neither")
    rank, n_processes = share
    options = ("label", "node", "drop", "categorical", "weight", "fill_missing_columns", "decimal", "encoding")
    given: dict[str, Any] = {name: value for name in options if (value := getattr(source, name))}
    if n_processes > 1 and Path(data).is_dir():
        mine = _share(node_names(data), rank, n_processes)
        return load(data, nodes=mine, **given)
    tables = load(data, **given)
    if how is not None and n_nodes is not None:
        if len(tables) > 1:
            raise ValueError(
                f"--partition splits the rows of one node, but {data} has {len(tables)} nodes; leave it out"
            )
        tables = partition(tables[0], how, n_nodes, seed=seed)
    return _share(tables, rank, n_processes)


def _share(nodes: list[Any], rank: int, n_processes: int) -> list[Any]:
    if len(nodes) < n_processes:
        raise ValueError(f"{n_processes} processes for {len(nodes)} nodes: start at most one process a node")
    return nodes[rank::n_processes]


def prepared(engine: AnyEngine, tables: list[Table], source: Source, **how: Any) -> tuple[AnyEngine, Recipe]:
    """Prepare the tables of a source, which an engine holds; return the federation of rows and the recipe."""
    data, scale = source.data, source.scale
    kinds = {"text": tuple(source.text_column or ()), "categorical": tuple(source.categorical or ())}
    options: dict[str, Any] = {"scale": None if issparse(tables[0].features) else "standard", **kinds}
    if data in DATASETS and not Path(data).exists():
        if any(kinds.values()):
            raise ValueError(f"{data!r} is bundled with its own columns; leave --text and --categorical out")
        options = dict(DATASETS[data].options)
    if scale is not None:
        options["scale"] = None if scale == "none" else scale
    if source.label_map is not None:
        options["label_map"] = said_map(source.label_map, "--label-map")
    if source.category_map is not None:
        options["category_map"] = said_maps(source.category_map, "--category-map")
    options["n_classes"] = source.n_classes
    return prepare(engine, **how, **options)
