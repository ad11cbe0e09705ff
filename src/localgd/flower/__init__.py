"""localgd in Flower: ready apps for server and nodes, and certificates for models that other strategies train.

``localgd.flower:server`` and ``localgd.flower:client`` are the components of an app that needs no code
(``examples/flower``). An app of your own gets certificates with one line on each side: `answer` and `Certified`.
"""

from __future__ import annotations

from localgd.engine.flower import FlowerEngine, Limits
from localgd.flower.client import answer, client
from localgd.flower.features import Features
from localgd.flower.server import server
from localgd.flower.strategy import Certified

__all__ = ["Certified", "Features", "FlowerEngine", "Limits", "answer", "client", "server"]
