"""Every page of the documentation does what it says: its code runs, block by block."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from nabla.cli import main
from nabla.cli.parsing import parse
from nabla.launch.config.reader import parse as read_yaml
from tests.site.blocks import ROOT, Block, blocks, furnish, needs_other_models, small

#: Its commands are whole studies, so each is a test.
COMMANDS = ROOT / "docs" / "cli.md"
PAGES = sorted(p for p in (ROOT / "docs").rglob("*.md") if p != COMMANDS and blocks(p.read_text()))
LANGUAGES = {"python", "bash", "yaml", "toml", "text"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def run(block: Block, names: dict, folder: Path, where: str) -> None:
    if block.title is not None:
        (folder / block.title).write_text(block.text)
    elif block.language == "python":
        code = compile(block.text, where, "exec")
        if not needs_other_models(block.text):
            exec(code, names)
    elif block.language == "bash":
        for line in block.commands:
            command(line)
    if block.language == "yaml":
        assert isinstance(read_yaml(block.text), dict)
    elif block.language == "toml":
        assert tomllib.loads(block.text)


def command(line: str) -> None:
    if line.startswith("make "):
        assert f"\n{line.split()[1]}:" in (ROOT / "Makefile").read_text()
        return
    assert line.startswith("nabla "), line
    if needs_other_models(line) and " show " not in line:
        call = parse(small(line))
        assert call.config.changed(call.changes).resolved()["lm"]
        return
    status = main(small(line))
    assert status == 0 or ("demo" in line and status == 1), line  # one problem of each family may be right


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT / "docs").as_posix())
def test_the_code_of_a_page_runs(path, folder):
    names: dict = {"__name__": "page"}
    for number, block in enumerate(blocks(path.read_text())):
        assert block.language in LANGUAGES
        run(block, names, folder, f"{path.name}, block {number}")


@pytest.mark.parametrize("line", [line for block in blocks(COMMANDS.read_text()) for line in block.commands])
def test_a_command_of_the_page_on_commands_runs(line, folder):
    command(line)


def test_a_file_of_tests_that_a_page_shows_passes(folder):
    page = (ROOT / "docs" / "slots" / "contracts.md").read_text()
    (shown,) = [block for block in blocks(page) if block.title == "test_mine.py"]
    names: dict = {"__name__": "page"}
    exec(compile(shown.text, "test_mine.py", "exec"), names)
    cases = names["test_contract"].pytestmark[0].args[1]
    assert len(cases) > 20
    for case in cases[::7]:
        names["test_contract"](*case.values)


def test_every_slot_has_its_page_with_code_and_a_check():
    from nabla.launch.config.slots import SLOTS

    for slot in SLOTS:
        text = (ROOT / "docs" / "slots" / f"{slot}.md").read_text()
        assert f"loop.svg#{slot})" in text, slot
        assert f"<!-- components: {slot} -->" in text, slot
        assert any(block.title for block in blocks(text, "python")), slot
        assert re.search(r"from nabla.testing import .*\bcheck_", text), slot
