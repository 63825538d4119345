"""The snippets of README.md and CONTRIBUTING.md work."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from nabla.cli import main
from nabla.cli.parsing import parse
from nabla.config.resolve import slots

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


def test_the_estimator_of_contributing_works_and_has_the_closed_form(capsys):
    from nabla.estimators.base import estimators
    from nabla.schedulers.base import Step

    (code,) = blocks(CONTRIBUTING, "python")
    (body,) = re.findall(r"^class .*", code, re.MULTILINE | re.DOTALL)
    assert len([line for line in body.splitlines() if line.strip()]) <= 30
    try:
        exec(compile(code, "CONTRIBUTING.md", "exec"), {"__name__": "nabla_example"})
        estimator = estimators.build({"name": "top-k-soft-embedding", "k": 3, "temperature": 0.5})
        logits = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
        upstream = torch.randn(2, 6, dtype=torch.float64)
        rows = estimator(logits, generator=torch.Generator(), step=Step())
        (gradient,) = torch.autograd.grad((rows * upstream).sum(), logits)
        kept = logits.detach() >= logits.detach().topk(3).values[..., -1:]
        x = (logits.detach() / 0.5).masked_fill(~kept, float("-inf")).softmax(-1)
        expected = x * (upstream - (x * upstream).sum(-1, keepdim=True)) / 0.5  # Eq. 25
        torch.testing.assert_close(gradient, expected)
        (line,) = re.findall(r"`nabla (solve .*?)`", CONTRIBUTING.replace("\n", " "))
        quick = ["--method.dto.steps", "2", "--output", "none", "--accelerator", "cpu"]
        assert main([*shlex.split(line), *quick]) == 0
    finally:
        estimators._names.pop(estimators._classes.pop("top-k-soft-embedding", None), None)
    assert "Cost" in capsys.readouterr().out
