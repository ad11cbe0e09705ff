"""What a sync says of itself: how far the ranks had parted, what it took, and who took no part."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


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
        That this rank gave to the sum, and got back of it.
    lr : float
        Largest step size of any rank's optimizer.
    last : bool
        Whether every rank had come to `LocalSGD.finish`.
    seconds : dict
        Of ``pack``, ``wire`` (with waiting for other ranks) and ``apply``.
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
