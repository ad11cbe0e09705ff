"""What nodes do in the suite that every engine passes: data, as it is sent to nodes that are elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localgd import Message, Report, Shard
from localgd.rules.local import GradientSteps


@dataclass(frozen=True)
class CountRounds:
    """Report how often this node ran; the count is the node's state."""

    def init(self, shard: Shard) -> int:  # noqa: ARG002
        return 0

    def run(self, message: Message, shard: Shard, state: int) -> tuple[Report, int]:
        return Report(1, shard.n_rows, {"runs": state + 1.0, "w": message.w}), state + 1


@dataclass(frozen=True)
class FailOn:
    """Fail on one node."""

    node_id: str

    def init(self, shard: Shard) -> None:
        pass

    def run(self, message: Message, shard: Shard, state: None) -> tuple[Report, None]:  # noqa: ARG002
        if shard.node_id == self.node_id:
            raise RuntimeError("the disk of this node is gone")
        return Report(1, shard.n_rows), None


@dataclass(frozen=True)
class FailOnce:
    """Count rounds, but for the first time that one node is asked, of which a file is the mark."""

    node_id: str
    mark: str

    def init(self, shard: Shard) -> int:  # noqa: ARG002
        return 0

    def run(self, message: Message, shard: Shard, state: int) -> tuple[Report, int]:  # noqa: ARG002
        if shard.node_id == self.node_id and not Path(self.mark).exists():
            Path(self.mark).touch()
            raise RuntimeError("try again")
        return Report(1, 1, {"runs": state + 1.0}), state + 1


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

    def init(self, shard: Shard) -> None:
        pass

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


TASKS = [CountRounds, FailOn, FailOnce, ShakySteps, Vandal]
ENCODERS = [Doubled, Broken]
