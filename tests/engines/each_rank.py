"""What holds in every rank of an engine over torch.distributed; test_torch.py starts the ranks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from common import METHODS, OTHER_ORDER, PENALISED, SOLVER, random_rows, with_bias
from engines.spread import RANK, WORLD, assert_alike, one_folder, spread
from localgd import InProcess, Message, NodeError, Report, Shard, TorchDistributed, consensus, load, prepare, train
from localgd.data.datasets import DATASETS
from localgd.engine.processes import WORTH_HALVES
from localgd.errors import EngineError, RemoteError
from localgd.run.checkpoint import Checkpoints

EXCUSED = ("curvature", "pull", "gap", "update_sq_norm")
"""Names that "unguessed" lets a node leave out."""


@dataclass(frozen=True)
class Odd:
    """Report other names from other nodes, of other shapes in other rounds."""

    def init(self, shard: Shard) -> int:  # noqa: ARG002
        return 0

    def run(self, message: Message, shard: Shard, state: int) -> tuple[Report, int]:
        k, place = message.round, int(shard.node_id[-1])
        sums: dict[str, Any] = {"grows": np.full(k + 1, 0.1 * place), EXCUSED[place]: [[1.0, state]]}
        lows: dict[str, Any] = {"low": -0.1 * place}
        if k % 3 == place % 3:
            sums["update"], lows["high"] = 1e-9, np.inf
        counts = {f"名 {place} {k % 2}": 2**52 - place, "all": 1, "unguessed": 1}  # which says why names are missing
        return Report(1, shard.n_rows, sums, lows, counts), state + 1


def assert_same_report(found: Report, expected: Report):
    assert (found.n_nodes, found.n_rows, found.counts) == (expected.n_nodes, expected.n_rows, expected.counts)
    for one, other in ((found.sums, expected.sums), (found.lows, expected.lows)):
        assert one.keys() == other.keys()
        for name, value in other.items():
            np.testing.assert_allclose(one[name], value, rtol=OTHER_ORDER, atol=0)
            assert not one[name].flags.writeable


def test_reports_of_any_names_and_shapes_add_up_as_in_one_process():
    engine, expected = spread(random_rows(1)), InProcess(random_rows(1))
    reports = []
    for k in range(12):
        named = ["node-0", "node-3"] if k % 4 == 3 else None
        reports.append(engine.round(Odd(), Message(k, np.ones(3)), named))
        assert_same_report(reports[-1], expected.round(Odd(), Message(k, np.ones(3)), named))
        assert_alike(engine, *reports[-1].sums.values(), *reports[-1].lows.values())
        assert (engine.floats_up, engine.floats_down) == (expected.floats_up, expected.floats_down)
    assert_same_report(reports[0], InProcess(random_rows(1)).round(Odd(), Message(0, np.ones(3))))  # it did not change


def history(run):
    return repr([replace(row, seconds=0.0) for row in run.history])  # as text, since NaN is not NaN


RUNS = {
    **{name: METHODS[name] for name in ("local-gd", "modified, projection", "consensus", "interior-point")},
    **{name: PENALISED[name] for name in ("newton", "scaffold")},
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
        for part, value in vars(other).items():
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

    how: str
    who: tuple[str, ...] = ("node-1",)
    times: int = 1000

    def init(self, shard: Shard) -> int:  # noqa: ARG002
        return 0

    def run(self, message: Message, shard: Shard, state: int) -> tuple[Report, int]:  # noqa: ARG002
        sums = {"total": np.ones(3), "runs": float(state)}
        lows = {"low": float(shard.node_id[-1])}
        self.asked[shard.node_id] = self.asked.get(shard.node_id, 0) + 1
        if shard.node_id in self.who and self.asked[shard.node_id] <= self.times:
            if self.how == "raises":
                raise RuntimeError("the disk of this node is gone")
            if self.how == "no report":
                return None, 0
            wrong = {"nan": np.full(3, np.nan), "inf": np.array([1.0, np.inf, 1.0]), "shape": np.ones(4)}
            if self.how == "low":
                lows["low"] = np.nan
            else:
                sums["total"] = wrong[self.how]
        return Report(1, 1, sums, lows, {"all": 1}), state + 1

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
        *(Faulty(how) for how in ("raises", "no report", "nan", "inf", "shape", "low")),
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
    with pytest.raises(EngineError, match="or do not run the same program"):
        engine.round(Faulty("raises", times=RANK), Message(1))


@dataclass(frozen=True)
class Echo:
    """Report the model, as a sum and as lows."""

    def init(self, shard: Shard) -> None:
        """Keep nothing."""

    def run(self, message: Message, shard: Shard, state: None) -> tuple[Report, None]:
        return Report(1, shard.n_rows, {"total": message.w}, {"least": message.w}), state


def test_large_reports_go_in_halves_and_other_models_are_noticed():
    engine, w = spread(random_rows(1)), np.linspace(-1.0, 1.0, WORTH_HALVES)
    for k in range(3):
        report = engine.round(Echo(), Message(k, w), ["node-0", "node-3"] if k == 2 else None)
        np.testing.assert_array_equal(report.sums["total"], report.n_nodes * w)
        np.testing.assert_array_equal(report.lows["least"], w)
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


class CutError(Exception):
    """Power failure."""


def cut(info):
    if info.row.round == 7:
        raise CutError


@pytest.mark.parametrize("name", ["consensus", "local-gd"])
def test_a_run_goes_on_from_its_checkpoint(name, tmp_path):
    shards = random_rows(5)
    checkpoints = Checkpoints(one_folder(spread(shards), tmp_path) / "held", every_rounds=3)
    expected = train(spread(shards), METHODS[name], n_rounds=20)
    with pytest.raises(CutError):
        train(spread(shards), METHODS[name], n_rounds=20, checkpoints=checkpoints, on_round=cut)
    spread(shards).agreed()
    assert len(list(checkpoints.folder.iterdir())) == 1 + min(WORLD, len(shards))
    run = train(spread(shards), METHODS[name], n_rounds=20, checkpoints=checkpoints)
    np.testing.assert_array_equal(run.w, expected.w)
    assert run.certificate.to_dict() == expected.certificate.to_dict()


def test_a_checkpoint_that_does_not_fit_ends_in_words_in_all_ranks(tmp_path):
    shards = random_rows(5)
    folder = one_folder(spread(shards), tmp_path)
    train(spread(shards), consensus(), n_rounds=5, checkpoints=Checkpoints(folder))
    with pytest.raises(ValueError, match="in another way"):
        train(spread(shards[::-1]), consensus(), n_rounds=9, checkpoints=Checkpoints(folder))
    shards[2] = Shard(shards[2].node_id, shards[2].rows * 2)
    with pytest.raises(NodeError, match=r"'node-2'.*rows are not those of the checkpoint"):
        train(spread(shards), consensus(), n_rounds=9, checkpoints=Checkpoints(folder))
    spread(shards).agreed()
    if RANK == 0:
        next(folder.glob("nodes-*-1-*")).unlink()
    with pytest.raises(ValueError, match="is not there"):
        train(spread(shards), consensus(), n_rounds=9, checkpoints=Checkpoints(folder))
