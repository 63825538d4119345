from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

from nabla.cli import main
from nabla.cli.commands import COMMANDS
from nabla.cli.display import revision_table, starred
from nabla.cli.parsing import RUN, parse, take_options
from nabla.cli.prompts import read_prompts
from nabla.core.errors import ConfigError, PromptError
from nabla.engine.events import Callback
from nabla.problems.sandbox import TASKS

SUM = "28*6+68-71+94"
SQUARE = TASKS["latin"].problems("test", 1, 0)[0].prompt
CPU = ["--accelerator", "cpu"]
QUICK = ["--method.max_rollouts", "2", "--method.dto.steps", "2", *CPU]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # runs/ goes there


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    status = main(list(arguments))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


# -- parsing -----------------------------------------------------------------------------------------


def test_method_options_are_taken_out_and_nested():
    rest, values, changes = take_options(
        [
            "solve", "1", "--method", "nabla-reasoner", "--method.dto.estimator", "gumbel-softmax",
            "--method.dto.estimator.temperature=1e-1", "--seed", "3", "--method.dto.steps=10",
        ],
        ["method"],
    )  # fmt: skip
    assert rest == ["solve", "1", "--seed", "3"]
    assert values == {}
    assert changes == {
        "name": "nabla-reasoner",
        "dto": {"estimator": {"name": "gumbel-softmax", "temperature": 0.1}, "steps": 10},
    }
    assert take_options(["solve", "--", "--method"], RUN) == (["solve", "--", "--method"], {}, None)


def test_a_method_option_without_a_value():
    with pytest.raises(ConfigError, match="needs a value"):
        take_options(["solve", "--method.n"], RUN)


def test_dict_options_read_plain_values():
    call = parse(["solve", "x", "--lm_arguments.trust_remote_code", "true", "--rm.name", "process"])
    assert call.config.lm_arguments == {"trust_remote_code": True}
    assert call.config.rm == {"name": "process"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    status, out, _ = run(capsys, command, "--help")
    assert status == 0
    assert COMMANDS[command].split()[0] in out


@pytest.mark.parametrize("arguments", [["--nonsense"], ["solve", "1", "--nonsense"], ["dance"], []])
def test_unknown_arguments_are_the_parsers_business(arguments, capsys):
    status, out, err = run(capsys, *arguments)
    assert status == 2
    assert "error" in err
    assert out == ""


# -- prompts -----------------------------------------------------------------------------------------


def test_prompts_come_from_arguments_and_files(tmp_path):
    text = tmp_path / "p.txt"
    text.write_text("one\n\n  two \n")
    rows = tmp_path / "p.jsonl"
    rows.write_text(
        '{"prompt": "three", "id": "c", "answer": "3"}\n'
        '{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "four"}]}\n'
    )
    found = read_prompts(["zero"], str(text), "be brief")
    assert [(p.id, p.text) for p in found] == [("0", "zero"), ("1", "one"), ("2", "two")]
    assert found[1].messages[0].content == "be brief"
    found = read_prompts([], str(rows), "be brief")
    assert [(p.id, p.text) for p in found] == [("c", "three"), ("1", "four")]
    assert found[0].metadata == {"answer": "3"}
    assert [m.content for m in found[1].messages] == ["s", "four"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "x", "Unknown kind"),
        ("a.txt", "\n\n", "no prompts"),
        ("a.jsonl", "{", "no JSON"),
        ("a.jsonl", '{"text": "x"}', "either 'prompt' or 'messages'"),
        ("a.jsonl", '{"prompt": "x", "messages": []}', "either 'prompt' or 'messages'"),
        ("a.jsonl", '{"prompt": " "}', "empty"),
        ("a.jsonl", '{"messages": [{"role": "user"}]}', "needs 'role' and 'content'"),
        (None, "", "cannot be read"),
    ],
)
def test_broken_prompt_files(name, content, message, tmp_path):
    if name is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(PromptError, match=message):
        read_prompts([], str(tmp_path / (name or "missing.txt")), None)


# -- solve -------------------------------------------------------------------------------------------


