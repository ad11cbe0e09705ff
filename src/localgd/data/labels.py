"""From the labels that nodes tell to classes: joined where they are spelled apart, refused where nobody can know."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from localgd.core import Report
from localgd.data.label_maps import merged
from localgd.data.spelling import Joined, Label, Speller, key, listed, places, plain_label
from localgd.data.survey import FEW, MANY, no_classes, tallies
from localgd.data.values import MISSING
from localgd.errors import MOST_NAMED, cut, shown

_CODINGS = (("-1", "1"), ("0", "1"), ("1", "2"))
"""How two classes are written as numbers, by their keys."""

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
    from_1 = sorted(node for (node,), _ in tallies(tally, "from 1"))
    for values, _ in nodes:
        if both := merged(values, mapping):
            raise ValueError(_of_other_nodes(both, mapping, from_1))
    # one spelling more of a class that is there may be that of a node left out
    if unknown := [one for one in met_by_none if str(plain_label(mapping[one])) not in meant]:
        raise ValueError(f"label_map={shown(unknown[0])} is no label of any node; there are {listed(labels)}")
    speller = Speller("label", ("label_map={…}", "--label-map "), mapping)
    joined = speller.joined([(value, count) for (_, value), count in met.items()], [values for values, _ in nodes])
    _check_number(joined.values, tally.n_rows, n_classes)
    held = [(set(places(values, joined.values, joined.spellings)), count) for values, count in nodes]
    if n_classes is None:
        _check_shared(joined.values, [own for own, _ in held], from_1, drawn=drawn)
    return joined, tuple(_notes(joined, held, tally))


def _of_other_nodes(both: tuple[Label, Label], mapping: Mapping[Any, Any], from_1: Sequence[str]) -> str:
    """Return the error of a map of all labels that is about those of some nodes only."""
    one, other = map(shown, both)
    pairs = ",".join(f"{cut(str(one))}={cut(str(to))}" for one, to in [*mapping.items()][:10])
    named = [shlex.quote(f"{node}:{pairs}") for node in from_1[:MOST_NAMED]] or [f"NODE:{pairs}"]
    flags = " ".join(f"--label-map {text}" for text in named)
    whole = shlex.quote(f"{cut(str(both[1]))}={cut(str(both[1]))},{pairs}")
    return (
        f"label: a node has {other} and {one}, and what is said makes both {other}, as it takes {one} for {other}; say "
        f"which nodes it is of ({flags}), or, if they are one class, what "
        f"{other} means, too (--label-map {whole})"
    )


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
            f"n_classes={len(classes)} (--n-classes {len(classes)}); numbers are for a regression "
            "(`localgd train --task regression`)"
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
    codings = {keys for own in nodes if (keys := tuple(key(classes[at]) for at in sorted(own))) in _CODINGS}
    mixed = len(codings) > 1 and max(map(len, nodes)) == 2
    if (unlike or several or mixed) and not drawn:
        sets = {frozenset(own) for own in nodes}
        largest = sorted((sorted(own) for own in sets if not any(own < other for other in sets)), key=_by_size)
        raise ValueError(_in_words(classes, [[classes[at] for at in own] for own in largest], from_1))


def _by_size(own: Sequence[int]) -> tuple[int, Sequence[int]]:
    return -len(own), own


def _in_words(classes: Sequence[Label], groups: Sequence[Sequence[Label]], from_1: Sequence[str]) -> str:
    """Return the error of groups of labels, each of some nodes, that may be the same classes, with what would say so.

    Where 1 means one class at some nodes and the other one elsewhere, that is to be said of the nodes.
    """
    coded = {keys: group for group in groups if (keys := tuple(map(key, group))) in _CODINGS}
    base = coded.get(("0", "1"), coded.get(("-1", "1")))
    flags, python, more = list[str](), list[str](), ""
    counted = base is not None and len(coded) > 1
    for group in groups if counted else groups[:-1]:
        match tuple(map(key, group)):
            case _ if group is base and counted:
                continue
            case ("1", "2") if base is not None:
                flags += [shlex.quote(f"{node}:1={base[0]},2={base[1]}") for node in from_1[:MOST_NAMED]]
                python += [f"{shown(node)}: {{1: {base[0]}, 2: {base[1]}}}" for node in from_1[:MOST_NAMED]]
                more = f", and so of {len(from_1) - MOST_NAMED} more nodes" if len(from_1) > MOST_NAMED else ""
            case ("-1", "1") if counted:
                flags, python = [*flags, "-1=0"], [*python, "-1: 0"]
            case _:
                flags.append(shlex.quote(",".join(f"{cut(str(value))}=…" for value in group[:10])))
                python.append(f"{shown(group[0])}: …")
    said = " ".join(f"--label-map {flag}" for flag in flags)
    others = [*map(listed, groups[1:6]), *(["…"] if len(groups) > 6 else [])]
    alone = counted and len(coded) == len(groups)
    ask = "the same classes? Say so" if alone else "the same classes in other words? Say what each means"
    return (
        f"label: some nodes have {listed(groups[0])} and others {' and others '.join(others)}, but none all of these: "
        f"{ask} with label_map={{{', '.join(python)}}} ({said}){more}, or that they are {len(classes)} classes: "
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
