"""What labels mean at all nodes, and at one: two sites that count the same classes from 0 and from 1, say."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from localgd.data.spelling import Joined, Label, LabelMaps, check_map, key, places, plain_label, said_map
from localgd.errors import nearest, shown


def split_map(label_map: Mapping[Any, Any]) -> tuple[dict[Any, Any], LabelMaps]:
    """Return what labels mean everywhere, and what at single nodes, of a mapping of both.

    Raises
    ------
    ValueError
        If it maps to what is no label.

    Examples
    --------
    >>> split_map({"no": 0, "north": {1: 0, 2: 1}})
    ({'no': 0}, (('north', (('1', 0), ('2', 1))),))
    """
    everywhere = {one: to for one, to in label_map.items() if not isinstance(to, Mapping)}
    check_map("label_map", everywhere)
    own = {node: mapping for node, mapping in label_map.items() if isinstance(mapping, Mapping)}
    maps = []
    for node, mapping in sorted(own.items()):
        check_map(f"label_map[{node!r}]", mapping)
        maps.append((str(node), tuple((str(plain_label(one)), plain_label(to)) for one, to in mapping.items())))
    return everywhere, tuple(maps)


def known_maps(maps: LabelMaps, labels: Joined) -> LabelMaps:
    """Return maps of nodes, to the classes themselves; without what a node left out means by a class that is not there.

    Examples
    --------
    >>> known_maps((("north", (("j", "Yes"), ("?", "unsure"))),), Joined(("no", "yes"), ()))
    (('north', (('j', 'yes'),)),)
    """
    found = []
    for node, pairs in maps:
        at = places([to for _, to in pairs], labels.values, labels.spellings)
        found.append((node, tuple((one, labels.values[k]) for (one, _), k in zip(pairs, at, strict=True) if k >= 0)))
    return tuple(found)


def said_of(maps: LabelMaps) -> list[str]:
    """Return in a line for each node what its labels are taken for.

    Examples
    --------
    >>> said_of((("north", (("1", 0), ("2", 1))),))
    ["labels of node 'north': '1' is taken for 0, '2' for 1"]
    """
    return [f"labels of node {shown(node)}: {Joined((), pairs).said}" for node, pairs in maps if pairs]


def said_label_map(texts: Iterable[str], flag: str, nodes: Collection[str] | None) -> dict[str, Any]:
    """Return what texts like ``no=0,yes=1`` say of all nodes, and such as ``north:1=0,2=1`` of one of the `nodes`.

    Of a label that has a colon itself, a colon before it says that all nodes are meant.

    Raises
    ------
    ValueError
        If it says something else, or names what is no node (None: any name may be one); names the flag.

    Examples
    --------
    >>> said_label_map(["no=0", "north:1=0,2=1", ":grade: 2=1"], "label-map", ["north"])
    {'no': 0, 'north': {'1': 0, '2': 1}, 'grade: 2': 1}
    """
    found: dict[str, Any] = {}
    for text in texts:
        first, equals, rest = text.partition("=")
        node, colon, one = first.partition(":") if first.startswith(":") else first.rpartition(":")
        meant: dict[str, Label] = said_map(one + equals + rest, flag)
        if not colon or not node.strip():
            found |= meant
            continue
        if nodes is not None and node not in nodes:
            whole = f"of a label that has a colon itself, say :{first}=…"
            raise ValueError(f"{flag} names {shown(node)}, which is no node{nearest(node, nodes)}; {whole}")
        found.setdefault(node, {}).update(meant)
    return found


def merged(met: Iterable[Any], mapping: Mapping[Any, Any]) -> tuple[Label, Label] | None:
    """Return two labels of one node that a map makes one class although it names both as such; None if there are none.

    The first is one that the map takes for another, and is itself what it takes a third one for; the second it does not
    name. A map of labels from 1 on makes one class of 0 and 1: it is for other rows. Labels that it names are as it
    says.

    Examples
    --------
    >>> merged([0, 1], {1: 0, 2: 1}), merged([1, 2], {1: 0, 2: 1}), merged([0, 1], {0: 0, 1: 0, 2: 1})
    ((1, 0), None, None)
    >>> merged(["ill", "NA", "well"], {"NA": "ill"})
    """
    to = {key(plain_label(one)): key(plain_label(meant)) for one, meant in mapping.items()}
    labels = {key(plain_label(one)): plain_label(one) for one in met}
    for own, label in labels.items():
        other = to.get(own, own)
        if other != own and own in to.values() and other in labels and other not in to:
            return label, labels[other]
    return None
