"""Turn a folder of per-node files, one table with a node column, or a bundled name into tables."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

from localgd.data.columns import alike, check_known, one_role
from localgd.data.copies import copies_said
from localgd.data.datasets import DATASETS, load_dataset
from localgd.data.files import SUFFIXES, Writing, format_of, read, stem_of
from localgd.data.gaps import MissingValues, gaps_of
from localgd.data.numbering import same_width
from localgd.data.table import Table, twins
from localgd.errors import check_flag, check_kind, check_mapping, check_names, listing, nearest, shown

_SHEETS = (".xlsx", ".xls", ".ods", ".txt")
"""Endings of files that are not read, and may well be a table."""

_LOOKED_AT = 1000
"""Files of a sub-folder that are looked at."""

_NO_DATA = (
    *(".md", ".txt", ".json", ".rst", ".yaml", ".yml", ".toml", ".html", ".log", ".py", ".ipynb", ".sh", ".r"),
    *(".xlsx", ".xls", ".ods", ".docx", ".doc", ".odt", ".pptx", ".pdf", ".png", ".jpg", ".jpeg", ".svg"),
)
"""Endings of files that may lie beside the node files; a file of any other kind might be a node that is left out."""

_OURS = (".md", ".json", ".png", ".svg")
"""Endings of notes, and of what is written here: nobody misses such a file as a node."""


def load(
    source: str | Path,
    *,
    label: str | None = None,
    node: str | None = None,
    drop: Collection[str] = (),
    categorical: Collection[str] = (),
    weight: str | None = None,
    dates: Collection[str] = (),
    may_lack: Collection[str] = (),
    nodes: Collection[str] | None = None,
    fill_missing_columns: bool = False,
    decimal: str | Mapping[str, str] = ".",
    encoding: str | Mapping[str, str] = "utf-8",
    missing_values: MissingValues = (),
    node_map: Mapping[str, str] | None = None,
) -> list[Table]:
    """Return one table per node from a folder, a file, or the name of a bundled data set.

    Parameters
    ----------
    source : str or Path
        A folder with one file per node (the node's name is the file's, without its ending), one file with all rows,
        or a name in `localgd.data.datasets.DATASETS`. Files are CSV (also ``.csv.gz``), Parquet, NPZ (arrays X and
        y, or the parts of a sparse matrix, as `scipy.sparse.save_npz` writes them; optionally columns), or svmlight.
        Sub-folders, hidden files, notes, spreadsheets and pictures in a folder are left alone; which of them might be
        meant as nodes (``berlin.xlsx``) is in the `notes` of the tables. For arrays in memory there is
        `localgd.from_arrays`.
    label : str, optional
        Label column; needed for CSV and Parquet, the array ``y`` for NPZ, the first entry of a row for svmlight.
    node : str, optional
        Column (or NPZ array) that says which node a row of a single file belongs to; without it, one node.
    drop : collection of str
        Columns to leave out; some nodes may lack them.
    categorical : collection of str
        Columns to keep as text although most of their values look like numbers or dates.
    weight : str, optional
        Column of a CSV or Parquet file that says what a row counts, at least 0 (`Table`).
    dates : collection of str
        Columns of dates to take as numbers, days since 1970: of the types Date and Datetime in Parquet, or written
        YYYY-MM-DD or DD.MM.YYYY, with or without a time HH:MM:SS.
    may_lack : collection of str
        Of the columns in `drop`, `categorical` and `dates`, those that all rows may lack: what was said of other rows,
        such as those that a model was trained on; one that is the label here, say, is that. A column that is not among
        them has to be there.
    nodes : collection of str, optional
        Of a folder, the nodes to load, where others are loaded elsewhere; no other file is opened.
    fill_missing_columns : bool, default False
        A column that some CSV or Parquet files lack is missing in all of their rows; else that is an error.
    decimal : "." or ",", or mapping from node to such, default "."
        What stands before the fraction of a number in CSV files; with a comma, points group digits by three. A mapping,
        like ``{"north": ","}``, is of the files of a folder by their nodes; others have the default.
    encoding : str, or mapping from node to such, default "utf-8"
        Encoding of CSV files.
    missing_values : collection of texts and numbers, or mapping from column to such
        What stands for a missing value in CSV and Parquet files, in small or capital letters: ``["k.A.", "--"]`` in
        all columns, the label and the node included, or ``{"smoker": [9], "": ["k.A."]}`` in one, and (``""``) in all.
        A number is meant however it is written: -9 is -9.0, too.
        It comes beside a blank cell, and beside the texts that are missing in columns of numbers and dates only: NA,
        N/A, NaN, null, none, ? and -. Rows to come are read likewise: a recipe remembers it.
    node_map : mapping from name to name, optional
        What nodes are called, of those that `node` names: ``{"berlin": "Berlin"}`` makes one node of two.

    Returns
    -------
    list of Table
        In the order of the node names. Column types are decided over all nodes together. An index that pandas wrote
        (``__index_level_0__``, ``Unnamed: 0``, a first column without a name) is left out.

    Raises
    ------
    ValueError
        If the source is unknown or unreadable, or its content is not fit for use: names file, row and remedy.
    TypeError
        If the source is neither text nor a Path, or the name of a column no text.

    Examples
    --------
    >>> [(table.node_id, table.n_rows) for table in load("sentences")]
    [('amazon', 1000), ('imdb', 1000), ('yelp', 1000)]
    """
    if not isinstance(source, str | Path):
        raise TypeError(
            f"source is of type {type(source).__name__}, not a path or a name; for arrays and frames in memory use "
            "localgd.from_arrays(X, y, groups)"
        )
    for name, names in (
        ("drop", drop),
        ("categorical", categorical),
        ("dates", dates),
        ("may_lack", may_lack),
        ("nodes", () if nodes is None else nodes),
    ):
        check_names(name, names)
    check_flag("fill_missing_columns", fill_missing_columns)
    _check_texts_of("decimal", decimal, "'.' or ','")
    _check_texts_of("encoding", encoding, "the name of an encoding, such as 'utf-8'")
    if not str(source).strip():
        raise ValueError("source is empty; give a folder, a file or the name of a bundled data set")
    _check_node_map(node_map, node)
    one_role(
        {**_single(label=label, node=node, weight=weight), "drop": drop, "dates": dates, "categorical": categorical},
        may_lack,
    )
    path, gaps = Path(source), gaps_of(missing_values)
    how: dict[str, Any] = {"drop": drop, "categorical": categorical, "weight": weight, "dates": dates}
    how |= {"fill_missing_columns": fill_missing_columns, "may_lack": may_lack, "gaps": gaps}
    if path.is_dir():
        if node is not None:
            raise ValueError(f"node={node!r}: {path} is a folder, where each file is one node; leave node out")
        files = _node_files(path)
        check_known("nodes", nodes or (), list(files), f"{path}", "a node")
        chosen = [file for name, file in files.items() if nodes is None or name in set(nodes)]
        writings = _writings(files.values(), decimal, encoding)
        elsewhere = () if nodes is None else drop  # what is to be dropped may be at other nodes
        how |= {"may_lack": [*may_lack, *elsewhere]}
        tables = _load_files(chosen, label, None, writings, how)
        notes = (*unread(path), *twins({table.node_id: table.n_rows for table in tables}, "put their rows in one file"))
        return [replace(table, notes=(*table.notes, *notes)) for table in tables]
    if nodes is not None:
        raise ValueError(f"nodes={list(nodes)}: {source} is no folder, so all of it is read; leave nodes out")
    if path.is_file():
        how |= {"node_map": node_map}
        return _load_files([path], label, node, _writings([path], decimal, encoding), how)
    if str(source) in DATASETS:
        own = {"label": label, "node": node, **how}
        given = [name.replace("gaps", "missing_values") for name, value in own.items() if value]
        given += ["decimal and encoding"] if (decimal, encoding) != (".", "utf-8") else []
        if given:
            raise ValueError(f"{str(source)!r} is bundled with its own columns; leave {given[0]} out")
        return load_dataset(str(source))
    raise ValueError(f"{str(source)!r} is neither a folder, a file nor a bundled data set{_near_source(path)}")


def _single(**named: str | None) -> dict[str, list[str]]:
    """Return the columns of the roles that one column has each; a TypeError names what is no text."""
    for role, name in named.items():
        check_kind(role, "" if name is None else name, str, "the name of a column")
    return {role: [name] if name else [] for role, name in named.items()}


def _check_node_map(node_map: Any, node: str | None) -> None:
    check_mapping("node_map", node_map)
    if node_map and node is None:
        raise ValueError("node_map is for nodes that a column names, and node (--node) is not given; leave it out")


def _check_texts_of(name: str, said: Any, what: str) -> None:
    for one in said.values() if isinstance(said, Mapping) else [said]:
        check_kind(name, one, str, what)


def node_names(folder: str | Path) -> list[str]:
    """Return the names of the nodes whose files are in a folder, sorted; none of them is opened.

    Raises
    ------
    ValueError
        If there are none, or a file is of a kind that cannot be read.
    """
    return list(_node_files(Path(folder)))


def named_columns(source: str | Path) -> bool:
    """Return whether a folder or a file holds tables with named columns, in which values may be missing.

    Examples
    --------
    >>> named_columns("rows.csv"), named_columns("rows.npz")
    (True, False)
    """
    path = Path(source)
    return any(format_of(file) in {"csv", "parquet"} for file in (_files(path) if path.is_dir() else [path]))


def unread(folder: str | Path) -> list[str]:
    """Return in a line each which files of a folder, and sub-folders, are not read, and might be meant as nodes.

    Nothing if it has none. Sub-folders without a table, and those that a run left, are no nodes to anybody.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     _ = [Path(place, name).touch() for name in ("rome.csv", "berlin.xlsx", "README.txt", "metrics.json")]
    ...     unread(place)
    ["files beside those of the nodes are not read, as they are of other kinds: 'berlin.xlsx'"]
    """
    files = _files(Path(folder)) if Path(folder).is_dir() else []
    names = [path.name for path in files if format_of(path) is None]
    odd = [name for name in names if not name.lower().endswith(_OURS) and not name.lower().startswith("readme")]
    said = "files beside those of the nodes are not read, as they are of other kinds"
    inner = _inner(Path(folder))
    away = "sub-folders are not read; put the files of all nodes into the folder itself"
    return [
        *([f"{said}: {listing(map(shown, odd))}"] if odd else []),
        *([f"{away}: {listing(map(shown, inner))}"] if inner else []),
    ]


def check_flat(folder: str | Path) -> None:
    """Refuse a folder of node files whose sub-folders hold tables: a node would be left out of what is trained.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     check_flat(place)
    ...     Path(place, "rome").mkdir()
    ...     Path(place, "rome", "2024.csv").touch()
    ...     check_flat(place)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: ...: sub-folders are not read, and hold tables: 'rome'; a node is one file of the folder itself: ...
    """
    if inner := _inner(Path(folder)):
        raise ValueError(
            f"{folder}: sub-folders are not read, and hold tables: {listing(map(shown, inner))}; a node is one file of "
            f"the folder itself: put the rows of each of them in one file there ({shown(f'{inner[0]}.csv')}), or, if "
            "they are not to be trained on, move them away"
        )


def _inner(folder: Path) -> list[str]:
    """Return the names of sub-folders that hold tables, or what may be some, at any depth; not those of runs."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_dir() and not path.name.startswith((".", "_")) and not (path / "config.json").is_file():
            held = islice((one for one in path.rglob("*") if one.is_file()), _LOOKED_AT)
            if any(format_of(one) is not None or one.suffix.lower() in _SHEETS for one in held):
                found.append(path.name)
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _near_source(path: Path) -> str:
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = get_close_matches(path.name, [name for name in beside if not name.startswith(".")], n=1)
    return f"; did you mean {str(path.with_name(near[0]))!r}?" if near else nearest(str(path), DATASETS)


