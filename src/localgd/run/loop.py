"""The one loop: message, round, step, until what is proved is enough, or there is nothing more to gain."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from localgd.core import Engine, Problem
from localgd.duals.dual import Dual
from localgd.errors import check_kind, check_positive, check_whole
from localgd.methods.method import Choice, Method
from localgd.problems.certificate import Certificate, Status
from localgd.problems.hard_margin import judged
from localgd.problems.own_model import OwnModel
from localgd.rounding import FloatArray, at_most, read_only, vector
from localgd.rules.late import Late
from localgd.rules.probes import measured
from localgd.rules.server import End, ServerState, lacking
from localgd.run.checkpoint import Checkpoints, LoopState
from localgd.run.goals import Goal, check_meaning
from localgd.run.history import CommunicationLog, RoundInfo, Run
from localgd.run.stage import RunContext, Stage, ours


@np.errstate(over="ignore", invalid="ignore")  # a model on its way out of float64 ends with a status, not a warning
def train(
    engine: Engine,
    method: Method | Choice,
    *,
    problem: Problem | None = None,
    n_rounds: int = 500,
    goal: Goal | Sequence[Goal] = (),
    max_seconds: float | None = None,
    nodes: Callable[[int, Sequence[str]], Collection[str]] | None = None,
    w0: FloatArray | Dual | None = None,
    on_round: Callable[[RoundInfo], bool | None] | None = None,
    reference: FloatArray | None = None,
    checkpoints: Checkpoints | None = None,
) -> Run:
    """Train a linear model over a federation and certify which model came out.

    Every round the server sends the shared model, each node runs the method's task on its own rows, and the reports are
    summed into the next model. The report of round k + 1 also says how the model of round k stands (its loss, accuracy
    and smallest margin), so certifying costs a few numbers a node, and one last round that only looks.

    Parameters
    ----------
    engine : Engine
        The federation; its nodes hold signed rows (`Shard`), or rows and real targets (`Samples`).
    method : Method or Choice
        How: for example ``local_gd(local_steps=100)``, or ``auto()``, which chooses by the sizes of the data.
    problem : Problem, optional
        What: ``HardMargin()``, ``Regularised(C=1.0)`` or ``LeastSquares(alpha=1.0)``; or a network, of which nothing is
        proved: ``localgd.nets.Network(build, loss)``. Default is what the method is for.
    n_rounds : int, at least 0
        Most rounds to run.
    goal : Goal or sequence of Goal
        Stop as soon as all are proved: ``Angle(1.0)``, ``MarginRatio(0.9)``, ``Gap(1e-6)``.
    max_seconds : float, optional
        Stop after this wall time.
    nodes : callable, optional
        Partial participation: ``nodes(round, node_ids)`` names those that take part; see `SampledNodes`.
        Rounds without all nodes have no margin and certify nothing new from below; the last look asks all nodes.
    w0 : (d,) float64 array or Dual, optional
        Start; default 0, of a network what it is built with. From elsewhere than 0 nothing bounds γ* from above except
        the rounds' own updates, and dual vectors that the last look asks for by one more round. A `Dual`, such as the
        ``dual`` of an earlier `Run`, brings what is proved of it: whoever gives one vouches for its being a combination
        of these very rows.
    on_round : callable, optional
        Called with a `RoundInfo` after every round; a true answer ends the run with the round under way.
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
        If a parameter is out of its range, the method has no meaning for the problem, or nodes differ in their columns.
    NodeError
        If a node fails; it names round and node.
    FileExistsError
        If another run is at work on the same checkpoints.

    Examples
    --------
    >>> from localgd.engine.inprocess import InProcess
    >>> from localgd.methods.averaging import local_gd
    >>> from localgd.rows import Shard
    >>> federation = InProcess([Shard("a", [[1.0, 0.2]]), Shard("b", [[1.0, -0.2]])])
    >>> run = train(federation, local_gd(local_steps=10), n_rounds=20)
    >>> str(run.certificate.verdict), run.certificate.angle_deg_max < 1.0
    ('certified', True)
    """
    goals = tuple(goal) if isinstance(goal, Sequence) else (goal,)
    _check(engine, method, problem, goals)
    _check_limits(n_rounds, max_seconds, nodes, on_round, checkpoints)
    problem = method.problem if problem is None else problem
    own = problem if isinstance(problem, OwnModel) else None
    start = None if own is None else own.start()
    start = start if w0 is None else vector("w0", w0.vector if isinstance(w0, Dual) else w0)
    compared = None if reference is None else vector("reference", reference)
    if own is not None and compared is not None:
        raise ValueError(f"reference is the direction of a linear model, and a {problem.kind} has none; leave it out")
    log, failed = CommunicationLog(engine), len(engine.failures)
    sizes = measured(engine, zeros=not problem.by_margins) if own is None else own.sizes(engine)
    for name, given in (("w0", start), ("reference", compared)):
        if given is not None and given.size != sizes.n_features:
            had = f"the rows have {sizes.n_features} columns (bias included)"
            had = had if own is None else f"the {problem.kind} has {sizes.n_features} numbers"
            raise ValueError(f"{name} has {given.size} coefficients, but {had}")
    problem = problem.among(sizes.versus)
    for wish in goals:
        check_meaning(wish, problem)
    chosen = method.chosen(problem, sizes) if isinstance(method, Choice) else method
    about = (
        f"{chosen.name} on nodes {', '.join(engine.node_ids)} of {sizes.n_features} columns: {problem}, {chosen.task}, "
        f"{chosen.merge}"
    )
    begun = w0 if isinstance(w0, Dual) else None if start is None else Dual(start)
    bare = begun is not None and bool(begun.vector.any()) and not begun.known
    context = RunContext(
        engine, sizes, goals, log, n_rounds, max_seconds, nodes, on_round, compared, checkpoints, failed, bare
    )
    with nullcontext() if checkpoints is None else checkpoints.held(engine):
        stage = _run_stages(chosen, problem, context, begun, LoopState(about, mark=secrets.token_hex(8)))
    shown = stage.shown if stage.loop.earlier is None else joined(stage.loop.earlier, stage.shown)
    told = tuple(_told(stage, shown.verdict, method.name))
    shown = replace(shown, reason="; ".join([shown.reason, *told]))
    failures = (*context.failed_before, *engine.failures[context.n_failed :])
    dual, history, weighted = stage.model, tuple(context.history), sizes.weight is not None
    about_run: dict[str, Any] = {"unfinished": stage.unfinished, "weighted": weighted, "told": told, "dual": dual}
    return Run(read_only(dual.vector), shown, history, stage.method, failures, stage.end, **about_run)


def _check(engine: Any, method: Any, problem: Any, goals: Sequence[Any]) -> None:
    """Check what no type checker sees in an interactive session."""
    check_kind("engine", engine, Engine, "an engine such as InProcess(shards)")
    check_kind("method", method, Method | Choice, "a Method such as auto() or local_gd()")
    if problem is not None:
        check_kind("problem", problem, Problem, "a Problem such as HardMargin() or Regularised(C=1.0)")
    for wish in goals:
        check_kind("goal", wish, "met", "a Goal such as Angle(1.0), or a list of those")


def _check_limits(n_rounds: Any, max_seconds: Any, nodes: Any, on_round: Any, checkpoints: Any) -> None:
    check_whole("n_rounds", n_rounds, 0)
    if max_seconds is not None:
        check_positive("max_seconds", max_seconds)
    if nodes is not None:
        check_kind("nodes", nodes, "__call__", "a function of round and names, such as SampledNodes(0.5)")
    if on_round is not None:
        check_kind("on_round", on_round, "__call__", "a function of a RoundInfo")
    if checkpoints is not None:
        check_kind("checkpoints", checkpoints, Checkpoints, "Checkpoints(folder)")


def _told(stage: Stage, verdict: Status, asked: str) -> Iterator[str]:
    """Yield what a certificate is to say of how its model came to be."""
    if stage.server.done and verdict in (Status.UNDECIDED, Status.SEPARABLE, Status.FINITE):
        yield f"it ended, as {stage.server.done}"
    if isinstance(stage.method.merge, Late) and verdict in (Status.UNDECIDED, Status.CANCELS):
        yield "the late direction is handed out, no model where no plane separates the rows: late=False, --no-late"
    if stage.context.sizes.weight is not None and stage.shown.kind == "max-margin":
        yield "rows with weights: a max-margin model knows only which are above 0"
    if stage.method.why:
        yield f"{asked} took {stage.method.name}, as {stage.method.why}"


def _run_stages(method: Method, problem: Problem, context: RunContext, start: Dual | None, loop: LoopState) -> Stage:
    """Run a method from a start, or 0, and the fallbacks that take over where it ends short; return the last stage."""
    checkpoint = None if context.checkpoints is None else context.checkpoints.find(context.engine, loop.about)
    if checkpoint is not None:
        loop = checkpoint.loop
        context.history += loop.rows
        context.failed_before = loop.failures
        context.saved = (len(context.history), context.saved[1])
        for end in loop.ended:
            method, problem = _next(method, problem, end, context) or (method, problem)
    while True:
        if context.nodes is not None and method.whole_rounds:
            remedy = "ask all nodes (no --fraction, no nodes=…), or take a method that averages, such as local-gd"
            raise ValueError(f"{method.name} needs every node in every round: {method.whole_rounds}; {remedy}")
        bound = method.bind(problem, context.engine, context.sizes)
        server = _begun(bound, context.sizes.n_features, None if loop.ended else start, loop.mark)
        stage = Stage(bound, problem, context, loop, server, problem.begin())
        del server  # the state before the first round, which the stage leaves behind
        if checkpoint is not None:
            stage.resume(checkpoint)
            checkpoint = None
        stage.run()
        after = _next(method, problem, stage.end, context)
        if after is None or context.spent:
            return stage
        earlier = stage.shown if loop.earlier is None else joined(loop.earlier, stage.shown)
        loop = replace(loop, ended=(*loop.ended, stage.end), before=len(context.history), earlier=earlier, repeated=0)
        method, problem = after


def _begun(method: Method, n_features: int, start: Dual | None, mark: str) -> Any:
    """Return the server's state before the first round, at a start, or at 0."""
    server = method.merge.init(np.zeros(n_features) if start is None else start.vector)
    if lacks := lacking(server):
        raise TypeError(f"{method.name}: {type(method.merge).__name__}: {lacks}")
    if start is not None and start.known and isinstance(server, ServerState) and np.array_equal(server.w, start.vector):
        model = Dual.proved(start.vector, start.mass, start.error)
        server = replace(server, model=model if ours(method) else model.marked(mark))
    return server


def _next(method: Method, problem: Problem, end: End, context: RunContext) -> tuple[Method, Problem] | None:
    """Return the method that takes over after such an end, and what it looks for; None if there is none."""
    fallback = method.fallbacks.get(end)
    if fallback is None:
        return None
    return fallback.method, problem if fallback.problem is None else fallback.problem.among(context.sizes.versus)


def joined(earlier: Certificate, later: Certificate) -> Certificate:
    """Return the later certificate with what the earlier one proved of the same rows."""
    low, high = max(earlier.margin_low, later.margin_low), min(earlier.margin_high, later.margin_high)
    later = replace(later, margin_low=low, margin_high=high)
    if later.verdict is not Status.UNDECIDED:
        return later
    if low > 0 and later.kind == "max-margin":
        return judged(later, cancels=False)
    verdict = earlier.verdict if earlier.verdict is Status.CANCELS else Status.UNDECIDED
    reason = earlier.reason if verdict is Status.CANCELS else f"any pooled margin is at most {at_most(high)}"
    return replace(later, verdict=verdict, reason=f"{reason}; {later.reason}")
