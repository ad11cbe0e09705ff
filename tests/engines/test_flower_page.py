"""The programs of docs/flower.md: what they say is what runs."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest
from flwr.app import Context, RecordDict

from engines.flower_grid import LocalGrid

PAGE = Path(__file__).parents[2] / "docs" / "flower.md"

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
