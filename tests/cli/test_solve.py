"""``nabla solve``: interrupted runs, the order of JSON lines, loggers."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nabla.cli import main
from nabla.core.errors import ConfigError
from nabla.core.extras import installed
from nabla.engine.events import Callback
from nabla.launch.config.run import RunConfig

ROOT = Path(__file__).parents[2]
SUMS = ["28*6+68-71+94", "53*6-50+29-41", "12*7-30+45-16"]
GREEDY = ["--method", "greedy", "--engine.live", "1", "--accelerator", "cpu"]


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    status = main(["solve", *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def prompts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "p.jsonl"
    lines = [json.dumps({"prompt": text, "id": f"p{i}"}) + "\n" for i, text in enumerate(SUMS)]
    path.write_text("".join(lines))
    return ["--prompts", str(path), "--output", "out"]


def rows(folder: str = "out") -> list[dict]:
    return [json.loads(line) for line in Path(folder, "solutions.jsonl").read_text().splitlines()]


class _After(Callback):
    """Ctrl-C while another problem is being solved."""

    def __init__(self, solved: int):
        self.left = solved + 1

    def on_rollout(self, prompt, trajectory):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def interrupted(capsys, monkeypatch, prompts: list[str], solved: int) -> None:
    import nabla.cli.solve_command as solve

    with monkeypatch.context() as patch:
        patch.setattr(solve, "_callbacks", lambda *_, **__: [_After(solved)])
        status, _, err = run(capsys, *prompts, *GREEDY)
    assert (status, len(rows())) == (130, solved), err


def test_an_interrupted_run_goes_on_and_ends_like_an_unbroken_one(capsys, monkeypatch, prompts):
    interrupted(capsys, monkeypatch, prompts, solved=2)
    with Path("out", "solutions.jsonl").open("a") as file:
        file.write('{"id": "p2", "resp')  # a kill in the middle of a line
    status, out, err = run(capsys, *prompts, *GREEDY, "--json")
    assert status == 0, err
    assert "2 of 3 were solved before" in err
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["p0", "p1", "p2"]
    about = json.loads(Path("out", "run.json").read_text())
    assert (about["status"], about["solved"], len(about["resumed"])) == ("finished", 3, 1)
    unbroken = [*prompts[:-1], "unbroken"]
    assert run(capsys, *unbroken, *GREEDY)[0] == 0
    for found, expected in zip(rows(), rows("unbroken"), strict=True):
        assert {**found, "cost": 0} == {**expected, "cost": 0}
        totals = [{**row["cost"]["total"], "seconds": 0} for row in (found, expected)]
        assert totals[0] == totals[1]


def test_a_finished_run_is_shown_again_and_no_model_is_loaded(capsys, monkeypatch, prompts):
    assert run(capsys, *prompts, *GREEDY)[0] == 0
    path = Path("out", "run.json")
    path.write_text(path.read_text().replace('"finished"', '"running"'))  # killed at its very end
    before = rows()
    monkeypatch.setattr(RunConfig, "load_models", lambda self: pytest.fail("loaded"))
    status, out, err = run(capsys, *prompts, *GREEDY, "--json")
    assert status == 0
    assert [json.loads(line) for line in out.splitlines()] == before == rows()
    assert "3 of 3 were solved before" in err
    assert json.loads(path.read_text())["status"] == "finished"
    assert json.loads(path.read_text())["device"] == "cpu"


def test_another_configuration_is_refused_before_a_model_loads(capsys, monkeypatch, prompts):
    interrupted(capsys, monkeypatch, prompts, solved=1)
    before = {p.name: p.read_bytes() for p in Path("out").iterdir()}
    monkeypatch.setattr(RunConfig, "load_models", lambda self: pytest.fail("loaded"))
    status, out, err = run(capsys, *prompts, *GREEDY, "--seed", "1")
    assert (status, out) == (2, "")
    assert "another configuration; config.seed: 0 there, 1 here" in err
    assert {p.name: p.read_bytes() for p in Path("out").iterdir()} == before


def test_json_is_in_the_order_of_the_prompts(capsys, monkeypatch, prompts):
    from nabla.cli.recorder import Recorder

    held, real = [], Recorder.on_solution
    monkeypatch.setattr(Recorder, "on_solution", lambda self, solution: held.append(solution))
    monkeypatch.setattr(
        Recorder, "on_run_end", lambda self, *_: [real(self, solution) for solution in reversed(held)]
    )
    status, out, _ = run(capsys, *prompts[:2], "--output", "none", *GREEDY, "--json")
    assert status == 0
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["p0", "p1", "p2"]


def test_the_log_of_an_interrupted_run_is_not_written_over(capsys, monkeypatch, prompts):
    import nabla.cli.solve_command as solve
    from nabla.launch.callbacks.logging import MetricsLogger

    with monkeypatch.context() as patch:
        patch.setattr(solve, "_callbacks", lambda *_, **__: [MetricsLogger(), _After(1)])
        assert run(capsys, *prompts, *GREEDY, "--logger", "csv")[0] == 130
    assert run(capsys, *prompts, *GREEDY, "--logger", "csv")[0] == 0
    logs = [Path("out", "metrics.csv"), Path("out", "metrics-2", "metrics.csv")]
    assert [len(list(csv.DictReader(log.read_text().splitlines()))) for log in logs] == [1, 2]


def test_several_loggers_by_one_option(capsys, prompts):
    assert run(capsys, *prompts, *GREEDY, "--logger", "csv,tensorboard")[0] == 0
    assert Path("out", "metrics.csv").exists()
    assert list(Path("out", "tensorboard").glob("events*"))


@pytest.mark.parametrize(
    ("name", "message"),
    [("wandb", "pip install 'nabla-reasoner[loggers]'"), ("tensorbord", "--logger is one of csv, ")],
)
def test_a_logger_that_is_not_there_is_one_message(name, message, capsys, monkeypatch, prompts):
    monkeypatch.setitem(sys.modules, "wandb", None)
    status, out, err = run(capsys, *prompts, *GREEDY, "--logger", name)
    assert (status, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.skipif(not installed("wandb"), reason="wandb is not installed")
def test_weights_and_biases_offline(tmp_path):
    arguments = [SUMS[0], *GREEDY, "--output", "out", "--logger", "wandb"]
    command = [sys.executable, "-m", "nabla", "solve", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    (log,) = (tmp_path / "out" / "wandb").glob("offline-run-*/run-*.wandb")
    assert log.stat().st_size > 0
    assert b"reward" in log.read_bytes()


def test_the_policy_judges_itself_by_name_alone(capsys, monkeypatch, tmp_path):
    """The same from flags and from YAML: no other model is loaded, no pass is run but the rollouts'."""
    monkeypatch.chdir(tmp_path)
    method = ["--method", "best-of-n", "--method.n", "3", "--accelerator", "cpu", "--json"]
    Path("run.yaml").write_text("lm: sandbox:arithmetic-policy\nrm: {name: likelihood, aggregation: sum}\n")
    flags = ["--rm.name", "likelihood", "--rm.aggregation", "sum"]
    found = []
    for source in (flags, ["--config", "run.yaml"]):
        status, out, err = run(capsys, SUMS[0], *source, *method)
        assert status == 0, err
        (row,) = (json.loads(line) for line in out.splitlines())
        assert "reward" not in row["cost"]["phases"]
        found.append((row["response"], row["reward"]))
    assert found[0] == found[1]
    status, _, err = run(capsys, SUMS[0], "--rm", "{name: likelihood, path: nowhere/at-all}", *method)
    assert status == 2
    assert "nowhere/at-all" in err


