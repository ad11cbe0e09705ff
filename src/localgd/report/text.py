"""Numbers in plain words: degrees, rounds, megabytes."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence

from localgd.core import Failure, Problem
from localgd.errors import listing, plain, shown
from localgd.problems.certificate import Certificate, Status
from localgd.problems.least_squares import LeastSquares
from localgd.problems.least_squares_certificate import SquaresCertificate
from localgd.problems.regularised import Regularised
from localgd.rounding import at_least, at_most
from localgd.run.history import Row

BYTES_PER_FLOAT = 8


def bound(angle: float) -> str:
    """Return a proved angle in words, rounded up.

    Examples
    --------
    >>> bound(0.8412), bound(float("nan"))
    ('≤ 0.842°', 'no bound')
    """
    return "no bound" if math.isnan(angle) else f"≤ {at_most(angle)}°"


def pooled(problem: Problem) -> str:
    """Return what a pooled model is, in words.

    Examples
    --------
    >>> pooled(Regularised(C=1.0)), pooled(LeastSquares(0.0))
    ('minimiser of the logistic loss with C=1', 'least-squares solution')
    """
    match problem:
        case Regularised():
            penalty = f"with C={problem.C:g}" if problem.penalised else "without a penalty"
            return f"minimiser of the {problem.loss.name} loss {penalty}"
        case LeastSquares():
            return f"ridge solution with alpha={problem.alpha:g}" if problem.alpha else "least-squares solution"
    return f"{problem.kind} model"


def degrees(angle: float) -> str:
    """Return a measured angle in words.

    Examples
    --------
    >>> degrees(0.8412)
    '0.841°'
    """
    return f"{angle:.3g}°"


def megabytes(n_floats: float) -> str:
    """Return the size of so many float64 numbers.

    Examples
    --------
    >>> megabytes(1_000_000), megabytes(100)
    ('8.0 MB', '0.8 kB')
    """
    size = n_floats * BYTES_PER_FLOAT
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def percent(share: float) -> str:
    """Return a share in percent; 100 % only if it is all.

    Examples
    --------
    >>> percent(1.0), percent(0.99999)
    ('100 %', '99.99 %')
    """
    if math.isnan(share):
        return "unknown"
    return "100 %" if share == 1 else f"{math.floor(share * 1e4) / 1e2:.2f} %"


def counted(number: int, noun: str) -> str:
    """Return a number of things.

    Examples
    --------
    >>> counted(1, "node"), counted(2000, "row")
    ('1 node', '2,000 rows')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def progress(row: Row, certificate: Certificate | None = None) -> str:
    """Return the progress line of a round.

    Examples
    --------
    >>> progress(Row(3, 2.5, math.nan, -math.inf, math.inf, math.nan, 1000, 1000, 0.1, math.nan), SquaresCertificate())
    'round 3: objective 2.5, no bound on its excess, sent 16.0 kB'
    """
    if isinstance(certificate, SquaresCertificate):
        proved = f"at most {at_most(row.gap)} above its least" if row.gap < math.inf else "no bound on its excess"
        said = f"objective {row.loss:.3g}, {proved}"
    else:
        said = f"loss {row.loss:.3g}, accuracy {percent(row.accuracy)}, angle {bound(row.angle_deg_max)}"
    return f"round {row.round}: {said}, sent {megabytes(row.floats_up + row.floats_down)}"


def command(*words: object) -> str:
    """Return a command of localgd as a shell takes it.

    Examples
    --------
    >>> command("resume", "my runs/A", "--n-rounds", 20)
    "localgd resume 'my runs/A' --n-rounds 20"
    """
    return shlex.join(["localgd", *map(str, words)])


def duration(seconds: float) -> str:
    """Return a time in words, to what a person cares for.

    Examples
    --------
    >>> duration(0.4), duration(42.1), duration(180.0), duration(9000.0)
    ('1 s', '43 s', '3 min', '2.5 h')
    """
    if seconds <= 90:
        return f"{max(1, math.ceil(seconds))} s"
    return f"{math.ceil(seconds / 60)} min" if seconds <= 5400 else f"{seconds / 3600:.1f} h"


def left(n_rounds: int, seconds: float | None) -> str:
    """Return how much there is to come at most: rounds, and their time where it is known what one takes.

    Examples
    --------
    >>> left(400, 0.5), left(1, None)
    ('; at most 400 rounds left, 4 min', '; at most 1 round left')
    """
    time = "" if seconds is None else f", {duration(n_rounds * seconds)}"
    return f"; at most {counted(n_rounds, 'round')} left{time}"