def _node_files(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by the names of their nodes, sorted."""
    found = _files(folder)
    files = [p for p in found if format_of(p) is not None]
    if not files:
        held = f"no node files, only {', '.join(p.name for p in found[:5])}" if found else "no node files"
        inner = _inner(folder)
        held += f" (sub-folders are not read: {listing(map(shown, inner))})" if inner else ""
        raise ValueError(f"{folder}: {held}; put one file per node there, ending in {', '.join(SUFFIXES)}")
    for path in found:
        if format_of(path) is None and path.suffix.lower() not in _NO_DATA:
            raise ValueError(
                f"{path}: unknown kind of file; convert it to one of {', '.join(SUFFIXES)} or move it away"
            )
    named: dict[str, Path] = {}
    for path in files:
        if (other := named.setdefault(stem_of(path), path)) != path:
            raise ValueError(f"{other} and {path} name the same node {stem_of(path)!r}; rename one")
    return dict(sorted(named.items()))


def _writings(
    paths: Collection[Path], decimal: str | Mapping[str, str], encoding: str | Mapping[str, str]
) -> dict[Path, Writing]:
    """Return how each file is written; refuse what is said of a node that has none."""
    parts: list[Mapping[str, str]] = []
    for parameter, said, default in (("decimal", decimal, "."), ("encoding", encoding, "utf-8")):
        by_node = said if isinstance(said, Mapping) else dict.fromkeys(map(stem_of, paths), said)
        check_known(parameter, by_node, [stem_of(path) for path in paths], "these files", "a node")
        parts.append({stem_of(path): by_node.get(stem_of(path), default) for path in paths})
    return {path: Writing(*(part[stem_of(path)] for part in parts)) for path in paths}


def _load_files(
    paths: Sequence[Path], label: str | None, node: str | None, writings: Mapping[Path, Writing], how: Mapping[str, Any]
) -> list[Table]:
    formats = {path: format_of(path) for path in paths}
    _check_written(writings, formats)
    framed = [path for path in paths if formats[path] in {"csv", "parquet"}]
    if framed and len(framed) < len(paths):
        other = next(path for path in paths if path not in framed)
        raise ValueError(
            f"{framed[0]} is a table with named columns but {other} holds arrays; give all nodes one format"
        )
    numbered = [path for path in paths if formats[path] == "svmlight"]
    if numbered and label not in {None, "y"}:
        raise ValueError(
            f"label={label!r}: {numbered[0]} has no names for columns, its label is the first entry of every row; "
            "leave label out"
        )
    node_map = {f"{one}".strip(): f"{to}".strip() for one, to in (how.get("node_map") or {}).items()}
    also: dict[str, Any] = {"gaps": how["gaps"], "node_map": node_map}
    tables = [table for path in paths for table in read(path, label, node, writings[path], **also)]
    how = {name: value for name, value in how.items() if name != "node_map"}
    how["may_lack"] = [*how["may_lack"], *([] if node is None else [node])]
    if not framed:
        return copies_said(_arrays_alike(tables, how))
    if label is None:
        listed = ", ".join(tables[0].names[:20]) + (", …" if len(tables[0].names) > 20 else "")
        raise ValueError(f"{tables[0].source}: which column is the label? Give label (--label), one of: {listed}")
    return copies_said(alike(tables, label, **how))


def _arrays_alike(tables: Sequence[Table], how: Mapping[str, Any]) -> list[Table]:
    whole = [table for table in tables if not table.numbered]
    for table in whole:
        if table.labels.size == 0:
            raise ValueError(f"{table.source}: no label array 'y'; save it in the file, or give label (--label)")
    wide = same_width([table for table in tables if table.numbered])
    wide = [replace(table, numbered=not whole) for table in wide]  # an array's width is as it says
    return sorted(alike([*whole, *wide], None, **how), key=lambda table: table.node_id)


def _check_written(writings: Mapping[Path, Writing], formats: Mapping[Path, str | None]) -> None:
    if set(writings.values()) != {Writing()} and "csv" not in formats.values():
        raise ValueError(f"decimal and encoding are for CSV files, and {next(iter(formats))} is none; leave them out")


def load_unlabelled(
    path: str | Path, *, decimal: str = ".", encoding: str = "utf-8", missing_values: MissingValues = ()
) -> Table:
    """Return a file's rows without labels, to predict on; a column of labels among them does no harm.

    Columns of a CSV file stay as written, but for its `decimal` and `missing_values` (`load`): the recipe knows
    which of them are numbers.

    Raises
    ------
    ValueError
        If it is no CSV, Parquet, NPZ or svmlight file, or cannot be read.
    """
    file = Path(path)
    if not file.is_file() or format_of(file) is None:
        raise ValueError(f"{file}: not a file that can be read; give one of {', '.join(SUFFIXES)}")
    writing = Writing(decimal, encoding)
    _check_written({file: writing}, {file: format_of(file)})
    return read(file, writing=writing)[0].blanked(gaps_of(missing_values))