def test_solve_streams_shows_the_grid_and_stores_the_run(capsys, tmp_path):
    status, out, err = run(capsys, "solve", SQUARE, *QUICK)
    assert status == 0
    assert "valid" in out  # or "not valid": the checker's verdict on the last line of the grid
    assert "reward" in out
    assert "Cost" in out
    assert "a live problem" in out  # what the caches took
    (folder,) = (tmp_path / "runs").iterdir()
    assert str(folder.relative_to(tmp_path)) in err
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["method"]["max_rollouts"] == 2
    assert config["lm"] == "sandbox:latin-policy"
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    (row,) = [json.loads(line) for line in (folder / "solutions.jsonl").read_text().splitlines()]
    assert row["correct"] == TASKS["latin"].check(SQUARE, row["response"])
    assert row["response"] in out.replace("⟦", "").replace("⟧", "")


def test_a_stored_configuration_runs_again_to_the_same_solution(capsys, tmp_path):
    for config in ([], ["--config", "first/config.yaml"]):
        name = "second" if config else "first"
        quick = [] if config else QUICK
        assert run(capsys, "solve", SUM, *config, *quick, "--output", name)[0] == 0
    first, second = (
        json.loads((tmp_path / name / "solutions.jsonl").read_text()) for name in ("first", "second")
    )
    assert first["tokens"] == second["tokens"]
    assert first["revisions"] == second["revisions"]


def test_json_is_one_object_per_solution_and_nothing_else(capsys, tmp_path):
    prompts = tmp_path / "p.jsonl"
    prompts.write_text(f'{{"prompt": "{SUM}", "id": "a", "answer": "259"}}\n{{"prompt": "53*6-50+29-41"}}\n')
    status, out, _ = run(
        capsys, "solve", "--prompts", str(prompts), "--json", "--output", "none", *QUICK,
        "--callbacks", "[cost, stream]",
    )  # fmt: skip
    assert status == 0
    rows = {row["id"]: row for row in map(json.loads, out.splitlines())}
    assert set(rows) == {"a", "1"}
    assert rows["a"]["answer"] == "259"
    assert rows["a"]["correct"] == (rows["a"]["response"] == TASKS["arithmetic"].solve(SUM))
    assert not (tmp_path / "runs").exists()


def test_another_method_by_name(capsys):
    status, out, _ = run(
        capsys, "solve", SUM, "--json", "--method.name", "best-of-n", "--method.n", "2",
        "--output", "none", *CPU,
    )  # fmt: skip
    assert status == 0
    row = json.loads(out)
    assert (row["method"], row["candidates"]) == ("best-of-n", 2)


def test_several_prompts_end_with_a_score(capsys):
    status, out, _ = run(
        capsys, "solve", SUM, "53*6-50+29-41", "--method", "greedy", "--output", "none", *CPU
    )
    assert status == 0
    assert "of 2 right" in out


def test_loggers_write_to_the_run_s_folder(capsys, tmp_path):
    status, _, _ = run(
        capsys, "solve", SUM, "--method", "greedy", "--output", "out", "--loggers", "[csv]", *CPU
    )
    assert status == 0
    assert (tmp_path / "out" / "metrics.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["solve"], "no prompt"),
        (["solve", " "], "empty"),
        (["solve", "hello"], "--lm"),
        (["solve", SUM, SQUARE], "several families"),
        (["solve", SUM, "--lm", "nowhere/at-all"], "cannot be loaded"),
        (["solve", SUM, "--lm", "sandbox:arithmetic-policy"], "needs a differentiable reward"),
        (["solve", SUM, "--method", "best-of-m"], "Did you mean 'best-of-n'"),
        (["solve", SUM, "--method.dto.stepz", "3"], "Did you mean 'steps'"),
        (["solve", SUM, "--method.sampling.max_new_tokens", "0"], "max_new_tokens must be at least 1"),
        (["solve", SUM, "--precision", "8-bit"], "Unknown precision"),
        (["solve", SUM, "--callbacks", "[progres]"], "Did you mean 'progress'"),
        (["solve", SUM, "--loggers", "[csv]", "--output", "none"], "folder"),
        (["list", "estimator"], "Did you mean 'estimators'"),
        (["show", "nowhere.yaml"], "does not exist"),
        (["compare", "--problems", "0"], "at least 1"),
    ],
)
def test_mistakes_are_one_message_and_exit_status_2(arguments, message, capsys):
    status, out, err = run(capsys, *arguments)
    assert status == 2
    assert message in err
    assert "Traceback" not in err
    assert out == ""


