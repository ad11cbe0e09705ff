"""Checkpoints, cut short at every operation on files: all ranks go on from one sync, to the same bits."""

# ruff: noqa: NPY002, S311  these generators are what some tests are about
from __future__ import annotations

import hashlib
import io
import itertools
import os
import random
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from localgd.nets import LocalSGD, RankError, diloco
from localgd.nets.checkpoint import rng_state, set_rng_state
from nets.threads import ThreadRanks, in_threads

WORLD, SYNCS = 2, 4


def network():
    """Return a model whose numbers no generator draws, as threads share the generators."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    for parameter in model.parameters():
        parameter.data = torch.linspace(-1, 1, parameter.numel()).view(parameter.shape)
    return model


def begun():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return LocalSGD(model, optimizer, sync_every=2, outer=diloco(), compress="int8"), model, optimizer


def program(rank, folder, *, upto=SYNCS, saved=SYNCS, resume=True):
    """Train this rank up to a sync, from its last checkpoint on; save after each of the first ones."""
    local, model, optimizer = begun()
    found = local.resume(folder) if resume else None
    for k in range(found[1] if found else 0, upto):
        for step in range(2):
            x = torch.randn(6, 3, generator=torch.Generator().manual_seed(100 * rank + 10 * k + step))
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
            local.step(x)
        if k < saved:
            local.save(folder, k + 1)
    return local


def bits(local):
    """Return a digest of all that a rank goes on with, but for the generators, which are of all threads."""
    digest = hashlib.sha256()

    def add(value):
        if isinstance(value, torch.Tensor):
            digest.update(value.numpy().tobytes())
        elif isinstance(value, dict | list | tuple):
            for each in value.items() if isinstance(value, dict) else value:
                add(each)
        else:
            digest.update(repr(value).encode())

    add({key: value for key, value in local.state_dict().items() if key not in {"generators", "session"}})
    return digest.hexdigest()


def ended(monkeypatch, folder):
    return [bits(local) for local in in_threads(monkeypatch, WORLD, partial(program, folder=folder))]


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """What two ranks hold after a training that nothing happened to."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        return ended(monkeypatch, tmp_path_factory.mktemp("calm"))


class Power:
    """Operations on files, of which only the first few take place: what is left is what a killed process leaves."""

    def __init__(self, monkeypatch, first=10**9):
        self.first, self.asked = first, 0
        for name in ("mkdir", "replace", "unlink"):
            monkeypatch.setattr(os, name, self.counted(getattr(os, name)))
        monkeypatch.setattr(os, "fsync", lambda _: self.on())  # what a process wrote outlives it, on disk or not
        of_path = Path.open
        monkeypatch.setattr(
            Path, "open", lambda path, mode: File(self, of_path(path, mode, buffering=0) if self.on() else None)
        )

    def on(self):
        self.asked += 1
        return self.asked <= self.first

    def counted(self, do):
        return lambda *args, **options: do(*args, **options) if self.on() else None


