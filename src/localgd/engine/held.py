"""What the nodes of a process hold, by name: those of one shape in stacks, the others one by one."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localgd.engine.policy import check_apart
from localgd.errors import check_kind
from localgd.layouts import Dense
from localgd.many.stack import MOST_KEPT, Stack
from localgd.rows import Shard

MOST_ROWS = 2**17
"""Entries of a node's rows, 1 MB, up to which it is worth a place in a stack: larger ones take long enough alone."""

BLOCK = 2**23
"""Entries of a stack, 64 MB: as much as is there twice while one is made."""

PART = 2**19
"""Entries of a part of a stack that is worked on at once, 4 MB: more would leave the cache between two steps."""


def stackable(item: Any) -> bool:
    """Return whether a node's rows may lie in a stack: dense ones, few, and without limits on what they add up to.

    In memory they lie row by row, as those of a stack do: in another order BLAS would add in another order, too.
    """
    plain = type(item) is Shard and type(item.data) is Dense and item.limits is None
    return plain and item.data.stored <= MOST_ROWS and item.data.x.flags.c_contiguous


class Held(Mapping[str, Any]):
    """What nodes hold, by name, in the order of the names.

    A shard that lies in a stack is made when somebody asks for it, as a view of the stack.
    """

    def __init__(self, items: Iterable[Any]) -> None:
        self.stacks: list[Stack] = []
        alone, waiting = list[Any](), dict[Any, list[Shard]]()
        check_kind("shards", items, Iterable, "a list of what each node holds")
        for item in items:
            check_kind("shards", item, "node_id", "a list of Shard, Samples or Table, one a node")
            if not stackable(item):
                alone.append(item)
                continue
            shape = (*item.data.shape, item.weights is None)
            same = waiting.setdefault(shape, [])
            same.append(item)
            if len(same) * item.data.stored >= BLOCK:
                self.stacks.append(Stack.of(waiting.pop(shape)))
        alone += [same[0] for same in waiting.values() if len(same) == 1]
        self.stacks += [Stack.of(same) for same in waiting.values() if len(same) > 1]
        named = [name for stack in self.stacks for name in stack.node_ids]
        check_apart([*named, *(str(item.node_id) for item in alone)])
        order = sorted(range(len(named)), key=named.__getitem__)
        self._stacked, self._places = [named[place] for place in order], np.asarray(order, dtype=np.int32)
        self._starts = np.cumsum([0, *(len(stack.node_ids) for stack in self.stacks)])
        self._made = {item.node_id: item for item in alone}
        self._others = sorted(self._made)
        self._names = tuple(sorted([*named, *self._made]))
        self._keep_gram = sum(len(stack.node_ids) * stack.n_rows**2 for stack in self.stacks) <= MOST_KEPT

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            place = self._place(name)
            if place < 0:
                raise KeyError(name)
            number = int(np.searchsorted(self._starts, place, "right")) - 1
            self._made[name] = self.stacks[number].shard(place - int(self._starts[number]))
        return self._made[name]

    def _place(self, name: str) -> int:
        """Return the place of a node among all that lie in stacks; -1 if it does not."""
        at = bisect_left(self._stacked, name)
        return int(self._places[at]) if at < len(self._stacked) and self._stacked[at] == name else -1

    def parts(self, names: Sequence[str]) -> tuple[list[Stack], list[str]]:
        """Return these nodes as stacks of a size that a cache holds, and the names of those that lie in none."""
        if len(names) == len(self):
            return self._whole if self._keep_gram else list(self._cut(np.sort(self._places))), self._others
        places = [self._place(name) for name in names]
        others = [name for name, place in zip(names, places, strict=True) if place < 0]
        return list(self._cut(np.sort([place for place in places if place >= 0]))), others

    @cached_property
    def _whole(self) -> list[Stack]:
        """All stacks, in parts that remember their Gram matrices."""
        return list(self._cut(np.sort(self._places)))

    def _cut(self, places: NDArray[np.int64]) -> Iterator[Stack]:
        """Yield the nodes at these places, ascending, as parts of their stacks."""
        for number, stack in enumerate(self.stacks):
            begin, end = np.searchsorted(places, self._starts[number : number + 2])
            own, all_of_it = places[begin:end] - self._starts[number], end - begin == len(stack.node_ids)
            size = max(1, PART // (stack.n_rows**2 if all_of_it and self._keep_gram else stack.data.stored))
            for first in range(0, own.size, size):
                some = slice(first, first + size)
                yield stack.part(some if all_of_it else own[some], keep_gram=self._keep_gram)
