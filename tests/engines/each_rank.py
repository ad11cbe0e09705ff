"""What holds in every rank of an engine over torch.distributed; test_torch.py starts the ranks."""

from __future__ import annotations

import traceback
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from common import COMPRESSED, METHODS, OTHER_ORDER, PENALISED, SOLVER, random_rows, with_bias
from engines.spread import RANK, WORLD, assert_alike, one_folder, spread
from engines.test_contract import assert_same_report
from localgd import (
    InProcess,
    LeastSquares,
    Message,
    NodeError,
    Report,
    Samples,
    Shard,
    TorchDistributed,
    conjugate_gradients,
    consensus,
    load,
    local_gd,
    normal_equations,
    prepare,
    train,
)
from localgd.core import Field, Schema
from localgd.data.datasets import DATASETS
from localgd.engine.processes import WORTH_HALVES
from localgd.errors import EngineError, RemoteError
from localgd.run.checkpoint import Checkpoints
from own_methods import PROGRAMS


@dataclass(frozen=True)
class Odd:
    """Report other shapes in other rounds, and tallies and flags that only some nodes have."""

    state_type: ClassVar[type] = int

    def schema(self, message: Message) -> Schema:
        now = {"now and then": Field("sum", optional=True), "bound": Field("min", optional=True)}
        late = {"late": Field("flag"), "early": Field("sum", (2,), unless="late"), "tally": Field("count")}
        always = {"grows": Field("sum", (message.round + 1,)), "state": Field("sum", (1, 2)), "low": Field("min")}
        return {**always, **now, **late, "high": Field("max"), "n": Field("per_node", (), "int64")}

    def init(self, shard: Shard) -> int:  # noqa: ARG002
        return 0

    def run(self, message: Message, shard: Shard, state: int) -> tuple[Report, int]:
        k, place = message.round, int(shard.node_id[-1])
        sums: dict[str, Any] = {"grows": np.full(k + 1, 0.1 * place), "state": [[1.0, state]]}
        mins: dict[str, Any] = {"low": -0.1 * place}
        late = k % 2 == place % 2
        if k % 3 == place % 3:
            sums["now and then"], mins["bound"] = 1e-9, np.inf
        if not late:
            sums["early"] = [1.0, place]
        counts = {("tally", "名", place, k % 2): 2**52 - place, ("tally", "all"): 1}
        listed = {"n": {shard.node_id: np.int64(place)}}
        flags = {"late": 1} if late else {}
        return Report(1, shard.n_rows, sums, {"high": place}, mins, counts, flags, per_node=listed), state + 1


def test_reports_of_any_shapes_add_up_as_in_one_process():
    engine, expected = spread(random_rows(1)), InProcess(random_rows(1))
    reports = []
    for k in range(12):
        named = ["node-0", "node-3"] if k % 4 == 3 else None
        reports.append(engine.round(Odd(), Message(k, np.ones(3)), named))
        assert_same_report(reports[-1], expected.round(Odd(), Message(k, np.ones(3)), named))
        assert_alike(engine, *reports[-1].sums.values(), *reports[-1].mins.values())
        assert (engine.floats_up, engine.floats_down) == (expected.floats_up, expected.floats_down)
    assert_same_report(reports[0], InProcess(random_rows(1)).round(Odd(), Message(0, np.ones(3))))  # it did not change


def history(run):
    return repr([replace(row, seconds=0.0) for row in run.history])  # as text, since NaN is not NaN