class File(io.RawIOBase):
    """A file that a process writes to until it is killed, in the middle of writing."""

    def __init__(self, power, file):
        self.power, self.file = power, file

    def write(self, content):
        if self.power.on():
            self.file.write(content)
        elif self.file is not None and self.power.asked == self.power.first + 1:
            self.file.write(bytes(content)[: len(content) // 2])
        return len(content)

    def fileno(self):
        return -1 if self.file is None else self.file.fileno()

    def close(self):
        if self.file is not None:
            self.file.close()


def committed(local, folder, number, first=10**9):
    """Save until the power goes; return how many operations that was, or would have been."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        power = Power(monkeypatch, first)
        local._folder = folder  # as it was before, or would be after other cuts
        local.save(folder, number)
        return power.asked


def lying(folder):
    """Return the names of whole files, how many there are that were begun, and what the whole ones hold."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    wholes = tuple(name for name in names if name.startswith("sync-"))
    return wholes, len(names) - len(wholes), tuple((folder / name).read_bytes() for name in wholes)


def cut_points(local, before, number, scratch):
    """Return the cut points of a commit that leave unlike folders, one for each; no torn file may be in sight."""
    folders = {}
    for first in itertools.count():
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(before, scratch)
        n_operations = committed(local, scratch, number, first)
        folders.setdefault(lying(scratch), first)
        if first >= n_operations:
            break
    names = {name for wholes, _, _ in folders for name in wholes}
    held = {content for _, _, contents in folders for content in contents}
    assert len(names) == len(held), "one name, two contents: a file was seen half written"
    assert first > 20
    return list(folders.values())


@pytest.mark.filterwarnings("ignore:.*came to the end of a first save")
@pytest.mark.parametrize("number", [1, 2, 3])
def test_killed_anywhere_in_a_commit_all_ranks_go_on_to_the_same_bits(number, calm, monkeypatch, tmp_path):
    before, scratch = tmp_path / "before", tmp_path / "scratch"
    before.mkdir()
    locals_ = in_threads(monkeypatch, WORLD, partial(program, folder=before, upto=number, saved=number - 1))
    cuts = [cut_points(local, before, number, scratch) for local in locals_]
    assert all(len(each) == (4 if number == 3 else 3) for each in cuts), cuts  # nothing, begun, there, the third gone
    for points in itertools.product(*cuts):
        shutil.rmtree(scratch)
        shutil.copytree(before, scratch)
        for local, first in zip(locals_, points, strict=True):
            committed(local, scratch, number, first)
        assert ended(monkeypatch, scratch) == calm, points
        wholes, n_begun, _ = lying(scratch)
        assert (len(wholes), n_begun) == (2 * WORLD, 0)


def test_killed_anywhere_in_a_resume_all_ranks_go_on_to_the_same_bits(calm, monkeypatch, tmp_path):
    before = tmp_path / "before"
    locals_ = in_threads(monkeypatch, WORLD, partial(program, folder=before, upto=3, saved=2))
    committed(locals_[0], before, 3)
    committed(locals_[1], before, 3, 15)
    assert [len(list(before.glob(f"*rank-{rank}-*"))) for rank in range(WORLD)] == [2, 3]
    n_operations = 1
    for first in itertools.count():
        folder = shutil.copytree(before, tmp_path / f"{first}")
        with pytest.MonkeyPatch.context() as cut:
            power = Power(cut, first)
            in_threads(monkeypatch, WORLD, lambda _, folder=folder: begun()[0].resume(folder))
            n_operations = power.asked
        assert ended(monkeypatch, folder) == calm
        if first >= n_operations:
            break
    assert first == 2  # rank 0's file that rank 1 lacks, and what rank 1 had begun


def test_a_resume_takes_away_what_not_all_ranks_have(monkeypatch, tmp_path):
    """A file of a sync to come would be one rank's, of another time, beside those that the others write."""
    locals_ = in_threads(monkeypatch, WORLD, partial(program, folder=tmp_path, upto=2, saved=1))
    locals_[0].save(tmp_path, 2)
    found = in_threads(monkeypatch, WORLD, lambda _: begun()[0].resume(tmp_path))
    assert found == [(1, 1), (1, 1)]
    assert lying(tmp_path)[0] == tuple(f"sync-00000001-rank-{rank}-of-2.pt" for rank in range(WORLD))


def flipped(content):
    """Return a file of which one bit in the middle of the anchor is another."""
    anchor = torch.load(io.BytesIO(content), weights_only=True)["parameters"]["anchor"].numpy().tobytes()
    at = content.index(anchor) + len(anchor) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


DAMAGES = {
    "empty": lambda content: content[:0],
    "one byte": lambda content: content[:1],
    "half": lambda content: content[: len(content) // 2],
    "all but one byte": lambda content: content[:-1],
    "zeros": lambda content: bytes(len(content)),
    "a bit": flipped,
}


@pytest.mark.parametrize("rank", range(WORLD))
@pytest.mark.parametrize("damage", DAMAGES)
def test_of_a_file_that_the_disk_lost_they_go_on_from_the_one_before(damage, rank, calm, monkeypatch, tmp_path):
    in_threads(monkeypatch, WORLD, partial(program, folder=tmp_path, upto=3))
    path = tmp_path / f"sync-00000003-rank-{rank}-of-2.pt"
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.warns(RuntimeWarning, match=rf"{path.name} cannot be read: .*: this goes on from sync 2"):
        assert ended(monkeypatch, tmp_path) == calm


def test_without_one_that_all_ranks_have_whole_they_are_told_what_there_is(monkeypatch, tmp_path):
    in_threads(monkeypatch, WORLD, partial(program, folder=tmp_path, upto=3))
    for number in (2, 3):
        (tmp_path / f"sync-{number:08d}-rank-0-of-2.pt").write_bytes(b"")
    words = r"no checkpoint that all ranks have whole \(rank 0 has \[2, 3\]; rank 1 has \[2, 3\]; .* cannot be read"
    with pytest.raises(RankError, match=words):
        ended(monkeypatch, tmp_path)
    for number in (2, 3):
        (tmp_path / f"sync-{number:08d}-rank-0-of-2.pt").unlink()
    with pytest.raises(RankError, match=r"rank 0 has \[\]; rank 1 has \[2, 3\]"):
        ended(monkeypatch, tmp_path)


def test_a_first_save_in_one_rank_only_is_said(calm, monkeypatch, tmp_path):
    in_threads(monkeypatch, WORLD, partial(program, folder=tmp_path, upto=1))
    next(tmp_path.glob("*rank-1-of-2.pt")).unlink()
    with pytest.warns(RuntimeWarning, match="only 0 came to the end of a first save, so this begins afresh"):
        assert ended(monkeypatch, tmp_path) == calm


def test_files_of_two_runs_are_not_mixed(monkeypatch, tmp_path):
    for name in ("one", "other"):
        in_threads(monkeypatch, WORLD, partial(program, folder=tmp_path / name, upto=3))
    for path in (tmp_path / "other").glob("*rank-1*"):
        path.replace(tmp_path / "one" / path.name)
    with pytest.raises(RankError, match="the ranks' files are of different runs"):
        ended(monkeypatch, tmp_path / "one")


def test_a_run_that_does_not_go_on_takes_no_place_of_files_of_before(calm, monkeypatch, tmp_path):
    in_threads(monkeypatch, WORLD, partial(program, folder=tmp_path, upto=3))
    before = lying(tmp_path)
    with pytest.raises(
        FileExistsError, match=r"has checkpoints of another run, of syncs 2, 3; go on .* with resume\(\)"
    ):
        in_threads(monkeypatch, WORLD, partial(program, folder=tmp_path, upto=3, resume=False))
    assert lying(tmp_path) == before
    assert ended(monkeypatch, tmp_path) == calm


def test_of_more_or_fewer_ranks_a_program_does_not_begin_unseen(monkeypatch, tmp_path):
    in_threads(monkeypatch, WORLD, partial(program, folder=tmp_path, upto=1))
    with pytest.raises(RankError, match="its checkpoints are of 2 ranks, and there are 1; start as many"):
        in_threads(monkeypatch, 1, partial(program, folder=tmp_path))


def test_what_could_not_be_read_again_is_not_written(monkeypatch, tmp_path):
    local = in_threads(monkeypatch, 1, partial(program, folder=tmp_path, upto=1, saved=0))[0]
    for extra in (np.float64(0.1), {"sampler": random.Random(0)}, lambda: 0):
        with pytest.raises(TypeError, match="extra_state must be made of plain values and tensors"):
            local.save(tmp_path, extra)
    assert not list(tmp_path.iterdir())
    local.save(tmp_path, {"epoch": 3, "sampler": [torch.zeros(2), (None, True, "a", b"b", 0.1)]})
    assert ThreadRanks is type(local._ranks)


def test_generators_go_on_where_they_were():
    device = torch.device("cpu")

    def drawn():
        return float(torch.rand(())), random.random(), float(np.random.rand()), float(np.random.randn())

    np.random.randn()  # one of a pair: the other is held back
    kept = rng_state(device)
    wanted = drawn()
    drawn()
    set_rng_state(kept, device)
    assert drawn() == wanted
