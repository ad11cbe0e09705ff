"""How long commands take to begin: processes of their own, with their imports."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import Any

from workloads.workload import Contender, Run, Workload


def command(*words: str) -> Contender:
    """Return a command that runs in a folder of its own."""

    def lay_out(_rows: Any) -> Run:
        folder = tempfile.mkdtemp()
        env = {**os.environ, "COLUMNS": "100"}
        return lambda: subprocess.run(words, cwd=folder, env=env, check=True, capture_output=True) and None  # noqa: S603

    return lay_out


PYTHON = sys.executable
LOCALGD = (PYTHON, "-m", "localgd")
WORKLOADS = [
    Workload(
        "start",
        "commands, with the start of Python",
        lambda: None,
        {
            "localgd": command(PYTHON, "-c", "import localgd"),
            "localgd --help": command(*LOCALGD, "--help"),
            "localgd train heart": command(*LOCALGD, "train", "heart", "--out", "run", "--force"),
            "import numpy, scipy": command(PYTHON, "-c", "import numpy, scipy"),
            "import sklearn": command(PYTHON, "-c", "import sklearn.linear_model"),
            "import torch": command(PYTHON, "-c", "import torch"),
        },
    )
]
