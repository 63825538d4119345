"""The snippets of README.md and CONTRIBUTING.md work."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from nabla.cli import main
from nabla.cli.parsing import parse
from nabla.launch.config.slots import slots

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks(README, "bash") for line in block.splitlines() if line.strip()]
NABLA = [line for line in COMMANDS if line.startswith("nabla ")]


def needs_other_models(line: str) -> bool:
    return any(mark in line for mark in ("Qwen", "/path/to", "nabla_reasoner.yaml"))


def options(line: str) -> list[str]:
    """A command's arguments, made small and without traces."""
    arguments = shlex.split(line)[1:]
    if arguments[0] == "compare":
        arguments[arguments.index("--problems") + 1] = "1"
    if arguments[0] == "demo":
        return [*arguments, "--problems", "1"]
    if arguments[0] == "estimators":
        return [*arguments, "--estimators", "straight-through", "--output", "none"]
    if arguments[0] == "theory":
        return [*arguments, "--list"]  # tests/theory runs the checks
    if arguments[0] == "evaluate":  # tests/evaluation runs whole ones
        few = ["--methods", "greedy,nabla", "--budget", "calls=100"]
        return [*arguments, "--problems", "1", *few, "--output", "evaluation"]
    if arguments[0] == "ablate":
        return [*arguments, "--problems", "1", "--output", "ablation"]
    if arguments[0] == "bench":
        return [*arguments, "--targets", "1", "--repeats", "1", "--dense-repeats", "0", "--output", "bench"]
    if arguments[0] in ("solve", "compare"):
        if "--output" in arguments:
            at = arguments.index("--output")
            del arguments[at : at + 2]
        return [*arguments, "--output", "none", "--accelerator", "cpu"]
    return arguments


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    (tmp_path / "problems.txt").write_text("28*6+68-71+94\n53*6-50+29-41\n")
    (tmp_path / "problems.jsonl").write_text('{"prompt": "What is 1 + 1?", "answer": "2"}\n')
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("line", [line for line in NABLA if not needs_other_models(line)])
def test_commands_for_the_embedded_models_run(line, capsys):
    status = main(options(line))
    assert status == 0 or ("demo" in line and status == 1)  # one problem of each family may be right at once
    assert capsys.readouterr().out


@pytest.mark.parametrize("line", [line for line in NABLA if needs_other_models(line)])
def test_commands_for_real_models_are_valid(line, capsys):
    call = parse(options(line))
    if call.command == "show":
        assert main(options(line)) == 0
        return
    resolved = call.config.changed(call.changes).resolved()
    assert resolved["method"]["name"] == "nabla-reasoner"
    assert resolved["lm"]
    assert resolved["rm"]


def test_every_make_target_exists():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for text in (README, CONTRIBUTING):
        assert set(re.findall(r"`?\bmake (demo|test|lint|clean|install)\b", text)) <= targets
    assert all(line.split()[1] in targets for line in COMMANDS if line.startswith("make "))


@pytest.mark.parametrize("index", range(len(blocks(README, "python"))))
def test_python_snippets(index, capsys):
    code = blocks(README, "python")[index]
    compiled = compile(code, f"README.md python block {index}", "exec")
    if not needs_other_models(code):
        exec(compiled, {})
        assert capsys.readouterr().out


def test_the_first_example_has_fifteen_lines():
    assert len(blocks(README, "python")[0].strip().splitlines()) <= 17


def test_the_table_of_parts_has_every_slot_and_no_part_that_does_not_exist():
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", README, re.MULTILINE)
    listed = {slot: set(re.findall(r"`([\w-]+)`", names)) for slot, names in rows}
    assert set(listed) == set(slots())
    for slot, names in listed.items():
        assert names
        assert names <= set(slots()[slot])


@pytest.mark.parametrize("index", range(len(blocks(CONTRIBUTING, "python"))))
def test_python_snippets_of_contributing(index, monkeypatch):
    """The example package itself has its tests in tests/testing/test_example_plugin.py."""
    monkeypatch.syspath_prepend(str(ROOT / "experiments" / "example_plugin"))
    code = blocks(CONTRIBUTING, "python")[index]
    exec(compile(code, f"CONTRIBUTING.md python block {index}", "exec"), {"__name__": "contributing"})

