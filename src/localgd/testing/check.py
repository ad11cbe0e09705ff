"""Runs a method on nodes of a few rows, and says what is wrong with it, by name."""

from __future__ import annotations

import copy
import math
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import islice
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import scipy
from scipy.sparse import csr_array

from localgd.core import Field, Message, Problem, Report
from localgd.duals.dual import Dual
from localgd.engine import serialize
from localgd.engine.inprocess import InProcess
from localgd.engine.nodes import answer, state_type
from localgd.errors import check_kind
from localgd.methods.method import Method
from localgd.problems.hard_margin import HardMargin
from localgd.problems.own_model import OwnModel
from localgd.reference.max_margin import max_margin
from localgd.rounding import angle_deg
from localgd.rows import Samples, Shard
from localgd.rules.probes import measured
from localgd.rules.server import End, lacking
from localgd.run.checkpoint import Checkpoints
from localgd.run.loop import train
from localgd.run.stage import ours

NOT_THEIRS = (Path(__file__).parents[1], *(Path(str(module.__file__)).parent for module in (np, scipy)))
"""Where the fault of a method of one's own is not."""

MARK = "toys"
"""What duals are known by that the toy nodes have reported."""

BEYOND = "that is not finite, or so long that its square is not a float64"
"""What the flag overflow of a report says."""

SIZES, COLUMNS, ROUNDS = (9, 5, 1), 4, 6
"""Rows of the toy nodes, and their columns; rounds of a trial run."""


class MethodError(ValueError):
    """A method does not keep the contract; `faults` says what is wrong, a sentence each."""

    def __init__(self, name: str, faults: list[str]) -> None:
        self.faults = faults
        super().__init__(f"{name}: " + "; ".join(faults))


@dataclass(frozen=True)
class MethodCheck:
    """What there is to know of a method that keeps the contract.

    Parameters
    ----------
    name : str
        Its name.
    certified : bool
        Whether every update is a combination of the node's own rows with coefficients >= 0, so that certificates come
        with the rounds; of other problems than the hard margin, whether anything is proved of their models.
    reason : str
        That, in words.
    """

    name: str
    certified: bool
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: the contract is kept; {self.reason}"


def check_method(method: Method, problem: Problem | None = None) -> MethodCheck:
    """Run a method on three toy nodes, and say what is wrong with it; nothing is sent and no rows of yours are needed.

    Checked are the names that task and merge must have; that the schema tells what the reports hold; that nothing that
    a node is given is written to; that a round that is asked for again gives the same report (retries and lost reports
    rest on this); that rows may come as CSR arrays, and one row alone; that states can be written to disk and read
    back, so that a run can be resumed with the same bits; that the order of the nodes changes none; and, for the hard
    margin, that no certificate is false.

    Parameters
    ----------
    method : Method
        Task and merge.
    problem : Problem, optional
        What it is to look for; default is what it is for.

    Returns
    -------
    MethodCheck
        Whether its updates prove something.

    Raises
    ------
    MethodError
        If something is wrong: all that was found, in the order of what to mend first.

    Examples
    --------
    >>> from localgd.methods.averaging import local_gd
    >>> print(check_method(local_gd(local_steps=5)))
    local-gd: the contract is kept; its updates are combinations of rows, so every round's model is certified
    """
    if not isinstance(method, Method):
        raise MethodError("check_method", [f"give a localgd.Method of a task and a merge, not {type(method).__name__}"])
    if problem is not None:
        check_kind("problem", problem, Problem, "a Problem such as HardMargin()")
    problem = method.problem if problem is None else problem
    if isinstance(problem, OwnModel):
        raise MethodError(
            method.name, [f"it is tried on rows, and a {problem.kind} has none: run it on nodes of yours"]
        )
    trial = Trial(method, problem)
    for check in (trial.names, trial.task, trial.merge, trial.runs):
        faults = list(_told(check))
        if faults:
            raise MethodError(method.name, faults)
    return trial.verdict()


def _told(check: Callable[[], Iterator[str]]) -> Iterator[str]:
    """Yield the faults that a check finds; an exception is one, with the place where it arose."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield from check()
    except Exception as error:  # noqa: BLE001  whatever a stranger's code raises is to be told, not to end the check
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if _theirs(frame.filename)]
        frame = (own or frames)[-1]
        yield f"{type(error).__name__}: {error} ({Path(frame.filename).name}, line {frame.lineno})"


def _theirs(path: str) -> bool:
    """Return whether a line of this file may be one of the method's own: not of a library, nor of generated code."""
    return not path.startswith("<") and not any(Path(path).is_relative_to(place) for place in NOT_THEIRS)


def toy_nodes(problem: Problem, *, sparse: bool = False) -> list[Shard]:
    """Return three nodes of 9, 5 and 1 rows that a plane separates, or with targets that a plane fits.

    Examples
    --------
    >>> [shard.n_rows for shard in toy_nodes(HardMargin())]
    [9, 5, 1]
    """
    rng = np.random.default_rng(0)
    nodes: list[Shard] = []
    for place, n_rows in enumerate(SIZES):
        x = rng.standard_normal((n_rows, COLUMNS))
        x[:, 0] = np.abs(x[:, 0]) + 0.5  # the first column separates them
        rows: Any = csr_array(x) if sparse else x
        name = f"node-{place}"
        nodes.append(Shard(name, rows) if problem.by_margins else Samples(name, rows, x @ [1.0, -2.0, 0.5, 0.0]))
    return nodes


