"""Kill -9 ranks of a training at random moments, and go on, again and again: its end has the bits of one left alone.

python tests/nets/killed.py [KILLS] [SEED], which prints what the kills hit. Ranks are forked from one process that has
imported torch, so that a start takes a tenth of a second.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from engines.ranks import free_port
from localgd import torch_processes
from localgd.nets import LocalSGD, diloco, slowmo
from nets.models import OPTIMIZERS, made

WORLD, SYNCS, EVERY = 2, 30, 2

RECIPES = [
    ("cnn with batch normalisation", "momentum", {"outer": diloco()}),
    ("group normalisation and dropout", "adam", {"outer": slowmo(), "compress": "int4"}),
    ("cnn with batch normalisation", "momentum", {"outer": diloco(), "overlap": True}),
]
"""What is trained in turn; dropout, noise and batches draw from every generator that a checkpoint holds."""


def bits(value, digest):
    """Feed all numbers of a state to a digest."""
    if isinstance(value, torch.Tensor):
        digest.update(value.contiguous().numpy().tobytes())
    elif isinstance(value, dict):
        for key in sorted(value.keys() - {"session"}, key=repr):
            digest.update(repr(key).encode())
            bits(value[key], digest)
    elif isinstance(value, list | tuple):
        for each in value:
            bits(each, digest)
    else:
        digest.update(repr(value).encode())


def batch(draws):
    """Return inputs and classes, by a sampler of the program's own and by all generators."""
    x = torch.randn(8, 40, generator=draws) + 0.01 * torch.randn(8, 40)
    x = x + 0.01 * random.gauss(0, 1) + 0.01 * float(np.random.randn())  # noqa: NPY002  the generator meant
    return x, (x[:, :3]).argmax(1)


def trained(folder, recipe, mark):
    """Train in this rank from the last checkpoint to the end, and write what tells the bits there."""
    name, how, options = RECIPES[recipe]
    with torch_processes(timeout=60.0) as (rank, _):
        model = made(name, torch.float32)
        optimizer = OPTIMIZERS[how](model.parameters())
        draws = torch.Generator().manual_seed(rank)
        for seed in (torch.manual_seed, random.seed, np.random.seed):
            seed(10 + rank)
        with LocalSGD(model, optimizer, sync_every=EVERY, timeout=60.0, **options) as local:
            found = local.resume(folder / "checkpoints")
            began = 0
            if found is not None:
                began, sampler = found[1]
                draws.set_state(sampler)
            mark()
            for k in range(began, SYNCS * EVERY):
                x, y = batch(draws)
                optimizer.zero_grad()
                functional.cross_entropy(model(x), y).backward()
                optimizer.step()
                if local.step((x, y)) is not None:
                    mark()
                    local.save(folder / "checkpoints", [k + 1, draws.get_state()])
                    mark()
            local.finish()
            digest = hashlib.sha256()
            bits(local.state_dict(), digest)
        (folder / f"end-{rank}").write_text(digest.hexdigest())


def forked(folder, recipe):
    """Start all ranks; return each one's process id, and where it says how far it is."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{free_port()}", "WORLD_SIZE": f"{WORLD}"}
    out = []
    for rank in range(WORLD):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.environ.update(place, RANK=f"{rank}")
                log = os.open(folder / f"log-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(log, 1)
                os.dup2(log, 2)
                trained(folder, recipe, partial(os.write, writing, b"."))
                code = 0
            except BaseException:  # noqa: BLE001  it goes into the log, and nowhere else
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        os.close(writing)
        out.append((pid, reading))
    return out


def waited(reading, marks):
    """Wait until a rank has come so far, or ended."""
    while marks > 0 and (said := os.read(reading, marks)):
        marks -= len(said)


@dataclass
class Hits:
    """What kills hit."""

    kills: int = 0
    ends: int = 0
    apart: int = 0
    begun: int = 0
    early: int = 0
    starts: list[float] = field(default_factory=list)


def attempt(folder, recipe, rng, hits, *, kill):
    """Start all ranks, and kill one after the other somewhere, if wanted; return whether they came to the end."""
    start = time.monotonic()
    ranks = forked(folder, recipe)
    if kill:
        order = rng.permutation(WORLD)
        if rng.random() < 0.2:
            time.sleep(rng.uniform(0, 1.2 * np.median(hits.starts or [0.5])))  # perhaps before the first sync
        else:
            waited(ranks[order[0]][1], 1)
            hits.starts.append(time.monotonic() - start)
            waited(ranks[order[0]][1], int(rng.integers(0, SYNCS)))  # twice for a sync: before and after it is saved
            time.sleep(rng.exponential(0.003))
        for rank in order:
            with suppress(ProcessLookupError):
                os.kill(ranks[rank][0], signal.SIGKILL)
            if rng.random() < 0.5:
                time.sleep(rng.exponential(0.01))  # others go on for a while, or notice
    codes = []
    for pid, reading in ranks:
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        os.close(reading)
    if not kill and any(codes):
        raise RuntimeError("\n".join((folder / f"log-{rank}").read_text() for rank in range(WORLD)))
    hits.kills += -signal.SIGKILL in codes
    return not any(codes)


def looked_at(folder, hits):
    """Count in what state the ranks' files are after a kill."""
    names = [path.name for path in (folder / "checkpoints").glob("*")]
    last = [max((n[5:13] for n in names if f"-rank-{rank}-" in n and n[0] == "s"), default="") for rank in range(WORLD)]
    hits.apart += len(set(last)) > 1
    hits.begun += any(name.startswith(".") for name in names)
    hits.early += not any(last)


def ends(folder):
    """Return the bits that all ranks ended with, once they have."""
    files = sorted((folder / "checkpoints").iterdir())
    if len(files) != 2 * WORLD:
        raise RuntimeError(f"files are left: {[path.name for path in files]}")
    return [(folder / f"end-{rank}").read_text() for rank in range(WORLD)]


def main(n_kills=30, seed=0):
    """Kill so many times; print what was hit."""
    OPTIMIZERS["sgd"](made("mlp").parameters())  # torch imports half of itself at the first one: before all forks
    rng, hits, begin = np.random.default_rng(seed), Hits(), time.monotonic()
    with tempfile.TemporaryDirectory() as room:
        calm = []
        for recipe in range(len(RECIPES)):
            folder = Path(room, f"calm-{recipe}")
            folder.mkdir()
            attempt(folder, recipe, rng, hits, kill=False)
            calm.append(ends(folder))
        while hits.kills < n_kills:
            folder, recipe = Path(room, "run"), hits.ends % len(RECIPES)
            folder.mkdir()
            while not attempt(folder, recipe, rng, hits, kill=hits.kills < n_kills):
                looked_at(folder, hits)
            if ends(folder) != calm[recipe]:
                raise RuntimeError(f"after {hits.kills} kills, the end has other bits")
            hits.ends += 1
            shutil.rmtree(folder)
    print(  # noqa: T201  it is a program
        f"{hits.kills} kills, {hits.ends} trainings to the end, all to the same bits, in "
        f"{time.monotonic() - begin:.0f} s: {hits.apart} kills left ranks a sync apart, {hits.begun} a file begun, "
        f"{hits.early} came before the first file"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
