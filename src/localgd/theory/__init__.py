"""What is known about a run before it starts: the rate law, how unlike the nodes are, bounds with kind and source."""

from localgd.theory.bounds import Prediction, anchored_residual, flow_angle, flow_loss, projection_rate, round_drift
from localgd.theory.laws import (
    Asymptote,
    Constants,
    Diversity,
    asymptote,
    constants,
    diversity,
    drift_bias,
    flow,
    local_directions,
)

__all__ = [
    "Asymptote",
    "Constants",
    "Diversity",
    "Prediction",
    "anchored_residual",
    "asymptote",
    "constants",
    "diversity",
    "drift_bias",
    "flow",
    "flow_angle",
    "flow_loss",
    "local_directions",
    "projection_rate",
    "round_drift",
]
