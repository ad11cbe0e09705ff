"""The seven nouns: Shard, Loss, Message, Report, Task, Merge, Engine. Types and the monoid; no algorithm.

The one verb is :meth:`Engine.round`: every node runs a task on a message, the reports are added up.
Training, certificates, evaluation, scaling and label discovery are all rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeAlias, TypeVar

import numpy as np
from scipy.sparse import csr_array, issparse

from localgd.rounding import TINY, UNIT_ROUNDOFF, FloatArray

Rows: TypeAlias = "FloatArray | csr_array[np.float64]"


def frozen(array: Any) -> FloatArray:
    """Return `array` as read-only float64; a copy if it, or what it is a view of, can be written to."""
    out = np.asarray(array, dtype=np.float64)
    owner = out
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    return sealed(out.copy()) if out.flags.writeable or owner.flags.writeable else out


def sealed(array: Any) -> FloatArray:
    """Make an array of our own read-only float64 in place, without a copy."""
    out = np.asarray(array, dtype=np.float64)
    out.flags.writeable = False
    return out


def _sealed_csr(given: Any) -> csr_array[np.float64]:
    rows = csr_array(given, dtype=np.float64, copy=True)
    rows.sum_duplicates()
    for part in (rows.data, rows.indices, rows.indptr):
        part.flags.writeable = False
    return rows


@dataclass(frozen=True, eq=False)
class Shard:
    """One node's signed rows ``z = y·x``; they never leave the node.

    Parameters
    ----------
    node_id : str
        Name of the node; reports are added up in the order of these names.
    rows : (n, d) float64 array or CSR array
        Signed rows, finite, at least one. A bias is one more column holding y.
    versus : int, at least 1
        How many rows next to each other speak for one sample: 1 for two classes, C − 1 for C classes, one against each
        class that the sample is not of (`localgd.data.classes.expanded`). The sample is right if all of them are.

    Raises
    ------
    ValueError
        If there is no row, an entry is not finite, or the rows do not make whole samples.

    Examples
    --------
    >>> shard = Shard("a", [[3.0, 4.0], [0.0, 1.0]])
    >>> shard.n_rows, shard.n_features, round(shard.radius, 12)
    (2, 2, 5.0)
    """

    node_id: str
    rows: Rows
    versus: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        """Check the rows once and freeze them."""
        given: Any = self.rows
        rows: Rows = _sealed_csr(given) if issparse(given) else frozen(given)
        if rows.ndim != 2 or rows.shape[0] == 0:
            raise ValueError(f"node {self.node_id!r} has no rows (shape {rows.shape}); give it at least one or drop it")
        values = rows.data if isinstance(rows, csr_array) else rows
        if not np.isfinite(values).all():
            raise ValueError(f"node {self.node_id!r} has NaN or infinite entries; impute or remove those rows")
        if self.versus < 1 or rows.shape[0] % self.versus:
            raise ValueError(
                f"node {self.node_id!r}: versus={self.versus!r} does not divide its {rows.shape[0]} rows; give every "
                "sample one row for each class that it is not of"
            )
        object.__setattr__(self, "rows", rows)

    @property
    def n_rows(self) -> int:
        """Number of rows n."""
        return int(self.rows.shape[0])

    @property
    def n_samples(self) -> int:
        """Number of samples: of rows, for two classes."""
        return self.n_rows // self.versus

    @property
    def n_features(self) -> int:
        """Number of columns d, the bias column included."""
        return int(self.rows.shape[1])

    @cached_property
    def row_length(self) -> int:
        """Most entries that one inner product with a row adds up (d, or the fullest row's non-zeros)."""
        if isinstance(self.rows, csr_array):
            return int(np.diff(self.rows.indptr).max(initial=0))
        return self.n_features

    @cached_property
    def peak(self) -> float:
        """Largest entry in absolute value."""
        rows: Any = self.rows
        return float(np.abs(rows.data if isinstance(rows, csr_array) else rows).max(initial=0.0))

    @cached_property
    def norms(self) -> FloatArray:
        """Upper bounds on the row norms |z_i|, shape (n,), whatever their sizes: each row is scaled by its own."""
        rows: Any = self.rows
        if isinstance(rows, csr_array):
            of_row = np.repeat(np.arange(self.n_rows), np.diff(rows.indptr))
            exponents = np.frexp(abs(rows).max(axis=1).toarray().ravel())[1]
            values = np.square(np.ldexp(rows.data, -exponents[of_row]))
            squares = np.bincount(of_row, weights=values, minlength=self.n_rows)
        else:
            exponents = np.frexp(np.abs(rows).max(axis=1, initial=0.0))[1]
            scaled = np.ldexp(rows, -exponents[:, None])
            squares = np.einsum("ij,ij->i", scaled, scaled)
        above = np.sqrt(squares) * (1 + (2 * self.row_length + 16) * UNIT_ROUNDOFF)
        with np.errstate(over="ignore"):  # a norm beyond float64 is infinite, and says so
            return sealed(np.ldexp(above, exponents) + TINY)

    @property
    def radius(self) -> float:
        """Upper bound on the largest row norm max |z_i|."""
        return float(self.norms.max())

    @cached_property
    def gram(self) -> FloatArray:
        """Inner products of the rows, (n, n)."""
        product: Any = self.rows @ self.rows.T
        return sealed(product.toarray() if isinstance(self.rows, csr_array) else product)

    def margins(self, w: FloatArray) -> FloatArray:
        """Return z_i·w for every row, shape (n,)."""
        return np.asarray(self.rows @ w)

    def n_right(self, margins: FloatArray) -> int:
        """Return how many samples have no row of margin <= 0.

        Examples
        --------
        >>> Shard("a", np.eye(4), versus=2).n_right(np.array([1.0, 2.0, 3.0, -1.0]))
        1
        """
        right = margins > 0
        return int(np.count_nonzero(right if self.versus == 1 else right.reshape(-1, self.versus).all(axis=1)))

    def combine(self, coefficients: FloatArray) -> FloatArray:
        """Return Σ c_i z_i, shape (d,)."""
        return np.asarray(self.rows.T @ coefficients)

    def second_moment(self, coefficients: FloatArray) -> FloatArray:
        """Return Σ c_i z_i z_iᵀ, shape (d, d)."""
        rows: Any = self.rows
        if isinstance(rows, csr_array):
            return np.asarray((rows.T @ rows.multiply(coefficients[:, None])).toarray())
        return np.asarray(rows.T @ (rows * coefficients[:, None]))

    def margin_error(self, w_norm: float) -> float:
        """Bound on the rounding error of one computed margin z_i·w, from n·u·|z||w| for n-term inner products."""
        return 2 * (self.row_length + 2) * UNIT_ROUNDOFF * self.radius * w_norm + self.n_features * TINY

    def combine_error(self, coefficients: FloatArray) -> float:
        """Bound on the rounding error of a computed Σ a_i z_i, a >= 0, from n·u·Σ a_i |z_i| for n-term sums."""
        length = float((coefficients * self.norms).sum())
        return 2 * (self.n_rows + 4) * UNIT_ROUNDOFF * length + self.n_features * TINY


class Loss(Protocol):
    """A convex decreasing function ℓ of the margins m = z·w of a sample's rows.

    `versus` margins next to each other make one value; the mean over a node's rows is over so many times fewer values.
    """

    @property
    def name(self) -> str:
        """What users call it."""

    @property
    def loss_id(self) -> int:
        """Number it goes by in compiled kernels."""

    @property
    def versus(self) -> int:
        """How many margins one value is made of; 1 if ℓ is elementwise."""

    def value(self, margin: FloatArray) -> FloatArray:
        """Return ℓ(m) >= 0, one for every `versus` margins."""

    def slope(self, margin: FloatArray) -> FloatArray:
        """Return −∂ℓ/∂m >= 0, the coefficient of each row in a gradient step."""

    @property
    def curvature(self) -> float:
        """Bound on ℓ'' used for the step size; a multiple of I − 11ᵀ/(1 + versus) where versus > 1."""


@dataclass(frozen=True, eq=False)
class Message:
    """What the server sends to every node at the start of a round.

    Parameters
    ----------
    round : int
        Round number from 0. Round 0 of a task starts its node states afresh.
    w : (d,) float64 array
        The shared model; empty for rounds that need none.
    extra : mapping from name to array
        Anything else a task asks for.
    """

    round: int = 0
    w: FloatArray = field(default_factory=lambda: np.zeros(0))
    extra: Mapping[str, FloatArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the arrays read-only: a node copies what it wants to change."""
        object.__setattr__(self, "w", frozen(self.w))
        object.__setattr__(self, "extra", {name: frozen(value) for name, value in self.extra.items()})

    @property
    def n_floats(self) -> int:
        """How many numbers one node receives."""
        return int(self.w.size + sum(value.size for value in self.extra.values()))


@dataclass(frozen=True, eq=False)
class Report:
    """What a node sends back: sums, minima and counts, never a row.

    A commutative monoid under ``+`` with identity ``Report()``: `n_nodes`, `n_rows`, `sums` and `counts` add
    name by name (a missing name counts as zero), `lows` take the elementwise minimum (missing: +∞). Addition is
    exactly commutative; it is associative up to float rounding of the sums, which is why engines that promise
    identical bits add in the order of the node names.

    Parameters
    ----------
    n_nodes, n_rows : int
        How many nodes, and rows of users (the samples of shards), speak through this report.
    sums : mapping from name to float64 array (0-d for a number)
        Quantities that add.
    lows : mapping from name to float64 array
        Quantities of which the smallest counts.
    counts : mapping from name to int
        Tallies; the union of names is the union of what the nodes hold.

    Examples
    --------
    >>> a = Report(1, 10, {"mass": 2.0}, {"margin": 0.3}, {"red": 4})
    >>> b = Report(1, 20, {"mass": 3.0}, {"margin": 0.1}, {"blue": 1})
    >>> total = a + b
    >>> total.n_rows, float(total.sums["mass"]), float(total.lows["margin"]), dict(total.counts)
    (30, 5.0, 0.1, {'red': 4, 'blue': 1})
    """

    n_nodes: int = 0
    n_rows: int = 0
    sums: Mapping[str, Any] = field(default_factory=dict)
    lows: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make every array read-only float64."""
        object.__setattr__(self, "sums", {name: frozen(value) for name, value in self.sums.items()})
        object.__setattr__(self, "lows", {name: frozen(value) for name, value in self.lows.items()})

    def __add__(self, other: Report) -> Report:
        """Return the report of both; a quantity with two shapes is a ValueError."""
        return Report(
            self.n_nodes + other.n_nodes,
            self.n_rows + other.n_rows,
            _joined(self.sums, other.sums, _elementwise(np.add)),
            _joined(self.lows, other.lows, _elementwise(np.minimum)),
            _joined(self.counts, other.counts, int.__add__),
        )

    @property
    def n_floats(self) -> int:
        """How many numbers this report carries, its two tallies of nodes and rows included."""
        arrays = [*self.sums.values(), *self.lows.values()]
        return 2 + int(sum(value.size for value in arrays)) + len(self.counts)


def _elementwise(add: Callable[[Any, Any], Any]) -> Callable[[FloatArray, FloatArray], FloatArray]:
    def added(a: FloatArray, b: FloatArray) -> FloatArray:
        if a.shape != b.shape:  # NumPy would stretch one of them
            raise ValueError(f"reports with quantities of shapes {a.shape} and {b.shape} do not add")
        return sealed(add(a, b))

    return added


Value = TypeVar("Value")


def _joined(a: Mapping[str, Value], b: Mapping[str, Value], add: Callable[[Any, Any], Any]) -> dict[str, Value]:
    out = dict(a)
    for name, value in b.items():
        out[name] = add(out[name], value) if name in out else value
    return out


class Task(Protocol):
    """What a node does in a round. A frozen dataclass: its fields are its configuration."""

    def init(self, shard: Any) -> Any:
        """Return the state that stays on the node between rounds (None if there is none), of the type it says."""

    def run(self, message: Message, shard: Any, state: Any) -> tuple[Report, Any]:
        """Return the report and the next state; `state` is never written to, so that a round can be run again."""


class Merge(Protocol):
    """What the server does with the sum of the reports. Only `step` makes a new shared model."""

    def init(self, w0: FloatArray) -> Any:
        """Return the server's state before the first round."""

    def message(self, state: Any) -> Message:
        """Return what the nodes get this round."""

    def step(self, state: Any, report: Report) -> Any:
        """Return the server's state after the round."""


Outcome: TypeAlias = Literal["asked again", "left out", "passed on"]


@dataclass(frozen=True)
class Failure:
    """One failure of one node: of which round, what kept it from reporting (in a line, and as its traceback, if any).

    `outcome` says what was done about it.
    """

    round: int
    node_id: str
    error: str
    trace: str
    outcome: Outcome


class Engine(Protocol):
    """Where nodes live. An engine knows no algorithm, an algorithm knows no engine."""

    floats_up: int
    floats_down: int
    failures: list[Failure]

    @property
    def node_ids(self) -> tuple[str, ...]:
        """Names of all nodes, sorted."""

    def round(self, task: Task, message: Message, nodes: Collection[str] | None = None) -> Report:
        """Run `task` once on every node (or on those named), return the sum of the reports."""

    def map(self, encode: Callable[[Any], Any]) -> Self:
        """Return an engine whose nodes hold ``encode(what they hold now)``; nothing is sent."""

    @property
    def leads(self) -> bool:
        """Whether this process, of all that run the same program, writes what a run leaves behind."""

    def shared(self, content: bytes) -> bytes:
        """Return what the leading process gives, in all of them."""

    def agreed(self, *wishes: bool) -> tuple[bool, ...]:
        """Return which of these any process of the program wishes, the same answer in all of them."""

    def keep(self, task: Task, folder: Path, stamp: int) -> None:
        """Have the nodes write their states of `task`, each in its own place, under this stamp."""

    def recall(self, task: Task, folder: Path, stamp: int) -> None:
        """Have the nodes take back the states that they wrote under this stamp."""


def in_order(reports: Mapping[str, Report]) -> Report:
    """Add reports in the order of their node names: the fold that makes reruns identical to the last bit."""
    total = Report()
    for node_id in sorted(reports):
        total = total + reports[node_id]
    return total
