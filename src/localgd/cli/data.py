"""From flags to rows: the tables of a source, and the federation they make."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from scipy.sparse import issparse

from localgd.cli.flags import Source
from localgd.cli.processes import ProcessGroup
from localgd.data.coding import said_weight
from localgd.data.columns import check_known, one_role
from localgd.data.datasets import DATASETS
from localgd.data.differ import respelled
from localgd.data.encodings import Number, Unseen
from localgd.data.gaps import said_values
from localgd.data.label_maps import said_label_map
from localgd.data.load import load, named_columns, node_names
from localgd.data.model import Model
from localgd.data.numbering import shifted
from localgd.data.partition import partition
from localgd.data.prepare import AnyEngine, prepare
from localgd.data.recipe import Recipe
from localgd.data.spelling import said_map, said_maps
from localgd.data.table import Table
from localgd.data.unmet import unmet
from localgd.engine.inprocess import InProcess
from localgd.errors import listing, shown, told_apart

if TYPE_CHECKING:
    from localgd.engine.torchdist import TorchDistributed


def tables_of(
    source: Source,
    seed: int,
    share: tuple[int, int] = (0, 1),
    *,
    recipe: Recipe | None = None,
    may_lack: Collection[str] = (),
) -> list[Table]:
    """Return the tables of a source, split over nodes if asked; of so many processes, those of this one.

    Of a folder, a process opens the files of its own nodes only. A `recipe` knows which columns are dates; rows that
    lack one are its to refuse, or to be filled. Columns that the source names and the rows `may_lack` are passed over.
    """
    data, how, n_nodes = source.data, source.partition, source.n_nodes
    if (how is None) != (n_nodes is None):
        raise ValueError("--partition and --n-nodes go together; give both or neither")
    _check_roles(source, may_lack)
    rank, n_processes = share
    options = ("label", "node", "drop", "categorical", "dates", "weight", "fill_missing_columns", "decimal", "encoding")
    given: dict[str, Any] = {name: value for name in options if (value := getattr(source, name))}
    given |= {name: by_node(given[name], name) for name in ("decimal", "encoding") if name in given}
    dates = [] if recipe is None else [c.name for c in recipe.columns if isinstance(c, Number) and c.dates]
    given |= {"dates": list(dict.fromkeys([*dates, *given.get("dates", ())]))} if dates else {}
    given |= {"may_lack": [*may_lack, *dates]} if dates or may_lack else {}
    if source.node_map:
        given["node_map"] = {one: f"{to}" for one, to in said_map(source.node_map, "--node-map").items()}
    if gaps := _gaps(source, recipe):
        given["missing_values"] = gaps
        lacking = [] if recipe is None else [column for column, _ in recipe.gaps]
        given["may_lack"] = [*given.get("may_lack", ()), *lacking]
    bundled = data in DATASETS and not Path(data).exists()
    categories = [] if bundled else declared(source.categorical, source.category_map)
    given |= {"categorical": categories} if categories else {}
    mapped = set(categories).difference(source.categorical or ())
    if n_processes > 1 and Path(data).is_dir():
        mine = _share(node_names(data), rank, n_processes)
        return _loaded(data, {**given, "nodes": mine}, mapped)
    tables = _loaded(data, given, mapped)
    if recipe is not None and source.fill_missing_columns:
        tables = [with_blanks(table, recipe) for table in tables]
    if how is not None and n_nodes is not None:
        if len(tables) > 1:
            raise ValueError(
                f"--partition splits the rows of one node, but {data} has {len(tables)} nodes; leave it out"
            )
        tables = partition(tables[0], how, n_nodes, seed=seed)
    return _share(tables, rank, n_processes)


def _gaps(source: Source, recipe: Recipe | None) -> dict[str, list[str]]:
    """Return what stands for a missing value, as was said, and as a recipe knows it of rows that may have such."""
    found = said_values(source.missing_values or ())
    for column, text in recipe.gaps if recipe is not None and named_columns(source.data) else ():
        found.setdefault(column, []).append(text)
    return found


def _check_roles(source: Source, may_lack: Collection[str]) -> None:
    """Refuse two flags on one column, those that `localgd.load` does not know, too."""
    single = {"label": source.label, "node": source.node, "weight": source.weight}
    roles: dict[str, Collection[str]] = {role: [name] if name else [] for role, name in single.items()}
    mapped = said_maps(source.category_map or (), "--category-map")
    roles |= {"drop": source.drop or (), "dates": source.dates or (), "text": source.text_column or ()}
    roles |= {"categorical": set(source.categorical or ()).difference(mapped), "category_map": mapped}
    one_role(roles, may_lack)


def _loaded(data: str, given: Mapping[str, Any], mapped: Collection[str]) -> list[Table]:
    """Load the tables; columns that are categories as they are `mapped` are named by what was said of them."""
    try:
        return load(data, **given)
    except ValueError as error:
        what = str(error)
        for name in mapped:
            what = what.replace(f"categorical={shown(name)} is not", f"category_map={shown(name)} is not")
        raise ValueError(what) from error


def by_node(said: list[str], flag: str) -> str | dict[str, str]:
    """Return what was said of all files, or of those of some nodes.

    Examples
    --------
    >>> by_node([","], "decimal"), by_node(["north=,", "south=."], "decimal")
    (',', {'north': ',', 'south': '.'})
    """
    pairs = [one.rpartition("=") for one in said]
    nodes = {node: value for node, equals, value in pairs if equals}
    if len(said) == 1 and not nodes:
        return said[0]
    if len(nodes) < len(said):
        raise ValueError(f"--{flag} is said once of all files, or once of a node, NODE=VALUE; got {' '.join(said)}")
    return nodes


def declared(categorical: list[str] | None, category_map: list[str] | None) -> list[str]:
    """Return the columns of categories, by their flags: a column whose values are said to mean others is one.

    Examples
    --------
    >>> declared(["ward"], ["smoker:no=0,yes=1"])
    ['ward', 'smoker']
    """
    return list(dict.fromkeys([*(categorical or ()), *said_maps(category_map or (), "--category-map")]))


def federation_of(
    tables: list[Table], place: ProcessGroup, timeout: float | None = None, **policy: Any
) -> InProcess | TorchDistributed:
    """Return the federation of the tables of all processes, those of this one being these."""
    if place.world == 1:
        return InProcess(tables, **policy)
    from localgd.engine.torchdist import TorchDistributed

    waits: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
    return TorchDistributed(tables, **waits, **policy)


def _share(nodes: list[Any], rank: int, n_processes: int) -> list[Any]:
    if len(nodes) < n_processes:
        raise ValueError(f"{n_processes} processes for {len(nodes)} nodes: start at most one process a node")
    return nodes[rank::n_processes]


def prepared(
    engine: AnyEngine, tables: list[Table], source: Source, nodes: Collection[str] | None = None, **how: Any
) -> tuple[AnyEngine, Recipe]:
    """Prepare the tables of a source, which an engine holds; return the federation of rows and the recipe.

    Flags may name any of the `nodes`, by default those of the engine, from which some may be left out.
    """
    data, scale = source.data, source.scale
    kinds = {"text": tuple(source.text_column or ()), "categorical": tuple(source.categorical or ())}
    of_files = {**kinds, "categorical": tuple(declared(source.categorical, source.category_map))}
    options: dict[str, Any] = {"scale": None if issparse(tables[0].features) else "standard", **of_files}
    if data in DATASETS and not Path(data).exists():
        if any(kinds.values()):
            raise ValueError(f"{data!r} is bundled with its own columns; leave --text and --categorical out")
        options = dict(DATASETS[data].options)
    if scale is not None:
        options["scale"] = None if scale == "none" else scale
    if source.label_map is not None:
        options["label_map"] = said_label_map(source.label_map, "--label-map", nodes or engine.node_ids)
    if source.category_map is not None:
        options["category_map"] = said_maps(source.category_map, "--category-map")
    if how.get("class_weight") is not None:
        how["class_weight"] = said_weight(how["class_weight"], "--class-weight")
    options["n_classes"] = source.n_classes
    return prepare(engine, **how, **options)


def with_blanks(table: Table, recipe: Recipe) -> Table:
    """Return a table with a column of nothing for each that it lacks of a recipe, and a note that it is filled.

    Examples
    --------
    >>> recipe = Recipe((Number("x"), Number("z")), (0, 1), True, False)
    >>> found = with_blanks(Table("a", pl.DataFrame({"x": [1.0]}), np.zeros(0)), recipe)
    >>> found.names, found.notes
    (('x', 'z'), ("column 'z' is not there, so its values are filled",))
    >>> with_blanks(Table("a", pl.DataFrame({"x": [1.0], "Z": [2.0]}), np.zeros(0), source="a.csv"), recipe)
    Traceback (most recent call last):
    ValueError: a.csv: columns differ from the model's in spelling: 'Z' here is 'z' there; rename them
    """
    frame = table.features
    if not isinstance(frame, pl.DataFrame):
        return table
    known = [column.name for column in recipe.columns]
    lacking = [name for name in known if name not in frame.columns]
    others = [name for name in frame.columns if name not in known]
    if spelled := respelled([*others, *lacking], [frame.columns, known]):
        apart = listing(" here is ".join(told_apart(*pair)) + " there" for pair in spelled)
        raise ValueError(f"{table.source}: columns differ from the model's in spelling: {apart}; rename them")
    blank = pl.lit(None, pl.String if table.as_written else pl.Null)
    notes = (f"column {name!r} is not there, so its values are filled" for name in lacking)
    frame = frame.with_columns(blank.alias(name) for name in lacking)
    return replace(table, features=frame, names=(), notes=(*table.notes, *notes))


def left_out(table: Table) -> list[str]:
    """Return which lines of a file, blank ones, are no rows and get no prediction, in words; nothing if there are none.

    Examples
    --------
    >>> import numpy as np
    >>> left_out(Table("a", np.eye(3), np.zeros(0), source="a.csv", row_numbers=np.array([2, 5, 6])))
    ['a.csv: 2 blank lines are no rows and get no line; the first is row 3']
    """
    numbers: Any = table.row_numbers
    steps = np.diff(numbers)
    if not (steps > 1).any():
        return []
    count, first = int((steps - 1).sum()), int(numbers[np.argmax(steps > 1)]) + 1
    said = "1 blank line is no row and gets" if count == 1 else f"{count:,} blank lines are no rows and get"
    return [f"{table.source}: {said} no line; the first is row {first}"]


def taking(model: Model, unseen: Unseen | None) -> Model:
    """Return a model that takes a category never seen in training as was said; None is as the model says."""
    if unseen is None or model.recipe is None:
        return model
    return replace(model, recipe=replace(model.recipe, unseen=unseen))


def doubts(tables: list[Table], recipe: Recipe | None, min_group: int = 1) -> list[str]:
    """Return in a line each where rows seem to count columns from 1 and not from 0, and what is read as none.

    That are categories that training never met, if they are not refused.

    Examples
    --------
    >>> from localgd.data.encodings import Category
    >>> recipe = Recipe((Category("ward", ("a", "b")),), (0, 1), True, False, "zeros")
    >>> found = doubts([Table("north", pl.DataFrame({"ward": ["a", "c"]}), np.zeros(0))], recipe)
    >>> found[0][:85]
    "what training never met is read as none: of 'ward' in 1 row of 'north'; where one is "
    """
    if recipe is None:
        return []
    said = shifted(tables, [column.name for column in recipe.columns])
    if recipe.unseen == "error":
        return said
    from localgd.report import text

    return [*said, *text.unmet(unmet(InProcess(tables), recipe, min_group))]


def predicted(
    model: Model, table: Table, *, proba: bool, threshold: float | None, row_id: Sequence[str]
) -> pl.DataFrame:
    """Return the label of every row, after its ids and before the probabilities and scores that were asked for."""
    scores, classes = model.scores(table), model.classes or ()
    columns: dict[str, Any] = {"prediction": model.labels(scores)}
    if threshold is not None:
        if not classes:
            raise ValueError("threshold is for two classes, and this model predicts numbers; leave it out")
        if len(classes) != 2 or not 0 <= threshold <= 1:
            what = f"{threshold!r} for {len(classes)} classes"
            raise ValueError(f"threshold must be a probability, 0 to 1, of the second of two classes, got {what}")
        above = model.likely.of(scores)[:, 1] > threshold
        columns["prediction"] = [classes[int(second)] for second in above]
    if proba:
        columns |= dict(zip([f"probability_{name}" for name in classes], model.likely.of(scores).T, strict=True))
        several = zip([f"score_{name}" for name in classes], scores.T, strict=True) if scores.ndim == 2 else ()
        columns |= dict(several) or {"score": scores}
    if not row_id:
        return pl.DataFrame(columns)
    frame = table.features
    if not isinstance(frame, pl.DataFrame):
        raise ValueError(  # noqa: TRY004  it is the file that is of the wrong kind
            f"id={row_id[0]!r}: {table.source} has no named columns; give a CSV or Parquet file"
        )
    check_known("id", row_id, frame.columns, table.source)
    if taken := [name for name in row_id if name in columns]:
        raise ValueError(f"id={taken[0]!r} is the name of a column that is written; rename it in {table.source}")
    return pl.DataFrame({**{name: frame[name] for name in row_id}, **columns})
