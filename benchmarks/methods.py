"""How many rounds until the pooled model is proved? Every method on known problems, in one run.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/methods.py [--quick]

A round is one message to every node and one sum back; "proved" is the certified angle. The second table fits the
penalised logistic loss over 1, 7 and 100 nodes and compares coefficients with scikit-learn's on the pooled rows. The
third says how many rounds behind the plain iteration the accelerated consensus ever is on small random problems.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from common import federation
from localgd import (
    Angle,
    InProcess,
    Method,
    Regularised,
    Shard,
    auto,
    consensus,
    interior_point,
    local_gd,
    modified_local_gd,
    newton,
    normalised_local_gd,
    scaffold,
    train,
)
from localgd.reference.max_margin import pooled_direction

ANGLES = (10.0, 1.0, 0.01, 0.001)


def rounds_to_the_pooled_model(names: list[str], n_rounds: int) -> None:
    """Print rounds until angles are proved, and the true angle in the end."""
    methods = {
        "local-gd": local_gd(),
        "local-gd, late": local_gd().late(),
        "modified-local-gd": modified_local_gd(),
        "normalised-local-gd": normalised_local_gd(),
        "consensus, plain": consensus(memory=0),
        "consensus": consensus(),
        "interior-point": interior_point(),
        "auto": auto(),
    }
    head = "".join(f"{f'{angle:g}°':>8s}" for angle in ANGLES)
    print(f"{'problem':18s} {'method':22s}{head}  rounds  certified       true")
    for name in names:
        engine = federation(name)
        reference = pooled_direction(engine.shards.values())
        for label, method in methods.items():
            try:
                run = train(engine, method, n_rounds=n_rounds, reference=reference, goal=Angle(5e-4))
            except ValueError as refusal:
                print(f"{name:18s} {label:22s} refused: {str(refusal).split(',', 1)[0]}")
                continue
            proved = (next((row for row in run.history if row.angle_deg_max <= angle), None) for angle in ANGLES)
            cells = "".join(f"{'–' if row is None else row.round + 1:>8}" for row in proved)
            last = run.history[-1]
            tail = f"{run.n_rounds:8d} {last.angle_deg_max:10.2g} {last.true_angle_deg:10.2g}"
            print(f"{name:18s} {label:22s}{cells}{tail}", flush=True)


def penalised(quick: bool) -> None:
    """Print how far coefficients are from scikit-learn's on the pooled rows, and the distance that is proved."""
    z = np.vstack([np.asarray(shard.rows) for shard in federation("heart").shards.values()])
    y = z[:, -1]
    model = LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-12).fit((z * y[:, None])[:, :-1], y)
    expected = np.append(model.coef_[0], model.intercept_)
    order = np.random.default_rng(0).permutation(len(z))
    print("\nheart, C = 1, free bias: largest difference of a coefficient from scikit-learn's newton-cholesky")
    print(f"{'nodes':>6s} {'method':22s} rounds  difference  |w − w*| proved")
    for n_nodes in (1, 7) if quick else (1, 7, 100):
        parts = np.array_split(z[order], n_nodes)
        engine = InProcess(Shard(f"{m:03d}", part) for m, part in enumerate(parts))
        methods: dict[str, Method] = {"newton": newton()}
        methods |= {f"scaffold, L={L}": scaffold(local_steps=L) for L in (1, 100)}
        methods |= {f"local-gd, L={L}": local_gd(local_steps=L) for L in (1, 100)}
        for label, method in methods.items():
            run = train(engine, method, problem=Regularised(C=1.0, intercept=True), n_rounds=400)
            off, most = np.abs(run.w - expected).max(), run.certificate.distance
            print(f"{n_nodes:6d} {label:22s}{run.n_rounds:7d}  {off:10.1e}  {most:10.1e}", flush=True)


def rounds_behind(quick: bool, n_rounds: int = 60) -> None:
    """Print how many rounds later the accelerated consensus reaches any dual value of the plain iteration."""
    behind = []
    for seed in range(20 if quick else 100):
        rng = np.random.default_rng(seed)
        n_nodes, n, d = (int(rng.integers(a, b)) for a, b in ((2, 9), (3, 25), (3, 30)))
        engine = InProcess(random_shards(rng, n_nodes, n, d, float(rng.choice([0.0, 1.0, 3.0]))))
        fast, slow = (dual_values(engine, consensus(memory=memory), n_rounds) for memory in (40, 0))
        reached = [next((j for j, v in enumerate(fast) if v >= goal * (1 - 1e-9)), n_rounds) for goal in slow]
        behind.append(max(j - k for k, j in enumerate(reached)))
    quantiles = ", ".join(f"{q:.0%} {np.quantile(behind, q):.0f}" for q in (0.5, 0.75, 0.9, 1.0))
    print(
        f"\nconsensus on {len(behind)} small random problems, {n_rounds} rounds: rounds behind the plain iteration at"
    )
    print(f"worst, quantiles over the problems: {quantiles}")


def random_shards(rng: np.random.Generator, n_nodes: int, n: int, d: int, shift: float) -> list[Shard]:
    """Return separable nodes of unlike means, many of them with more rows than columns."""
    w = rng.standard_normal(d)
    shards = []
    for m in range(n_nodes):
        x = rng.standard_normal((1 if m == 0 else n + m, d)) + shift * rng.standard_normal(d)
        x += np.outer(np.sign(x @ w), w) * 0.1
        shards.append(Shard(f"{m}", x * np.sign(x @ w)[:, None]))
    return shards


def dual_values(engine: InProcess, method: Method, n_rounds: int) -> list[float]:
    """Return the best dual value after every round."""
    state = method.merge.init(np.zeros(next(iter(engine.shards.values())).n_features))
    values = [0.0]
    for _ in itertools.repeat(None, n_rounds):
        if not state.done:
            state = method.merge.step(state, engine.round(method.task, method.merge.message(state)))
        values.append(state.value)
    return values


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer problems, rounds and nodes")
    quick = parser.parse_args().quick
    names = ["gauss-400", "golub"] if quick else ["gauss-2000", "golub", "bladder", "mushroom", "hard"]
    rounds_to_the_pooled_model(names, 100 if quick else 500)
    penalised(quick)
    rounds_behind(quick)


if __name__ == "__main__":
    main()
