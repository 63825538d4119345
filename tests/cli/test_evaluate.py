"""``nabla evaluate``: options, output, errors."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import yaml

from nabla.cli import main
from nabla.cli.evaluate_command import changed, parse_budgets
from nabla.cli.parsing import parse
from nabla.core.errors import ConfigError
from tests.study.evaluation.small import VALUES, small


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    status = main(["evaluate", *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    values = {**VALUES, "quick": {"problems": 2, "seeds": [0]}}
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return str(path)


def options(*arguments: str):
    return parse(["evaluate", "--config", "x", *arguments]).options


def test_options_are_laid_over_the_configuration():
    base = small(quick={"problems": 2, "seeds": [5]})
    given = options("--quick", "--problems", "3", "--seeds", "1,2", "--methods", "best,sampling")
    found = changed(base, given)
    assert (found.problems, found.seeds, list(found.methods)) == (3, [1, 2], ["best", "sampling"])
    assert changed(base, options("--seeds", "4")).seeds == [4]
    assert changed(base, options("--quick")).seeds == [5]
    two = changed(base, options("--budget", "flops=1e8,2e8", "--budget", "seconds=1"))
    assert two.ladder == [("flops", 1e8), ("flops", 2e8), ("seconds", 1.0)]


@pytest.mark.parametrize("text", ["flops", "flops=", "flops=a", "flops:1"])
def test_malformed_budgets(text):
    with pytest.raises(ConfigError, match="--budget"):
        parse_budgets([text])
    with pytest.raises(ConfigError, match="each unit once"):
        parse_budgets(["calls=1", "calls=2"])


def test_a_run_a_second_one_and_a_report(config, capsys, tmp_path):
    folder = tmp_path / "r"
    status, out, err = run(capsys, "--config", config, "--quick", "--output", str(folder))
    assert status == 0, err
    assert "squares: accuracy in % by budget in calls, 2 problems, 1 seed" in out
    assert re.search(r"2/2 squares best seed 0 shard 0: \d+\.\d s, [1-9]\S* (problems/|s/problem)", err)
    records = (folder / "records.jsonl").read_bytes()
    summary = (folder / "summary.json").read_text()
    assert {r["method"] for r in json.loads(summary)["rows"]} == {"greedy", "best"}

    assert run(capsys, "--config", config, "--quick", "--output", str(folder))[0] == 0
    assert (folder / "records.jsonl").read_bytes() == records

    kept = tmp_path / "kept"
    kept.mkdir()
    for name in ("records.jsonl", "evaluation.json"):
        shutil.copy(folder / name, kept)
    status, again, _ = run(capsys, "--report", str(kept))
    assert status == 0
    assert again == out  # from the records alone
    assert (kept / "summary.json").read_text() == summary
    assert (kept / "accuracy_calls.png").exists()

    status, _, err = run(capsys, "--config", config, "--output", str(folder))
    assert status == 2
    assert "another configuration" in err
    assert (folder / "records.jsonl").read_bytes() == records


def test_the_default_folder_has_the_configurations_name(config, capsys, tmp_path):
    assert run(capsys, "--config", config, "--quick", "--methods", "greedy", "--problems", "1")[0] == 0
    assert (tmp_path / "runs" / "small-evaluation-quick" / "records.jsonl").exists()


def test_a_budget_nobody_can_meet_fails_with_the_records_kept(config, capsys, tmp_path):
    folder = tmp_path / "r"
    arguments = ["--config", config, "--quick", "--methods", "greedy", "--output", str(folder)]
    status, _, err = run(capsys, *arguments, "--budget", "calls=3")
    assert status == 2
    assert "Within 3 calls no method had an answer" in err
    assert "The cheapest first answer took 42 calls" in err
    assert (folder / "records.jsonl").exists()
    assert (folder / "summary.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to evaluate"),
        (("--config", "nowhere.yaml"), "cannot be read"),
        (("--report", "nowhere"), "no results"),
        (("--config", "CONFIG", "--methods", "best-of-m"), "Unknown component in methods"),
        (("--config", "CONFIG", "--budget", "dollars=1"), "Unknown budget unit"),
        (("--config", "CONFIG", "--budget", "calls=2,1"), "ascend"),
        (("--config", "CONFIG", "--seeds", "a"), "whole numbers"),
        (("--config", "CONFIG", "--problems", "0"), "problems must be at least 1"),
        (("--config", "CONFIG", "--reference", "nobody"), "reference is no method"),
        (("--config", "CONFIG", "--workers", "0"), "workers must be at least 1"),
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(arguments, message, config, capsys, tmp_path):
    given = [config if argument == "CONFIG" else argument for argument in arguments]
    status, out, err = run(capsys, *given)
    assert status == 2
    assert message in err
    assert err.startswith("nabla: error: ")
    assert out == ""
    assert not (tmp_path / "runs").exists()


def test_unknown_tasks_and_missing_models_leave_nothing(config, capsys, tmp_path):
    for change, message in (
        ({"task": "chess"}, "Unknown component in tasks"),
        ({"lm": "./nowhere"}, "there is no such folder"),
        ({"task": {"name": "jsonl", "path": "nowhere.jsonl"}}, "nowhere.jsonl"),
    ):
        task = {**VALUES["tasks"]["squares"], **change}
        path = tmp_path / "bad.yaml"
        path.write_text(yaml.safe_dump({**VALUES, "tasks": {"x": task}}))
        status, _, err = run(capsys, "--config", str(path))
        assert status == 2
        assert message in err
        assert not (tmp_path / "runs").exists()


def test_a_metric_of_the_command_line(config, capsys, tmp_path):
    assert changed(small(), options("--metric", "reward")).metric == "reward"
    given = ("--config", config, "--quick", "--problems", "1", "--methods", "best", "--output")
    function = f"{__name__}:length"
    status, _, err = run(capsys, *given, str(tmp_path / "f"), "--metric", function)
    assert status == 2
    assert "--allow-code" in err
    assert not (tmp_path / "f").exists()
    status, out, err = run(capsys, *given, str(tmp_path / "r"))
    assert status == 0, err
    assert "accuracy in %" in out
    status, out, err = run(capsys, "--report", str(tmp_path / "r"), "--metric", "reward")
    assert status == 0, err
    assert "squares: mean reward by budget in calls, 1 problems, 1 seed" in out
    status, _, err = run(capsys, "--report", str(tmp_path / "r"), "--metric", "bleu")
    assert status == 2
    assert "There is no such metric" in err


def length(prompt: str, response: str) -> float:
    return len(response) / len(prompt)
