"""The nouns that all rooms share: Message, Report, Task, Problem, Merge, Engine. Types and the monoid; no algorithm.

The one verb is :meth:`Engine.round`: every node runs a task on a message, the reports are added up.
Training, certificates, evaluation, scaling and label discovery are all rounds.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeAlias, TypeVar, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from localgd.duals.dual import Dual
from localgd.rounding import FloatArray, frozen, is_whole, read_only, real_array


def _mapping(name: str, value: Any) -> Mapping[Any, Any]:
    if type(value) is not dict and not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping from names, got {reprlib.repr(value)}")
    return value


@dataclass(frozen=True, eq=False)
class Message:
    """What the server sends to every node at the start of a round.

    Parameters
    ----------
    round : int
        Round number from 0. Round 0 of a task begins from its `init`, whatever a node remembers.
    w : (d,) float64 array
        The shared model; empty for rounds that need none.
    extra : mapping from name to array
        Anything else a task asks for.
    session : str
        Which run it belongs to: nodes keep what they remember of a task by session.
    """

    round: int = 0
    w: FloatArray = field(default_factory=lambda: np.zeros(0))
    extra: Mapping[str, FloatArray] = field(default_factory=dict)
    session: str = ""

    def __post_init__(self) -> None:
        """Make the arrays read-only: a node copies what it wants to change."""
        if not (is_whole(self.round) and isinstance(self.session, str)):
            raise ValueError(f"round must be a whole number, session a text, got {self.round!r}, {self.session!r}")
        object.__setattr__(self, "w", real_array("w", self.w))
        if self.w.ndim != 1:
            raise ValueError(f"w must have the shape (d,), got {self.w.shape}")
        extra = _mapping("extra", self.extra)
        object.__setattr__(self, "extra", {name: real_array(f"extra {name!r}", value) for name, value in extra.items()})

    def within(self, session: str, dtype: str = "float64") -> Message:
        """Return it as one of a session, the model in a dtype that holds its numbers."""
        message, w = Message.__new__(Message), read_only(self.w, dtype)
        message.__dict__.update(self.__dict__, session=session, w=w)
        return message

    @property
    def n_floats(self) -> int:
        """How many numbers of 64 bits one node receives."""
        return int(-(-self.w.nbytes // 8) + sum(value.size for value in self.extra.values()))


Kind: TypeAlias = Literal["sum", "max", "min", "count", "flag", "per_node", "dual"]
KINDS: tuple[str, ...] = get_args(Kind)

DTYPES = ("float64", "float32", "int64")
"""What arrays of reports may be made of; of integers, those that float64 holds exactly, up to 2⁵³."""

_HELD = frozenset(map(np.dtype, DTYPES))


@dataclass(frozen=True)
class Field:
    """What a report holds under one name.

    Parameters
    ----------
    kind : "sum", "max", "min", "count", "flag", "per_node" or "dual"
        How it adds, and so in which part of the report it is.
    shape : tuple of int
        Of its array, that of a dual's vector, or that of one node's value; () for a number.
    dtype : "float64", "float32" or "int64"
        Of its array.
    optional : bool
        A node sends it if it has it.
    unless : str
        The flag of the same report that explains why it is not there.
    coded : str
        Form of the code that may stand for the vector of a dual (`localgd.duals.compressors`).

    Raises
    ------
    ValueError
        If kind or dtype is none of these, or another field is of the wrong type.
    """

    kind: Kind
    shape: tuple[int, ...] = ()
    dtype: str = "float64"
    optional: bool = False
    unless: str = ""
    coded: str = ""

    def __post_init__(self) -> None:
        """Check kind and dtype once."""
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if not (isinstance(self.shape, tuple) and all(is_whole(size) for size in self.shape)):
            raise ValueError(f"shape must be a tuple of whole numbers of at least 0, got {self.shape!r}")
        for name, kind in (("optional", bool), ("unless", str), ("coded", str)):
            if not isinstance(getattr(self, name), kind):
                raise TypeError(f"{name} must be a {kind.__name__}, got {getattr(self, name)!r}")


Schema: TypeAlias = Mapping[str, Field]
"""What a report on some message may hold, and must, by name."""

Array: TypeAlias = NDArray[Any]
CountKey: TypeAlias = tuple[str | int | float | bool, ...]


@dataclass(frozen=True, eq=False)
class Report:
    """What a node sends back: what its task's schema declares, never a row.

    A commutative monoid under ``+`` with identity ``Report()``: `n_nodes`, `n_rows`, `sums`, `duals`, `counts` and
    `flags` add name by name (a missing name counts as zero), `maxs` and `mins` take the elementwise maximum and minimum
    (missing: −∞ and +∞), `per_node` is the union. Addition is exactly commutative; it is associative up to float
    rounding of the sums, which is why engines that promise identical bits add in the order of the node names.

    Parameters
    ----------
    n_nodes, n_rows : int
        How many nodes, and rows of users (the samples of shards), speak through this report.
    sums : mapping from name to array (0-d for a number)
        Quantities that add. Arrays of float32 and int64 stay what they are, anything else becomes float64.
    maxs, mins : mapping from name to array
        Quantities of which the largest, or the smallest, counts.
    counts : mapping from key to int
        Tallies. A key begins with the name of its field; the union of keys is the union of what the nodes hold.
    flags : mapping from name to int
        How many nodes raised it.
    duals : mapping from name to Dual
        Combinations of rows that add, each with what is proved of it.
    per_node : mapping from name to mapping from node to array
        Small values that stay apart, by the name of their node.

    Examples
    --------
    >>> a = Report(1, 10, {"loss": 2.0}, mins={"margin": 0.3}, counts={("colour", "red"): 4}, flags={"cancels": 1})
    >>> b = Report(1, 20, {"loss": 3.0}, mins={"margin": 0.1}, counts={("colour", "blue"): 1})
    >>> total = a + b
    >>> total.n_rows, float(total.sums["loss"]), float(total.mins["margin"]), total.flags, total.counts
    (30, 5.0, 0.1, {'cancels': 1}, {('colour', 'red'): 4, ('colour', 'blue'): 1})
    """

    n_nodes: int = 0
    n_rows: int = 0
    sums: Mapping[str, Any] = field(default_factory=dict)
    maxs: Mapping[str, Any] = field(default_factory=dict)
    mins: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[CountKey, int] = field(default_factory=dict)
    flags: Mapping[str, int] = field(default_factory=dict)
    duals: Mapping[str, Dual] = field(default_factory=dict)
    per_node: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make every array read-only."""
        if not (is_whole(self.n_nodes) and is_whole(self.n_rows)):
            raise ValueError(f"n_nodes and n_rows must be whole numbers, got {self.n_nodes!r}, {self.n_rows!r}")
        for part in _ADDS:
            _mapping(part, getattr(self, part))
        for part in ("sums", "maxs", "mins"):
            kept = {name: _kept(name, value) for name, value in getattr(self, part).items()}
            object.__setattr__(self, part, kept)
        duals = {name: dual if isinstance(dual, Dual) else Dual(dual) for name, dual in self.duals.items()}
        object.__setattr__(self, "duals", duals)
        listed = {
            name: {node: _kept(name, value) for node, value in _mapping(f"per_node {name!r}", nodes).items()}
            for name, nodes in self.per_node.items()
        }
        object.__setattr__(self, "per_node", listed)

    @classmethod
    def of(cls, n_nodes: int, n_rows: int, parts: Mapping[str, Mapping[Any, Any]]) -> Report:
        """Return the report of parts that are sound and read-only already, sums of such as are."""
        report = cls.__new__(cls)
        report.__dict__.update({part: {} for part in _ADDS}, n_nodes=n_nodes, n_rows=n_rows, **parts)
        return report

    def __add__(self, other: Report) -> Report:
        """Return the report of both; a quantity with two shapes is a ValueError, and so is a node in both."""
        return summed((self, other))

    @property
    def n_floats(self) -> int:
        """How many numbers of 64 bits this report carries, its two tallies of nodes and rows included."""
        arrays = [*self.sums.values(), *self.maxs.values(), *self.mins.values()]
        arrays += [value for nodes in self.per_node.values() for value in nodes.values()]
        sizes = [value.size for value in arrays] + [dual.n_floats for dual in self.duals.values()]
        return 2 + int(sum(sizes)) + len(self.counts) + len(self.flags)


