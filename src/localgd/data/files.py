"""Read one file: CSV, Parquet, NPZ or svmlight. Never unpickles; every error names the file, and the row if it can."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import shlex
import sys
import zipfile
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import bsr_array, coo_array, csc_array, csr_array, dia_array

from localgd.data.arrays import JOINED, split_by
from localgd.data.columns import check_known
from localgd.data.gaps import Gaps, blanked
from localgd.data.groups import missing_node
from localgd.data.spelling import plain_names
from localgd.data.table import IntArray, Table, check_width, refuse_twice
from localgd.data.values import MISSING, as_text, refuse_odd, spelled_labels
from localgd.errors import shown

SUFFIXES = (".csv", ".csv.gz", ".parquet", ".npz", ".svm", ".svmlight", ".libsvm")
"""Endings of the files that can be read; the svmlight ones may end in ``.gz`` too."""

_UNREADABLE = (EOFError, OSError, zlib.error, zipfile.BadZipFile, pl.exceptions.PolarsError, csv.Error, KeyError)

_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
_COMMA = r"^\s*[-+]?(?:(?:\d{1,3}(?:\.\d{3})+|\d+)(?:,\d*)?|,\d+)(?:[eE][-+]?\d+)?\s*$"
_POINT = r"^\s*[-+]?\d*\.\d*(?:[eE][-+]?\d+)?\s*$"
_SAID = re.compile(r'"?sep=(.)"?[,;\t]*(?:\n|$)', re.IGNORECASE)


def format_of(path: Path) -> str | None:
    """Return ``csv``, ``parquet``, ``npz`` or ``svmlight``, or None for any other file.

    Examples
    --------
    >>> format_of(Path("a.csv.gz")), format_of(Path("a.libsvm")), format_of(Path("README.md"))
    ('csv', 'svmlight', None)
    """
    name = path.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    if not name.endswith(SUFFIXES) and not (name.endswith(".gz") and suffix in SUFFIXES[4:]):
        return None
    return {".csv": "csv", ".parquet": "parquet", ".npz": "npz"}.get(suffix, "svmlight")


def stem_of(path: Path) -> str:
    """Return the file's name without its ending: the node's name in a folder of files."""
    return Path(path.name.removesuffix(".gz")).stem


_PARTS = {stored: {"data", "indices", "indptr", "shape"} for stored in ("csr", "csc", "bsr")}
_PARTS |= {"coo": {"data", "row", "col", "shape"}, "dia": {"data", "offsets", "shape"}}
"""What a sparse matrix is stored as, by the name of its format."""


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        first = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{path}: cannot be read ({type(error).__name__}: {first}); it seems cut short, damaged or of another "
            "format: copy or write it again"
        ) from error


@dataclass(frozen=True)
class Writing:
    """How the text of CSV files is written.

    Parameters
    ----------
    decimal : "." or ","
        What stands before the fraction of a number; with a comma, points group its digits by three.
    encoding : str
        Name of the encoding, as Python calls it.

    Raises
    ------
    ValueError
        If it is none of these.

    Examples
    --------
    >>> Writing(decimal=",").plain(pl.DataFrame({"x": ["1.234,5", "7", "a,b"]}), lambda row: "")["x"].to_list()
    ['1234.5', '7', 'a,b']
    """

    decimal: str = "."
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        """Check that there are such."""
        if self.decimal not in {".", ","}:
            raise ValueError(f"decimal must be '.' or ',', got {self.decimal!r}")
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            raise ValueError(
                f"encoding={self.encoding!r} is not known; there are utf-8, latin-1, cp1252, utf-16 and others"
            ) from None

    def plain(self, frame: pl.DataFrame, place: Callable[[int], str]) -> pl.DataFrame:
        """Return a frame of text with a point before every fraction; raise where a point may be one or none."""
        if self.decimal == ".":
            return frame
        columns = []
        for column in frame.get_columns():
            local = column.str.contains(_COMMA).fill_null(value=False)
            if (odd := (~local & column.str.contains(_POINT)).arg_true()).len():
                raise ValueError(
                    f"{place(int(odd[0]))}: column {column.name!r} holds {shown(column[int(odd[0])])}, but with "
                    "decimal=',' a point groups digits by three; correct it, leave decimal (--decimal) out, or say of "
                    "which node it is (--decimal NODE=,)"
                )
            numbers = column.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
            columns.append(numbers.zip_with(local, column))
        return pl.DataFrame(columns)


def _text(path: Path, encoding: str = "utf-8") -> str:
    """Return the (unzipped) file as text, its lines ended by a newline whatever ends them in the file.

    The mark that spreadsheets begin UTF-8 with counts more than an `encoding` that was said of all files of a folder.
    """
    with _readable(path):
        raw = gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else path.read_bytes()
    plain = codecs.lookup(encoding).name == "utf-8" or raw.startswith(codecs.BOM_UTF8)
    if not plain:
        _refuse_utf8(path, encoding, raw)
    try:
        return raw.decode("utf-8-sig" if plain else encoding).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise ValueError(f"{path} is UTF-16; say so with encoding='utf-16' (--encoding utf-16)") from error
        row = len(raw[: error.start + 1].splitlines())
        raise ValueError(
            f"{path}, row {row}: byte 0x{raw[error.start]:02x} is not {encoding.upper()}; save the file with UTF-8 "
            "encoding, or say which it has, like encoding='cp1252' (--encoding cp1252; of this file alone "
            f"--encoding {shlex.quote(stem_of(path))}=cp1252)"
        ) from error


def _refuse_utf8(path: Path, encoding: str, raw: bytes) -> None:
    """Refuse a file in UTF-8 that is read in an encoding of one byte per letter, as any bytes are text in such."""
    meant = raw.decode("utf-8", "replace")
    if raw.isascii() or meant.encode() != raw or len(raw.decode(encoding, "replace")) != len(raw):
        return
    row, line = next((row, line) for row, line in enumerate(meant.splitlines(), start=1) if not line.isascii())
    word = next(word for word in re.findall(r"\w+|\S", line) if not word.isascii())
    wrong, node = word.encode().decode(encoding, "replace"), shlex.quote(stem_of(path))
    raise ValueError(
        f"{path}, row {row}: the file is UTF-8, and encoding={encoding!r} would make {wrong!r} of {word!r}; say which "
        f"files are {encoding.upper()}, each by its node, and leave this one out: --encoding NODE={encoding} (of this "
        f"one --encoding {node}=utf-8)"
    )


def read(
    path: Path,
    label: str | None = None,
    node: str | None = None,
    writing: Writing = Writing(),
    *,
    gaps: Gaps = (),
    node_map: Mapping[str, str] = MappingProxyType({}),
) -> list[Table]:
    """Read a file of any kind: one table per entry of the column, or array, `node` if it is given, else one in all.

    Labels of CSV and Parquet are still among the columns, whose types are not decided yet: `localgd.data.columns.alike`
    does both, and takes away what `gaps` names; here that names no node. Nodes are called as `node_map` says.

    `label` names the label array of an NPZ file, ``y`` by default. A ValueError if the file is unreadable, damaged or
    empty, or has no such array or column; it names the row where it can.
    """
    match format_of(path):
        case "svmlight" if node is None:
            return [_svmlight(path)]
        case "svmlight":
            raise ValueError(f"node={node!r}: {path} has no node column; give one svmlight file per node in a folder")
        case "npz":
            table, nodes = _npz(path, label, node)
            return [table] if nodes is None else split_by(table, nodes, node_map)
        case None:
            raise ValueError(f"{path}: unknown kind of file; convert it to one of {', '.join(SUFFIXES)}")
        case kind:
            table = _csv(path, writing) if kind == "csv" else _parquet(path)
            if node is None:
                return [table]
            (node,) = plain_names([node])
            check_known("node", (node,), table.names, table.source)
            frame: Any = table.features
            refuse_odd([frame[node]], table.source)
            names = as_text(blanked(frame.select(node), gaps)[0][node])
            table.refuse_gaps(names.is_null(), f"no node in column {node!r}")
            strange = names.str.to_lowercase().is_in(MISSING) & ~names.is_in(list(node_map))
            if (odd := strange.arg_true()).len():
                name, place = names[int(odd[0])], table.place(int(odd[0]))
                way = f" with node_map={{{shown(name)}: …}} (--node-map {shlex.quote(f'{name}=')}…)"
                raise ValueError(missing_node(place, name, f"column {node!r}", way))
            absent = [shown(one) for one in node_map if not (names == one).any()]
            notes = [f"node_map: no row is of node {one}, which it names" for one in absent]
            names = names.replace(dict(node_map))
            left = replace(table, features=frame.drop(node), names=(), notes=(*table.notes, *notes))
            return left.split(np.array(names.to_list(), dtype=np.str_), JOINED)


def _csv(path: Path, writing: Writing) -> Table:
    """Read a CSV file with a header, every column as text; rows of nothing but blanks are left out.

    Blanks and line breaks within a name are one blank. Columns are separated by commas; by semicolons or tabs if the
    header has those and no comma, or as a first line like ``sep=;`` says, which spreadsheets write.
    """
    text, separator, above = _separated(path, _text(path, writing.encoding))
    with _readable(path):
        header = plain_names(next(csv.reader(io.StringIO(text), delimiter=separator), []))
    refuse_twice(header, f"{path}, row {above + 1}")
    if not header:
        raise ValueError(f"{path}: the file is empty; give it a header and rows, or remove it")
    try:
        frame = pl.read_csv(io.BytesIO(text.encode()), separator=separator, infer_schema=False)
    except pl.exceptions.PolarsError:
        _check_fields(path, text, len(header), separator, above)
        with _readable(path):
            raise
    frame.columns = header  # as polars leaves doubled quotes in names
    # polars fills short rows with nulls: only rows that end in one can be short.
    if frame[:, -1].null_count():
        _check_fields(path, text, len(header), separator, above)
    row_numbers, notes = np.arange(2, frame.height + 2) + above, tuple[str, ...]()
    if frame.width > 1 and frame[:, 0].null_count():
        filled = ~frame.select(pl.all_horizontal(pl.all().is_null())).to_series().to_numpy()
        frame, row_numbers = frame.filter(filled), row_numbers[filled]
        notes = () if filled.all() else ("blank lines are left out, as they are no rows",)
    frame = writing.plain(frame, lambda row: f"{path}, row {row_numbers[row]}")
    return replace(_framed(path, frame, row_numbers, as_written=True), notes=notes)


def _separated(path: Path, text: str) -> tuple[str, str, int]:
    """Return the text from its header on, what separates its columns, and how many lines stand above the header."""
    if said := _SAID.match(text):
        return text[said.end() :], said[1], 1
    # a line break in quotes is part of a name
    header = re.sub(r'"[^"]*"', "", re.match(r'(?:[^"\n]|"[^"]*")*', text)[0])  # type: ignore[index]
    found = [separator for separator in _SEPARATORS if separator in header]
    if found == [";", "\t"]:
        raise ValueError(f"{path}, row 1: both semicolons and tabs; separate the columns by commas")
    return text, found[0] if found else ",", 0


def _check_fields(path: Path, text: str, n_columns: int, separator: str, above: int) -> None:
    with _readable(path):
        rows = list(csv.reader(io.StringIO(text), delimiter=separator))
    for row, fields in enumerate(rows, start=1 + above):
        if fields and len(fields) != n_columns:
            raise ValueError(
                f"{path}, row {row}: {len(fields)} fields where the header has {n_columns}; the row is cut short or a "
                f"{_SEPARATORS.get(separator, separator)} in a text lacks its quotes"
            )


def _parquet(path: Path) -> Table:
    """Read a Parquet file; numbers, bools and text keep their types, and columns are called as in CSV files."""
    with _readable(path):
        frame = pl.read_parquet(io.BytesIO(path.read_bytes()))
    header = plain_names(frame.columns)
    refuse_twice(header, str(path))
    frame.columns = header
    return _framed(path, frame)


def _framed(path: Path, frame: pl.DataFrame, row_numbers: IntArray | None = None, *, as_written: bool = False) -> Table:
    if frame.height == 0:
        raise ValueError(f"{path}: the file has no rows; add some, or remove it")
    return Table(stem_of(path), frame, np.zeros(0), source=str(path), row_numbers=row_numbers, as_written=as_written)


def _npz(path: Path, label: str | None, node: str | None) -> tuple[Table, NDArray[Any] | None]:
    """Read an NPZ file, and its node array if one is named.

    It holds `X`, or the parts of a sparse matrix as `scipy.sparse.save_npz` writes them, CSR unless `format` says
    otherwise; labels `y` (rows for prediction may lack them) and optionally `columns`.
    """
    with _readable(path):
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
                arrays: dict[str, NDArray[Any]] = dict(archive.items())
        except ValueError as error:
            raise ValueError(
                f"{path}: holds pickled Python objects or no arrays ({error}); save plain arrays with numpy.savez"
            ) from error
        except TypeError as error:  # a single .npy array under the name .npz has no items
            raise ValueError(f"{path}: holds one array, not named ones; save X and y with numpy.savez") from error
    missing = [name for name in (label, node) if name is not None and name not in arrays]
    stored = str(np.asarray(arrays.get("format", b"csr")).astype(np.str_))
    if "X" not in arrays and not arrays.keys() >= _PARTS.get(stored, {"X"}):
        missing.append("X")
    if missing:
        raise ValueError(
            f"{path}: no array {missing[0]!r} among {sorted(arrays)}; add it, or say which one is the label (y unless "
            "label says otherwise) or the node"
        )
    try:
        X = arrays["X"] if "X" in arrays else _sparse(stored, arrays)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: data, indices, indptr and shape are no {stored.upper()} matrix ({error}); save it again"
        ) from error
    columns = tuple(plain_names(arrays.get("columns", ())))
    labels = arrays.get(label or "y", np.zeros(0))
    return Table(stem_of(path), X, labels, columns, str(path)), None if node is None else arrays[node]


def _sparse(stored: str, arrays: Mapping[str, NDArray[Any]]) -> csr_array[np.float64]:
    n_rows, n_columns = (int(size) for size in arrays["shape"])
    check_width(n_columns, "shape")
    data = arrays["data"].astype(np.float64, copy=False)
    if stored == "coo":
        return csr_array(coo_array((data, (arrays["row"], arrays["col"])), shape=(n_rows, n_columns)))
    if stored == "dia":
        return csr_array(dia_array((data, arrays["offsets"]), shape=(n_rows, n_columns)))
    kind = {"csr": csr_array, "csc": csc_array, "bsr": bsr_array}[stored]
    parts = (data, arrays["indices"], arrays["indptr"])
    rows = kind(parts, shape=(n_rows, n_columns))
    rows.check_format(full_check=True)  # an index outside the shape would read foreign memory
    return csr_array(rows)


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a (zipped) file as it is read: all of them at once would take twice the room of its rows."""
    opened: Any = gzip.open if path.suffix.lower() == ".gz" else open
    with _readable(path), opened(path, "rt", encoding="utf-8-sig") as file:
        try:
            yield from file
        except UnicodeDecodeError:
            _text(path)  # says where
            raise