RUNS = {
    **{name: module.method for name, module in PROGRAMS.items()},
    **{name: METHODS[name] for name in ("local-gd", "modified, projection", "consensus", "interior-point")},
    **COMPRESSED,
    **{name: PENALISED[name] for name in ("newton", "scaffold")},
    "by node and round": local_gd(
        local_steps={f"node-{place}": 1 + 9 * place for place in range(4)},
        lr={f"node-{place}": 0.5 / (1 + place) for place in range(4)},
        weighted_by={f"node-{place}": 0.5 * place for place in range(4)},
        lr_schedule="inverse-sqrt",
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_methods_come_to_the_model_of_one_process_and_twice_to_the_same_bits(name):
    shards = with_bias(random_rows(5), noise=0.1) if name in PENALISED else random_rows(5)
    expected = train(InProcess(shards), RUNS[name], n_rounds=50)
    run, again = (train(spread(shards), RUNS[name], n_rounds=50) for _ in range(2))
    gap = np.linalg.norm(run.w - expected.w) / np.linalg.norm(expected.w)
    assert run.n_rounds == expected.n_rounds
    # Extrapolation magnifies the order of a sum: in one process, too, nodes of other names end 5e-8 apart.
    assert gap <= (SOLVER if name == "consensus" else OTHER_ORDER)
    np.testing.assert_array_equal(run.w, again.w)
    assert history(run) == history(again)
    assert [row.floats_up for row in run.history[:20]] == [row.floats_up for row in expected.history[:20]]
    assert_alike(spread(shards), run.w, [row.angle_deg_max for row in run.history])


@pytest.mark.parametrize("name", ["heart", "mushroom", "sentences"])
def test_preparing_tables_learns_the_same_recipe(name):
    tables = load(name)
    options = DATASETS[name].options
    expected = prepare(InProcess(tables), **options)[1]
    engine, recipe = prepare(spread(tables), **options)
    assert engine.shared(repr(recipe).encode()) == repr(recipe).encode()
    assert (recipe.classes, recipe.sparse) == (expected.classes, expected.sparse)
    for one, other in zip(recipe.columns, expected.columns, strict=True):
        for part, value in asdict(other).items():
            assert getattr(one, part) == (pytest.approx(value, rel=OTHER_ORDER) if isinstance(value, float) else value)


@pytest.mark.parametrize("home", [0, WORLD - 1])
def test_ranks_may_be_without_nodes(home, tmp_path):
    shards = random_rows(1)
    expected = train(InProcess(shards), consensus(), n_rounds=12)
    engine = TorchDistributed(shards if home == RANK else [], timeout=30.0)
    checkpoints = Checkpoints(one_folder(engine, tmp_path))
    for n_rounds in (6, 12):
        run = train(engine, consensus(), n_rounds=n_rounds, checkpoints=checkpoints)
    np.testing.assert_array_equal(run.w, expected.w)  # zeros of the others change no bit


def test_a_rank_that_cannot_read_its_nodes_ends_all_of_them():
    def read():
        if RANK == 1:
            raise FileNotFoundError("no such file: site-1.csv")
        yield from random_rows(1)[RANK::WORLD]

    with pytest.raises(FileNotFoundError if RANK == 1 else RemoteError, match=r"no such file: site-1\.csv"):
        TorchDistributed(read(), timeout=30.0)


def test_bad_federations_are_refused_in_all_ranks():
    shards = random_rows(1)
    with pytest.raises(ValueError, match="at least one node"):
        TorchDistributed([])
    with pytest.raises(ValueError, match="two nodes are called 'node-1'"):
        TorchDistributed([shards[1]])
    with pytest.raises(ValueError, match="two nodes are called 'node-2'"):
        TorchDistributed([shards[2]] * 2 if RANK == 1 else [])
    with pytest.raises(ValueError, match="processes differ in their policy"):
        spread(shards, retries=RANK)
    with pytest.raises(ValueError, match="timeout must be above 0"):
        TorchDistributed([], timeout=0)


@dataclass(frozen=True)
class Faulty:
    """One node, or some, do what they should not, until they have been asked often enough."""

    state_type: ClassVar[type] = int

    how: str
    who: tuple[str, ...] = ("node-1",)
    times: int = 1000

    def schema(self, message: Message) -> Schema:  # noqa: ARG002
        return {"total": Field("sum", (3,)), "runs": Field("sum"), "low": Field("min"), "all": Field("count")}

    def init(self, shard: Shard) -> int:  # noqa: ARG002
        return 0

    def run(self, message: Message, shard: Shard, state: int) -> tuple[Report, int]:  # noqa: ARG002
        sums = {"total": np.ones(3), "runs": float(state)}
        mins = {"low": float(shard.node_id[-1])}
        self.asked[shard.node_id] = self.asked.get(shard.node_id, 0) + 1
        if shard.node_id in self.who and self.asked[shard.node_id] <= self.times:
            if self.how == "raises":
                raise RuntimeError("the disk of this node is gone\x1b[2J\nand so is this one")
            if self.how == "no report":
                return None, 0
            wrong = {"nan": np.full(3, np.nan), "inf": np.array([1.0, np.inf, 1.0]), "shape": np.ones(4)}
            if self.how == "low":
                mins["low"] = np.nan
            elif self.how == "more":
                sums["more"] = 1.0
            elif self.how == "less":
                del sums["runs"]
            else:
                sums["total"] = wrong[self.how]
        return Report(1, shard.n_rows, sums, mins=mins, counts={("all",): 1}), state + 1

    @property
    def asked(self) -> dict[str, int]:
        return ASKED


ASKED: dict[str, int] = {}

POLICIES = [
    {},
    {"retries": 1},
    {"on_failure": "skip"},
    {"on_failure": "skip", "retries": 2},
    {"on_failure": "skip", "min_nodes": 3},
    {"on_failure": "skip", "min_nodes": 4},
]


def outcome(engine, task):
    """What comes of three rounds: reports or an error, and the records."""
    ASKED.clear()
    try:
        reports = [engine.round(task, Message(k, np.zeros(3))) for k in range(3)]
    except NodeError as error:
        return str(error), type(error.__cause__), engine
    return reports, None, engine


@pytest.mark.parametrize("options", POLICIES, ids=str)
@pytest.mark.parametrize(
    "task",
    [
        *(Faulty(how) for how in ("raises", "no report", "nan", "inf", "shape", "low", "more", "less")),
        *(Faulty(how, ("node-0", "node-1", "node-2", "node-3")) for how in ("raises", "nan", "low")),
        *(Faulty(how, ("node-1", "node-3")) for how in ("raises", "nan", "shape")),
        *(Faulty(how, times=2) for how in ("raises", "nan", "shape")),
    ],
    ids=str,
)
def test_nodes_that_fail_end_or_miss_a_round_as_in_one_process(task, options):
    shards = random_rows(1)
    expected, cause, one = outcome(InProcess(shards, **options), task)
    found, its_cause, engine = outcome(spread(shards, **options), task)
    assert engine.failures == one.failures
    if cause is not None:
        assert found == expected
        assert its_cause in {cause, RemoteError}
    else:
        for report, other in zip(found, expected, strict=True):
            assert_same_report(report, other)
        assert (engine.floats_up, engine.floats_down) == (one.floats_up, one.floats_down)


def test_the_nodes_traceback_is_there_in_all_ranks():
    engine = spread(random_rows(1))
    with pytest.raises(NodeError, match="the disk") as caught:
        engine.round(Faulty("raises"), Message(0))
    cause = caught.value.__cause__
    here = "node-1" in engine.shards
    assert isinstance(cause, RuntimeError if here else RemoteError)
    assert 'raise RuntimeError("the disk' in (engine.failures[0].trace if here else cause.trace)


def test_ranks_with_other_models_are_noticed():
    engine = spread(random_rows(1))
    w = np.array([1.0, 3.0])
    assert engine.round(Odd(), Message(0, w)).n_nodes == 4
    if RANK == WORLD - 1:
        w = np.array([np.nextafter(1.0, 2.0), np.nextafter(3.0, 2.0)])  # the bits as integers have the same sum
    with pytest.raises(EngineError, match="round 1: the processes do not hold the same model"):
        engine.round(Odd(), Message(1, w))
    engine.agreed()
    with pytest.raises(EngineError, match="do not run the same program, but other settings of Faulty"):
        engine.round(Faulty("raises", times=RANK), Message(1))


def test_ranks_that_are_about_to_run_something_else_are_noticed_before_the_first_round(monkeypatch):
    engine, ran = spread(random_rows(1)), []
    monkeypatch.setattr(engine.nodes, "run", lambda *asked: ran.append(asked))
    with pytest.raises(EngineError, match=r"round 0: the processes do not run the same program, but other methods \("):
        engine.round(Echo() if RANK else Odd(), Message(0, np.ones(2), session="one"))
    with pytest.raises(EngineError, match="other settings of Echo, or rows of other columns"):
        engine.round(Echo(), Message(0, np.ones(2 + RANK), session="two"))
    monkeypatch.setattr("localgd.engine.words.version", lambda name: f"{name} 0.{min(RANK, 1)}")
    with pytest.raises(EngineError, match=r"different versions of localgd \(localgd 0\.0, localgd 0\.1\); install"):
        engine.round(Echo(), Message(0, np.ones(2), session="three"))
    assert not ran


def test_what_another_rank_says_is_escaped():
    engine = spread(random_rows(1))
    with pytest.raises(NodeError, match=r"gone\\x1b\[2J\\nand so") as caught:
        engine.round(Faulty("raises"), Message(0))
    cause = caught.value.__cause__
    if isinstance(cause, RemoteError):
        shown = "".join(traceback.format_exception(cause))
        assert "\x1b" not in shown
        assert all(line.startswith("  | ") for line in "".join(cause.__notes__).splitlines()[1:])
    assert "\x1b" not in f"{caught.value}{engine.failures[0].error}"


@dataclass(frozen=True)
class Echo:
    """Report the model, as a sum, as maxima and as minima."""

    def schema(self, message: Message) -> Schema:
        shape = message.w.shape
        return {"total": Field("sum", shape), "most": Field("max", shape), "least": Field("min", shape)}

    def run(self, message: Message, shard: Shard, state: None) -> tuple[Report, None]:
        return Report(1, shard.n_rows, {"total": message.w}, {"most": message.w}, {"least": message.w}), state


def test_large_reports_go_in_halves_and_other_models_are_noticed():
    engine, w = spread(random_rows(1)), np.linspace(-1.0, 1.0, WORTH_HALVES)
    for k in range(3):
        report = engine.round(Echo(), Message(k, w), ["node-0", "node-3"] if k == 2 else None)
        np.testing.assert_array_equal(report.sums["total"], report.n_nodes * w)
        np.testing.assert_array_equal(report.maxs["most"], w)
        np.testing.assert_array_equal(report.mins["least"], w)
    if RANK == 0:
        w[7] = np.nextafter(w[7], 1.0)
    with pytest.raises(EngineError, match="round 3: the processes do not hold the same model"):
        engine.round(Echo(), Message(3, w))


def test_a_rank_none_of_whose_nodes_is_asked_costs_no_second_look(monkeypatch):
    engine, w = spread(random_rows(1)), np.ones(2)
    engine.round(Echo(), Message(0, w))
    monkeypatch.setattr(engine, "_exchange", None)
    for k in range(1, 4):
        assert engine.round(Echo(), Message(k, w), [f"node-{k}"]).n_nodes == 1


def test_wishes_and_content_are_the_same_in_all_ranks():
    engine = spread(random_rows(1))
    assert engine.leads == (RANK == 0)
    assert engine.agreed() == ()
    assert engine.agreed(RANK == 1, False, RANK == 0, True) == (True, False, True, True)
    assert engine.shared(b"x" * RANK) == b""
    assert engine.shared(bytes([7]) * 100_000 * (RANK == 0)) == bytes([7]) * 100_000


@pytest.mark.parametrize("method", [normal_equations(), conjugate_gradients()], ids=lambda method: method.name)
def test_regression_is_that_of_one_process(method):
    rng, ridge = np.random.default_rng(0), LeastSquares(1.0)
    nodes = [Samples(f"n{m}", rng.standard_normal((9, 14)), rng.standard_normal(9)) for m in range(4)]
    run = train(spread(nodes), method, problem=ridge)
    np.testing.assert_allclose(run.w, train(InProcess(nodes), method, problem=ridge).w, rtol=OTHER_ORDER)
    assert run.certificate.relative < OTHER_ORDER
