"""Arguments of the front door that are no such thing: one message, before a model runs."""

from __future__ import annotations

import pytest
import yaml

from nabla.cli import main
from nabla.core.errors import ComponentError, ConfigError, NablaError, PromptError
from nabla.core.prompt import Message, Prompt
from nabla.core.registry import argument_hints
from nabla.core.solution import RunError, Stopped
from nabla.core.trajectory import Score
from nabla.engine.engine import Engine
from nabla.engine.events import Callback
from nabla.estimators.base import HardEstimator
from nabla.launch.config.run import RunConfig
from nabla.launch.launcher import TestTimeLoop
from nabla.launch.reasoner import NablaReasoner
from nabla.refinement.dto import DTO
from nabla.rewards.base import Reward
from nabla.rollouts.base import Rollout
from nabla.study.evaluation.runner import Evaluation
from tests.study.evaluation.small import VALUES, small


def test_an_annotation_for_type_checkers_hides_no_other_one():
    found = argument_hints(TestTimeLoop)
    assert found["seed"] is int
    assert "loggers" not in found  # Lightning is not imported for it


@pytest.mark.parametrize("seed", [1.5, "1", None, True])
def test_a_seed_is_a_whole_number(seed, latin_lm):
    for make in (
        lambda: NablaReasoner(latin_lm, method="greedy", seed=seed),
        lambda: TestTimeLoop("greedy", latin_lm, seed=seed),
        lambda: Engine(latin_lm, seed=seed),
    ):
        with pytest.raises((ConfigError, TypeError), match="seed"):  # or the type checker, where it is on
            make()


@pytest.mark.parametrize(
    "given",
    [
        {"callbacks": 5}, {"callbacks": None}, {"callbacks": {"name": "cost"}}, {"loggers": "csv"},
        {"loggers": [5]}, {"place": "x"}, {"place": None}, {"reward": "a path"}, {"reward": lambda p, r: 1.0},
        {"lm": "a path"},
    ],
)  # fmt: skip
def test_other_arguments_too(given, latin_lm):
    arguments = {"lm": latin_lm, "reward": None, "method": "greedy", **given}
    with pytest.raises((ConfigError, TypeError)):
        NablaReasoner(arguments.pop("lm"), arguments.pop("reward"), **arguments)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Prompt.of("1", system=5),  # type: ignore[arg-type]
        lambda: Prompt.of("1", system=["a"]),  # type: ignore[arg-type]
        lambda: Prompt.of([Message("user", None)]),  # type: ignore[arg-type]
        lambda: Prompt.of([Message("user", b"1")]),  # type: ignore[arg-type]
    ],
)
def test_what_is_said_is_a_text(make):
    with pytest.raises((PromptError, TypeError)):  # or the type checker
        make()


def test_a_reasoner_s_system_prompt_is_one_too(latin_lm):
    with pytest.raises((NablaError, TypeError), match=r"text|system"):
        NablaReasoner(latin_lm, method="greedy", system=5).solve("1")  # type: ignore[arg-type]


class Failing(Callback):
    def __init__(self, hook, error):
        def fail(*_, **__):
            raise error

        setattr(self, hook, fail)


@pytest.mark.parametrize("error", [ValueError("oops"), SystemExit(0)])
def test_a_callback_that_fails_at_the_start_or_the_end(error, latin_lm, latin_prompts):
    def run(hook):
        loop = TestTimeLoop("greedy", latin_lm, accelerator="cpu", callbacks=[Failing(hook, error)])
        loop.run(latin_prompts[:1])

    with pytest.raises(ComponentError, match="on_run_start"):
        run("on_run_start")
    with pytest.raises(Stopped) as caught:
        run("on_run_end")
    assert [s.prompt.id for s in caught.value.solutions] == [latin_prompts[0].id]


@pytest.mark.parametrize("values", [{"devices": 10**40}, {"devices": 10**6}, {"accelerator": "tpu"}])
def test_devices_that_no_machine_has(values, latin_lm):
    with pytest.raises(ConfigError, match=r"device|accelerator"):
        RunConfig.of({"method": "greedy", **values}).loop(latin_lm, None)


@pytest.mark.parametrize("workers", [0, 10**6, 1.5])
def test_workers_are_processes(workers, tmp_path):
    with pytest.raises((ConfigError, TypeError), match="workers"):
        Evaluation(small(), tmp_path, workers=workers)


def returns(scores):
    class Odd(Reward):
        unit = "points"

        def score(self, responses, runner):
            return scores(responses)

    return Odd()


def ends(_):
    raise SystemExit(0)


@pytest.mark.parametrize(
    "scores",
    [
        lambda r: [1.0] * len(r),
        lambda r: None,
        lambda r: [],
        lambda r: ["x"] * len(r),
        lambda r: [Score(1.0, (1.0,), (9999,))] * len(r),
        lambda r: [Score(1.0, (1.0, 2.0), (1,))] * len(r),
    ],
)
def test_a_reward_s_scores_are_scores(scores, latin_lm, latin_prompts):
    loop = TestTimeLoop({"name": "best-of-n", "n": 2}, latin_lm, returns(scores), accelerator="cpu")
    with pytest.raises(NablaError, match=r"Odd\.score"):
        loop.run(latin_prompts[:1])


def test_a_reward_that_ends_the_program_ends_its_problem(latin_lm, latin_prompts):
    loop = TestTimeLoop({"name": "best-of-n", "n": 2}, latin_lm, returns(ends), accelerator="cpu")
    with pytest.raises(RunError, match="SystemExit"):
        loop.run(latin_prompts[:1])


@pytest.mark.parametrize(
    "rows", [lambda z: None, lambda z: z.softmax(-1).half(), lambda z: z.softmax(-1).detach()]
)
def test_an_estimator_s_rows_are_rows(rows, latin_lm, latin_rm, latin_prompts):
    class Odd(HardEstimator):
        def soft(self, logits, step):
            return rows(logits)

    parts = {"estimator": Odd(), "max_rollouts": 2, "max_new_tokens": 43}
    with pytest.raises(NablaError, match="Odd"):
        NablaReasoner(latin_lm, latin_rm, **parts).solve(latin_prompts[0])


def test_a_device_that_is_not_there(capsys):
    sums = ["solve", "28*6+68-71+94", "--method", "greedy", "--output", "none"]
    assert main([*sums, "--lm_arguments", "{device: 'cuda:99'}"]) == 2
    assert "cannot be moved to its device" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["solve", "28*6+68-71+94"], ["evaluate", "x.yaml"]])
def test_an_output_without_a_name_is_not_the_folder_one_stands_in(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(VALUES))
    assert main([*command, "--output", ""]) == 2
    assert "--output has no name" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["x.yaml"]


def test_steps_without_end():
    with pytest.raises(ConfigError, match="steps must be at most"):
        DTO(steps=10**12)


class Writes(Callback):
    def on_rollout(self, prompt, trajectory):
        trajectory.tokens.zero_()


def test_a_callback_that_writes_into_a_text_is_told_and_changes_none(latin_lm, latin_prompts):
    loop = TestTimeLoop("greedy", latin_lm, accelerator="cpu", callbacks=[Writes()])
    with pytest.raises(RunError, match="Writes writes into"):
        loop.run(latin_prompts[:1])


class Short(Rollout):
    async def generate(self, openings, resources):
        return []


def test_a_rollout_that_forgets_a_row_fails_alone(latin_lm, latin_prompts):
    loop = TestTimeLoop("greedy", latin_lm, accelerator="cpu", rollout=Short())
    with pytest.raises(RunError, match="one each is due"):
        loop.run(latin_prompts[:2])
