"""What tests that run in every rank share: a federation whose nodes are dealt out to the ranks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from localgd import TorchDistributed

RANK, WORLD = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def spread(shards: list[Any], **options: Any) -> TorchDistributed:
    """Give this rank its part of the nodes."""
    return TorchDistributed(shards[RANK::WORLD], timeout=30.0, **options)


def assert_alike(engine: TorchDistributed, *arrays: Any) -> None:
    """All ranks hold the same bits."""
    for array in arrays:
        content = np.asarray(array).tobytes()
        assert engine.shared(content) == content


def one_folder(engine: TorchDistributed, folder: Path) -> Path:
    """The leader's folder, in all ranks."""
    return Path(engine.shared(str(folder).encode()).decode())