def test_a_run_that_goes_on_counts_what_was_right_before(capsys, monkeypatch, prompts):
    interrupted(capsys, monkeypatch, prompts, solved=2)
    status, out, _ = run(capsys, *prompts, *GREEDY)
    assert status == 0
    right = sum(row["correct"] for row in rows())
    assert f"{right} of 3 right" in out


def test_backtracking_is_told_as_it_goes_and_steps_are_the_familys(capsys):
    """In a plain log, too: what was stopped where, what was drawn, what came of it, and the answer."""
    backtrack = ["--method.name", "backtrack", "--method.attempts", "8"]
    status, out, _ = run(capsys, SUMS[0], *backtrack, "--output", "none", "--accelerator", "cpu")
    assert status == 0
    labels = [line.split(" ")[0] for line in out.splitlines()]
    assert labels.count("drawn") == labels.count("accepted") + labels.count("rejected") > 0
    stopped = [line for line in out.splitlines() if line.startswith("stopped")]
    assert stopped
    assert all(line.count(">") == line.count("<") == 1 for line in stopped)
    assert all(line.endswith(("<", "…", ";", "#")) for line in stopped)  # at the end of a step
    assert labels.count("answer") == 1


@pytest.mark.parametrize(("option", "value"), [("problems", "5"), ("problem_seed", "0"), ("offset", "0")])
def test_options_of_a_task_without_one_are_refused(option, value, capsys):
    status, out, err = run(capsys, SUMS[0], *GREEDY, "--output", "none", f"--{option}", value)
    assert (status, out) == (2, "")
    assert f"--{option} is of a task, and there is none" in err


def test_an_error_before_the_first_problem_is_a_failed_run(capsys, monkeypatch, prompts):
    import nabla.cli.solve_command as solve

    def broken(*_):
        raise ConfigError("no share of it")

    monkeypatch.setattr(solve, "_shared", broken)
    status, _, err = run(capsys, *prompts, *GREEDY)
    assert status == 2
    assert "no share of it" in err
    assert json.loads(Path("out", "run.json").read_text())["status"] == "failed"
