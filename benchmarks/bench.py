"""How fast is localgd? Every workload beside the programs that do the same, in one session, by ratio.

    OMP_NUM_THREADS=1 python benchmarks/bench.py [WORKLOAD …] [--turns 5] [--slow] [--out runs/bench]

Each contender lives in a process of its own, with rows of its own from one seed. Its first run, with whatever it has to
compile, is timed apart; then all run once a turn, one after the other, so that a noisy neighbour meets them all. Shown
are medians: CPU seconds of all threads, wall seconds, and the most memory beyond what the process held when its rows
were made. Answers are compared. `--out` takes a Parquet file of all runs, the tables, and a figure.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import resource
import sys
import time
import traceback
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import polars as pl
from workloads import WORKLOADS
from workloads.workload import Limit, Workload

LIBRARIES = ("localgd", "numpy", "scipy", "numba", "torch", "scikit-learn", "clarabel")


class Timed(NamedTuple):
    """CPU and wall seconds of a run, and the most memory in bytes beyond the rows so far."""

    cpu: float
    wall: float
    memory: float


def used() -> float:
    """Return CPU seconds of this process, its threads, and processes that it has waited for."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def most_memory() -> float:
    """Return the most memory that this process ever held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def serve(pipe: Connection, work_name: str, contender: str) -> None:
    """Run a contender whenever asked; answer with its time, and at first with what came out, too."""
    work = WORKLOADS[work_name]
    try:
        rows = work.rows()
        before = most_memory()
        run = work.contenders[contender](rows)
        answer = None
        while pipe.recv():
            cpu, wall = used(), time.perf_counter()
            found = run()
            timed = Timed(used() - cpu, time.perf_counter() - wall, most_memory() - before)
            pipe.send((timed, found if answer is None else None))
            answer = found
    except ImportError as lack:
        pipe.send(f"not here: {lack}")
    except Exception:  # noqa: BLE001  whatever it is, the others go on
        pipe.send(f"failed: {traceback.format_exc().strip().splitlines()[-1]:.120}")


class Running:
    """A contender in its process."""

    def __init__(self, work: str, name: str) -> None:
        self.name, self.first, self.turns, self.fault = name, Timed(0.0, 0.0, 0.0), list[Timed](), ""
        self.answer: Any = None
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, work, name))
        self._process.start()
        theirs.close()

    def run(self, *, turn: bool) -> None:
        """Run it once more, if it is well."""
        if self.fault:
            return
        try:
            if not self._pipe.poll():  # it may have ended before it was ever asked
                self._pipe.send(1)
            got = self._pipe.recv()
        except (EOFError, BrokenPipeError):
            got = f"ended with exit status {self._process.exitcode}"
        if isinstance(got, str):
            self.fault = got
        elif turn:
            self.turns.append(got[0])
        else:
            self.first, self.answer = got

    def end(self) -> None:
        """End its process."""
        if not self.fault:
            self._pipe.send(0)
        self._process.join()

    @property
    def typical(self) -> Timed:
        """Medians of the turns, or the one run there is."""
        columns = zip(*(self.turns or [self.first]), strict=True)
        return Timed(*map(median, columns))


def in_turns(work: Workload, turns: int, *, slow: bool) -> list[Running]:
    """Run all contenders of a workload."""
    names = [name for name in work.contenders if slow or name not in work.slow]
    running = []
    for name in names:  # rows are made and code compiled one after the other
        one = Running(work.name, name)
        one.run(turn=False)
        running.append(one)
        say(f"{work.name} {name}: {one.fault or f'{one.first.wall:.2f} s at first'}")
    for _ in range(turns):
        for one in running:
            if one.name not in work.slow:
                one.run(turn=True)
    for one in running:
        one.end()
    return running


def say(text: str) -> None:
    """Tell how far it is, apart from the tables."""
    print(text, file=sys.stderr, flush=True)


def table(work: Workload, running: list[Running]) -> Iterator[str]:
    """Yield the lines of a workload's table, and what it is held to."""
    ours = running[0]
    yield f"### {work.name}: {work.what}\n"
    yield "| | CPU, s | × localgd | wall, s | first run, s | memory beyond rows, MB | answer, from localgd's |"
    yield "|---|---|---|---|---|---|---|"
    for one in running:
        if one.fault:
            yield f"| {one.name} | {one.fault} | | | | | |"
            continue
        cpu, wall, memory = one.typical
        apart = "" if one is ours or one.answer is None or ours.answer is None else work.apart(ours.answer, one.answer)
        mark = f"{apart:.0e}{'' if apart <= work.tolerance else ' (!)'}" if apart != "" else ""
        ratio = "" if ours.fault else f"{cpu / ours.typical.cpu:.2f}"
        yield f"| {one.name} | {cpu:.3g} | {ratio} | {wall:.3g} | {one.first.wall:.3g} | {memory / 1e6:.0f} | {mark} |"
    yield ""
    for limit in work.limits:
        if line := held_to(limit, {one.name: one for one in running if not one.fault}):
            yield f"- {line}"
    yield ""


