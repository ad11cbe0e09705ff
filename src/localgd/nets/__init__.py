"""Networks: Local-SGD and DiLoCo for any torch module, one sync at a time, right by test."""

from localgd.nets.head import certify_head, refit_head
from localgd.nets.local_sgd import LocalSGD
from localgd.nets.outer import Outer, average, diloco, slowmo
from localgd.nets.plots import plot
from localgd.nets.ranks import RankError
from localgd.nets.record import Against, Apart, Distance, Sync
from localgd.nets.schedule import qsr, until_drift

__all__ = [
    "Against",
    "Apart",
    "Distance",
    "LocalSGD",
    "Outer",
    "RankError",
    "Sync",
    "average",
    "certify_head",
    "diloco",
    "plot",
    "qsr",
    "refit_head",
    "slowmo",
    "until_drift",
]
