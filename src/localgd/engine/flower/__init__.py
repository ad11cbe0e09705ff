"""Nodes that Flower reaches: SuperNodes of a deployment, or the simulated ones of one machine.

The server sends data, never code: a task by its name and fields, which a node runs if it is on the node's own list.
Everything that arrives, on either side, is checked before anything is made of it, and nothing is ever unpickled.
"""

from __future__ import annotations

from localgd.errors import extra

with extra("flower", "flwr"):
    import flwr  # noqa: F401  to say here, and in words, that it is not there

from localgd.engine.flower.node import RoundHandler
from localgd.engine.flower.server import FlowerEngine
from localgd.limits import Limits, RefusedError

__all__ = ["FlowerEngine", "Limits", "RefusedError", "RoundHandler"]
