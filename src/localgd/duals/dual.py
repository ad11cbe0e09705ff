"""A vector of rows and what is proved of it, as one value."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Never, Self

import numpy as np
from numpy.typing import NDArray

from localgd.duals.kept import NOTHING, Kept
from localgd.rounding import (
    CANCELS,
    SMALLEST,
    TINY,
    UNIT_ROUNDOFF,
    FloatArray,
    acos_above,
    below,
    frozen,
    length_above,
    margin_above,
    norm,
    read_only,
    real_array,
)


@dataclass(frozen=True, eq=False)
class Dual:
    """A vector s and what is proved of it: s = Σ q_i z_i up to an error of norm `error`, q >= 0 and Σ q_i >= `mass`.

    Where nodes send coded vectors and keep back what the code lost, the error has two terms: what adds up, and what is
    `kept` back, which does not.

    Then γ* <= |s|/Σ q_i for the pooled margin γ*, and cos∠(s, u*) >= γ* Σ q_i/|s|: a dual speaks of rows, not of a
    model. Vector, mass and error are one value. ``Dual(vector)`` proves nothing: its mass is NaN. What proves something
    comes from `Shard.combination`, and from sums and non-negative multiples of such duals, which count their own
    rounding. A vector that was changed by hand (cut to its largest entries, rounded to a few bits) has no mass.

    Parameters
    ----------
    vector : (d,) float64 array
        s.

    Examples
    --------
    >>> from localgd.rows import Shard
    >>> s = Shard("a", [[3.0, 0.0], [0.0, 4.0]]).combination(np.array([1.0, 1.0]))
    >>> s.vector.tolist(), round(s.mass, 12), round((2 * s + s).margin_upper, 12)
    ([3.0, 4.0], 2.0, 2.5)
    >>> Dual(s.vector).known, (-1 * s).known
    (False, False)
    """

    __array_ufunc__: ClassVar[None] = None  # NumPy's numbers leave multiplication to `__rmul__`

    vector: FloatArray
    _mass: float = field(default=math.nan, init=False, repr=False)
    _error: float = field(default=math.nan, init=False, repr=False)
    n_folded: int = field(default=0, init=False, repr=False)
    of: Any = field(default=None, init=False, repr=False)
    kept: Kept = field(default=NOTHING, init=False, repr=False)
    coded: NDArray[np.uint8] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Make the vector read-only."""
        object.__setattr__(self, "vector", real_array("vector", self.vector))
        if self.vector.ndim != 1:
            raise ValueError(f"vector must have the shape (d,), got {self.vector.shape}")

    @classmethod
    def proved(
        cls,
        vector: FloatArray,
        mass: float,
        error: float,
        n_folded: int = 0,
        of: Any = None,
        *,
        kept: Kept = NOTHING,
        coded: NDArray[np.uint8] | None = None,
    ) -> Self:
        """Return a dual whose mass and error somebody vouches for: code that reads what another process has proved.

        Parameters
        ----------
        vector : (d,) float64 array
            s; made read-only in place.
        mass, error : float
            A lower bound on Σ q_i and an upper bound on the error.
        n_folded : int, at least 0
            Duals of single nodes that were added up without a look at the rounding of their weights and of the sums:
            `mass` and `error` then count it.
        of : object, optional
            What tells the rows that it is a combination of from any others, on their node; on a server, the mark of
            the run whose nodes reported it, if the merge is another package's.
        kept : Kept, optional
            What s has beyond Σ q_i z_i and the error, as nodes have kept back some of it.
        coded : array of uint8, optional
            What travels in place of the vector.
        """
        dual, numbers = cls.__new__(cls), {"_mass": float(mass), "_error": float(error)}
        dual.__dict__.update(vector=read_only(vector), n_folded=n_folded, of=of, kept=kept, coded=coded, **numbers)
        return dual

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # nobody can change it

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, vector=frozen(state["vector"]))

    @classmethod
    def zeros(cls, n_features: int) -> Self:
        """Return the empty combination."""
        return cls.proved(np.zeros(n_features), 0.0, 0.0)

    @cached_property
    def mass(self) -> float:
        """Lower bound on Σ q_i; NaN if nothing is proved."""
        return below(self._mass, self.n_folded) if self.n_folded else self._mass

    @cached_property
    def error(self) -> float:
        """Upper bound on |s − Σ q_i z_i|; NaN if nothing is proved."""
        return self.own_error + self.kept.bound

    @cached_property
    def own_error(self) -> float:
        """What of the error is there whatever nodes keep back: upper bound on |s − Σ q_i z_i − Σ f_j B_j|."""
        # n + 2 roundings (weights, the fold over n nodes, what is done with it) of what each node's error counts 8 u of
        return self._error * (2 + self.n_folded) if self.n_folded else self._error

    @property
    def parts(self) -> tuple[float, float]:
        """Mass and own error as they add over nodes, without the rounding of the fold: what travels beside s."""
        return self._mass, self._error

    @property
    def n_floats(self) -> int:
        """How many numbers travel, each 64 bits: vector or code, mass and error, and the ends of what is kept back."""
        size = self.vector.size if self.coded is None else -(-self.coded.size // 8)
        return size + (0 if math.isnan(self._mass) else 2 + 2 * len(self.kept.shares))

    @cached_property
    def length(self) -> float:
        """|s|, as computed."""
        return norm(self.vector)

    @cached_property
    def length_above(self) -> float:
        """Upper bound on |s|."""
        out: float = length_above(self.length, self.vector.size)
        return out

    @cached_property
    def known(self) -> bool:
        """Whether it says anything: NaN, infinite or vanishing masses do not."""
        return 0 < self.mass < math.inf and self.error < math.inf

    @property
    def margin_upper(self) -> float:
        """Upper bound |s|/Σ q_i on γ*; inf where nothing is known."""
        if not self.known:
            return math.inf
        out: float = margin_above(self.length_above, self.mass, self.error)
        return out

    @property
    def cancels(self) -> bool:
        """Whether s is 0 to within rounding: Gordan's proof, as far as float64 goes, that nothing separates them."""
        own = self.own_error
        above_underflow = own > self.vector.size * TINY / UNIT_ROUNDOFF  # else the error is all absolute part
        return self.known and above_underflow and self.length + self.kept.bound <= CANCELS * own

    def angle(self, gamma: float) -> float:
        """Upper bound in radians on ∠(s, u*) if γ* >= gamma."""
        if not self.known:
            return math.inf
        along = gamma * self.mass * (1 - 8 * UNIT_ROUNDOFF) - self.error - TINY
        return acos_above(along, self.length_above)

    def marked(self, mark: str) -> Dual:
        """Return it as what nodes have reported in a run of this mark, which its sums and multiples then bear, too."""
        return Dual.proved(self.vector, self.mass, self.own_error, of=mark, kept=self.kept)

    def weighted(self, weight: float) -> Dual:
        """Return it times a node's weight, for the fold over the nodes, which counts the rounding of both."""
        known = weight if weight >= 0 else math.nan
        error = known * self.error + self.vector.size * SMALLEST  # products that are subnormal
        return Dual.proved(weight * self.vector, known * self.mass, error, 1, self.of)

    def folded(self, other: Dual) -> Dual:
        """Return the sum of two nodes' duals; the fold's rounding is counted by how many there are."""
        if self.vector.shape != other.vector.shape:
            raise ValueError(f"duals of shapes {self.vector.shape} and {other.vector.shape} do not add")
        vector, (kept, lost) = self.vector + other.vector, self.kept.beside(other.kept)
        n_folded = max(self.n_folded, 1) + max(other.n_folded, 1)
        return Dual.proved(vector, self._mass + other._mass, self._error + other._error + lost, n_folded, kept=kept)

    def over(self, weight: float, factor: float = 1.0) -> Dual:
        """Return it times factor/weight, known numbers that multiply coefficients and vector alike."""
        # However they came about and were rounded does not matter; a quotient that underflows is less wrong than what
        # the mass was rounded down by; the two roundings of the vector are among those of the fold.
        known = factor if factor >= 0 and weight > 0 else math.nan
        vector, mass = factor * (self.vector / weight), known * (self.mass / weight)
        kept, lost = self.kept.times(known / weight if weight > 0 else math.nan)
        error = known * (self.own_error / weight) + lost
        error += (1 + known) * vector.size * SMALLEST  # quotients and products that are subnormal
        if not self.n_folded:  # what was not folded has counted nothing in advance
            mass, error = below(mass, 2), error + 4 * UNIT_ROUNDOFF * norm(vector) + vector.size * TINY
        return Dual.proved(vector, mass, error, of=None if self.n_folded else self.of, kept=kept)

    @cached_property
    def empty(self) -> bool:
        """Whether it is the combination of no row."""
        return self._mass == 0 and not self.vector.any()

    @property
    def _blank(self) -> bool:
        """Whether it is empty to the bit: no rounding to count, nothing kept back, so that no share changes it."""
        return self.empty and self._error == 0 and not self.kept

    def _with(self, other: Dual) -> tuple[bool, Any]:
        """Return whether both are of the same rows, a node's own or what nodes have reported, and which these are."""
        if self.empty or other.empty:
            return True, other.of if self.empty else self.of
        return self.of is other.of or (isinstance(self.of, str) and self.of == other.of), self.of

    def __add__(self, other: Dual) -> Dual:
        if self._blank and other._blank:
            return self if other.of is None else other
        vector, (kept, lost), (same, of) = self.vector + other.vector, self.kept.plus(other.kept), self._with(other)
        if not same:
            return Dual(read_only(vector))
        error = self.own_error + other.own_error + 4 * UNIT_ROUNDOFF * (self.length + norm(vector)) + lost
        return Dual.proved(vector, below(self.mass + other.mass, 2), error, of=of, kept=kept)

    def __sub__(self, other: Any) -> Never:
        raise TypeError(
            "a difference of duals is no combination of rows with coefficients >= 0; take that of their vectors, "
            "a.vector - b.vector, which proves nothing, or -1.0 * b"
        )

    def __rmul__(self, share: float) -> Dual:
        if np.ndim(share):
            raise TypeError("a dual times an array is no multiple of it; take its vector, which proves nothing then")
        if self._blank and 0 <= share < math.inf:
            return self  # and stays known as such, so that what it is added to loses nothing
        vector = share * self.vector
        if not share >= 0:
            return Dual(read_only(vector))
        kept, lost = self.kept.times(share)
        error = share * self.own_error + 4 * UNIT_ROUNDOFF * norm(vector) + vector.size * TINY + lost
        return Dual.proved(vector, below(share * self.mass, 2), error, of=self.of, kept=kept)

    def mixed(self, share: float, other: Dual) -> Dual:
        """Return ``share·self + other``, in one go; nothing is proved with a share below 0, or of unlike rows."""
        if self._blank and other._blank and 0 <= share < math.inf:
            return self + other
        vector, (same, of) = share * self.vector + other.vector, self._with(other)
        if not (share >= 0 and same):
            return Dual(read_only(vector))
        error = 4 * UNIT_ROUNDOFF * (share * self.length + norm(vector)) + vector.size * TINY
        scaled, less = self.kept.times(share)
        kept, lost = scaled.plus(other.kept)
        error += (share * self.own_error + other.own_error) * (1 + 1e-15) + less + lost
        return Dual.proved(vector, below(share * self.mass + other.mass, 3), error, of=of, kept=kept)
