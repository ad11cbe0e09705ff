"""The programs of docs/own-method.md, each as a module: what they say is what the tests run."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

PAGE = Path(__file__).parents[1] / "docs" / "own-method.md"

BLOCKS = list(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))


def module_of(block: str) -> ModuleType:
    """Run a program of the page, as a module that can be imported."""
    task = re.findall(r"^class (\w+)[:(]", block, re.MULTILINE)[0]
    module = ModuleType(f"own_{task.lower()}")
    sys.modules[module.__name__] = module
    exec(compile(block, f"{PAGE.name}: {task}", "exec"), module.__dict__)  # noqa: S102  our own page
    sys.modules.setdefault("own", module)  # as the page has the first one saved, which others import
    return module


PROGRAMS = {module.method.name: module for module in map(module_of, (b for b in BLOCKS if "check_method(" in b))}