def _kept(name: str, value: Any) -> Array:
    """Return a read-only array, of the dtype that an array has if a report may hold it, else of float64."""
    if type(value) is float:
        return read_only(value)
    dtype = getattr(value, "dtype", None)  # as a dtype, for its name takes long to make
    return frozen(value, dtype) if dtype in _HELD else real_array(name, value)


def summed(reports: Sequence[Report]) -> Report:
    """Return the sum of reports, added up from the first to the last."""
    parts = {part: _folded([getattr(one, part) for one in reports], add) for part, add in _ADDS.items()}
    return Report.of(sum(one.n_nodes for one in reports), sum(one.n_rows for one in reports), parts)


def _twice(*_: Array) -> Array:
    raise ValueError("two reports list values of one node, and do not add")


def _elementwise(add: Callable[[Any, Any], Any]) -> Callable[[Array, Array], Array]:
    def added(a: Array, b: Array) -> Array:
        if a.shape != b.shape or a.dtype != b.dtype:  # NumPy would stretch one of them
            raise ValueError(f"quantities of {a.dtype}{a.shape} and {b.dtype}{b.shape} do not add")
        return read_only(add(a, b), a.dtype)

    return added


Key = TypeVar("Key")
Value = TypeVar("Value")


def _folded(parts: Sequence[Mapping[Key, Value]], add: Callable[[Any, Any], Any]) -> dict[Key, Value]:
    out: dict[Key, Value] = {}
    for part in parts:
        for name, value in part.items():
            out[name] = add(out[name], value) if name in out else value
    return out


