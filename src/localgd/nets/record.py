"""What a sync says of itself: how far the ranks had parted, what it took, and who took no part."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Against:
    """A mean update beside that of synchronous steps on the same batches, from the same anchor.

    Attributes
    ----------
    cosine : float in [-1, 1]
        Of the angle between the two; NaN if one of them is 0.
    ratio : float ≥ 0
        Length of the mean update over that of the synchronous one.
    """

    cosine: float
    ratio: float


@dataclass(frozen=True)
class Apart:
    """How far two models are apart.

    Attributes
    ----------
    disagreement : float in [0, 1]
        Share of the probe inputs that they predict unlike.
    parameters : float
        ``|x − x'|`` of what is trained.
    head_deg : float in [0, 180]
        Angle between the weights of their last linear layers, in degrees; NaN if there is none.
    barrier : float ≥ 0
        How far the loss of the probe, on the straight line between the two, rises above the higher of its ends, at 11
        points; NaN where that was not measured.
    """

    disagreement: float
    parameters: float
    head_deg: float
    barrier: float = math.nan


@dataclass(frozen=True)
class Distance:
    """How far a run is from synchronous training, and how far two synchronous runs with other batches are apart.

    Attributes
    ----------
    n_probes : int
        Inputs that models were asked about, of all ranks.
    run : Apart
        The run and synchronous training on the same batches.
    yardstick : Apart
        Synchronous training on the same batches and on others.
    gradients : (float, float)
        Length of the gradient of the probe's mean loss at the run's model, and at the synchronous one; NaN where that
        was not measured.

    Examples
    --------
    >>> print(Distance(360, Apart(0.011, 2.0, 3.0), Apart(0.024, 3.0, 5.0)))
    The run's predictions differ from synchronous training's on 1.1 % of 360 probe inputs; two synchronous runs with
    other batches differ on 2.4 %.
    """

    n_probes: int
    run: Apart
    yardstick: Apart
    gradients: tuple[float, float] = (math.nan, math.nan)

    def __str__(self) -> str:
        return (
            f"The run's predictions differ from synchronous training's on {100 * self.run.disagreement:.1f} % of "
            f"{self.n_probes:,} probe inputs; two synchronous runs with other batches differ on "
            f"{100 * self.yardstick.disagreement:.1f} %."
        )


@dataclass(frozen=True)
class Sync:
    """One sync, the same in all ranks but for the seconds.

    Attributes
    ----------
    number : int
        From 0.
    steps : tuple of int
        Local steps of each rank since the sync before.
    drift : float
        RMS distance of the ranks' models from their weighted mean, ``√Σ w_m |x_m − x̄|²``, in the parameters' units.
    update : float
        Length of the mean update, ``|Σ w_m Δ_m|``.
    agreement : float in [0, 1]
        ``|Σ w_m Δ_m| / Σ w_m |Δ_m|``: the cosine of an update with their mean, weighted by length; 1 if all agree. It
        does not say how good the model is.
    left_out : tuple of int
        Ranks whose update was not finite.
    bytes_up : int
        That this rank gave to the sum, and got back of it; twice as many where it was made again.
    lr : float
        Largest step size of any rank's optimizer.
    last : bool
        Whether every rank had come to `LocalSGD.finish`.
    against_synchronous : Against, optional
        What `compare_every` found, at the syncs that it looks at.
    distance : Distance, optional
        How far the run was from its shadow after this sync, if it has one.
    seconds : dict
        Of ``pack`` (while a large model's first buckets are on their way), ``wire`` (what is left of the sum by then,
        with waiting for other ranks), ``beside`` (comparison and shadow) and ``apply``.
    """

    number: int
    steps: tuple[int, ...]
    drift: float
    update: float
    agreement: float
    left_out: tuple[int, ...] = ()
    bytes_up: int = 0
    lr: float = 0.0
    last: bool = False
    against_synchronous: Against | None = None
    distance: Distance | None = None
    seconds: dict[str, float] = field(default_factory=dict, compare=False)

    @property
    def relative(self) -> float:
        """Drift over the length of the mean update; 0 if nothing moved.

        Examples
        --------
        >>> Sync(0, (1, 1), drift=0.5, update=2.0, agreement=0.9).relative
        0.25
        """
        return self.drift / self.update if self.update else 0.0


def spread(weights: list[float], lengths: list[float], update: float) -> tuple[float, float]:
    """Return drift and agreement of updates of these weights, which sum to at most 1, and lengths, given their mean's.

    Examples
    --------
    >>> spread([0.5, 0.5], [1.0, 1.0], 1.0)
    (0.0, 1.0)
    """
    squares = math.fsum(w * length**2 for w, length in zip(weights, lengths, strict=True))
    lengths_mean = math.fsum(w * length for w, length in zip(weights, lengths, strict=True))
    return math.sqrt(max(squares - update**2, 0.0)), min(update / lengths_mean, 1.0) if lengths_mean else 1.0
