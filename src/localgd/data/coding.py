"""Labels as places among the classes, and what a row counts by its class."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from localgd.core import Field, Message, Report, Schema
from localgd.data.label_maps import merged
from localgd.data.spelling import Label, LabelMaps, Pairs, Speller, key, listed, places, plain_label
from localgd.data.table import Table
from localgd.data.values import label_array
from localgd.errors import cut, shown
from localgd.limits import RefusedError
from localgd.rounding import FloatArray, is_number

ClassWeight: TypeAlias = Literal["balanced"] | Mapping[Any, float]
"""What a row counts by its class: "balanced", or a number for each class, 1 for those that are not named."""

BALANCED = "balanced"


def check_labelled(table: Table) -> None:
    """Refuse a table without labels."""
    if table.labels.size == 0:
        raise ValueError(f"{table.source}: the rows have no labels; load them with their label column")


def meant_labels(table: Table, mapping: Mapping[Any, Any]) -> Table:
    """Return a table whose labels are what a mapping says that they mean.

    Raises
    ------
    ValueError
        If it makes one class of two labels that it names both as classes (`localgd.data.label_maps.merged`).

    Examples
    --------
    >>> meant_labels(Table("a", np.eye(2), np.array([1, 2])), {1: 0, 2: 1}).labels.tolist()
    [0, 1]
    """
    if not mapping or not table.labels.size:
        return table
    speller = Speller("label", ("label_map", "--label-map "), mapping)
    values, codes = np.unique(table.labels, return_inverse=True)
    _refuse_merged(table, [plain_label(one) for one in values], mapping)
    labels = label_array([speller.meant(plain_label(one)) for one in values])[codes]
    return replace(table, labels=labels, told=True)


def _refuse_merged(table: Table, met: Sequence[Label], mapping: Mapping[Any, Any]) -> None:
    if (both := merged(met, mapping)) is None:
        return
    classes = {key(plain_label(to)) for to in mapping.values()}
    own = ",".join(f"{cut(str(one))}={cut(str(one)) if key(one) in classes else '…'}" for one in met[:10])
    one, other = map(shown, both)
    raise ValueError(
        f"{table.source}: node {shown(table.node_id)} has labels {other} and {one}, and what is said of labels makes "
        f"both {other}, as it takes {one} for {other}: it seems to be of other rows; say what the labels of these mean "
        f"(--label-map {shlex.quote(f'{table.node_id}:{own}')})"
    )


def labels_at(table: Table, maps: LabelMaps) -> Table:
    """Return a table whose labels are what those of its node mean, if anything was said of it, and not done before."""
    return table if table.told else meant_labels(table, dict(dict(maps).get(table.node_id, ())))


def codes_of(table: Table, classes: Sequence[Label], spellings: Pairs) -> NDArray[np.intp]:
    """Return the place of every row's label among the classes, however it is spelled.

    Raises
    ------
    ValueError
        If a label is none of the classes, or the table has no labels; names row and value.
    """
    check_labelled(table)
    values, codes = np.unique(table.labels, return_inverse=True)
    found = np.array(places(values, classes, spellings))
    strange = (found < 0)[codes]
    if strange.any():
        row = int(np.argmax(strange))
        label = plain_label(table.labels[row])
        said, it = f"{shlex.quote(cut(str(label)))}=…", "it means"
        if (found >= 0).any():  # perhaps they are all meant otherwise: 1 and 2 for 0 and 1
            all_of = ",".join(f"{cut(str(plain_label(value)))}=…" for value in values[:10])
            said, it = shlex.quote(f"{table.node_id}:{all_of}"), "the labels of the node mean"
        raise ValueError(
            f"{table.place(row)}: label {shown(label)} is none of the classes ({listed(classes)}); correct it, say "
            f"what {it} (--label-map {said}), or remove the row"
        )
    return found[codes]


@dataclass(frozen=True)
class ClassCounts:
    """Tell how many rows of each class a node has, each by its weight; refuse where that is of too few rows.

    Sum ``by_class`` (C,). A class of some rows, but fewer than `min_group`, is not told: then nothing is.
    """

    classes: tuple[Label, ...]
    spellings: Pairs = ()
    min_group: int = 1
    label_maps: LabelMaps = ()

    def schema(self, message: Message) -> Schema:  # noqa: ARG002  the same on any
        """Return the counts."""
        return {"by_class": Field("sum", (len(self.classes),))}

    def run(self, message: Message, shard: Table, state: None) -> tuple[Report, None]:  # noqa: ARG002
        """Return the node's counts."""
        codes = codes_of(labels_at(shard, self.label_maps), self.classes, self.spellings)
        n_rows = np.bincount(codes, minlength=len(self.classes))
        if ((n_rows > 0) & (n_rows < self.min_group)).any():
            raise RefusedError(
                f"it tells no number of rows of a class that fewer than min_group={self.min_group} are of; give "
                "class_weight (--class-weight) as numbers"
            )
        by_class = np.bincount(codes, shard.weights, len(self.classes)).astype(np.float64)
        return Report(1, shard.n_rows, {"by_class": by_class}), None