def accuracy(share: float, n_rows: int | None = None, *, weighted: bool) -> str:
    """Return a share of right rows in words: of how many, or of all in training, and whether weights count.

    Examples
    --------
    >>> accuracy(1.0, 5, weighted=False), accuracy(0.5, weighted=True)
    ('accuracy on all 5 rows 100 %', 'accuracy on all training rows, by their weights, 50.00 %')
    """
    of = "training rows" if n_rows is None else f"{n_rows} rows"
    return f"accuracy on all {of}{', by their weights,' if weighted else ''} {percent(share)}"


def verdict(certificate: Certificate, row: Row, *, weighted: bool = False) -> list[str]:
    """Return what came out, in a few lines."""
    sent = f"{megabytes(row.floats_up)} up and {megabytes(row.floats_down)} down"
    correct = accuracy(row.accuracy, weighted=weighted)
    if isinstance(certificate, SquaresCertificate):
        correct = f"|y − Xw| at most {at_most(certificate.residual, 6)}"
    lines = [certificate.status, f"after {row.round} rounds, {row.seconds:.1f} s, {sent}; {correct}"]
    if math.isfinite(certificate.margin_high) and certificate.margin_low > 0:
        low, high = at_least(certificate.margin_low, 6), at_most(certificate.margin_high, 6)
        lines.append(f"pooled margin proved between {low} and {high} (in units of the prepared rows)")
    if math.isfinite(certificate.distance):
        most = f"{at_most(certificate.objective, 8)}, at most {at_most(certificate.gap)} above its least"
        lines.append(f"objective {most}; |w − w*| at most {at_most(certificate.distance)}")
    if not math.isnan(row.true_angle_deg):
        lines.append(f"true angle to the pooled model {degrees(row.true_angle_deg)} (rows were pooled to compare)")
    return lines


def failures(found: Sequence[Failure]) -> list[str]:
    """Return which nodes failed, in a line; nothing if none did.

    Examples
    --------
    >>> failures([Failure(3, "b", "TimeoutError: no answer", "", "left out")] * 2)
    ['2 reports were lost or refused: b (2); failures.json says why']
    """
    if not found:
        return []
    counts = Counter(failure.node_id for failure in found)
    named = ", ".join(f"{node} ({count})" for node, count in counts.most_common(10))
    reports = "1 report was" if len(found) == 1 else f"{len(found):,} reports were"
    return [f"{reports} lost or refused: {named}{', …' if len(counts) > 10 else ''}; failures.json says why"]


def unmet(found: Mapping[str, Mapping[str, int | None]]) -> list[str]:
    """Return in a line where rows hold what training never met: categories, or columns without a value there.

    Nothing if none do.

    Examples
    --------
    >>> print(*unmet({"north": {"ward": 12, "bed": None}}))
    what training never met is read as none: of 'ward' in 12 rows of 'north', of 'bed' in some of 'north'...
    """
    named = [
        f"of {shown(column)} in {'some' if n_rows is None else counted(n_rows, 'row')} of {shown(node)}"
        for node, by_column in found.items()
        for column, n_rows in by_column.items()
    ]
    mend = "where one is another spelling of a known category, say so with --category-map"
    said = f"what training never met is read as none: {listing(named, noun='columns of nodes')}; {mend}"
    return [plain(said)] if named else []


LOOSE_DEG = 30.0
"""A bound above this is worth a word on how to tighten it."""


def next_step(certificate: Certificate, *, unfinished: bool) -> list[str]:
    """Return what to do about a certificate that proves little; nothing if it proves enough.

    More rounds help only where the run was cut short.

    Examples
    --------
    >>> next_step(Certificate(verdict=Status.FINITE), unfinished=True)
    ['to get there: --method auto, or more --n-rounds']
    >>> next_step(Certificate(verdict=Status.FINITE), unfinished=False)
    ['to get there: --method auto']
    """
    more = ", or more --n-rounds" if unfinished else ""
    if isinstance(certificate, SquaresCertificate):
        open_end = certificate.verdict is Status.UNDECIDED
        return ["to have a proof: a penalty, --alpha 1, or XᵀX, --max-mb with more megabytes"] if open_end else []
    if certificate.verdict in (Status.CERTIFIED, Status.SEPARABLE) and not certificate.angle_deg_max <= LOOSE_DEG:
        return [f"a loose bound; to tighten it: --method auto{more}"]
    if certificate.verdict in (Status.SEPARABLE, Status.FINITE):
        return [f"to get there: --method auto{more}"]
    if certificate.kind == "minimiser" and certificate.verdict in (Status.UNDECIDED, Status.NOT_SEPARABLE):
        penalised = "to have one model and a proof: --C 1 (a penalty, as in scikit-learn's LogisticRegression)"
        return [penalised] if certificate.unpenalised else []
    if certificate.verdict is Status.UNDECIDED:
        return [f"to find out: --method auto{more}; if columns differ much in size, scale them"]
    return []
