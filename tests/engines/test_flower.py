"""Flower: the same bits as in-process, through everything that Flower does to a message."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pytest
from flwr.clientapp import ClientApp

from common import METHODS, PENALISED, random_rows, stacked, with_bias
from cut import assert_same_run
from engines.flower_grid import LocalGrid, flower, grid_of
from engines.tasks import Doubled
from localgd import (
    Angle,
    InProcess,
    Int4,
    Int8,
    LeastSquares,
    Message,
    NodeError,
    Regularised,
    Samples,
    Shard,
    auto,
    certify,
    conjugate_gradients,
    consensus,
    evaluate,
    interior_point,
    lbfgs,
    load,
    local_gd,
    modified_local_gd,
    normal_equations,
    prepare,
    train,
)
from localgd.data.datasets import DATASETS
from localgd.errors import RemoteError
from localgd.flower import FlowerEngine, answer
from localgd.flower.client import client
from localgd.problems.metrics import Evaluate
from localgd.reference.max_margin import max_margin


@pytest.mark.parametrize("name", [*METHODS, *PENALISED])
def test_every_method_ends_with_the_same_bits_as_in_process(name):
    """Models, certificates and counted floats."""
    method = {**METHODS, **PENALISED}[name]
    shards = with_bias(random_rows(5), noise=0.1) if name in PENALISED else random_rows(5)
    assert_same_run(train(flower(shards), method, n_rounds=12), train(InProcess(shards), method, n_rounds=12))


def test_certificates_of_models_from_anywhere_are_the_same():
    shards = random_rows(3)
    w = np.arange(1.0, 6.0)
    for goal in ({}, {"goal": Angle(5.0)}, {"problem": Regularised(C=1.0)}):
        found = certify(w, flower(shards), **goal)
        assert found.to_dict() == certify(w, InProcess(shards), **goal).to_dict()


def test_rows_of_any_size_end_with_the_same_bits_as_in_process():
    shards = [Shard(s.node_id, s.rows * 2.0**90) for s in random_rows(3)]
    assert_same_run(train(flower(shards), auto(), n_rounds=20), train(InProcess(shards), auto(), n_rounds=20))


@pytest.mark.parametrize("name", ["heart", "sentences", "mushroom"])
def test_tables_are_prepared_on_the_nodes(name):
    configs = [{"partition-id": i, "data": name, "secret": "0123456789abcdef"} for i in range(len(load(name)))]
    engine = FlowerEngine(LocalGrid(client, configs), n_nodes=len(configs), poll=1e-4)
    federation, recipe = prepare(engine, **DATASETS[name].options)
    alike, same = prepare(InProcess(load(name)), **DATASETS[name].options)
    assert recipe == same
    method = local_gd(local_steps=5)
    assert_same_run(train(federation, method, n_rounds=3), train(alike, method, n_rounds=3))


def test_regression_goes_over_flower_too():
    rng = np.random.default_rng(0)
    nodes = [Samples(f"n{i}", rng.standard_normal((9, 4)), rng.standard_normal(9)) for i in range(3)]
    for method in (normal_equations(), conjugate_gradients()):
        found, expected = (train(make(nodes), method, problem=LeastSquares(1.0)) for make in (flower, InProcess))
        assert_same_run(found, expected)


def test_bytes_are_counted_from_the_records():
    engine = flower(random_rows(1))
    before = engine.bytes_up, engine.bytes_down
    engine.round(Evaluate(), Message(0, np.zeros(5)))
    up, down = engine.bytes_up - before[0], engine.bytes_down - before[1]
    assert 8 * 4 * 5 < down < 4 * 600
    assert 8 * engine.floats_up // 2 < up < 4 * 600


# who is there


def test_two_nodes_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two nodes are called 'a'"):
        FlowerEngine(grid_of([Shard("a", [[1.0]]), Shard("a", [[2.0]])]))


def test_too_few_nodes_are_waited_for_and_then_counted():
    with pytest.raises(TimeoutError, match=r"1 of 3 nodes are online after 0\.05 s"):
        FlowerEngine(grid_of([Shard("a", [[1.0]])]), n_nodes=3, timeout=0.05)


def test_a_node_that_does_not_answer_localgd_is_named_with_the_remedy():
    with pytest.raises(RuntimeError, match=r"does not tell its name.*localgd\.flower\.answer"):
        FlowerEngine(LocalGrid(ClientApp(), [{}]))


def test_a_node_that_cannot_read_its_rows_is_called_by_its_name():
    config = {"node-name": "east", "data-path": "/nowhere/rows.csv"}
    with pytest.raises(RuntimeError, match=r"does not tell its name \(east: RefusedError: its data-path is no file"):
        FlowerEngine(LocalGrid(answer(ClientApp()), [config]))


def test_more_nodes_than_there_are_cannot_be_asked_for():
    with pytest.raises(ValueError, match="min_nodes=3: the number of nodes is 1"):
        FlowerEngine(grid_of([Shard("a", [[1.0]])]), n_nodes=1, on_failure="skip", min_nodes=3)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"poll": -1}, {"retries": -1}, {"on_failure": "ignore"}])
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        FlowerEngine(grid_of([Shard("a", [[1.0]])]), **options)


# what a node runs, and what it says


@dataclass(frozen=True)
class Spy:
    """Nobody agreed to this."""

    def schema(self, message):  # noqa: ARG002
        return {}

    def run(self, message, shard, state): ...


def test_a_node_runs_nothing_that_is_not_on_its_list():
    engine = FlowerEngine(grid_of(random_rows(1)))
    with pytest.raises(NodeError, match=r"Spy' is not on the list of this node \(.*local\.GradientSteps"):
        engine.round(Spy(), Message())
    grid = grid_of(random_rows(1), tasks=[Evaluate])
    with pytest.raises(NodeError, match=r"probes\.Sizes' is not on the list"):
        train(FlowerEngine(grid), local_gd())


@pytest.mark.parametrize("encode", [lambda shard: shard, Doubled, print, "text"])
def test_code_is_not_sent(encode):
    with pytest.raises(TypeError, match="sent data, not code"):
        FlowerEngine(grid_of(random_rows(1))).map(encode)


def test_nodes_with_limits_are_evaluated_in_groups_as_large_as_they_say():
    tables, options = load("heart"), DATASETS["heart"].options
    federation, recipe = prepare(InProcess(tables), **options)
    model = train(federation, lbfgs(), problem=Regularised(C=1.0, intercept=True), n_rounds=9).model(recipe)
    configs = [{"partition-id": i, "data": "heart", "min-group": 8} for i in range(4)]
    engine = FlowerEngine(LocalGrid(client, configs), n_nodes=4, poll=1e-4)
    with pytest.raises(NodeError, match="no cell of a table of fewer than 8 rows"):
        evaluate(model, engine)
    found, expected = (evaluate(model, held, min_group=8) for held in (engine, InProcess(tables)))
    assert found.auc == expected.auc


def test_a_node_tells_no_smaller_groups_than_its_operator_allows():
    configs = [{"partition-id": i, "data": "heart", "min-group": 5} for i in range(4)]
    engine = FlowerEngine(LocalGrid(client, configs), n_nodes=4, poll=1e-4)
    with pytest.raises(NodeError, match="no word and no cell of a table of fewer than 5 rows; give min-group=5"):
        prepare(engine, **DATASETS["heart"].options)
    assert prepare(engine, **DATASETS["heart"].options, min_group=6)[1].unseen == "zeros"


def test_what_an_error_says_stays_on_the_node_unless_it_may_go():
    def broken(context):  # noqa: ARG001
        if len(asked) > 1:
            raise ValueError("column age holds 'Jane Doe'")
        asked.append(1)
        return Shard("a", [[1.0]])

    for share in (False, True):
        asked = []
        grid = LocalGrid(answer(ClientApp(), broken), [{"share-errors": share}])
        engine = FlowerEngine(grid, on_failure="skip")
        asked.append(2)
        with pytest.raises(NodeError):
            engine.round(Evaluate(), Message(0, np.ones(1)))
        failure = engine.failures[0]
        assert ("Jane" in failure.error + failure.trace.replace('raise ValueError("column age holds', "")) == share or (
            not share and "Jane" not in failure.error
        )
        assert failure.error.startswith("ValueError")
        assert "in broken" in failure.trace


def test_what_an_error_came_of_and_its_notes_go_where_its_words_may():
    def broken(context):  # noqa: ARG001
        if len(asked) > 1:
            try:
                raise KeyError("Jane Doe")  # noqa: TRY301  it is what the other one came of
            except KeyError as error:
                error.add_note("a note of Jane")
                raise ValueError("no such row") from error
        asked.append(1)
        return Shard("a", [[1.0]])

    for share in (False, True):
        asked = []
        grid = LocalGrid(answer(ClientApp(), broken), [{"share-errors": share}])
        engine = FlowerEngine(grid, debug=True)
        asked.append(2)
        with pytest.raises(RemoteError) as caught:
            engine.round(Evaluate(), Message(0, np.ones(1)))
        said = caught.value.trace.replace('raise KeyError("Jane Doe")', "")
        assert "in broken" in said
        for words in ("KeyError: 'Jane Doe'", "a note of Jane", "ValueError: no such row"):
            assert (words in said) is share
        assert caught.value.__notes__[-1].startswith("round 0, node 'a', task Evaluate(")


def test_a_node_notices_that_its_rows_changed_within_a_run():
    shards = random_rows(1)
    held = list(shards)
    app = answer(ClientApp(), lambda context: held[context.node_id - 2**63])
    grid = LocalGrid(app, [{} for _ in shards])
    engine = FlowerEngine(grid)
    engine.round(Evaluate(), Message(0, np.ones(5)))
    from localgd.engine.flower import node

    node._HELD.clear()  # as every message of a deployment is a new process
    held[2] = Shard(held[2].node_id, held[2].rows * 2)
    with pytest.raises(NodeError, match=r"node-2.*rows have changed since this run began"):
        engine.round(Evaluate(), Message(1, np.ones(5)))


def test_a_restarted_node_with_other_rows_is_noticed_by_its_keyed_digest():
    shards = random_rows(1)
    grid = grid_of(shards)
    engine = FlowerEngine(grid)
    engine.round(Evaluate(), Message(0, np.ones(5)))
    other = grid_of([Shard(s.node_id, s.rows * 2) for s in shards])
    grid.app = other.app
    for place in range(4):
        grid.restart(place)
    from localgd.engine.flower import node

    node._HELD.clear()
    with pytest.raises(NodeError, match="rows are not those that this run began with"):
        engine.round(Evaluate(), Message(1, np.ones(5)))


def test_a_node_without_a_secret_that_forgot_the_run_is_refused():
    """Its rows may be others by now, and what is proved so far is about the old ones."""
    grid = grid_of(random_rows(1))
    for config in grid.configs:
        del config["secret"]
    for place in range(4):
        grid.restart(place)
    engine = FlowerEngine(grid, on_failure="skip")
    assert engine.round(Evaluate(), Message(0, np.ones(5))).n_nodes == 4
    grid.restart(2)
    for round_ in (1, 2):
        assert engine.round(Evaluate(), Message(round_, np.ones(5))).n_nodes == 3
        assert "without a secret" in engine.failures[-1].error


# nodes that come and go


def exact(shards):
    return max_margin(stacked(shards))


def test_a_silent_node_is_a_timeout_and_its_late_answer_enters_no_later_round():
    shards = random_rows(4)
    grid = grid_of(shards, lost=lambda number, node: number > 4 and node == 2)
    engine = FlowerEngine(grid, on_failure="skip", timeout=0.02, poll=1e-3)
    assert engine.round(Evaluate(), Message(0, np.ones(5))).n_nodes == 3
    assert engine.failures[0].error == "TimeoutError: no answer within 0.02 s"
    grid.lost = lambda number, node: False  # noqa: ARG005
    assert engine.round(Evaluate(), Message(1, np.ones(5))).n_nodes == 4


def test_who_waits_long_looks_less_often(monkeypatch):
    """Every look costs the SuperLink something, and its cores may be those of the nodes."""
    grid = grid_of(random_rows(4), lost=lambda number, node: number > 4)  # noqa: ARG005
    looks, pull = [], grid.pull_messages
    monkeypatch.setattr(grid, "pull_messages", lambda keys: looks.append(time.monotonic()) or pull(keys))
    engine = FlowerEngine(grid, timeout=0.5, poll=1e-3)
    looks.clear()
    with pytest.raises(NodeError, match=r"no answer within 0\.5 s"):
        engine.round(Evaluate(), Message(0, np.ones(5)))
    assert looks[-1] - looks[0] > 0.45
    assert len(looks) < 120  # 20 in the first 0.02 s, then 66; at an even pace they would be 500


@pytest.mark.parametrize(
    "method",
    [local_gd(local_steps=10), modified_local_gd(), consensus(), interior_point()],
    ids=lambda method: method.name,
)
def test_a_node_away_for_ten_rounds_and_restarted_comes_back(method):
    shards = random_rows(4)
    grid = grid_of(shards)
    engine = FlowerEngine(grid, on_failure="skip", poll=1e-4)
    answer_ = exact(shards)

    def away(info):
        grid.offline = {2**63 + 2} if 8 <= info.row.round < 18 else set()
        if info.row.round == 17:
            grid.restart(2)

    run = train(engine, method, n_rounds=120, on_round=away, reference=answer_.direction, goal=Angle(0.01))
    assert sum(row.n_nodes == 3 for row in run.history) >= 9 or run.n_rounds < 18
    assert run.certificate.margin_low <= answer_.margin_high
    assert answer_.margin_low <= run.certificate.margin_high
    assert run.history[-1].true_angle_deg <= run.history[-1].angle_deg_max


@pytest.mark.parametrize(
    "method", [local_gd(local_steps=10), modified_local_gd(), consensus()], ids=lambda method: method.name
)
def test_what_is_proved_holds_when_every_tenth_answer_is_lost(method):
    shards = random_rows(4)
    rng = np.random.default_rng(0)
    answer_ = exact(shards)

    def check(info):
        row = info.row
        assert row.low <= answer_.margin_high
        assert answer_.margin_low <= row.high
        assert not row.true_angle_deg > row.angle_deg_max

    grid = grid_of(shards, lost=lambda number, node: number > 30 and rng.random() < 0.1)  # noqa: ARG005
    engine = FlowerEngine(grid, on_failure="skip", timeout=0.004, poll=1e-3)
    run = train(engine, method, n_rounds=500, reference=answer_.direction, on_round=check)
    if run.n_rounds == 500:
        assert sum(len(shards) - row.n_nodes for row in run.history) > 100


def test_asking_again_within_a_round_makes_up_for_what_was_lost():
    shards = random_rows(4)
    rng = np.random.default_rng(0)
    grid = grid_of(shards, lost=lambda number, node: number > 30 and rng.random() < 0.1)  # noqa: ARG005
    engine = FlowerEngine(grid, retries=9, timeout=0.005, poll=1e-3)
    run = train(engine, consensus(), n_rounds=40)
    np.testing.assert_array_equal(run.w, train(InProcess(shards), consensus(), n_rounds=40).w)
    assert {failure.outcome for failure in run.failures} == {"asked again"}


def test_a_node_that_has_lost_a_view_is_told_of_it_again_without_a_failure():
    shards = random_rows(4)
    grid = grid_of(shards, encoders=[Doubled])
    engine = FlowerEngine(grid).map(Doubled())
    first = engine.round(Evaluate(), Message(0, np.ones(5)))
    grid.restart(1)
    again = engine.round(Evaluate(), Message(0, np.ones(5)))
    assert first.n_nodes == again.n_nodes == 4
    assert not engine.failures


def test_states_of_an_earlier_training_are_never_used():
    shards = random_rows(4)
    grid = grid_of(shards)
    first = train(FlowerEngine(grid), modified_local_gd(), n_rounds=7)
    again = train(FlowerEngine(grid), modified_local_gd(), n_rounds=7)  # the same contexts
    np.testing.assert_array_equal(first.w, again.w)


def test_answers_that_are_there_are_waited_for_no_moment(monkeypatch):
    engine, naps = flower(random_rows(1)), []
    monkeypatch.setattr(time, "sleep", naps.append)
    for round_ in range(20):
        engine.round(Evaluate(), Message(round_, np.zeros(5)))
    assert not naps


def test_codes_are_what_travels():
    rows = np.random.default_rng(0).standard_normal((3, 8, 2000)) + 0.1
    shards, method = [Shard(f"{place}", node) for place, node in enumerate(rows)], local_gd(local_steps=5, lr=0.1)
    sent = []
    for one in (method, method.compressed(Int8()), method.compressed(Int4())):
        engine = flower(shards)
        run = train(engine, one, n_rounds=20)
        sent.append((engine.bytes_up, run.history[-1].floats_up))
    plain, eight, four = sent
    assert 6.5 * eight[0] < plain[0]
    assert 11 * four[0] < plain[0]
    assert 7 * eight[1] < plain[1]