def test_an_embedded_name_that_does_not_exist_names_the_nearest(capsys):
    status, _, err = run(capsys, "solve", SUM, "--lm", "sandbox:arithmetic-polcy")
    assert status == 2
    assert "'arithmetic-policy'" in err


@pytest.mark.parametrize(
    ("about", "option"),
    [
        ("The model Qwen2ForSequenceClassification returns NaN or infinity", "--rm_arguments.dtype float32"),
        ("The tokenizer has no chat template (of the reward model)", "--rm_arguments.dtype float32"),
        ("The model Qwen2ForCausalLM returns NaN or infinity", "--lm_arguments.dtype float32"),
    ],
)
def test_advice_names_the_model_that_the_message_is_about(about, option):
    from nabla.cli import _said
    from nabla.core.errors import ModelError

    assert option in _said(ModelError(about, fix="Try dtype='float32'."), ["solve"])


def test_debug_shows_the_traceback(capsys):
    status, _, err = run(capsys, "--debug", "solve", "hello")
    assert status == 2
    assert "Traceback" in err


def test_solutions_finished_before_a_failure_are_kept_and_printed(capsys, tmp_path):
    status, out, err = run(
        capsys, "solve", SUM, "x" * 600, "--lm", "sandbox:arithmetic-policy", "--json",
        "--method", "greedy", "--output", "out", *CPU,
    )  # fmt: skip
    assert status == 2
    assert json.loads(out)["id"] == "0"
    assert "context holds" in err
    assert json.loads((tmp_path / "out" / "solutions.jsonl").read_text())["id"] == "0"
    assert json.loads((tmp_path / "out" / "failures.jsonl").read_text())["id"] == "1"
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "failed"


def test_ctrl_c_keeps_what_was_finished(capsys, tmp_path, monkeypatch):
    import nabla.cli.solve_command as solve

    monkeypatch.setattr(solve, "_callbacks", lambda *_, **__: [_AfterFirst()])
    status, out, err = run(
        capsys, "solve", SUM, "53*6-50+29-41", "--method", "greedy", "--output", "out", "--engine.live", "1",
        *CPU,
    )  # fmt: skip
    assert status == 130
    assert "Interrupted after 1 of 2" in err
    assert SUM in out
    assert len((tmp_path / "out" / "solutions.jsonl").read_text().splitlines()) == 1
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "interrupted"


class _AfterFirst(Callback):
    """Ctrl-C while the second problem is being solved."""

    def __init__(self):
        self.rollouts = 0

    def on_rollout(self, prompt, trajectory):
        self.rollouts += 1
        if self.rollouts == 2:
            raise KeyboardInterrupt


def test_warnings_of_a_kind_are_shown_a_few_times_only(capsys):
    import logging

    from nabla.core.quiet import REPEATS, quiet

    with quiet():
        for number in range(10):
            logging.getLogger("nabla.refinement.dto").warning("collapse at %d", number)
        logging.getLogger("nabla.refinement.dto").warning("something else")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "collapse at 0"
    assert "not shown" in lines[REPEATS - 1]
    assert lines[REPEATS:] == ["something else"]


# -- list, show, compare, demo -----------------------------------------------------------------------


def test_list_has_every_slot_and_component(capsys):
    from nabla.launch.config.slots import slots

    status, out, _ = run(capsys, "list")
    assert status == 0
    lines = out.splitlines()
    for slot, registry in slots().items():
        assert any(line.startswith(slot) for line in lines)
        for name in registry:
            (line, *_) = [line for line in lines if line.split()[:1] == [name]]
            assert len(line.split()) > 1  # it says something


