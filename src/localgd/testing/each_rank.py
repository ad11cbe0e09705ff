"""One rank of a test: ``python -m localgd.testing.each_rank FOLDER TIMEOUT``; `localgd.testing.in_ranks` starts it."""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from datetime import timedelta
from pathlib import Path

from localgd.errors import extra

with extra("torch", "torch"):
    import torch.distributed as dist


def main(folder: Path, timeout: float) -> None:
    """Join the others, run what the folder holds, and leave the answer, or what failed, beside it."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    address = f"file://{folder}/store"
    dist.init_process_group("gloo", address, timedelta(seconds=timeout), world, rank)
    try:
        function, args = pickle.loads((folder / "task").read_bytes())  # noqa: S301  what our own parent has just written
        answer = function(*args)
        (folder / f"answer-{rank}").write_bytes(pickle.dumps(answer))
        dist.barrier()  # who leaves early would cut the others off
    except BaseException as error:  # noqa: BLE001  the parent raises it
        words = str(error) or type(error).__name__
        (folder / f"error-{rank}").write_text(f"{type(error).__name__}\n{words}", encoding="utf-8")
        traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # the others may hang in a collective, and so would leaving the group
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