class Trial:
    """A method on toy nodes. Every check yields a sentence for each fault; a later one rests on those before."""

    def __init__(self, method: Method, problem: Problem) -> None:
        self.method, self.problem = method, problem
        self.bound = method
        self.unproved, self.unheard, self.lost = "", "", ""

    def names(self) -> Iterator[str]:
        """Ask whether task and merge have what they must, and can be told apart and remembered."""
        for part in (self.method.task, self.method.merge):
            remedy = "make it a frozen dataclass whose fields are numbers, texts and tuples"
            try:
                hash(part)
            except TypeError as error:
                yield f"{type(part).__name__} cannot be a key ({error}): {remedy}"
            for untold, culprit in islice(_untold(part), 1):
                why = f"repr({type(part).__name__}) does not tell {untold}, so no run of it can be resumed"
                yield f"{why}: {remedy.replace('it', culprit, 1)}"
        engine = InProcess(toy_nodes(self.problem))
        self.bound = self.method.bind(self.problem, engine, measured(engine, zeros=not self.problem.by_margins))

    def task(self) -> Iterator[str]:
        """Ask whether the task answers as its schema says, every time alike, and leaves alone what it was given."""
        task, merge = self.bound.task, self.bound.merge
        state = merge.init(np.zeros(COLUMNS))
        if lacks := lacking(state):
            yield f"{type(merge).__name__}: {lacks}"
            return
        asked = merge.message(state)
        if not isinstance(asked, Message):
            raise TypeError(f"{type(merge).__name__}.message must return a Message, got {asked!r}")
        name = type(task).__name__
        schema = task.schema(asked)
        if not (isinstance(schema, Mapping) and all(isinstance(field, Field) for field in schema.values())):
            yield f"{name}.schema must return a mapping from names to localgd.Field, got {schema!r}"
            return
        for shard in (*toy_nodes(self.problem), *toy_nodes(self.problem, sparse=True)):
            faults = list(self._answers(asked, shard))
            yield from faults
            if faults:  # what is wrong on one node is wrong on the others, too
                return

    def _answers(self, asked: Message, shard: Shard) -> Iterator[str]:
        """Ask the same of one node, twice."""
        task, name = self.bound.task, type(self.bound.task).__name__
        where = f"{name}.run on {shard.n_rows} row{'s' * (shard.n_rows > 1)} ({type(shard.data).__name__})"
        init: Callable[[Shard], Any] | None = getattr(task, "init", None)
        state = None if init is None else init(shard)
        before = copy.deepcopy(state)
        found: Any = task.run(asked, shard, state)
        if not (isinstance(found, tuple) and len(found) == 2):
            yield f"{where} must return (report, state), got {type(found).__name__}"
            return
        report, after = found
        if after is not None and init is None:
            yield f"{name}.run returns a state, but there is no {name}.init(shard) that says how it begins"
            return
        if not _alike(state, before):
            yield f"{where} writes to the state that it was given: make a new one, so that a round can be run again"
        again = task.run(asked, shard, copy.deepcopy(before))
        if not _alike(again[0], report):
            yield f"{where} answers the same message in two ways: draw from default_rng([seed, message.round, …])"
        answer(task, asked, shard, None)  # raises in words what does not fit
        if report.flags.get("overflow", 0):
            yield f"{where} moves by an update {BEYOND}: look for a NaN, or take smaller steps"
        if init is not None:
            yield from _unkept(after, task, name)
        self._note(report, shard)

    def _note(self, report: Report, shard: Shard) -> None:
        """Remember the first update that proves nothing."""
        for field, dual in report.duals.items():
            if not self.unproved and math.isnan(dual.parts[0]):
                self.unproved = f"{field} of {shard.node_id} is a bare vector, or has a coefficient below 0"

    def merge(self) -> Iterator[str]:
        """Ask whether the merge makes a new state of the sum of the reports, and leaves the old one as it was."""
        merge, name = self.bound.merge, type(self.bound.merge).__name__
        engine = InProcess(toy_nodes(self.problem))
        state = merge.init(np.zeros(COLUMNS))
        for place in range(2):
            if lacks := lacking(state):
                yield f"{name}: {lacks}"
                return
            if not (isinstance(state.model, Dual) and isinstance(state.readout, Dual)):
                yield f"{name}: model and readout of its state must be a localgd.Dual; Dual(w) proves nothing"
                return
            if state.round != place or not isinstance(state.end, End):
                yield f"{name}: after {place} rounds its state must say round={place} and an End, got {state.round!r}"
            asked = merge.message(state)
            if asked.round != state.round:
                yield f"{name}.message says round {asked.round} in round {state.round}"
            report = engine.round(self.bound.task, asked)
            if report.flags.get("overflow", 0):
                task = type(self.bound.task).__name__
                yield f"in round {place} {task} moves by an update {BEYOND}: look for a NaN, or take smaller steps"
                return
            report = replace(report, duals={field: dual.marked(MARK) for field, dual in report.duals.items()})
            kept = serialize.pack(state)
            following = merge.step(state, report)
            if following is state or not _alike(serialize.pack(state), kept):
                yield f"{name}.step writes to the state that it was given: return a new one (dataclasses.replace)"
                return
            if following.w.shape != state.w.shape or not np.isfinite(following.w).all():
                yield f"{name}.step: its model has the shape {following.w.shape}, or is not finite, after two rounds"
                return
            claimed = any(dual.known and dual.of != MARK for dual in (state.readout, following.readout))
            self.unheard = name if claimed and not ours(self.method) else self.unheard
            if place and following.w.any() and not following.model.known and not ours(self.method):
                self.lost = name
            state = following

    def runs(self) -> Iterator[str]:
        """Ask whether runs depend on the order of nodes, can be resumed, and prove nothing that is not so."""
        nodes = toy_nodes(self.problem)
        run = train(InProcess(nodes), self.method, problem=self.problem, n_rounds=ROUNDS)
        other = train(InProcess(nodes[::-1], n_jobs=2), self.method, problem=self.problem, n_rounds=ROUNDS)
        if not np.array_equal(run.w, other.w):
            yield "the order of nodes, or a second thread, changes the model: seed by message.round and shard.node_id"
        with tempfile.TemporaryDirectory() as folder:
            for n_rounds in (ROUNDS // 2, ROUNDS):
                kept = Checkpoints(Path(folder) / "run", every_rounds=1)
                cut = train(InProcess(nodes), self.method, problem=self.problem, n_rounds=n_rounds, checkpoints=kept)
            if not np.array_equal(run.w, cut.w):
                yield "a resumed run ends with another model: all that a round depends on must be in the states"
        if isinstance(self.problem, HardMargin) and run.w.any():
            exact = max_margin(np.vstack([np.asarray(node.rows) for node in nodes])).direction
            if angle_deg(run.w, exact) > run.certificate.angle_deg_max + 1e-6:
                yield "its certificate is false, which must not be, whatever a method does: please report it"

    def verdict(self) -> MethodCheck:
        """Return what is known of a method without faults."""
        if not isinstance(self.problem, HardMargin):
            return MethodCheck(self.method.name, self.problem.certified, "its problem's own look proves what is proved")
        reason = "its updates are combinations of rows, so every round's model is certified"
        if self.unproved:
            reason = (
                f"no certificate of its updates, as the {self.unproved}: the last model is certified by a dual "
                "vector of its own, in one more round"
            )
        elif self.lost:
            reason = (
                f"its updates are combinations of rows, which certify every round, but the model that {self.lost} "
                "makes of them is none: make it by sums and multiples >= 0 of the duals that nodes report (number * "
                "dual + dual, .over), and more will be proved"
            )
        if self.unheard:
            reason += (
                f"; what {self.unheard} vouches for itself is not believed: make the model by sums and multiples >= 0 "
                "of the duals that nodes report"
            )
        return MethodCheck(self.method.name, not self.unproved, reason)


def _untold(part: Any) -> Iterator[tuple[str, str]]:
    """Yield what the repr of a task, a merge or a part of one keeps quiet about, and of what: it is what runs go by."""
    if isinstance(part, tuple):
        for one in part:
            yield from _untold(one)
        return
    known = [field.name for field in fields(part)] if is_dataclass(part) else list(getattr(part, "__dict__", ()))
    for name in known:
        yield from _untold(getattr(part, name))
    if " at 0x" in repr(part):
        name = f"the function {part.__name__}" if isinstance(part, FunctionType) else type(part).__name__
        yield f"what {name} is set to, but where that is in memory", name
    for name in known:
        if repr(getattr(part, name)) not in repr(part):
            yield f"{name} of {type(part).__name__}", type(part).__name__


def _unkept(state: Any, task: Any, name: str) -> Iterator[str]:
    """Yield why a state cannot be written to disk and read back."""
    kind = state_type(task, state)
    try:
        back = serialize.unpack(serialize.pack(state, kind), kind)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        why = f"its state, {state!r:.80}, cannot be written and read back as {kind!r:.80} ({error})"
        yield (
            f"{name}: {why}: no checkpoint, and no node of Flower, could keep it; make it of numbers, texts, arrays, "
            "tuples, dicts and frozen dataclasses of those, and say so in state_type"
        )
        return
    if not _alike(back, state):
        yield f"{name}.state_type = {kind!r} reads its state back as another one: {back!r:.80}"


def _alike(a: Any, b: Any) -> bool:
    """Return whether two values are the same, arrays and duals entry by entry."""
    if hasattr(a, "__dataclass_fields__"):
        return type(a) is type(b) and all(_alike(getattr(a, name), getattr(b, name)) for name in _fields(a))
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(_alike, a, b))
    return bool(a == b or (a != a and b != b))  # noqa: PLR0124  NaN is not itself


def _fields(value: Any) -> list[str]:
    return [name for name in value.__dataclass_fields__ if name != "of"]
