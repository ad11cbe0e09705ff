"""What is timed: workloads by name, each with its rows, its contenders, and how slow localgd may be beside them."""

from __future__ import annotations

from workloads import averaging, commands, penalised, separable, softmax
from workloads.workload import Workload

WORKLOADS: dict[str, Workload] = {
    work.name: work for room in (averaging, softmax, penalised, separable, commands) for work in room.WORKLOADS
}
