"""The snippets of README.md and CONTRIBUTING.md work; those of docs/ are run by tests/site/test_pages.py."""

from __future__ import annotations

import re

import pytest

from nabla.cli import main
from nabla.cli.commands import COMMANDS
from nabla.cli.parsing import parse
from nabla.launch.config.slots import slots
from nabla.methods.base import methods
from tests.site.blocks import ROOT, blocks, furnish, needs_other_models, small

README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
LINES = [line for block in blocks(README, "bash") for line in block.commands]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    furnish(tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("line", [line for line in LINES if not needs_other_models(line)])
def test_commands_for_the_embedded_models_run(line, capsys):
    assert main(small(line)) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("line", [line for line in LINES if needs_other_models(line)])
def test_commands_for_real_models_are_valid(line):
    call = parse(small(line))
    resolved = call.config.changed(call.changes).resolved()
    assert resolved["method"]["name"] == "nabla-reasoner"
    assert resolved["lm"]
    assert resolved["rm"]


def test_every_make_target_exists():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for text in (README, CONTRIBUTING):
        assert set(re.findall(r"`?\bmake (demo|test|lint|clean|install|docs|wheel)\b", text)) <= targets


@pytest.mark.parametrize("index", range(len(blocks(README, "python"))))
def test_python_snippets(index, capsys):
    code = blocks(README, "python")[index].text
    exec(compile(code, f"README.md python block {index}", "exec"), {})
    assert capsys.readouterr().out


def test_it_is_short():
    assert len(README.splitlines()) <= 150
    assert len(blocks(README, "python")[0].text.strip().splitlines()) <= 17


def test_the_tables_name_every_command_and_no_method_that_does_not_exist():
    rows = re.findall(r"^\| (`nabla .*?) \|", README, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`nabla (\w+)`", row)} == set(COMMANDS)
    advice = README.split("## What to use when")[1].split("On the embedded tasks")[0]
    assert set(re.findall(r"`([\w-]+)`", advice)) <= set(methods)
    assert f"{len(slots())} slots" in README


def test_links_lead_somewhere():
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("index", range(len(blocks(CONTRIBUTING, "python"))))
def test_python_snippets_of_contributing(index, monkeypatch):
    """The example package itself has its tests in tests/testing/test_example_plugin.py."""
    monkeypatch.syspath_prepend(str(ROOT / "experiments" / "example_plugin"))
    code = blocks(CONTRIBUTING, "python")[index].text
    exec(compile(code, f"CONTRIBUTING.md python block {index}", "exec"), {"__name__": "contributing"})
