"""What nodes keep back when they send less than they computed, and how much of it a sum lacks or has twice.

A node that sends a coded vector keeps back what the code lost, e_m, and adds it to its next sum. Write B for Σ e_m over
the nodes of a round. Then the sum of what they send is the sum of what they computed, plus B before the round, less B
after it. Any linear function of what was sent therefore differs from the exact one by Σ f_j B_j, with factors f_j that
are known; of B_j only a bound on its length is. Where the same B_j comes in twice with opposite signs it is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

TINY = 2.0**-1022
ROUNDING = 2.0**-50
"""More than the few roundings of a factor, a product and a bound are to any of them."""

MOST_SHARES = 64
"""More shares than these are not told apart: the least of them count in full from then on."""

LARGEST_NAME = 2**36
"""Names are below this: sums of those of 100,000 nodes are exact, and two are the same by chance once in 10¹⁰ times."""


class Share(NamedTuple):
    """A factor times what some nodes kept back at some time, B.

    Parameters
    ----------
    name : float
        Σ of the names of what each node kept back, whole numbers: who kept back what.
    factor : float
        What B is multiplied with.
    level : float
        Upper bound on |B|.
    """

    name: float
    factor: float
    level: float

    @property
    def length(self) -> float:
        """Upper bound on its length, but for rounding."""
        return abs(self.factor) * self.level


@dataclass(frozen=True)
class Kept:
    """Σ f_j B_j: what a vector has beyond, or lacks of, the one that would be there if nothing had been kept back.

    Operations return what they give, and a bound on what their own rounding has lost.

    Parameters
    ----------
    shares : tuple of Share
        Of those B that are told apart.
    forgotten : float
        Upper bound on the length of all others together: it never becomes less.

    Examples
    --------
    >>> first, second = Kept.between(0.0, 0.0, 7.0, 0.5), Kept.between(7.0, 0.5, 9.0, 0.25)
    >>> first.plus(second)[0].bound < 0.2500001 < 0.99 < first.plus(first)[0].bound
    True
    """

    shares: tuple[Share, ...] = ()
    forgotten: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.shares) or self.forgotten > 0

    @classmethod
    def between(cls, began: float, before: float, ended: float, after: float) -> Kept:
        """Return what a sum has that begins with B of one name and length, and keeps back B of another."""
        return cls((Share(began, 1.0, before), Share(ended, -1.0, after)))

    @property
    def ends(self) -> tuple[float, float, float, float] | None:
        """Names and lengths before and after, of what nodes send; None of any other."""
        if self.forgotten or tuple(share.factor for share in self.shares) != (1.0, -1.0):
            return None
        begin, end = self.shares
        return begin.name, begin.level, end.name, end.level

    @property
    def bound(self) -> float:
        """Upper bound on |Σ f_j B_j|."""
        return (sum(share.length for share in self.shares) + self.forgotten) * (1 + ROUNDING) + TINY if self else 0.0

    def times(self, number: float) -> tuple[Kept, float]:
        """Return it times a number, which may be rounded itself."""
        if not self:
            return self, 0.0
        shares = tuple(share._replace(factor=number * share.factor) for share in self.shares)
        return Kept(shares, abs(number) * self.forgotten * (1 + ROUNDING)), _lost(shares)

    def plus(self, other: Kept) -> tuple[Kept, float]:
        """Return the sum: shares of one name are one share."""
        if not (self and other):
            return (self or other), 0.0
        found: dict[float, Share] = {}
        for share in (*self.shares, *other.shares):
            if (there := found.get(share.name)) is None:
                found[share.name] = share
            else:
                least = min(share.level, there.level)
                found[share.name] = Share(share.name, there.factor + share.factor, least)
        shares = [share for share in found.values() if share.length > 0]
        lost, forgotten = _lost(shares), self.forgotten + other.forgotten
        if len(shares) > MOST_SHARES:
            shares.sort(key=lambda share: -share.length)  # stable: of equal ones the older stay
            forgotten += sum(share.length for share in shares[MOST_SHARES:])
        return Kept(tuple(shares[:MOST_SHARES]), forgotten * (1 + ROUNDING)), lost

    def beside(self, other: Kept) -> tuple[Kept, float]:
        """Return what the sum of two nodes' reports has: names and lengths add, before and after."""
        if not (self and other):
            return (self or other), 0.0
        here, there = self.ends, other.ends
        if here is None or there is None:
            return Kept((), self.bound + other.bound), 0.0
        return Kept.between(*(a + b for a, b in zip(here, there, strict=True))), 0.0


def _lost(shares: tuple[Share, ...] | list[Share]) -> float:
    return sum(ROUNDING * share.length + TINY * share.level for share in shares) + TINY


NOTHING = Kept()
"""What is kept back by nodes that send all that they computed."""
