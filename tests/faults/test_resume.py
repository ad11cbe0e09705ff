"""A run that is cut at any round goes on from its checkpoint and ends with the same bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from common import METHODS, PENALISED, random_rows, with_bias
from cut import CutError, assert_same_run, cut_at
from localgd import InProcess, Message, NodeError, Report, Shard, auto, consensus, local_gd, train
from localgd.core import Field
from localgd.problems.metrics import Evaluate
from localgd.run.checkpoint import FILE, Checkpoints


def federation(method):
    penalised = getattr(method, "penalty", None) is not None
    return InProcess(with_bias(random_rows(5), noise=0.1) if penalised else random_rows(5))


@pytest.mark.parametrize("name", [*METHODS, *PENALISED])
def test_a_run_cut_at_any_round_ends_with_the_same_bits(name, tmp_path):
    method = {**METHODS, **PENALISED}[name]
    expected = train(federation(method), method, n_rounds=14)
    for round_ in (0, 1, 2, 7, 13):
        checkpoints = Checkpoints(tmp_path / f"{round_}", every_rounds=1)
        if round_ < expected.n_rounds:
            with pytest.raises(CutError):
                train(federation(method), method, n_rounds=14, checkpoints=checkpoints, on_round=cut_at(round_))
        assert_same_run(train(federation(method), method, n_rounds=14, checkpoints=checkpoints), expected)


@pytest.mark.parametrize("every", [1, 3, 1000])
def test_a_method_in_reserve_is_taken_up_too(every, tmp_path):
    """Nothing separates these rows: consensus hands over to the minimiser, and the cut comes after that."""
    shards = with_bias(random_rows(7), seed=1, noise=0.5)
    expected = train(InProcess(shards), auto(), n_rounds=40)
    assert expected.method.name == "newton"
    for round_ in range(expected.n_rounds):
        checkpoints = Checkpoints(tmp_path / f"{round_}", every_rounds=every)
        with pytest.raises(CutError):
            train(InProcess(shards), auto(), n_rounds=40, checkpoints=checkpoints, on_round=cut_at(round_))
        assert_same_run(train(InProcess(shards), auto(), n_rounds=40, checkpoints=checkpoints), expected)


def test_a_finished_run_goes_on_for_more_rounds(tmp_path):
    shards = random_rows(5)
    expected = train(InProcess(shards), local_gd(local_steps=5), n_rounds=30)
    checkpoints = Checkpoints(tmp_path / "held")
    first = train(InProcess(shards), local_gd(local_steps=5), n_rounds=12, checkpoints=checkpoints)
    assert first.unfinished
    assert first.n_rounds == 12
    assert_same_run(train(InProcess(shards), local_gd(local_steps=5), n_rounds=30, checkpoints=checkpoints), expected)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    shards = random_rows(5)
    checkpoints = Checkpoints(tmp_path / "held")
    train(InProcess(shards), local_gd(local_steps=5), n_rounds=5, checkpoints=checkpoints)
    with pytest.raises(ValueError, match="checkpoint is of another run"):
        train(InProcess(shards), local_gd(local_steps=6), n_rounds=5, checkpoints=checkpoints)
    with pytest.raises(ValueError, match="checkpoint is of another run"):
        train(InProcess(shards[1:]), local_gd(local_steps=5), n_rounds=5, checkpoints=checkpoints)


@pytest.mark.parametrize("method", [local_gd(local_steps=5), consensus()], ids=["stateless nodes", "stateful nodes"])
def test_rows_that_changed_are_noticed_by_their_node(method, tmp_path):
    """The mass of a certificate is about the old rows: with others it would prove nothing."""
    shards = random_rows(5)
    checkpoints = Checkpoints(tmp_path / "held")
    train(InProcess(shards), method, n_rounds=5, checkpoints=checkpoints)
    shards[2] = Shard(shards[2].node_id, shards[2].rows * (1 + 1e-15))
    with pytest.raises(NodeError, match=r"'node-2'.*rows are not those of the checkpoint"):
        train(InProcess(shards), method, n_rounds=9, checkpoints=checkpoints)


def test_a_damaged_checkpoint_is_named(tmp_path):
    shards = random_rows(5)
    checkpoints = Checkpoints(tmp_path / "held")
    train(InProcess(shards), local_gd(), n_rounds=3, checkpoints=checkpoints)
    whole = (tmp_path / "held" / FILE).read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "held" / FILE).write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"server\.npz"):
            train(InProcess(shards), local_gd(), n_rounds=3, checkpoints=checkpoints)
    for parts in ({"a/0": np.ones(2)}, {"a": np.array([255, 254], dtype=np.uint8)}, {"state": np.ones(2)}):
        np.savez(tmp_path / "held" / FILE, **parts)
        with pytest.raises(ValueError, match=r"server\.npz"):
            train(InProcess(shards), local_gd(), n_rounds=3, checkpoints=checkpoints)


def test_names_of_nodes_may_hold_any_sign(tmp_path):
    names = ["Ward A/B", "C.state", "Zürich ✓", "0.head", ".."]
    shards = [Shard(name, shard.rows) for name, shard in zip(names, random_rows(5, n_nodes=5), strict=True)]
    for method in (consensus(), local_gd()):
        checkpoints = Checkpoints(tmp_path / method.name)
        expected = train(InProcess(shards), method, n_rounds=9)
        train(InProcess(shards), method, n_rounds=4, checkpoints=checkpoints)
        assert_same_run(train(InProcess(shards), method, n_rounds=9, checkpoints=checkpoints), expected)


def test_only_the_last_checkpoint_is_kept(tmp_path):
    train(InProcess(random_rows(5)), consensus(), n_rounds=9, checkpoints=Checkpoints(tmp_path, every_rounds=1))
    assert len(list(tmp_path.iterdir())) == 2


def test_two_runs_do_not_share_a_folder(tmp_path):
    shards = random_rows(5)
    checkpoints = Checkpoints(tmp_path, every_rounds=1)
    refused = []

    def meanwhile(row, certificate):  # noqa: ARG001
        if row.round == 3:
            with pytest.raises(FileExistsError, match="another run is at work on it") as caught:
                train(InProcess(shards), local_gd(), n_rounds=9, checkpoints=checkpoints)
            refused.append(caught)

    run = train(InProcess(shards), local_gd(), n_rounds=9, checkpoints=checkpoints, on_round=meanwhile)
    assert refused
    assert_same_run(train(InProcess(shards), local_gd(), n_rounds=9, checkpoints=checkpoints), run)


def test_a_folder_that_is_moved_away_is_not_made_again(tmp_path):
    checkpoints = Checkpoints(tmp_path / "held", every_rounds=1)

    def move(row, certificate):  # noqa: ARG001
        if row.round == 3:
            checkpoints.folder.rename(tmp_path / "moved")

    with pytest.warns(RuntimeWarning, match="no checkpoint could be written"):
        run = train(InProcess(random_rows(5)), local_gd(), n_rounds=9, checkpoints=checkpoints, on_round=move)
    assert run.n_rounds == 9
    assert [path.name for path in tmp_path.iterdir()] == ["moved"]


def test_what_was_half_written_is_cleared_away(tmp_path):
    left = tmp_path / f".{FILE}.12345"
    left.write_bytes(b"half")
    train(InProcess(random_rows(5)), local_gd(), n_rounds=3, checkpoints=Checkpoints(tmp_path))
    assert not left.exists()


def test_states_of_nodes_that_are_gone_are_named(tmp_path):
    shards, checkpoints = random_rows(5), Checkpoints(tmp_path)
    train(InProcess(shards), consensus(), n_rounds=3, checkpoints=checkpoints)
    next(tmp_path.glob("nodes-*.npz")).unlink()
    with pytest.raises(ValueError, match=r"nodes-\d+.npz is not there: .* start the run afresh"):
        train(InProcess(shards), consensus(), n_rounds=9, checkpoints=checkpoints)


def test_what_nodes_remember_of_a_run_ends_with_it(tmp_path):
    engine = InProcess(random_rows(5))
    train(engine, consensus(), n_rounds=5)
    with pytest.raises(CutError):
        train(engine, consensus(), n_rounds=5, on_round=cut_at(3))
    assert {session for session, _ in engine.nodes._kept} == {""}  # rounds by themselves, of tasks without a memory
    checkpoints = Checkpoints(tmp_path / "held", every_rounds=1)
    with pytest.raises(CutError):
        train(engine, consensus(), n_rounds=9, checkpoints=checkpoints, on_round=cut_at(6))
    run = train(engine, consensus(), n_rounds=9, checkpoints=checkpoints)  # from the disk, in a session of its own
    assert_same_run(run, train(InProcess(random_rows(5)), consensus(), n_rounds=9))


@dataclass(frozen=True)
class Untold:
    """Keep a state, and do not say of which type."""

    def schema(self, message):  # noqa: ARG002
        return {"runs": Field("sum")}

    def run(self, message, shard, state):  # noqa: ARG002
        runs = (state or 0) + 1
        return Report(1, shard.n_rows, {"runs": runs}), runs


def test_a_state_is_written_only_if_its_task_says_what_it_is(tmp_path):
    engine = InProcess(random_rows(1))
    for round_ in (0, 1):
        report = engine.round(Untold(), Message(round_))
    assert float(report.sums["runs"]) == 2 * 4  # without an init it begins with None
    with pytest.raises(TypeError, match="Untold keeps a state, so it must declare state_type"):
        engine.keep(Untold(), tmp_path, 1)
    engine.round(Evaluate(), Message(0, np.zeros(5)))
    engine.keep(Evaluate(), tmp_path, 1)  # of a task without a memory there is nothing to write
    engine.recall(Evaluate(), tmp_path, 1)
