"""Settings that differ by node: a mapping from the names of nodes, made fit to be compared, sent and written down."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar, cast

import numpy as np

Value = TypeVar("Value")
Other = TypeVar("Other")


@dataclass(frozen=True)
class ByNode(Generic[Value]):
    """A number for each node, by its name.

    Parameters
    ----------
    values : tuple of pairs of a name and a number
        In the order of the names, each of them once.

    Raises
    ------
    ValueError
        If they are not.

    Examples
    --------
    >>> steps = by_node({"b": 200, "a": 10})
    >>> steps, steps.at("b")
    (ByNode(values=(('a', 10), ('b', 200))), 200)
    """

    values: tuple[tuple[str, int | float], ...]

    def __post_init__(self) -> None:
        """Check the names once."""
        names = [name for name, _ in self.values]
        if not names or not all(isinstance(name, str) for name in names):
            raise ValueError(f"by node there must be a number for each node's name, a text, got the names {names!r}")
        if any(one >= other for one, other in itertools.pairwise(names)):
            raise ValueError(f"by node there must be each name once, in their order, got {names!r}")

    @cached_property
    def _numbers(self) -> dict[str, Any]:
        return dict(self.values)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the nodes, sorted."""
        return tuple(self._numbers)

    def at(self, node_id: str) -> Value:
        """Return the number of a node.

        Raises
        ------
        ValueError
            If it has none.
        """
        try:
            return cast("Value", self._numbers[node_id])
        except KeyError:
            raise ValueError(f"a setting by node names {', '.join(self.names)}, but not {node_id!r}; add it") from None


def by_node(setting: Any, called: str = "a setting by node") -> Any:
    """Return a mapping from names to numbers as `ByNode`, and anything else as it is.

    Examples
    --------
    >>> by_node({}, "local_steps")
    Traceback (most recent call last):
    ValueError: local_steps must have a number for each node's name, a text, got the names []
    """
    if not isinstance(setting, Mapping):
        return setting
    if not setting or not all(isinstance(name, str) for name in setting):
        raise ValueError(f"{called} must have a number for each node's name, a text, got the names {list(setting)!r}")
    plain = [(name, value.item() if isinstance(value, np.generic) else value) for name, value in setting.items()]
    return ByNode(tuple(sorted(plain, key=lambda pair: pair[0])))


def at(setting: Value | ByNode[Value], node_id: str) -> Value:
    """Return what holds for a node.

    Examples
    --------
    >>> at(5, "a"), at(by_node({"a": 7}), "a")
    (5, 7)
    """
    return setting.at(node_id) if isinstance(setting, ByNode) else setting


def each(setting: Value | ByNode[Value], function: Callable[[Value], Other]) -> Other | ByNode[Other]:
    """Return a function of a setting: for each node, if it differs by node.

    Examples
    --------
    >>> each(4, lambda steps: 1 / steps), each(by_node({"a": 2}), lambda steps: 1 / steps)
    (0.25, ByNode(values=(('a', 0.5),)))
    """
    if not isinstance(setting, ByNode):
        return function(setting)
    return ByNode(tuple((name, cast("Any", function(setting.at(name)))) for name in setting.names))


def named(name: str, setting: Any) -> Iterator[tuple[str, Any]]:
    """Yield what an error calls each value of a setting, and the value.

    Examples
    --------
    >>> list(named("lr", 0.5)), list(named("lr", by_node({"a": 0.1})))
    ([('lr', 0.5)], [("lr of node 'a'", 0.1)])
    """
    if isinstance(setting, ByNode):
        yield from ((f"{name} of node {node!r}", value) for node, value in setting.values)
    else:
        yield name, setting
