"""The rules of the house."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
import tomllib
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from pkgutil import resolve_name

import pytest
from numpydoc.validate import validate

import localgd
from localgd.methods.options import NAMES
from localgd.methods.table import METHODS

SOURCE = Path(localgd.__file__).parent
ROOT = SOURCE.parents[1]
FILES = sorted(SOURCE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
PAGES = sorted(
    path
    for place in (".", ".github", "docs", "examples", "benchmarks")
    for path in (ROOT / place).rglob("*.md")
    if ".venv" not in path.parts
)

LIGHT = {"numpy", "scipy"}
HEAVY = {"numba", "llvmlite", "polars", "sklearn", "matplotlib", "cattrs", "torch", "flwr", "jinja2", "pandas"}

TRAIN = """
import localgd
shards = [localgd.Shard(name, [[1.0, 2.0], [2.0, 1.0]]) for name in "ab"]
run = localgd.train(localgd.InProcess(shards), localgd.local_gd(local_steps=5), n_rounds=5)
assert run.certificate.separable
"""
COMMAND = """
from localgd.cli import main
code = main({argv!r})
"""


def test_imports_run_downward_only():
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def libraries_of(program):
    """Run a program in a process of its own; return what it printed, and the libraries that it imported."""
    before, after = "import json, sys\nbefore = set(sys.modules)\n", "\nprint(json.dumps([*set(sys.modules) - before]))"
    done = subprocess.run([sys.executable, "-c", before + program + after], capture_output=True, text=True, check=True)
    *printed, modules = done.stdout.splitlines()
    names = {name.partition(".")[0] for name in json.loads(modules)}
    return "\n".join(printed), names - sys.stdlib_module_names - {"localgd", "_distutils_hack"}


def test_importing_localgd_brings_numpy_and_scipy_at_most():
    assert libraries_of("import localgd")[1] <= LIGHT


def test_a_small_run_brings_neither_compiler_nor_tables():
    used = libraries_of(TRAIN)[1]
    assert used >= LIGHT
    assert used.isdisjoint(HEAVY | {"typer", "rich"}), used


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in ("train", "compare"))])
def test_help_brings_nothing_that_computes(arguments):
    printed, used = libraries_of(COMMAND.format(argv=arguments))
    assert printed
    assert used.isdisjoint(HEAVY | LIGHT), used


def test_what_is_imported_late_keeps_to_one_thread_too():
    program = """
