"""The engine over torch.distributed: what holds in every rank, and what happens when one of them is lost."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from engines.lost import TIMEOUT
from engines.ranks import in_ranks
from localgd import InProcess, TorchDistributed, load, prepare, torch_processes, train
from own_methods import BLOCKS, PROGRAMS

PROGRAM = ["tests/engines/lost.py"]

CONTRACT = ["tests/engines/test_contract.py", "tests/engines/test_evaluated.py"]


def pytest_in_ranks(world, *words):
    ended = in_ranks(world, ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *words], seconds=500)
    assert [rank.code for rank in ended] == [0] * world, "\n".join(rank.output for rank in ended if rank.code)


@pytest.mark.processes
@pytest.mark.parametrize("world", [2, 4])
def test_every_rank_keeps_the_contract(world):
    files = [*CONTRACT, *(f"tests/engines/{name}.py" for name in ("each_rank", "each_rank_resumes"))]
    pytest_in_ranks(world, *files, "-k", "torch or each_rank")


def model_and_history(folder, rank):
    with np.load(folder / f"run-{rank}.npz") as held:
        return {name: held[name] for name in held.files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What each of three ranks holds after a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    ended = in_ranks(3, [*PROGRAM, f"{folder}"])
    assert [rank.code for rank in ended] == [0, 0, 0], ended[0].output
    return [model_and_history(folder, rank) for rank in range(3)]


@pytest.mark.processes
@pytest.mark.parametrize(("fault", "lost"), [("kill", 0), ("stop", 2)])
def test_a_lost_rank_ends_the_others_in_words_and_a_restart_goes_on_to_the_same_bits(fault, lost, whole, tmp_path):
    others = {0, 1, 2} - {lost}
    ended = in_ranks(3, [*PROGRAM, f"{tmp_path}", "8", fault, f"{lost}"], until=others)
    for rank in others:
        assert ended[rank].code == 1
        assert f"another process ended, or gave no answer within {TIMEOUT:g} s; where there are" in ended[rank].output
    if fault == "kill":
        assert ended[lost].code == -9
    again = in_ranks(3, [*PROGRAM, f"{tmp_path}"])
    assert [rank.code for rank in again] == [0, 0, 0], again[0].output
    for rank in range(3):
        for name, values in model_and_history(tmp_path, rank).items():
            np.testing.assert_array_equal(values, whole[rank][name])


def test_the_program_of_the_page_runs_in_two_ranks(tmp_path):
    """docs/own-method.md: own.py is its first program."""
    (tmp_path / "own.py").write_text(BLOCKS[0])
    (tmp_path / "spread.py").write_text(next(block for block in BLOCKS if "TorchDistributed" in block))
    first, second = in_ranks(2, [str(tmp_path / "spread.py")])
    assert (first.code, second.code) == (0, 0), first.output + second.output
    here = prepare(InProcess(load("heart")), scale="standard")[0]
    assert first.output.splitlines()[-1] == train(here, PROGRAMS["heavy-ball"].method, n_rounds=20).certificate.status


def test_without_torchrun_it_says_what_to_do(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(RuntimeError, match="start with: torchrun --nproc-per-node"), torch_processes():
        pass
    with pytest.raises(RuntimeError, match="use `with torch_processes"):
        TorchDistributed([])


def test_without_torch_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "localgd.engine.processes", raising=False)
    monkeypatch.delitem(sys.modules, "localgd.engine.torchdist", raising=False)
    import localgd

    with pytest.raises(ModuleNotFoundError, match=r"pip install 'localgd\[torch\]'"):
        _ = localgd.TorchDistributed
