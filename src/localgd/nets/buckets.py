"""A sum over the ranks that is on its way while the rest of it is still written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from localgd.nets.ranks import Ranks

BUCKET = 2**20
"""Numbers that are summed at once: many enough that none waits for the ranks, few enough that the first leaves soon."""


class Buckets:
    """The sum over ranks of one vector, in its place; what is shorter than two buckets is summed at once.

    Parameters
    ----------
    ranks : Ranks
        That add up, all of them in the same order.
    vector : (n,) tensor
        Written from its beginning to its end.

    Attributes
    ----------
    sent : int
        Numbers that are on their way, and so no longer to be written to.
    """

    def __init__(self, ranks: Ranks, vector: Any) -> None:
        self._ranks, self._vector, self.sent = ranks, vector, 0
        self._waits: list[Callable[[], object]] = []

    def written(self, end: int) -> None:
        """Send whole buckets of what is written up to there, and never the last of the vector."""
        while min(end, len(self._vector) - BUCKET) >= self.sent + BUCKET:
            self._send(self.sent + BUCKET)

    def wait(self) -> None:
        """Send what is left, and wait until the sum is in the place of every number."""
        self._send(len(self._vector))
        for wait in self._waits:
            wait()

    def _send(self, end: int) -> None:
        self._waits.append(self._ranks.begin(self._vector[self.sent : end]))
        self.sent = end
