"""The bits of every method's run: a digest a case, to hold one commit against another.

    python benchmarks/bits.py > after.json
    python benchmarks/bits.py --against before.json

A case is the model, the whole history but for its seconds, and the numbers of the certificate, of one method on one
federation; resumed runs, models from elsewhere, many classes and least squares are cases, too. Where a commit renames
something, it renames it here, so each commit's own copy runs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from common import METHODS, PENALISED, against, as_csr, federation, random_rows, random_samples, with_bias
from localgd import Angle, InProcess, LeastSquares, Regularised, SampledNodes, auto, certify, train
from localgd.rows import Samples
from localgd.run.checkpoint import Checkpoints

ROUNDS = 12


def digest(*parts: Any) -> str:
    """Return a digest of arrays and numbers, whatever their order in memory."""
    out = hashlib.blake2b(digest_size=12)
    for part in parts:
        out.update(np.ascontiguousarray(part, dtype=np.float64).tobytes())
    return out.hexdigest()


def of_run(run: Any) -> str:
    """Return the digest of a run: history, model and certificate."""
    names = ("round", "loss", "accuracy", "low", "high", "angle_deg_max", "floats_up", "floats_down", "margin", "gap")
    history = np.array([[float(getattr(row, name)) for name in names] for row in run.history])
    history[:, names.index("accuracy")] = np.nan_to_num(history[:, names.index("accuracy")])  # w = 0 has none
    sent = [names.index("floats_up"), names.index("floats_down")]
    history[:, sent] -= history[0, sent]  # what rounds before the first one send is no part of a trajectory
    return digest(history, run.w, of_certificate(run.certificate))


def of_certificate(found: Any) -> list[float]:
    """Return the numbers of a certificate."""
    names = ("margin_low", "margin_high", "angle_deg_max", "angle_deg_min", "margin", "objective", "gap", "distance")
    return [getattr(found, name) for name in names]


def resumed(engine: Any, method: Any) -> Any:
    """Run for some rounds, and go on from the checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Checkpoints(Path(folder, "held"), every_rounds=3)
        train(engine, method, n_rounds=7, checkpoints=kept)
        return train(engine, method, n_rounds=ROUNDS, checkpoints=kept)


def cases() -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield every case: its name, and what makes its digest."""
    plain, csr = random_rows(3), as_csr(random_rows(3))
    noisy = with_bias(random_rows(5), noise=0.3)
    classes = against(random_samples(4), 4)
    for name, method in METHODS.items():
        for kind, shards in (("dense", plain), ("csr", csr), ("four classes", classes), ("noisy", noisy)):
            yield f"{name}, {kind}", lambda s=shards, m=method: of_run(train(InProcess(s), m, n_rounds=ROUNDS))
        yield f"{name}, resumed", lambda m=method: of_run(resumed(InProcess(plain), m))
    for name, method in PENALISED.items():
        for kind, shards in (("noisy", noisy), ("csr", as_csr(noisy)), ("four classes", classes)):
            yield f"{name}, {kind}", lambda s=shards, m=method: of_run(train(InProcess(s), m, n_rounds=ROUNDS))
        yield f"{name}, resumed", lambda m=method: of_run(resumed(InProcess(noisy), m))
    for name in ("local-gd", "local-sgd", "fedexp", "slowmo"):
        sampled = {"n_rounds": ROUNDS, "nodes": SampledNodes(0.5, seed=1)}
        yield f"{name}, sampled", lambda n=name, o=sampled: of_run(train(InProcess(plain), METHODS[n], **o))
    for kind, shards in (("separable", plain), ("noisy", noisy), ("four classes", classes)):
        for C in (None, 0.5):
            how = {"problem": None if C is None else Regularised(C=C), "n_rounds": 80}
            yield f"auto C={C}, {kind}", lambda s=shards, h=how: of_run(train(InProcess(s), auto(), **h))
    for name in ("gauss-400", "heart", "golub"):
        yield f"auto, {name}", lambda n=name: of_run(train(federation(n), auto(), n_rounds=60))
    w = np.ones(plain[0].n_features)
    yield "certify", lambda: digest(of_certificate(certify(w, InProcess(plain))))
    yield "certify to order", lambda: digest(of_certificate(certify(w, InProcess(plain), goal=Angle(1.0))))
    w = np.ones(noisy[0].n_features)
    yield (
        "certify penalised",
        lambda: digest(of_certificate(certify(w, InProcess(noisy), problem=Regularised(C=1.0, intercept=True)))),
    )
    for alpha, shape in ((1.0, (30, 6)), (0.0, (30, 6)), (0.0, (6, 30)), (1.0, (6, 60))):
        yield f"least squares {alpha} {shape}", lambda a=alpha, s=shape: of_squares(a, s)


def of_squares(alpha: float, shape: tuple[int, int]) -> str:
    """Return the digest of a least-squares fit."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(shape), rng.standard_normal(shape[0])
    x[:, -1] = 1.0
    parts = np.array_split(np.arange(shape[0]), 3)
    engine = InProcess(Samples(f"node-{m}", x[part], y[part]) for m, part in enumerate(parts))
    found = train(engine, auto(), problem=LeastSquares(alpha, intercept=True), n_rounds=10_000)
    proved = found.certificate
    return digest(found.w, [proved.distance, proved.gap, proved.objective, proved.residual, proved.slope])


def made(make: Callable[[], str]) -> str:
    """Return the digest, or what the case was refused with."""
    try:
        return make()
    except (ValueError, RuntimeError, TypeError, ArithmeticError) as error:
        return f"{type(error).__name__}"


def main() -> int:
    """Print the digests, or what differs from those of another commit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path)
    options = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {name: made(make) for name, make in cases()}
    if options.against is None:
        print(json.dumps(found, indent=1))
        return 0
    before = json.loads(options.against.read_text())
    unlike = [name for name in before if found.get(name) != before[name]]
    for name in unlike:
        print(f"{name}: {before[name]} -> {found.get(name, 'gone')}")
    print(f"{len(before) - len(unlike)} of {len(before)} alike; {len(found.keys() - before.keys())} new")
    return bool(unlike)


if __name__ == "__main__":
    sys.exit(main())