def held_to(limit: Limit, running: dict[str, Running]) -> str:
    """Return what became of a limit; nothing if nobody is there to compare with."""
    others = [running[name] for name in limit.contenders if name in running]
    if not others or limit.ours not in running:
        return ""
    best = min(others, key=lambda one: one.typical.cpu)
    ratio = running[limit.ours].typical.cpu / best.typical.cpu
    word = "holds" if ratio <= limit.ratio else "does not hold"
    return f"{limit.ours}: {ratio:.2f} × {best.name} (at most {limit.ratio:g}: {word})"


def facts() -> str:
    """Return what the machine and the libraries are."""
    found = []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    where = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    return f"{where}; OMP_NUM_THREADS {threads}; {', '.join(found)}."


def frame(results: dict[str, list[Running]]) -> pl.DataFrame:
    """Return every run, a row each; turn −1 is the first."""
    return pl.DataFrame(
        [
            {"workload": name, "contender": one.name, "turn": turn - 1, **timed._asdict()}
            for name, running in results.items()
            for one in running
            for turn, timed in enumerate([one.first, *one.turns])
            if not one.fault
        ]
    )


def figure(results: dict[str, list[Running]], path: Path) -> None:
    """Draw CPU seconds of all contenders over localgd's."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    shown = {name: running for name, running in results.items() if not running[0].fault}
    fig, axis = plt.subplots(figsize=(9, 0.8 + 0.7 * len(shown)), layout="constrained")
    for place, (_, running) in enumerate(shown.items()):
        others = sorted((one for one in running[1:] if not one.fault), key=lambda one: one.typical.cpu)
        for rank, one in enumerate(others):
            ratio = one.typical.cpu / running[0].typical.cpu
            axis.plot(ratio, place, "o", color="C0" if ratio > 1 else "C3")
            above = rank % 2 == 0
            offset, side = (6 if above else -6), "bottom" if above else "top"
            style = {"ha": "center", "va": side, "fontsize": 7, "textcoords": "offset points"}
            axis.annotate(one.name, (ratio, place), (0, offset), **style)
    axis.axvline(1.0, color="0.3", lw=1)
    axis.set(xscale="log", yticks=range(len(shown)), yticklabels=list(shown))
    axis.set_xlabel("CPU seconds over localgd's (right of the line localgd is faster)")
    axis.invert_yaxis()
    fig.savefig(path, dpi=150)


def main() -> None:
    """Run, and print the tables."""
    parser = argparse.ArgumentParser(description="How fast is localgd, beside others?")
    parser.add_argument("workloads", nargs="*", default=list(WORKLOADS), choices=[*WORKLOADS, []], metavar="WORKLOAD")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--slow", action="store_true", help="contenders, too, that take minutes")
    parser.add_argument("--out", type=Path, help="folder for runs.parquet, tables.md and ratios.png")
    asked = parser.parse_args()
    results, lines = {}, [facts(), ""]
    print("\n".join(lines))
    for name in asked.workloads:
        results[name] = in_turns(WORKLOADS[name], asked.turns, slow=asked.slow)
        more = list(table(WORKLOADS[name], results[name]))
        lines += more
        print("\n".join(more), flush=True)
    if asked.out is not None:
        asked.out.mkdir(parents=True, exist_ok=True)
        frame(results).write_parquet(asked.out / "runs.parquet")
        (asked.out / "tables.md").write_text("\n".join(lines) + "\n")
        figure(results, asked.out / "ratios.png")


if __name__ == "__main__":
    main()