def said_weight(text: str, flag: str) -> ClassWeight:
    """Return what a text like ``balanced`` or ``no=1,yes=5`` says.

    Raises
    ------
    ValueError
        If it says something else, or what a class counts twice; names the flag.

    Examples
    --------
    >>> said_weight("balanced", "--class-weight"), said_weight("no=1, yes=2.5", "--class-weight")
    ('balanced', {'no': 1.0, 'yes': 2.5})
    """
    if text.strip() == BALANCED:
        return "balanced"
    said: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.rpartition("="))
        try:
            weight = float(number)
        except ValueError:
            name = ""
        if not name or name in said:
            raise ValueError(f"{flag} is balanced, or CLASS=NUMBER,CLASS=NUMBER, each class once, got {text!r}")
        said[name] = weight
    return said


def check_class_weight(given: Any) -> None:
    """Refuse what is neither None, "balanced" nor a mapping from classes to finite numbers above 0.

    Examples
    --------
    >>> check_class_weight({"no": 1.0, "yes": -5.0})
    Traceback (most recent call last):
    ValueError: class_weight of 'yes' must be a finite number above 0, got -5.0; rows that are to count nothing are ...
    """
    if given is None or (isinstance(given, str) and given == BALANCED):
        return
    if not isinstance(given, Mapping):
        raise ValueError(  # noqa: TRY004  all refusals are of one kind
            f"class_weight must be None, 'balanced' or a mapping from classes to numbers, got {given!r}"
        )
    for label, weight in given.items():
        if not (is_number(weight) and 0 < weight < math.inf):
            raise ValueError(
                f"class_weight of {label!r} must be a finite number above 0, got {weight!r}; rows that are to count "
                "nothing are left out, or have a sample_weight (--weight) of 0"
            )


def class_weights(
    given: ClassWeight | None, classes: Sequence[Label], spellings: Pairs, counted: Callable[[], FloatArray]
) -> tuple[float, ...]:
    """Return what a row of each class counts; nothing if that is 1 whatever the class.

    Parameters
    ----------
    given : "balanced", mapping from class to float, or None
        Balanced is Σ n/(C n_c) for the numbers n_c of rows of each class, as in scikit-learn.
    classes, spellings : tuples
        The classes, and what else they are called.
    counted : callable
        Returns n_c, (C,), each row by its weight; is called if they are needed.

    Raises
    ------
    ValueError
        If a number is not above 0, a name is that of no class, or two are of one.

    Examples
    --------
    >>> class_weights("balanced", ("no", "yes"), (), lambda: np.array([3.0, 1.0])), class_weights({}, (0, 1), (), None)
    ((0.6666666666666666, 2.0), ())
    >>> class_weights({"YES": 5}, ("no", "yes"), (), None)
    (1.0, 5.0)
    """
    check_class_weight(given)
    if not given:
        return ()
    if isinstance(given, str):
        numbers = counted()
        if not (numbers > 0).all():
            label = classes[int(np.argmin(numbers))]
            raise ValueError(f"class_weight='balanced', but class {label!r} has no row of a weight above 0")
        return tuple((numbers.sum() / (len(classes) * numbers)).tolist())
    weights, names = [1.0] * len(classes), list(given)
    found = places(names, classes, spellings)
    for name, place in zip(names, found, strict=True):
        if place < 0:
            raise ValueError(
                f"class_weight names {plain_label(name)!r}, which is none of the classes {listed(classes)}"
            )
        if found.count(place) > 1:
            raise ValueError(f"class_weight names class {classes[place]!r} twice, as {plain_label(name)!r}, too")
        weights[place] = float(given[name])
    return () if set(weights) == {1.0} else tuple(weights)


def weighed(weights: FloatArray | None, codes: NDArray[Any], by_class: Sequence[float]) -> FloatArray | None:
    """Return what each row counts: its own weight, if it has one, times that of its class, if those have some.

    Examples
    --------
    >>> weighed(np.array([1.0, 3.0]), np.array([1, 0]), (0.5, 2.0)).tolist(), weighed(None, np.array([1]), ())
    ([2.0, 1.5], None)
    """
    if not by_class:
        return weights
    own: FloatArray = np.asarray(by_class, dtype=np.float64)[codes]
    return own if weights is None else own * weights