def test_list_of_one_slot_shows_arguments_and_where_components_come_from(capsys, monkeypatch):
    from nabla.estimators.base import estimators
    from nabla.estimators.soft import SoftEmbedding

    class Foreign(SoftEmbedding):
        """From another package. It is marked."""

    Foreign.__module__ = "another_package.parts"
    estimators.register("foreign")(Foreign)
    try:
        status, out, _ = run(capsys, "list", "estimators")
    finally:
        del estimators._classes["foreign"]
    assert status == 0
    (line,) = [line for line in out.splitlines() if "foreign" in line]
    assert line.split() == ["foreign", "From", "another", "package", "[another_package]"]
    assert "temperature=1.0" in out


def test_show_prints_what_would_run(capsys, tmp_path):
    (tmp_path / "c.yaml").write_text("lm: sandbox:latin-policy\nmethod: best-of-n\n")
    status, out, _ = run(capsys, "show", "c.yaml", "--method.n", "3")
    assert status == 0
    shown = yaml.safe_load(out)
    assert shown["method"]["n"] == 3
    assert shown["method"]["sampling"]["temperature"] == 0.7
    assert shown["engine"]["batch_size"] == 64


def test_compare_prints_a_table_and_stores_it(capsys, tmp_path):
    status, out, _ = run(
        capsys, "compare", "--task", "arithmetic", "--problems", "3", "--methods",
        '[greedy, {name: best-of-n, n: 2}]', "--output", "out", *CPU,
    )  # fmt: skip
    assert status == 0
    assert "arithmetic: 3 held-out problems" in out
    assert "best-of-n n=2" in out
    rows = [json.loads(line) for line in (tmp_path / "out" / "comparison.jsonl").read_text().splitlines()]
    assert [row["method"] for row in rows] == ["greedy", "best-of-n n=2"]
    assert len((tmp_path / "out" / "arithmetic-greedy.jsonl").read_text().splitlines()) == 3


def test_compare_json_covers_both_families(capsys):
    status, out, _ = run(
        capsys, "compare", "--problems", "2", "--methods", "[greedy]", "--json", "--output", "none",
        *CPU,
    )  # fmt: skip
    assert status == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["task"] for row in rows] == ["latin", "arithmetic"]
    assert all(row["cost"]["total"]["flops"] > 0 for row in rows)


def test_demo_counts_only_what_the_checker_confirms(capsys):
    status, out, err = run(capsys, "demo", "--problems", "2")
    repaired = sum(
        int(line.split("; ")[-1].split()[0]) for line in out.splitlines() if "turned wrong into right" in line
    )
    assert status == (0 if repaired else 1)
    assert repaired or "no revision" in err


# -- display and start-up ----------------------------------------------------------------------------


def test_revised_cells_get_a_star():
    grid = ["[1] 2  3 [4] 5  6"] * 6
    assert starred(grid, (1, 7 + 5, 2 * 7))[:3] == [
        "[1] 2* 3 [4] 5  6",
        "[1] 2  3 [4] 5  6*",
        "[1] 2  3 [4] 5  6",  # a clue keeps its brackets
    ]
    assert starred(grid, (6, 41)) == grid  # separators and the end have no cell


def test_the_table_of_proposals_names_tokens(latin_lm):
    from rich.console import Console

    from nabla.core.costs import Cost
    from nabla.core.prompt import Prompt
    from nabla.core.solution import Revision, Solution

    ids = latin_lm.tokenizer("12", add_special_tokens=False)["input_ids"]
    revisions = (
        Revision(3, ids[0], ids[1], 0.5, 1.5, True, "a", "b"),
        Revision(4, ids[0], latin_lm.eos_ids[0], 1.5, None, False, "a", "b"),
    )
    solution = Solution(Prompt.of("x"), "a", (), 1.5, True, "m", Cost(), revisions)
    console = Console(width=100)
    with console.capture() as captured:
        console.print(revision_table(solution, latin_lm.tokenizer))
    text = captured.get()
    assert "1 accepted, 1 rejected" in text
    assert "1 → 2" in text
    assert latin_lm.tokenizer.eos_token in text


def test_help_loads_neither_torch_nor_transformers():
    code = (
        "import sys\nfrom nabla.cli import main\nmain(['--help'])\n"
        "sys.exit(sum(m in sys.modules for m in ('torch', 'transformers', 'lightning')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_python_m_nabla():
    done = subprocess.run(
        [sys.executable, "-m", "nabla", "--version"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert done.stdout.strip().endswith("0.1.0")
