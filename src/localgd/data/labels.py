"""From the labels that nodes tell to classes: joined where they are spelled apart, refused where nobody can know."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from localgd.core import Report
from localgd.data.spelling import Joined, Label, Speller, key, listed, places, plain_label
from localgd.data.survey import FEW, MANY, no_classes, tallies
from localgd.data.values import MISSING
from localgd.errors import MOST_NAMED, cut, shown

_CODINGS = ((-1, 1), (0, 1), (1, 2))
"""How two classes are written as numbers."""

MOST_CLASSES = 30
"""More are asked for: a column of more is seldom one of classes."""


def no_labels(tally: Report, mapping: Mapping[Any, Any]) -> tuple[str, ...]:
    """Return the labels that stand for missing values, and that nothing maps; ``-`` is a sign where there is ``+``."""
    met = {str(value) for parts, _ in tallies(tally, "label") for value in parts[1::2]}
    said = {key(plain_label(one)) for one in mapping}
    odd = (one for one in met if one.strip().lower() in MISSING and key(one) not in said)
    signs = "+" in {one.strip() for one in met}
    return tuple(sorted(one for one in odd if not (signs and one.strip() == "-")))


def classes_of(
    tally: Report, mapping: Mapping[Any, Any], n_classes: int | None, *, drawn: bool
) -> tuple[Joined, tuple[str, ...]]:
    """Return the classes, and what to say of them.

    Parameters
    ----------
    tally : Report
        What `localgd.data.survey.Tally` came back with.
    mapping : mapping from label to class
        What labels mean, where somebody has said it.
    n_classes : int, optional
        How many classes there are, where somebody has said it.
    drawn : bool
        Whether the nodes are parts of one that was split, so that one hand spelled all labels.

    Raises
    ------
    ValueError
        If there are no labels, one class only or more than anybody asked for, a node has one in two spellings, or the
        labels of some nodes have nothing in common with those of others.
    """
    nodes = [(tuple(parts[1::2]), count) for parts, count in tallies(tally, "label")]
    if not nodes:
        raise ValueError("the tables have no labels; load them with their label column")
    met: dict[tuple[str, Label], int] = {}
    for values, count in nodes:
        for value in values:
            met[type(value).__name__, value] = met.get((type(value).__name__, value), 0) + count
    labels = [value for _, value in met]
    met_by_none = [one for one in mapping if places([one], labels) == [-1] and not _written(one, labels)]
    meant = {str(plain_label(to)) for one, to in mapping.items() if one not in met_by_none} | set(map(str, labels))
    # one spelling more of a class that is there may be that of a node left out
    if unknown := [one for one in met_by_none if str(plain_label(mapping[one])) not in meant]:
        raise ValueError(f"label_map={shown(unknown[0])} is no label of any node; there are {listed(labels)}")
    speller = Speller("label", ("label_map={…}", "--label-map "), mapping)
    joined = speller.joined([(value, count) for (_, value), count in met.items()], [values for values, _ in nodes])
    _check_number(joined.values, tally.n_rows, n_classes)
    held = [(set(places(values, joined.values, joined.spellings)), count) for values, count in nodes]
    if n_classes is None:
        from_1 = [node for (node,), _ in tallies(tally, "from 1")]
        _check_shared(joined.values, [own for own, _ in held], from_1, drawn=drawn)
    return joined, tuple(_notes(joined, held, tally))


def _written(source: Any, labels: Sequence[Label]) -> bool:
    return str(plain_label(source)) in {str(label) for label in labels}


def _check_number(classes: Sequence[Label], n_rows: int, n_classes: int | None) -> None:
    if len(classes) == 1:
        raise ValueError(f"label: all {n_rows} rows of all nodes are {shown(classes[0])}; two classes are needed")
    if len(classes) > min(MANY, max(FEW, n_rows / 2)):
        raise ValueError(no_classes(f"{len(classes)}", f"{n_rows} rows ({listed(classes)})"))
    if n_classes is not None and len(classes) != n_classes:
        raise ValueError(f"n_classes={n_classes}, but the labels are {len(classes)} classes: {listed(classes)}")
    if n_classes is None and len(classes) > MOST_CLASSES:
        raise ValueError(
            f"label: {len(classes)} classes ({listed(classes)}); if these are classes and no numbers, say so with "
            f"n_classes={len(classes)} (--n-classes {len(classes)}); numbers are for a regression (--task regression)"
        )


def _check_shared(classes: Sequence[Label], nodes: Sequence[set[int]], from_1: Sequence[str], *, drawn: bool) -> None:
    """Refuse labels of nodes that have nothing to do with those of others: perhaps the same ones in other words."""
    apart: list[set[int]] = []
    for own in nodes:
        linked = own.union(*(other for other in apart if other & own))
        apart = [*(other for other in apart if not other & linked), linked]
    words = [{key(classes[at])[:1].isalpha() for at in own} for own in apart]
    unlike = {True} in words and {False} in words
    several = len(apart) > 1 and max(map(len, apart)) > 1
    codings = [own for own in nodes if tuple(classes[at] for at in sorted(own)) in _CODINGS]
    mixed = len({frozenset(own) for own in codings}) > 1 and max(map(len, nodes)) == 2
    if (unlike or several or mixed) and not drawn:
        sets = {tuple(sorted(own)) for own in (apart if unlike or several else codings)}
        one, other = ([classes[at] for at in own] for own in sorted(sets, key=lambda own: (-len(own), own))[:2])
        if {*one} & {*other}:
            raise ValueError(_counted(classes, one, other, from_1))
        flag = shlex.quote(",".join(f"{cut(str(value))}=…" for value in one[:10]))
        raise ValueError(
            f"label: some nodes have {listed(one)} and others {listed(other)}, but none all of these: the "
            f"same classes in other words? Say what each means with label_map={{{shown(one[0])}: …}} (--label-map "
            f"{flag}), or that they are {len(classes)} classes: n_classes={len(classes)} (--n-classes {len(classes)})"
        )


def _counted(classes: Sequence[Label], one: Sequence[Label], other: Sequence[Label], from_1: Sequence[str]) -> str:
    """Return the error of two codings of two classes that have a number in common, with what says they are one."""
    if [1, 2] in (one, other):  # 1 means one class here and the other one there: to be said of the nodes
        low, high = other if one == [1, 2] else one
        nodes = sorted(from_1)
        flags = " ".join(f"--label-map {shlex.quote(f'{node}:1={low},2={high}')}" for node in nodes[:MOST_NAMED])
        python = ", ".join(f"{shown(node)}: {{1: {low}, 2: {high}}}" for node in nodes[:MOST_NAMED])
        more = f", and so of {len(nodes) - MOST_NAMED} more nodes" if len(nodes) > MOST_NAMED else ""
    else:
        flags, python, more = "--label-map -1=0", "-1: 0", ""
    return (
        f"label: some nodes have {listed(one)} and others {listed(other)}, but none all of these: the same classes? "
        f"Say so with label_map={{{python}}} ({flags}){more}, or that they are {len(classes)} classes: "
        f"n_classes={len(classes)} (--n-classes {len(classes)})"
    )


def _notes(joined: Joined, held: Sequence[tuple[set[int], int]], tally: Report) -> list[str]:
    notes = [f"labels in other spellings: {joined.said}"] if joined.spellings else []
    single: dict[int, int] = {}
    for own, count in held:
        if len(own) == 1:
            (at,) = own
            single[at] = single.get(at, 0) + count
    if single:
        which = ", ".join(f"{shown(joined.values[at])} at {count}" for at, count in sorted(single.items())[:10])
        notes.append(f"nodes of one class only: {sum(single.values())} of {tally.n_nodes} ({which})")
    if max(len(own) for own, _ in held) < len(joined.values) > 2:
        notes.append(f"no node has rows of all {len(joined.values)} classes ({listed(joined.values)})")
    uneven = sum(count for _, count in tallies(tally, "uneven"))
    if uneven:
        where = f"at {uneven} of {tally.n_nodes} nodes"
        notes.append(f"more than 9 of 10 rows are of one class {where}: accuracy says little there")
    return notes
