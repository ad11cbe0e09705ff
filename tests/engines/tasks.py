"""What nodes do in the suite that every engine passes: data, as it is sent to nodes that are elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from localgd import Message, Report, Shard
from localgd.core import Field, Schema
from localgd.duals.dual import Dual
from localgd.rules.local import GradientSteps


@dataclass(frozen=True)
class CountRounds:
    """Report how often this node ran; the count is the node's state."""

    state_type: ClassVar[type] = int

    def schema(self, message: Message) -> Schema:
        return {"runs": Field("sum"), "w": Field("sum", message.w.shape)}

    def init(self, shard: Shard) -> int:  # noqa: ARG002
        return 0

    def run(self, message: Message, shard: Shard, state: int) -> tuple[Report, int]:
        return Report(1, shard.n_rows, {"runs": state + 1.0, "w": message.w}), state + 1


@dataclass(frozen=True)
class FailOn:
    """Fail on one node."""

    node_id: str

    def schema(self, message: Message) -> Schema:  # noqa: ARG002
        return {}

    def run(self, message: Message, shard: Shard, state: None) -> tuple[Report, None]:  # noqa: ARG002
        if shard.node_id == self.node_id:
            raise RuntimeError("the disk of this node is gone")
        return Report(1, shard.n_rows), None


@dataclass(frozen=True)
class FailOnce:
    """Count rounds, but for the first time that one node is asked, of which a file is the mark."""

    state_type: ClassVar[type] = int

    node_id: str
    mark: str

    def schema(self, message: Message) -> Schema:  # noqa: ARG002
        return {"runs": Field("sum")}

    def init(self, shard: Shard) -> int:  # noqa: ARG002
        return 0

    def run(self, message: Message, shard: Shard, state: int) -> tuple[Report, int]:  # noqa: ARG002
        if shard.node_id == self.node_id and not Path(self.mark).exists():
            Path(self.mark).touch()
            raise RuntimeError("try again")
        return Report(1, shard.n_rows, {"runs": state + 1.0}), state + 1


@dataclass(frozen=True)
class ShakySteps(GradientSteps):
    """Gradient steps, but for the first time that one node is asked, of which a file is the mark."""

    node_id: str = ""
    mark: str = ""

    def run(self, message: Message, shard: Shard, state: None) -> tuple[Report, None]:
        if shard.node_id == self.node_id and not Path(self.mark).exists():
            Path(self.mark).touch()
            raise RuntimeError("try again")
        return super().run(message, shard, state)


@dataclass(frozen=True)
class Vandal:
    """Write into the message."""

    def schema(self, message: Message) -> Schema:  # noqa: ARG002
        return {}

    def run(self, message: Message, shard: Shard, state: None) -> Any:  # noqa: ARG002
        message.w[0] = 1.0


@dataclass(frozen=True)
class Doubled:
    """Rows times two: an encoder that is data, as engines whose nodes are elsewhere send it."""

    def __call__(self, shard: Shard) -> Shard:
        return Shard(shard.node_id, 2 * shard.rows)


@dataclass(frozen=True)
class Broken:
    """An encoder that fails."""

    def __call__(self, shard: Any) -> Any:
        return shard.nothing


EVERY: Schema = {
    "total": Field("sum", (2,)),
    "n": Field("sum", (), "int64"),
    "short": Field("sum", (3,), "float32"),
    "most": Field("max", (2,)),
    "last": Field("max", (), "int64"),
    "least": Field("min"),
    "bound": Field("min", optional=True),
    "move": Field("dual", (2,)),
    "bare": Field("dual", (2,)),
    "seed": Field("per_node", (), "int64"),
    "curve": Field("per_node", (2, 2), "float32"),
    "colour": Field("count"),
    "odd": Field("flag"),
    "hidden": Field("max", unless="odd"),
}
"""A field of every kind and dtype."""


@dataclass(frozen=True)
class EveryKind:
    """Report what there is of every kind, or, on one node, something else under one name."""

    node_id: str = ""
    wrong: str = ""

    def schema(self, message: Message) -> Schema:  # noqa: ARG002
        return EVERY

    def run(self, message: Message, shard: Shard, state: None) -> tuple[Report, None]:  # noqa: ARG002
        place = int(shard.node_id[-1])
        odd = place % 2
        parts: dict[str, dict[Any, Any]] = {
            "sums": {
                "total": [0.1, place],
                "n": np.int64(2**40 + place),
                "short": np.full(3, 1 / (place + 1), np.float32),
            },
            "maxs": {"most": [-1.0 - place, place], "last": np.int64(-place), **({} if odd else {"hidden": 1.0})},
            "mins": {"least": -0.5 * place, **({"bound": np.inf} if place else {})},
            "duals": {"move": Dual.proved(np.array([1.0, place]), 1.0, 1e-9, 1, shard.token), "bare": np.ones(2)},
            "per_node": {
                "seed": {shard.node_id: np.int64(2**53 - place)},
                "curve": {shard.node_id: np.full((2, 2), place / 3, np.float32)},
            },
            "counts": {("colour", "red"): place, ("colour", "名\n", place): 1, ("colour", 1.5, True): 2},
            "flags": {"odd": 1} if odd else {},
        }
        if shard.node_id == self.node_id:
            parts["sums"] |= WRONGS[self.wrong]
        return Report(1, shard.n_rows, **parts), state


WRONGS = {
    "undeclared": {"row": np.ones(3)},
    "kind": {"least": 1.0},
    "shape": {"total": np.ones(3)},
    "dtype": {"n": 1.0},
    "nan": {"total": [np.nan, 0.0]},
}


TASKS = [CountRounds, EveryKind, FailOn, FailOnce, ShakySteps, Vandal]
ENCODERS = [Doubled, Broken]
