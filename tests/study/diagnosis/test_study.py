"""A small diagnosis from end to end: what is drawn, judged, counted, shown and stored."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nabla.cli import FAILURE, main
from nabla.core.errors import ConfigError
from nabla.core.prompt import Prompt
from nabla.launch.config.presets import BOUNDARIES, SANDBOX_RUNS
from nabla.methods.searches.backtrack import Backtrack
from nabla.problems.tasks.sandbox import Sandbox
from nabla.study.diagnosis.findings import OWN
from nabla.study.diagnosis.measures import auc
from nabla.study.diagnosis.report import gate_files, to_dict, write
from nabla.study.diagnosis.study import Diagnosis, Progress, Subject, diagnose
from nabla.study.diagnosis.texts import Settings

PROCESS = {"name": "process", "path": "sandbox:arithmetic-process-reward"}
REWARDS = {"outcome": "sandbox:arithmetic-reward-poor", "process": PROCESS}
SMALL = ["--problems", "2", "--samples", "2", "--swaps", "2", "--rerolls", "1"]
CPU = ["--accelerator", "cpu"]


def subject(rewards: Any = REWARDS, problems: int = 6, seed: int = 0) -> Subject:
    task = Sandbox("arithmetic")
    config = replace(SANDBOX_RUNS["arithmetic"], accelerator="cpu", seed=seed)
    settings = Settings(samples=3, swaps=12, rerolls=1)
    return Subject(config, rewards, task, task.problems(problems, seed=0), settings=settings)


@pytest.fixture(scope="module")
def found() -> Diagnosis:
    progress = Progress()
    made = diagnose(subject(), progress)
    assert progress.done == progress.total
    return made


def test_every_signal_is_measured(found: Diagnosis) -> None:
    seen = found.findings
    assert {c.name for c in seen.choosers} == {OWN, "outcome", "process"}
    assert {(p.name, p.reward) for p in seen.predictors} >= {
        ("position (early)", None),
        ("surprise, -log π of the own token", None),
        ("log π of the new token", None),
        ("entropy", None),
        *((name, reward) for reward in REWARDS for name in (
            "value drop", "change point", "exact value of the prefix", "∇, first-order gain")),
    }  # fmt: skip
    assert {g.reward for g in seen.gradients} == set(REWARDS)
    for estimate in (seen.accuracy, seen.any_right, seen.success, *(p.auc for p in seen.predictors)):
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    for gradient in seen.gradients:
        assert gradient.proposals == pytest.approx(gradient.flops / gradient.proposal_flops)
        assert -1 <= gradient.change.value <= 1


def test_the_process_reward_of_the_sandbox_knows_where_the_mistake_is(found: Diagnosis) -> None:
    locator = found.findings.locator("process")
    assert locator is not None
    assert locator.prefix.value > 0.9
    exact = found.findings.predictor("exact value of the prefix", "process")
    assert exact is not None
    assert exact.auc.value > 0.9


def test_every_model_call_is_counted(found: Diagnosis) -> None:
    phases = found.cost.phases
    assert all(phases[name].flops > 0 for name in ("rollout", "reward", "gradient", "selection"))
    # One for each reward at each wrong response.
    assert phases["gradient"].backward_passes == 2 * found.findings.success.count


def test_the_same_again_and_another_with_another_seed(found: Diagnosis) -> None:
    def numbers(made: Diagnosis) -> Any:
        data = to_dict(made)
        for gradient in data["findings"]["gradients"]:
            del gradient["seconds"]
        return json.dumps(data["findings"], sort_keys=True)

    assert numbers(diagnose(subject())) == numbers(found)
    assert numbers(diagnose(subject(seed=1))) != numbers(found)


def test_the_gate_is_that_of_a_run_and_its_file_spares_it(tmp_path: Path) -> None:
    gate = {"texts": 16, "prompts": 8}
    given = subject({"a b": PROCESS, "a-b": PROCESS}, problems=8)
    method = {"name": "backtrack", "boundary": BOUNDARIES["arithmetic"], "gate": gate}
    given = replace(given, config=replace(given.config, method=method), settings=Settings(2, 2, 1))
    made = diagnose(given)
    assert list(made.gates) == ["a b", "a-b"]  # names that would share a file
    write(made, tmp_path)
    files = [tmp_path / name for name in gate_files(made).values()]
    assert len(set(files)) == 2
    config = given.gated(PROCESS)
    loop = config.loop(config.load_lm(), config.load_reward())
    prompts = [Prompt.of(p.prompt, id=p.id) for p in given.problems]
    assert made.gates["a b"].to_dict() == loop.prepared(prompts).calibration.to_dict()  # type: ignore[attr-defined]
    stored = Backtrack(gate={"file": str(files[0])})
    assert stored.calibration == made.gates["a b"]
    assert stored.prepared(loop.engine, prompts) is stored  # nothing is sampled


def test_there_is_no_gate_without_values_or_of_too_few_problems(found: Diagnosis) -> None:
    assert found.gates == {}  # six problems
    length = {"name": "function", "function": "tests.study.diagnosis.test_study:length"}
    assert diagnose(subject({"length": length}, problems=8)).gates == {}


def length(prompt: str, response: str) -> float:
    """A reward without values at tokens."""
    return -float(len(response))


def test_one_reward_or_none(found: Diagnosis) -> None:
    """Which rewards judge beside it changes no number of a reward."""
    alone = diagnose(subject({"process": PROCESS}))
    for row in alone.findings.predictors:
        same = found.findings.predictor(row.name, row.reward)
        assert same is not None
        assert same.auc.value == pytest.approx(row.auc.value, abs=0.02)  # batches round otherwise
    none = diagnose(subject({}, problems=3))
    assert none.findings.gradients == ()
    assert none.verdicts[0].method == "best-of-n"


def test_what_cannot_be_diagnosed_is_refused() -> None:
    base = subject()
    cold = base.config.changed({"sampling": {"temperature": 0.0}})
    with pytest.raises(ConfigError, match="temperature"):
        _ = replace(base, config=cold).sampling
    with pytest.raises(ConfigError, match="one process"):
        replace(base, config=replace(base.config, devices=2)).require_one_process()


def test_the_command_prints_tables_and_stores_a_figure(tmp_path: Path, capsys: Any) -> None:
    labelled = tmp_path / "rows.jsonl"
    steps = ["12*3=36;", "36+10=46#46"]
    rows = [{"problem": "12*3+10", "steps": steps, "label": label} for label in (-1, 1, -1, 0) * 2]
    labelled.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    arguments = ["--task", "arithmetic", *SMALL, *CPU, "--process_bench", str(labelled)]
    assert main(["diagnose", *arguments, "--output", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "worth trying: " in shown
    assert "What speaks for what" in shown
    assert (out / "arithmetic.png").stat().st_size > 10_000
    data = json.loads((out / "arithmetic.json").read_text())
    assert set(data["rewards"]) == {"outcome", "process"}
    f1 = {x["name"]: x["f1"] for x in data["findings"]["locators"]}
    assert f1[OWN]["count"] == f1["process"]["count"] == 8
    assert data["verdicts"][0]["answers"]
    assert json.loads((out / "run.json").read_text())["status"] == "finished"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--problems", "0"], "--problems"),
        (["--samples", "1"], "--samples"),
        (["--swaps", "0"], "--swaps"),
        (["--rm", "sandbox:latin-reward", "--rewards", "{a: sandbox:latin-reward}"], "twice"),
        (["--task", "{name: jsonl, path: nowhere.jsonl}"], "nowhere.jsonl"),
        (["--task", "latin", "--rm", "sandbox:no-such"], "no-such"),
        (["--task", "latin", "--process_bench", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--task", "latin", "--method.sampling.temperature", "0"], "temperature"),
        (["--task", "latin", "--devices", "2"], "one process"),
        (["--task", "latin", "--nonsense", "2"], "nonsense"),
        (["--task", "latin", "--callbacks", "[cost]"], "--callbacks"),
        (["--task", "latin", "--loggers", "[csv]"], "--loggers"),
    ],
)
def test_mistakes_are_told_before_a_model_loads(
    arguments: list[str], message: str, capsys: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    from nabla.launch.config.run import RunConfig

    def loads(self: Any) -> Any:
        raise AssertionError("a model is loaded")

    for name in ("load_lm", "load_reward"):
        monkeypatch.setattr(RunConfig, name, loads)
    monkeypatch.chdir(tmp_path)
    assert main(["diagnose", *arguments]) == FAILURE
    said = capsys.readouterr().err
    assert message in said
    assert "bug" not in said
    assert list(tmp_path.iterdir()) == []


def test_what_a_file_says_and_a_diagnosis_has_no_use_for_is_told(tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("callbacks: [cost]\nloggers: [csv]\n")
    assert main(["diagnose", "--config", str(file), "--task", "latin", "--devices", "2"]) == FAILURE
    said = capsys.readouterr().err
    for name in ("callbacks", "loggers"):
        assert f"{name} of the configuration are not used" in said


def test_a_signal_interrupts_a_diagnosis(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    import nabla.cli.diagnose_command as command
    import nabla.study.diagnosis.report as report
    import nabla.study.diagnosis.study as study

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "diagnose", lambda *_: None)
    monkeypatch.setattr(command, "_show", lambda *_: None)
    monkeypatch.setattr(report, "write", stop)
    out = tmp_path / "out"
    assert main(["diagnose", "--task", "arithmetic", *SMALL, *CPU, "--output", str(out)]) == 130
    assert json.loads((out / "run.json").read_text())["status"] == "interrupted"


def test_aucs_within_a_response_are_those_of_its_own_swaps() -> None:
    """By hand: two texts behind each swap, the score the swap's."""
    from nabla.study.diagnosis.findings import _within
    from nabla.study.diagnosis.texts import Drawn, Swap

    swaps = tuple(Swap(i, 0, 0.0, 0.0, 0.0, ends) for i, ends in enumerate([(True, False), (False, False)]))
    rows = _within({"a": Drawn((), 0, None, swaps)}, lambda _, d: [s.position for s in d.swaps])
    assert rows["a"] == pytest.approx(auc([0, 0, 1, 1], [True, False, False, False])) == pytest.approx(1 / 6)
    assert math.isnan(_within({"a": Drawn((), 0, None, swaps[1:])}, lambda _, d: [0.0])["a"])