def _svmlight(path: Path) -> Table:
    """Read an svmlight file (``label index:value …``); column x``i`` is index i, ``x0`` included."""
    labels: list[str] = []
    # of numbers only, as a list would take five times the room of the rows
    data, indices, indptr, row_numbers = array("d"), array("q"), array("q", [0]), array("q")
    for row, line in enumerate(_lines(path), start=1):
        tokens = line.partition("#")[0].split()
        if not tokens:
            continue
        token = tokens[0]
        try:
            if not isfinite(float(token)):
                raise ValueError  # noqa: TRY301 - the same fault as text, said in one place
            labels.append(sys.intern(token))
            for token in tokens[1:]:
                index, _, value = token.partition(":")
                if index != "qid":
                    indices.append(int(index))
                    data.append(float(value))
        except (ValueError, OverflowError) as error:
            if isinstance(error, OverflowError):
                check_width(int(index), f"{path}, row {row}")
            raise ValueError(
                f"{path}, row {row}: {shown(token)} is not label or index:value; correct or remove it"
            ) from None
        here = indices[indptr[-1] :]
        if min(here, default=0) < 0:
            raise ValueError(f"{path}, row {row}: a negative column index; number the columns from 0 or 1")
        check_width(max(here, default=0) + 1, f"{path}, row {row}")
        indptr.append(len(indices))
        row_numbers.append(row)
    if not labels:
        raise ValueError(f"{path}: the file is empty; add rows, or remove it")
    shape = (len(labels), max(indices, default=0) + 1)
    kind = np.int32 if len(indices) < 2**31 else np.int64  # indices are below the limit of check_width
    parts: Any = (np.frombuffer(data), np.array(indices, dtype=kind), np.array(indptr, dtype=kind))
    X = csr_array(parts, shape=shape)
    y = spelled_labels([pl.Series(labels)])[0]
    return Table(stem_of(path), X, y, (), str(path), np.array(row_numbers), numbered=True)
