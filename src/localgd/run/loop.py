"""The one loop: message, round, step, until the certificate is good enough."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import replace

import numpy as np

from localgd.core import Engine
from localgd.methods.method import Choice, Method
from localgd.methods.unit import into_unit, out_of_unit, start_in_unit
from localgd.problems.hard_margin import Certificate, Rule, Status
from localgd.rounding import FloatArray
from localgd.rows import sealed
from localgd.rules.probes import comfortable
from localgd.run.checkpoint import Checkpoints, Snapshot
from localgd.run.history import Ledger, Row, Run
from localgd.run.leg import Leg
from localgd.run.watch import Watch, after


@np.errstate(over="ignore", invalid="ignore")  # a model on its way out of float64 ends with a status, not a warning
def train(
    engine: Engine,
    method: Method | Choice,
    *,
    n_rounds: int = 500,
    stop: Rule | Sequence[Rule] = (),
    max_seconds: float | None = None,
    nodes: Callable[[int, Sequence[str]], Collection[str]] | None = None,
    w0: FloatArray | None = None,
    on_round: Callable[[Row, Certificate], bool | None] | None = None,
    reference: FloatArray | None = None,
    checkpoints: Checkpoints | None = None,
) -> Run:
    """Train a linear classifier over a federation and certify which model came out.

    Every round the server sends the shared model, each node runs the method's task on its own rows, and the reports are
    summed into the next model. The report of round k + 1 also says how the model of round k stands (its loss, accuracy
    and smallest margin), so certifying costs a few numbers a node, and one last round that only looks.

    Parameters
    ----------
    engine : Engine
        The federation; its nodes hold signed rows (`Shard`).
    method : Method or Choice
        For example ``local_gd(local_steps=100)``, or ``auto()``, which chooses by the sizes of the data.
    n_rounds : int, at least 0
        Most rounds to run.
    stop : rule or sequence of rules
        Stop as soon as all hold: ``until_angle(1.0)``, ``until_margin_ratio(0.9)``.
    max_seconds : float, optional
        Stop after this wall time.
    nodes : callable, optional
        Partial participation: ``nodes(round, node_ids)`` names those that take part; see `SampledNodes`.
        Rounds without all nodes have no margin and certify nothing new from below; the last look asks all nodes.
    w0 : (d,) float64 array, optional
        Start; default 0. From elsewhere than 0 nothing bounds γ* from above except the rounds' own steps.
    on_round : callable, optional
        Called with every history row and its certificate; a true answer ends the run with the round under way.
    reference : (d,) float64 array, optional
        Pooled direction to compare with where pooling is allowed (`localgd.reference.max_margin.max_margin`).
    checkpoints : Checkpoints, optional
        Where to leave what a run needs to go on if it is cut short, and how often. If that is there already, the run
        goes on from it and ends with the same bits as if it had never been cut.

    Returns
    -------
    Run
        Model, certificate and history.

    Raises
    ------
    ValueError
        If a parameter is out of its range or nodes differ in their columns.
    NodeError
        If a node fails; it names round and node.
    FileExistsError
        If another run is at work on the same checkpoints.

    Examples
    --------
    >>> from localgd.rows import Shard
    >>> from localgd.engine.inprocess import InProcess
    >>> from localgd.methods.averaging import local_gd
    >>> federation = InProcess([Shard("a", [[1.0, 0.2]]), Shard("b", [[1.0, -0.2]])])
    >>> run = train(federation, local_gd(local_steps=10), n_rounds=20)
    >>> str(run.certificate.verdict), run.certificate.angle_deg < 1.0
    ('certified', True)
    """
    rules = [stop] if callable(stop) else list(stop)
    ledger = Ledger(engine)
    engine, divisor, n_features, radius, versus = comfortable(engine, None if w0 is None else np.size(w0))
    chosen = method.chosen(engine) if isinstance(method, Choice) else method
    _check(chosen, n_rounds, max_seconds, nodes)
    about = (
        f"{chosen.name} on nodes {', '.join(engine.node_ids)} of {n_features} columns: {chosen.task}, {chosen.merge}"
    )
    watch = Watch(
        engine,
        divisor,
        radius,
        rules,
        ledger,
        n_rounds,
        max_seconds,
        nodes,
        on_round,
        reference,
        checkpoints,
        Snapshot(about),
    )
    start = np.zeros(n_features) if w0 is None else start_in_unit(w0, divisor)
    with nullcontext() if checkpoints is None else checkpoints.held(engine):
        chosen, leg = _legs(chosen, watch, start, versus)
    shown = leg.shown if watch.base.earlier is None else after(watch.base.earlier, leg.shown)
    if leg.state.done and shown.verdict is Status.UNDECIDED:
        shown = replace(shown, reason=f"{shown.reason}; it ended, as {leg.state.done}")
    if chosen.why:
        shown = replace(shown, reason=f"{shown.reason}; {method.name} took {chosen.name}, as {chosen.why}")
    w = sealed(out_of_unit(leg.state.readout.vector, divisor))
    return Run(w, shown, tuple(watch.history), leg.method, tuple(engine.failures), unfinished=leg.unfinished)


def _legs(method: Method, watch: Watch, start: FloatArray, versus: int) -> tuple[Method, Leg]:
    """Run a method, and the reserves that take over where it ends short; return the last one, and its leg."""
    found = watch.found()
    for ended in () if found is None else found.snapshot.ended:
        method, start = method.reserve(ended) or method, np.zeros(start.size)
    while True:
        leg = Leg(into_unit(method, watch.divisor).among(versus).tuned(watch.engine), watch)
        ended = leg.run(start, found)
        reserve, found = method.reserve(ended), None
        if reserve is None or watch.spent:
            return method, leg
        watch.hand_over(ended, leg.shown)
        method, start = reserve, np.zeros(start.size)


def _check(method: Method, n_rounds: int, max_seconds: float | None, nodes: object) -> None:
    """Check what no type checker sees in an interactive session."""
    if not isinstance(method, Method):
        raise TypeError(f"method must be a Method such as auto() or local_gd(), got {method!r}")
    reason = getattr(method.merge, "needs_all_nodes", "")
    if nodes is not None and reason:
        remedy = "leave nodes (--fraction) out, or take a method that averages, such as local-gd"
        raise ValueError(f"{method.name} needs every node in every round: {reason}; {remedy}")
    if n_rounds < 0 or n_rounds != int(n_rounds):
        raise ValueError(f"n_rounds must be a whole number of at least 0, got {n_rounds!r}")
    if max_seconds is not None and not max_seconds > 0:
        raise ValueError(f"max_seconds must be above 0, got {max_seconds!r}")
