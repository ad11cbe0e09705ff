"""Networks: Local-SGD and DiLoCo for any torch module, in ranks or simulated in one process, right by test."""

from localgd.nets.examples import Examples, partition_dataset
from localgd.nets.head import certify_head, refit_head
from localgd.nets.local_sgd import LocalSGD
from localgd.nets.net_steps import NetSteps
from localgd.nets.network import NetLook, NetSizes, Network
from localgd.nets.outer import Outer, average, diloco, slowmo
from localgd.nets.plots import plot
from localgd.nets.ranks import RankError
from localgd.nets.record import Against, Apart, Distance, Sync
from localgd.nets.schedule import qsr, until_drift

TASKS = (NetSizes, NetSteps, NetLook)
"""What a node of Flower must have on its list, beside localgd's own tasks, to train a network."""

__all__ = [
    "Against",
    "Apart",
    "Distance",
    "Examples",
    "LocalSGD",
    "NetSteps",
    "Network",
    "Outer",
    "RankError",
    "Sync",
    "average",
    "certify_head",
    "diloco",
    "partition_dataset",
    "plot",
    "qsr",
    "refit_head",
    "slowmo",
    "until_drift",
]