_ADDS: Mapping[str, Callable[[Any, Any], Any]] = {
    "sums": _elementwise(np.add),
    "maxs": _elementwise(np.maximum),
    "mins": _elementwise(np.minimum),
    "counts": int.__add__,
    "flags": int.__add__,
    "duals": Dual.folded,
    "per_node": lambda a, b: _folded((a, b), _twice),
}


class Task(Protocol):
    """What a node does in a round. A frozen dataclass: its fields are its configuration.

    One with a memory also has ``init(shard) -> state``, what a node remembers at first, and ``state_type``, a class
    variable that says what a state is read back as; the state of any other is None. One to train with also has a
    ``loss`` and ``weighted_by`` (`localgd.methods.method.LocalTask`), and reports what its merge needs: of
    averages the sum ``weight`` and the dual ``update``. How the model stands, a look of the library's own tells.
    """

    def schema(self, message: Message) -> Schema:
        """Return what a report on this message holds; no row is needed to tell."""

    def run(self, message: Message, shard: Any, state: Any) -> tuple[Report, Any]:
        """Return the report and the next state; `state` is never written to, so that a round can be run again."""


@runtime_checkable
class Problem(Protocol):
    """What the pooled model is, and how a model is proved to be near it. A frozen dataclass.

    Whoever asks for a proof knows no formula: `begin()` is what is proved before the first round, and `prove` what is
    proved after it; either has a ``certificate``.
    """

    @property
    def kind(self) -> str:
        """What the model is compared with."""

    @property
    def certified(self) -> bool:
        """Whether anything is ever proved about it."""

    @property
    def by_margins(self) -> bool:
        """Whether it is about margins of signed rows, and an angle: else it is about real targets, and a distance."""

    @property
    def begin(self) -> type[Any]:
        """Makes what is proved before the first round."""

    def among(self, versus: int) -> Self:
        """Return the problem for samples that `versus` rows speak for."""

    def scores(self, report: Report, state: Any) -> tuple[float, float]:
        """Return loss and accuracy of the model that a round began with, for the history; NaN where it has none."""

    def look(self, task: Any) -> Task:
        """Return the task of a round that only looks at the model, for a method of this task."""

    def beginning(self, state: Any) -> Message:
        """Return the message for a first look at the model of a state, by nodes that were asked nothing before."""

    def prove(self, proof: Any, state: Any, report: Report, duals: Sequence[Dual], *, whole: bool) -> Any:
        """Return what is proved of the model that a round began with, from its report; `whole` if all nodes spoke."""

    def unproved(self, proof: Any, state: Any) -> bool:
        """Return whether the last look is worth one more round, for dual vectors."""


class Merge(Protocol):
    """What the server does with the sum of the reports. Only `step` makes a new shared model.

    Its state is a `localgd.rules.server.ServerState`, or has all that one has: the `Dual`s ``model`` and ``readout``
    (which is proved and handed out), ``w``, ``round``, ``done`` and ``end``.
    """

    @property
    def whole_rounds(self) -> str:
        """Why it needs every node in every round; empty if it does not."""

    def init(self, w0: FloatArray) -> Any:
        """Return the server's state before the first round."""

    def message(self, state: Any) -> Message:
        """Return what the nodes get this round."""

    def step(self, state: Any, report: Report) -> Any:
        """Return the server's state after the round."""


Outcome: TypeAlias = Literal["asked again", "left out"]


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


@runtime_checkable
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
        """Return an engine whose nodes hold ``encode(what they hold now)``, without those where that is None."""

    @property
    def leads(self) -> bool:
        """Whether this process, of all that run the same program, writes what a run leaves behind."""

    def shared(self, content: bytes) -> bytes:
        """Return what the leading process gives, in all of them."""

    def agreed(self, *wishes: bool) -> tuple[bool, ...]:
        """Return which of these any process of the program wishes, the same answer in all of them."""

    def keep(self, task: Task, folder: Path, stamp: int, session: str = "") -> None:
        """Have the nodes write their states of `task` in a session, each in its own place, under this stamp."""

    def recall(self, task: Task, folder: Path, stamp: int, session: str = "") -> None:
        """Have the nodes take back, for a session, the states that they wrote under this stamp."""

    def release(self, session: str) -> None:
        """Have the nodes drop what they remember of a session, as its run has ended."""