from localgd.engine.nodes import blas
early = {lib.filepath for lib in blas()}
import localgd.methods.table, localgd.reference.max_margin, localgd.theory, localgd.run.loop
from threadpoolctl import ThreadpoolController
print({lib.filepath for lib in ThreadpoolController().lib_controllers if lib.user_api == "blas"} - early)
"""
    assert libraries_of(program)[0] == "set()"


LACKING = {
    "embed": ("wordllama", "from localgd.experiments.last_layer import embedded; embedded()"),
    "flower": ("flwr", "import localgd.flower"),
    "onnx": ("onnx", "import localgd; localgd.Model([1.0]).to_onnx('model.onnx')"),
    "skops": ("skops", "from localgd.data.export.pipeline import write_skops; write_skops(None, None)"),
    "torch": ("torch", "import localgd; localgd.TorchDistributed"),
}


@pytest.mark.parametrize("extra", LACKING)
def test_without_an_extra_the_error_says_how_to_get_it(extra):
    library, program = LACKING[extra]
    program = f"import sys; sys.modules[{library!r}] = None\n{program}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        f"localgd.errors.MissingExtraError: {library} is missing; get it with: pip install 'localgd[{extra}]'"
    )


def test_every_extra_of_users_is_tried_out():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert extras.keys() - {"bench", "dev"} == LACKING.keys()


def test_the_command_says_so_in_one_line():
    program = "import sys; sys.modules['torch'] = None\n" + COMMAND.format(argv=["train", "heart", "--engine", "torch"])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[0] == "error: torch is missing; get it with: pip install 'localgd[torch]'"


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


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_of_tests_are_small_too(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def public_things():
    for name in localgd.__all__:
        thing = getattr(localgd, name)
        yield name, thing
        if inspect.isclass(thing):
            for part, member in vars(thing).items():
                if part.startswith("_") or not inspect.isfunction(member):
                    continue
                said = [vars(base)[part].__doc__ for base in thing.__mro__ if part in vars(base)]
                if member.__doc__ is None and any(said):
                    continue  # what it answers is said once, by the class that it is derived from
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


def test_type_checkers_see_the_same_names():
    stub = ast.parse((SOURCE / "__init__.pyi").read_text(encoding="utf-8"))
    lines = [line for line in stub.body if isinstance(line, ast.ImportFrom)]
    assert {name.asname: line.module for line in lines for name in line.names} == localgd.MODULES
    assert {name.asname for line in lines for name in line.names} | {"__version__"} <= set(dir(localgd))


EXTRAS = """
import sys
class Hidden:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "flwr", "wordllama"}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Hidden)
import localgd
from localgd import *
print(*sorted(set(dir(localgd)) & set(localgd.MODULES)))
print(*sorted(set(globals()) & set(localgd.MODULES)))
"""
"""A program that has no extra."""


def test_nobody_is_offered_a_name_whose_library_is_not_there():
    done = subprocess.run([sys.executable, "-c", EXTRAS], capture_output=True, text=True, check=True)
    listed, taken = done.stdout.splitlines()
    assert set(listed.split()) == set(taken.split()) == set(localgd.MODULES) - {"TorchDistributed", "torch_processes"}


def test_what_is_offered_is_public_or_a_room():
    offered = {name for name in dir(localgd) if not name.startswith("__")}
    assert {name for name in offered - set(localgd.__all__) if not inspect.ismodule(getattr(localgd, name))} == set()


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'localgd' has no attribute 'federate'"):
        _ = localgd.federate


def test_there_is_one_version():
    assert localgd.__version__ == version("localgd")
    assert libraries_of(COMMAND.format(argv=["--version"]))[0] == f"localgd {localgd.__version__}"


def test_the_names_that_help_lists_are_those_of_the_methods():
    assert tuple(METHODS) == NAMES


def docstrings(path):
    """Return all texts of a module that nothing uses: docstrings, of modules to attributes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


def mentions(pattern):
    """Return what docstrings and pages mention, and where."""
    texts = [(path, text) for path in FILES for text in docstrings(path)]
    texts += [(path, path.read_text(encoding="utf-8")) for path in PAGES]
    return {
        (found, str(path.relative_to(ROOT)))
        for path, text in texts
        for found in re.findall(pattern, text, re.MULTILINE)
    }


@pytest.mark.parametrize(("name", "where"), sorted(mentions(r"(?<![\w/.\[-])localgd(?:\.\w+)+(?::\w+)?(?![\w/])")))
def test_every_mention_of_something_here_leads_there(name, where):  # noqa: ARG001  a failure shows where
    assert resolve_name(name) is not None


@pytest.mark.parametrize(("name", "where"), sorted(mentions(r"`([a-z_/.]+\.(?:py|md|toml))`")))
def test_every_file_that_is_mentioned_is_there(name, where):
    folders = [ROOT, ROOT / "src", SOURCE, (ROOT / where).parent, *(path for path in SOURCE.iterdir() if path.is_dir())]
    assert any((folder / name).is_file() for folder in folders)


LINKS = sorted(mentions(r"(?:\]\(|^\[[\w-]+\]: )([^)\s#]+)"))


@pytest.mark.parametrize(("link", "where"), [(link, where) for link, where in LINKS if where.endswith(".md")])
def test_links_lead_somewhere_also_from_the_page_of_the_package(link, where):
    here = link.removeprefix("https://github.com/localgd/localgd/blob/main/")
    if here != link:
        assert (ROOT / here).is_file()
    elif "://" not in link:
        assert where != "README.md", "relative links lead nowhere on PyPI"
        assert (ROOT / where).parent.joinpath(link).is_file()


def test_the_root_holds_nine_modules():
    assert len(list(SOURCE.glob("*.py"))) <= 9
