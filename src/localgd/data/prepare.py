"""Federated preparation: kinds, classes, categories, vocabularies, means and scales, learned in rounds.

Every number the server learns is a sum, a minimum or a count over nodes; no row leaves its node. Values of a
category column and words of a text column do leave, as tallies.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import numpy as np

from localgd.core import Engine, Message, Report
from localgd.data.coding import ClassCounts, ClassWeight, check_class_weight, class_weights
from localgd.data.columns import check_known, option
from localgd.data.doubts import settled
from localgd.data.encodings import Category, Encoding, Number, Unseen, Words
from localgd.data.kinds import empty_columns, kinds_of, too_many
from localgd.data.label_maps import known_maps, said_of, split_map
from localgd.data.labels import classes_of, no_labels
from localgd.data.notes import notes_of
from localgd.data.recipe import Recipe
from localgd.data.spelling import Joined, Label, LabelMaps, Pairs, Speller, check_map, plain_names
from localgd.data.survey import FEW, MANY, UNIQUE, Moments, Survey, Tally, no_classes, same_gaps, tallies
from localgd.errors import check_flag, check_kind, check_mapping, check_names, check_whole, from_all, shown
from localgd.rounding import FloatArray

Missing: TypeAlias = Literal["category", "zeros", "most-frequent"]
AnyEngine = TypeVar("AnyEngine", bound=Engine)

_SPARSE_BELOW = 0.1
"""Share of entries that can be non-zero, below which the encoded rows are stored as CSR."""


def prepare(
    engine: AnyEngine,
    *,
    scale: Literal["standard"] | None = None,
    intercept: bool = True,
    text: Collection[str] = (),
    categorical: Collection[str] = (),
    missing: Missing = "category",
    min_group: int = 1,
    classes: bool = True,
    n_classes: int | None = None,
    label_map: Mapping[Any, Any] | None = None,
    category_map: Mapping[str, Mapping[Any, Any]] | None = None,
    class_weight: ClassWeight | None = None,
    empty: Literal["error", "leave-out"] = "error",
) -> tuple[AnyEngine, Recipe]:
    """Learn by rounds how to turn the nodes' tables into numbers, and do it on every node.

    Numbers: a missing value becomes the mean over all nodes; with ``scale="standard"``, x becomes (x − mean)/std over
    all rows of all nodes (imputed ones included), a constant column keeps scale 1, and a CSR table is divided but
    not centered. Categories become one column each. Text becomes TF-IDF, idf = log((1 + n)/(1 + df)) + 1, rows of
    norm 1. Each equals what scikit-learn gives on the pooled rows.

    Labels and categories that nodes spell apart (case, outer or double blanks, Unicode form; 1 and 1.0; 1 and true) are
    joined, by a rule that the recipe keeps, and `Recipe.summary` says so. What one node spells in two ways, and labels
    of some nodes that have nothing in common with those of others, are refused unless mapped.

    Parameters
    ----------
    engine : Engine
        Its nodes hold `Table`s.
    scale : "standard" or None
        Scaling of the numbers.
    intercept : bool, default True
        Append a column for the bias.
    text : collection of str
        Text columns to prepare as TF-IDF; other text columns are categories.
    categorical : collection of str
        Columns to treat as categories although they hold numbers, or more values than categories usually have.
    missing : "category", "zeros" or "most-frequent"
        What a missing value of a category column becomes, where training has any: a category of its own, zeros, or
        the category most frequent over all nodes.
    min_group : int, at least 1
        A node tells a category or a word only if so many of its rows have it. One that no node tells becomes zeros.
    classes : bool, default True
        The labels are classes; else real targets, which do not leave their nodes.
    n_classes : int, optional
        How many classes there are; needed for more than 30, and where some nodes share none with the others.
    label_map : mapping from label to class, optional
        What labels mean, like ``{"no": 0, "yes": 1}``; a label that maps to itself is no other spelling of any. What
        those of one node mean is a mapping of its own, ``{"north": {1: 0, 2: 1}}``; a node that is not there is passed
        over, as it may have been left out.
    category_map : mapping from column to such a mapping, optional
        The same for columns of categories.
    class_weight : "balanced" or mapping from class to float, optional
        What rows count in training by their class, beside weights of their own: as in scikit-learn, Σ n/(C n_c) if
        balanced, by one more round for the numbers n_c of rows, each by its weight; a class that is not named counts 1.
    empty : "error" or "leave-out"
        What a column is in which no row has a value: a mistake, or left out, as where the one node that has it is
        held out.

    Returns
    -------
    engine : Engine
        Its nodes hold `Shard`s of signed rows, or `Samples` of rows and targets.
    recipe : Recipe
        What was learned.

    Raises
    ------
    ValueError
        If there is one class only, or far too many, a label stands for a missing value and `label_map` does not name
        it, columns differ between nodes, or a column cannot be prepared.

    Examples
    --------
    >>> from localgd.data.arrays import from_arrays
    >>> from localgd.engine.inprocess import InProcess
    >>> tables = from_arrays([[1.0], [2.0], [3.0]], ["no", "yes", "yes"], groups=["a", "a", "b"])
    >>> shards, recipe = prepare(InProcess(tables), scale="standard")
    >>> recipe.classes, recipe.columns
    (('no', 'yes'), (Number(name='x0', fill=2.0, center=2.0, scale=0.816496580927726, n_missing=0, dates=False),))
    """
    for parameter, value, allowed in (
        ("scale", scale, (None, "standard")),
        ("missing", missing, get_args(Missing)),
        ("empty", empty, ("error", "leave-out")),
    ):
        if value not in allowed:
            raise ValueError(f"{parameter} must be one of {allowed}, got {value!r}")
    check_kind("engine", engine, Engine, "an engine such as InProcess(tables)")
    check_whole("min_group", min_group, 1)
    check_flag("intercept", intercept)
    check_flag("classes", classes)
    check_names("text", text)
    check_names("categorical", categorical)
    everywhere, label_maps, category_map = _checked_maps(label_map, category_map)
    if n_classes is not None:
        check_whole("n_classes", n_classes, 2)
    check_class_weight(class_weight)
    if not classes and (label_map or n_classes is not None or class_weight):
        raise ValueError("label_map, n_classes and class_weight are for classes; leave them out for numbers to fit")
    text, categorical = plain_names(text), plain_names(categorical)
    survey = from_all(engine, Survey(), Message())
    if classes:
        _check_labels(survey)
    gaps = same_gaps(survey)
    away = empty_columns(survey) if empty == "leave-out" else ()
    text, categorical = ([name for name in names if name not in away] for names in (text, categorical))
    category_map = {name: mapping for name, mapping in category_map.items() if name not in away}
    kinds = kinds_of(survey, tuple(text), tuple(categorical), away)
    numbers, categories, words = (
        tuple(name for name, kind in kinds.items() if kind in among)
        for among in ({"number", "sparse"}, {"category"}, {"words"})
    )
    task = Tally(numbers, categories, words, min_group, classes, label_maps=label_maps)
    tally = from_all(engine, task, Message())
    if classes and (odd := no_labels(tally, everywhere)):  # where they stand, the nodes know
        from_all(engine, Tally((), (), (), min_group, no_labels=odd, label_maps=label_maps), Message())
    (labels, notes), coded = settled(
        partial(classes_of, tally, everywhere, n_classes, drawn=_drawn(survey)) if classes else _no_classes,
        partial(_category_columns, tally, categories, frozenset(categorical), missing, category_map),
    )
    encodings: dict[str, Encoding] = {
        **_number_columns(engine, numbers, tally, scale=scale, centered="sparse" not in kinds.values()),
        **coded,
        **_word_columns(tally, words),
    }
    columns = _dated([encodings[name] for name in kinds], survey)
    # An upper bound on the non-zeros of a row: known without a round, so every node stores alike.
    filled = sum(not isinstance(column, Words) for column in columns) + intercept
    width = sum(len(column.feature_names) for column in columns) + intercept
    sparse = bool({"sparse", "words"} & set(kinds.values())) or filled < _SPARSE_BELOW * width
    left = (f"column {shown(name)} is left out, as no row has a value of it" for name in away)
    known = said_of(maps := known_maps(label_maps, labels))
    notes = (*notes, *left, *known, *notes_of(survey, columns, kinds, categorical, category_map))
    del survey, kinds, tally, encodings  # of wide rows they would take room while nodes hold tables and rows
    unseen: Unseen = "error" if min_group == 1 else "zeros"
    own, names = class_weights(class_weight, *_counting(engine, labels, min_group, label_maps)), labels.values
    notes = (*notes, *_weights_said(names, own))
    recipe = Recipe(columns, names, intercept, sparse, unseen, labels.spellings, notes, own, gaps, maps, away)
    return engine.map(recipe), recipe


def _checked_maps(label_map: Any, category_map: Any) -> tuple[dict[Any, Any], LabelMaps, dict[str, Mapping[Any, Any]]]:
    """Return what labels mean everywhere and at nodes, and what categories do, by the names of columns."""
    check_mapping("label_map", label_map)
    check_mapping("category_map", category_map)
    everywhere, label_maps = split_map(label_map or {})
    for column, mapping in (category_map or {}).items():
        check_map(f"category_map[{column!r}]", mapping)
    categories = dict(zip(plain_names(category_map or ()), (category_map or {}).values(), strict=True))
    return everywhere, label_maps, categories


def _weights_said(names: Sequence[Label], own: Sequence[float]) -> list[str]:
    """Return what to say of weights of classes."""
    said = ", ".join(f"{name!r} as {weight:.4g}" for name, weight in zip(names[:10], own, strict=False))
    return [f"in training a row counts by its class: {said}{', …' if len(own) > 10 else ''}"] if own else []


def _no_classes() -> tuple[Joined, tuple[str, ...]]:
    """Return what there is to know of labels that are no classes."""
    return Joined((), ()), ()


def _dated(columns: Sequence[Encoding], survey: Report) -> tuple[Encoding, ...]:
    """Return columns, those of dates marked as such."""
    dates = {name for (name,), _ in tallies(survey, "date")}
    return tuple(replace(c, dates=True) if isinstance(c, Number) and c.name in dates else c for c in columns)


def _counting(
    engine: Engine, labels: Joined, min_group: int, label_maps: LabelMaps
) -> tuple[tuple[Label, ...], Pairs, Callable[[], FloatArray]]:
    """Return the classes, their spellings, and what counts the rows of each by a round."""
    task = ClassCounts(labels.values, labels.spellings, min_group, label_maps)
    return labels.values, labels.spellings, lambda: from_all(engine, task, Message()).sums["by_class"]


def _check_labels(survey: Report) -> None:
    """Refuse labels that look like ids before any of them leaves its node."""
    for (floor,), n_rows in tallies(survey, "labels"):
        if floor in {MANY, UNIQUE} or n_rows > survey.n_rows / 2:
            raise ValueError(no_classes(f"{n_rows}" if floor == UNIQUE else f"more than {floor}", f"{n_rows} rows"))


def _number_columns(
    engine: Engine, names: tuple[str, ...], tally: Report, *, scale: str | None, centered: bool
) -> dict[str, Number]:
    present: FloatArray = tally.sums["present"]
    for name, count in zip(names, present, strict=True):
        if count == 0:
            what = f"column {name!r} is missing in all rows of all nodes; drop it with {option('drop', name)}"
            raise ValueError(f"{what}, or leave out all such columns (in Python empty='leave-out')")
    if not names or (scale is None and not centered):  # a sparse table has no missing values, nor have rows like it
        return {name: Number(name) for name in names}
    # Powers of two are exact: squares of values near 1e±150 neither overflow nor vanish, and no digit is lost.
    exponent = np.frexp(tally.maxs["peak"])[1].astype(np.float64)
    task = Moments(names)

    def moments(center: FloatArray) -> Mapping[str, FloatArray]:
        return from_all(engine, task, Message(extra={"exponent": exponent, "center": center})).sums

    mean = moments(np.zeros(len(names)))["first"] / present
    spread = np.ones(len(names))
    if scale == "standard":
        sums = moments(mean)
        n = tally.n_rows
        variance = np.maximum(sums["second"] / n - (sums["first"] / n) ** 2, 0.0)
        # Rounding noise around the mean of a constant column; the bound is scikit-learn's.
        eps = np.finfo(np.float64).eps
        constant = variance <= n * eps * variance + (n * mean * eps) ** 2
        spread = np.ldexp(np.where(constant, 1.0, np.sqrt(variance)), np.where(constant, 0, exponent).astype(np.int64))
    mean = np.ldexp(mean, exponent.astype(np.int64))
    center = mean if scale == "standard" and centered else np.zeros(len(names))
    gaps = (tally.n_rows - present).astype(np.int64)
    values = zip(names, mean.tolist(), center.tolist(), spread.tolist(), gaps.tolist(), strict=True)
    return {name: Number(name, *learned) for name, *learned in values}


def _category_columns(
    tally: Report,
    names: Sequence[str],
    declared: frozenset[str],
    missing: Missing,
    mappings: Mapping[str, Mapping[Any, Any]],
) -> dict[str, Category]:
    check_known("category_map", mappings, names, "the tables", "a column of categories")
    values: dict[str, dict[str, int]] = {name: {} for name in names}
    for (name, value), count in tallies(tally, "category"):
        values[name][value] = count
    alike: dict[str, list[Sequence[str]]] = {name: [] for name in names}
    for (name, *group), _ in tallies(tally, "alike"):
        alike[name].append(group)
    blank = {parts[0]: count for parts, count in tallies(tally, "missing")}
    spellers = {}
    for name in names:
        mapping = {str(one): str(to) for one, to in mappings.get(name, {}).items()}
        remedy = (f"category_map={{{name!r}: {{…}}}}", f"--category-map {name}:")
        spellers[name] = Speller(f"column {name!r}", remedy, mapping, texts=True)
    columns, one_each = {}, settled(*(partial(spellers[n].joined, [*values[n].items()], alike[n]) for n in names))
    for (name, met), joined in zip(values.items(), one_each, strict=True):
        meant: dict[Any, Any] = dict(joined.spellings)
        known = dict.fromkeys(map(str, joined.values), 0)
        for value, count in met.items():
            known[meant.get(value, value)] += count
        if name not in declared and len(known) > max(FEW, tally.n_rows / 2):
            raise ValueError(too_many(name, str(len(known))))
        if not known and name not in blank:
            raise ValueError(
                f"column {name!r} has no value that min_group rows of a node share; drop it with "
                f"{option('drop', name)}, or lower min_group"
            )
        mode = min(known, key=lambda value: (-known[value], value), default=None)
        fill = mode if missing == "most-frequent" and name in blank else None
        how = missing if name in blank else "unseen"
        columns[name] = Category(name, tuple(sorted(known)), how, fill, blank.get(name, 0), tuple(meant.items()))
    return columns


def _drawn(survey: Report) -> bool:
    """Return whether all nodes are parts of one table that was split."""
    return sum(count for _, count in tallies(survey, "drawn")) == survey.n_nodes


def _word_columns(tally: Report, names: Sequence[str]) -> dict[str, Words]:
    frequency: dict[str, dict[str, int]] = {name: {} for name in names}
    for (name, word), count in tallies(tally, "word"):
        frequency[name][word] = count
    columns = {}
    for name, found in frequency.items():
        if not found:
            raise ValueError(
                f"column {name!r} has no word of two letters or more in min_group rows of a node; drop it with "
                f"{option('drop', name)}"
            )
        words = tuple(sorted(found))
        idf = np.log((1 + tally.n_rows) / (1 + np.array([found[word] for word in words]))) + 1
        columns[name] = Words(name, words, tuple(idf.tolist()))
    return columns
