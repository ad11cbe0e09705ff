"""What a run folder remembers of how its rows were read, for the commands that take a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localgd.cli.data import by_node, declared, tables_of
from localgd.cli.flags import Source
from localgd.cli.notes import Notes
from localgd.cli.options import check_flags
from localgd.cli.trained_on import Use, doubt, same_data
from localgd.data.columns import check_known
from localgd.data.datasets import DATASETS
from localgd.data.encodings import Category, Number
from localgd.data.files import format_of, stem_of
from localgd.data.label_maps import said_label_map, split_map
from localgd.data.meant import Meant
from localgd.data.spelling import Pairs, places, said_maps
from localgd.run.folder import remembered

if TYPE_CHECKING:
    from localgd.core import Problem
    from localgd.data.recipe import Recipe
    from localgd.data.table import Table

PREPARING = frozenset(
    {"data", "scale", "text_column", "label_map", "category_map", "n_classes", "dates", "missing_values"}
)
"""Flags on how rows are prepared, which a model of a run says itself."""

_OF_VALUES = ("label_map", "category_map", "dates", "missing_values")
"""Those on what values mean, of which a model knows what was said: what is given counts beside that, and before it."""

_LEARNED = {"scale": "--scale", "text_column": "--text", "n_classes": "--n-classes"}
"""Those that cannot be said of other rows."""


@dataclass(frozen=True)
class Recalled:
    """How rows are read for a model: as was said, and for the rest as for the run that it is of.

    Parameters
    ----------
    source : Source
        The flags.
    seed : int
        Of a partition.
    taken : mapping from flag to value
        Those that are the run's.
    problem : Problem or None
        What the run was certified against; None for a model that is in no run folder.
    """

    source: Source
    seed: int
    taken: Mapping[str, Any]
    problem: Problem | None

    @property
    def elsewhere(self) -> list[str]:
        """Columns that the run was told of, and rows of other places may lack: the model knows which it needs."""
        return [name for flag in ("drop", "categorical") for name in self.taken.get(flag, ())]

    def tables(self, recipe: Recipe | None) -> list[Table]:
        """Return the tables, for the recipe of the model if it has one: what was said of labels and categories is done.

        A model without a recipe is prepared for, which does that.
        """
        tables = self._read(recipe)
        if recipe is None:
            return tables
        nodes = [table.node_id for table in tables]
        everywhere, own = split_map(said_label_map(self.source.label_map or (), "--label-map", nodes))
        categories, said = said_maps(self.source.category_map or (), "--category-map"), dict(own)
        Meant(everywhere, categories, tuple({**dict(recipe.label_maps), **said}.items())).check(recipe)
        meant = Meant(everywhere, categories, own)
        known = {node: pairs for node, pairs in recipe.label_maps if node not in said}
        return [
            replace(meant, labels={}, label_maps=((one.node_id, _beside(known[one.node_id], everywhere)),))(one)
            if one.node_id in known
            else meant(one)
            for one in tables
        ]

    def _read(self, recipe: Recipe | None) -> list[Table]:
        try:
            return tables_of(self.source, self.seed, recipe=recipe, may_lack=self.elsewhere)
        except ValueError as error:
            if not self.taken:
                raise
            raise ValueError(
                f"{error} (read as for the run: {_said(self.taken)}; give another value, or '' for none)"
            ) from error


def _beside(remembered: Pairs, said: Mapping[Any, Any]) -> Pairs:
    """Return what labels of a node mean: as was said of all nodes, and for the rest as is remembered of it."""
    kept = [
        pair for pair, at in zip(remembered, places([one for one, _ in remembered], [*said]), strict=True) if at < 0
    ]
    return (*kept, *((str(one), to) for one, to in said.items()))


def check_brought(model: Path, recipe: Recipe | None, source: Source, class_weight: str | None = None) -> None:
    """Refuse flags on how rows are prepared that cannot count, as the model says it."""
    if recipe is None:
        return
    given = [flag for name, flag in _LEARNED.items() if getattr(source, name)]
    given += ["--class-weight"] if class_weight is not None else []
    if given:
        raise ValueError(f"{model} brings its own preparation; leave {given[0]} out")
    kinds = {column.name: type(column) for column in recipe.columns}
    for flag, names, kind in (("categorical", source.categorical, Category), ("dates", source.dates, Number)):
        for name in filter(None, names or ()):
            check_known(flag, (name,), list(kinds), f"{model}")
            if kinds[name] is not kind:
                what = {Number: "numbers", Category: "categories"}.get(kinds[name], "text")
                raise ValueError(f"--{flag} {name}: {model} takes it as a column of {what}; leave that out")


def recalled(model: Path, source: Source, seed: int | None, use: Use, notes: Notes) -> Recalled:
    """Return how to read rows for a model, and note what is the run's, and what is in place of that.

    If they are rows of the run, that is said where it matters for what they are taken for.

    What has no meaning for the rows given is not the run's: a partition belongs to its rows, the name of the node to
    tables, and a bundled set needs nothing.
    """
    held = remembered(model)
    flags, problem = held.flags, held.problem
    if flags:
        check_flags(flags, Source, f"{model}: config.json")
    reading = [field.name for field in fields(Source) if field.name not in PREPARING]
    given = {name: getattr(source, name) for name in reading if getattr(source, name) is not None}
    run = _of_run(flags, reading, source.data)
    if "partition" in given or "n_nodes" in given:  # they go together
        run = {name: value for name, value in run.items() if name not in {"partition", "n_nodes"}}
    taken = {name: value for name, value in run.items() if name not in given}
    if seed is None and "partition" in taken:
        seed = flags["seed"]
    instead = [name for name in given if name in run and given[name] != run[name]]
    notes.say(f"{_said({name: given[name]})}, in place of the run's {_said({name: run[name]})}" for name in instead)
    learned = _of_values(flags, source.data)
    beside = {name: own for name, own in learned.items() if getattr(source, name)}
    notes.say(
        f"{_said({name: getattr(source, name)})} counts before the run's {_said({name: own})}"
        for name, own in beside.items()
    )
    as_it_was = taken | {name: own for name, own in learned.items() if name not in beside}
    notes.say([f"read as for the run: {_said(as_it_was)}"] if as_it_was else [])
    notes.say(doubt(source.data, held, use))
    known = {name: _none_if_blank(value) for name, value in {**taken, **given}.items()}
    source = replace(source, **known)
    if seed is not None and source.partition is None:
        raise ValueError("--seed is for --partition, and nothing else is drawn here; leave it out")
    return Recalled(source, seed or 0, taken, problem)


def writing_of(
    model: Path, file: Path, given: Mapping[str, str | None], *, fill: bool
) -> tuple[dict[str, str], bool, list[str]]:
    """Return how a file to predict on is written, whether what it lacks is filled, and what to say of the run's part.

    That is as was `given`, of its file or by the name of its node, and for the rest as for the run.
    """
    flags = remembered(model).flags
    if flags:
        check_flags(flags, Source, f"{model}: config.json")
    run = _of_run(flags, [*given, "fill_missing_columns"], str(file))
    said = {name: [value] for name, value in given.items() if value is not None}
    taken = {name: value for name, value in run.items() if name in given and name not in said}
    fill_too = bool(run.get("fill_missing_columns")) and not fill
    writing: dict[str, str] = {}
    for name, values in {**taken, **said}.items():
        found = by_node(values, name)
        if not isinstance(found, str):
            check_known(name, found, [stem_of(file)], f"{file}", "a node")
            found = found[stem_of(file)]
        writing[name] = found
    as_it_was = taken | ({"fill_missing_columns": True} if fill_too else {})
    return writing, fill or fill_too, [f"read as for the run: {_said(as_it_was)}"] if as_it_was else []


def _has_meaning(name: str, data: str, flags: Mapping[str, Any]) -> bool:
    path = Path(data)
    if name in {"partition", "n_nodes"}:
        return same_data(data, flags)
    if data in DATASETS and not path.exists():
        return False
    if name in {"node", "node_map"}:
        return not path.is_dir()
    if name in {"decimal", "encoding"}:
        return path.is_dir() or format_of(path) == "csv"
    return True


def _of_run(flags: Mapping[str, Any], reading: list[str], data: str) -> dict[str, Any]:
    """Return the flags of a run on how to read rows that have a meaning for these."""
    run = {name: flags[name] for name in reading if flags.get(name) and _has_meaning(name, data, flags)}
    for name in ("decimal", "encoding"):  # of the nodes that are here
        run |= {name: here} if (here := _of_nodes(run.pop(name, []), Path(data))) else {}
    columns = declared(run.get("categorical"), flags.get("category_map"))
    if columns and _has_meaning("categorical", data, flags):
        run["categorical"] = columns
    return run


def _of_values(flags: Mapping[str, Any], data: str) -> dict[str, list[str]]:
    """Return what a run was told of values, of the nodes that are here."""
    run = {name: list(flags[name]) for name in _OF_VALUES if flags.get(name) and _has_meaning(name, data, flags)}
    if Path(data).is_dir() and "label_map" in run:
        names = {stem_of(file) for file in Path(data).iterdir()}
        pairs = ((one.partition("=")[0].rpartition(":")[0], one) for one in run["label_map"])
        run["label_map"] = [one for node, one in pairs if not node or one.startswith(":") or node in names]
    return {name: said for name, said in run.items() if said}


def _of_nodes(said: list[str], path: Path) -> list[str]:
    """Return what was said of all files, or of nodes that have one here; a single file is the one of its name."""
    names = {stem_of(path)} | ({stem_of(file) for file in path.iterdir()} if path.is_dir() else set())
    return [one for one in said if "=" not in one or one.rpartition("=")[0] in names]


def _none_if_blank(value: Any) -> Any:
    """Return None for '', by which a value of the run is taken back."""
    left = [one for one in value if one] if isinstance(value, list) else value
    return left or None


def _said(values: Mapping[str, Any]) -> str:
    words = []
    for name, value in values.items():
        flag = f"--{name.replace('_', '-')}"
        words += (
            [flag] if value is True else [f"{flag} {one}" for one in (value if isinstance(value, list) else [value])]
        )
    return " ".join(words)
