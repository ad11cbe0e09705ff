"""Bits until a compressed run proves what 200 uncompressed rounds prove.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/compression.py [--quick] [PROBLEM …]

For every method, its certified angle after 200 rounds of float64, and then, for every code, the first round in which
that angle is proved; and how many times fewer bits nodes have sent up by then than in the rounds until it was proved
without: of the updates with all that belongs to them (scales, masses, errors, what is kept back), and of everything
(also losses, margins and counts, 64 bits each, which no code shortens). True angles need pooled rows.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from common import federation
from localgd import (
    Compressor,
    InProcess,
    Int4,
    Int8,
    Method,
    SignSGD,
    TopK,
    local_gd,
    modified_local_gd,
    normalised_local_gd,
    slowmo,
    train,
)
from localgd.reference.max_margin import pooled_direction
from localgd.rounding import FloatArray
from localgd.run.history import RoundInfo, Row

PROBLEMS = ("mushroom", "gauss-2000")

METHODS = {
    "local-gd": local_gd(),
    "local-gd, late": local_gd().late(),
    "modified-local-gd": modified_local_gd(),
    "normalised-local-gd": normalised_local_gd(),
    "slowmo": slowmo(),
}

CODES: tuple[Compressor, ...] = (Int8(), Int4(), SignSGD(), TopK(0.1))

NUMBER = 64
"""Bits of a float64."""


class Reached(NamedTuple):
    """The row in which an angle is proved, if it is, and the one after as many rounds as were uncompressed."""

    row: Row | None
    then: Row


def reached(engine: InProcess, method: Method, angle: float, rounds: int, reference: FloatArray) -> Reached:
    """Return when a method has proved the angle, in up to three times so many rounds."""
    rows: list[Row] = []

    def on_round(info: RoundInfo) -> bool:
        rows.append(info.row)
        return len(rows) > rounds and any(row.angle_deg_max <= angle for row in rows)

    train(engine, method, n_rounds=3 * rounds, on_round=on_round, reference=reference)
    return Reached(next((row for row in rows if row.angle_deg_max <= angle), None), rows[rounds])


def bits_of_updates(engine: InProcess, n_features: int, rounds: int, code: Compressor | None) -> int:
    """Return the bits of so many rounds' updates: vector or code, mass and error, and the ends of what is kept back."""
    size = NUMBER * (n_features + 2) if code is None else 8 * code.n_bytes(n_features) + NUMBER * 6
    return rounds * len(engine.node_ids) * size


def compare(name: str, rounds: int) -> None:
    """Print a table for a problem."""
    engine = federation(name)
    shards = engine.shards.values()
    reference, d = pooled_direction(shards), next(iter(shards)).n_features
    print(f"\n{name}: {len(engine.node_ids)} nodes, {d} columns; angles are certified but for those called true")
    print(f"{'method':20s} {'code':9s} {'angle':>8s} {'true':>7s} {'rounds':>7s} {'updates':>9s} {'all':>7s}")
    for label, method in METHODS.items():
        rows = train(engine, method, n_rounds=rounds, reference=reference).history
        angle, last = rows[-1].angle_deg_max, rows[-1]
        plain = next((row for row in rows if row.angle_deg_max <= angle), last)  # angles of late directions go up too
        print(f"{label:20s} {'–':9s} {angle:7.2f}° {last.true_angle_deg:6.2f}° {plain.round:7d}")
        for code in CODES if angle == angle else ():  # noqa: PLR0124  NaN: there is nothing to reach
            row, then = reached(engine, method.compressed(code), angle, rounds, reference)
            tail = "  not in three times as many"
            if row is not None:
                updates = bits_of_updates(engine, d, plain.round, None) / bits_of_updates(engine, d, row.round, code)
                tail = f"{row.round:7d} {updates:8.1f}× {plain.floats_up / row.floats_up:6.1f}×"
            angles = f"{then.angle_deg_max:7.2f}° {then.true_angle_deg:6.2f}°"
            print(f"{'':20s} {code.form:9s} {angles} {tail}", flush=True)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", metavar="PROBLEM", default=PROBLEMS)
    parser.add_argument("--quick", action="store_true", help="30 rounds")
    given = parser.parse_args()
    for name in given.problems:
        compare(name, 30 if given.quick else 200)


if __name__ == "__main__":
    main()
