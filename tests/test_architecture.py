"""The rules of the house."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from enum import Enum
from pathlib import Path

import pytest
from numpydoc.validate import validate

import localgd

SOURCE = Path(localgd.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

OPTIONAL = ("sklearn", "matplotlib", "torch", "flwr", "plotly", "pandas")


def test_imports_run_downward_only():
    root = SOURCE.parents[1]
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("program", ["import localgd", "import localgd.cli"])
def test_importing_localgd_imports_nothing_optional(program):
    program = f"import sys, json; {program}; print(json.dumps([m for m in {OPTIONAL!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_rooms_and_functions_are_small(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    if "kernels" in path.parts:
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.body:
            documented = ast.get_docstring(node) is not None
            first = node.body[1] if documented and len(node.body) > 1 else node.body[0]
            assert (node.end_lineno or 0) - first.lineno < 60, f"{path.name}: {node.name} is too long"


def public_things():
    for name in localgd.__all__:
        thing = getattr(localgd, name)
        yield name, thing
        if inspect.isclass(thing):
            for part, member in vars(thing).items():
                if not part.startswith("_") and inspect.isfunction(member):
                    yield f"{name}.{part}", member


CHECKED = {"GL01", "GL02", "GL03", "GL05", "GL06", "GL07", "GL08", "SS01", "SS02", "SS03", "PR01", "PR02", "RT03"}
"""numpydoc's rules: a summary that ends in a stop, sections known and in order, every parameter documented and real."""

PUBLIC = dict(public_things())


@pytest.mark.parametrize("name", PUBLIC)
def test_public_docstrings_are_complete(name):
    thing = PUBLIC[name]
    checked = set(CHECKED)
    is_vocabulary = getattr(thing, "_is_protocol", False) or (inspect.isclass(thing) and issubclass(thing, Enum))
    if "." in name or is_vocabulary:  # its parameters are those of the class, the protocol, or the enum
        checked -= {"PR01", "RT03"}
    found = validate(f"{thing.__module__}.{thing.__qualname__}")["errors"]
    assert [fault for fault in found if fault[0] in checked] == []


def test_all_names_are_there():
    assert sorted(localgd.__all__) == localgd.__all__
    assert all(hasattr(localgd, name) for name in localgd.__all__)
