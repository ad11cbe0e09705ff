"""Networks over several ranks: what holds in every one of them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from engines.ranks import TESTS, in_ranks


def pytest_in_ranks(world, *words):
    ended = in_ranks(world, ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *words], seconds=500)
    assert [rank.code for rank in ended] == [0] * world, "\n".join(rank.output for rank in ended if rank.code)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("file", "world"),
    [
        ("each_rank", 2),
        ("each_rank", 4),
        ("each_rank_peers", 2),
        ("each_rank_schedules", 2),
        ("each_rank_beside", 2),
        ("each_rank_buckets", 2),
        ("each_rank_buckets", 4),
        ("each_rank_overlap", 2),
        ("each_rank_head", 2),
    ],
)
def test_every_rank_trains_the_same_network(file, world):
    pytest_in_ranks(world, f"tests/nets/{file}.py")


@pytest.mark.processes
def test_a_shadow_tells_images_by_label_from_images_at_random():
    ended = in_ranks(2, ["benchmarks/shadow.py", "--steps", "60", "--local", "20"])
    assert [rank.code for rank in ended] == [0, 0], ended[0].output
    rows = [line.split("|")[1:5] for line in ended[0].output.splitlines() if line.startswith(("| at", "| by"))]
    (_, _, run, other), (_, _, unlike, _) = rows
    run, other, unlike = (float(share.split()[0]) for share in (run, other, unlike))
    assert run < other + 3
    assert unlike > other + 3


PROGRAM = ["tests/nets/lost.py"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What three ranks hold after a training that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    ended = in_ranks(3, [*PROGRAM, f"{folder}"])
    assert [rank.code for rank in ended] == [0, 0, 0], ended[0].output
    return torch.load(folder / "model-0.pt")


LOST = {
    ("kill", 0): "the rank that keeps torch's store ended",
    ("kill", 1): "rank 1 ended, or hangs",
    ("stop", 2): "rank 2 ended, or hangs",
    ("leave", 1): "rank 1 left: KeyError: 'no such column'",
}


@pytest.mark.processes
@pytest.mark.parametrize(("fault", "lost"), LOST)
def test_a_lost_rank_is_named_and_a_restart_goes_on_to_the_same_bits(fault, lost, whole, tmp_path):
    others = {0, 1, 2} - {lost}
    ended = in_ranks(3, [*PROGRAM, f"{tmp_path}", fault, f"{lost}"], until=others)
    for rank in others:
        assert ended[rank].code == 1
        assert LOST[fault, lost] in ended[rank].output, ended[rank].output
    again = in_ranks(3, [*PROGRAM, f"{tmp_path}"])
    assert [rank.code for rank in again] == [0, 0, 0], again[0].output
    for rank in range(3):
        state = torch.load(tmp_path / f"model-{rank}.pt")
        assert state.keys() == whole.keys()
        for name, tensor in whole.items():
            assert torch.equal(tensor, state[name]), name


@pytest.mark.processes
def test_killed_thirty_times_at_any_moment_a_training_ends_with_the_same_bits():
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    words = [sys.executable, "tests/nets/killed.py", "30"]
    done = subprocess.run(words, cwd=TESTS.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "30 kills" in done.stdout, done.stdout
