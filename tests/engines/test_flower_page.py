"""The programs of docs/flower.md: what they say is what runs; and Flower finds the apps of every page."""

from __future__ import annotations

import io
import re
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from flwr.app import Context, RecordDict
from flwr.cli.build import build_fab_from_disk
from flwr.cli.config_utils import load_and_validate
from flwr.supercore.object_ref import validate

from engines.flower_grid import LocalGrid
from own_methods import BLOCKS as OWN
from own_methods import PAGE as OWN_PAGE

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "flower.md"

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
APPS = {
    f"{page.name}-{place}": block
    for page in PAGES
    for place, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
    if "App()" in block
}

BLOCKS = re.findall(r"## ([^\n]+)\n(?:(?!\n## ).)*?```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_page_has_a_program_for_each_kind_of_head():
    assert [title.rpartition(" ")[2] for title, _ in BLOCKS] == ["scikit-learn", "PyTorch"]


@pytest.mark.parametrize(("title", "block"), BLOCKS, ids=[title for title, _ in BLOCKS])
def test_a_program_of_the_page_runs_and_says_what_is_proved(title, block, capsys):
    program = ModuleType("program")
    exec(compile(block, f"{PAGE.name}: {title}", "exec"), program.__dict__)  # noqa: S102  our own page
    grid = LocalGrid(program.client, [{"partition-id": i} for i in range(3)])
    program.server(grid, Context(1, 1, {}, RecordDict(), {}))
    said = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"(certified: within|farther than asked: at least) [\d.]+° .*pooled max-margin model.*", said)
    verdict = said.partition(":")[0]
    assert f"prints `{verdict}: " in PAGE.read_text(encoding="utf-8")


def test_every_program_with_an_app_is_looked_at():
    assert {name.rpartition("-")[0] for name in APPS} == {"flower.md", "own-method.md"}
    assert len(APPS) == 3


@pytest.mark.parametrize("name", APPS)
def test_flower_finds_both_apps_of_a_program(name, tmp_path):
    """It reads the file before it runs it, and knows plain assignments only: `client, server = …` it does not find."""
    (tmp_path / "app_of_a_page.py").write_text(APPS[name])
    found = {side: validate(f"app_of_a_page:{side}", project_dir=tmp_path) for side in ("client", "server")}
    assert found == {"client": (True, None), "server": (True, None)}


def test_flower_finds_the_ready_apps():
    held = tomllib.loads((ROOT / "examples" / "flower" / "pyproject.toml").read_text())
    for reference in held["tool"]["flwr"]["app"]["components"].values():
        assert validate(reference) == (True, None)


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")  # Flower's own
def test_flower_takes_the_folder_of_an_app_with_a_method_of_ones_own(tmp_path):
    """docs/own-method.md: own.py is its first program."""
    (about,) = re.findall(r"```toml\n(.*?)```", OWN_PAGE.read_text(encoding="utf-8"), re.DOTALL)
    files = {
        "own.py": OWN[0],
        "app.py": next(block for block in OWN if "ServerApp()" in block),
        "pyproject.toml": about,
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    config, warnings = load_and_validate(tmp_path / "pyproject.toml")
    assert config["tool"]["flwr"]["app"]["components"] == {"serverapp": "app:server", "clientapp": "app:client"}
    assert not warnings
    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(tmp_path))) as bundle:
        assert files.keys() <= set(bundle.namelist())
