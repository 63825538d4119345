"""What is missing is said before a model loads, in the words of the door that was used."""

from __future__ import annotations

import pytest
import yaml

from nabla.cli import main
from nabla.core.errors import ConfigError, ModelError
from nabla.launch.config.run import RunConfig
from nabla.launch.readiness import prospect, require_parts, require_ready
from nabla.launch.reasoner import NablaReasoner
from nabla.methods.base import methods
from nabla.models.causal_lm import CausalLM
from nabla.problems.sandbox import model_path
from nabla.study.evaluation.config import EvaluationConfig

SUM = "28*6+68-71+94"
LM = ["--lm", "sandbox:arithmetic-policy"]


@pytest.fixture(autouse=True)
def _no_model(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def loads(*_, **__):
        raise AssertionError("a model is loaded")

    for name in ("load_lm", "load_reward"):
        monkeypatch.setattr(RunConfig, name, loads)
    monkeypatch.setattr(CausalLM, "from_pretrained", loads)


def said(capsys, *arguments: str) -> str:
    assert main(["solve", SUM, "--output", "none", *arguments]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "method", ["nabla-reasoner", "best-of-n", "beam-search", "dvts", "rap", "tree-of-thoughts", "cold"]
)
def test_a_method_without_its_reward(method, capsys):
    message = said(capsys, *LM, "--method", method)
    assert "reward" in message
    assert "--rm PATH" in message
    assert "rm=" not in message
    assert "Python" not in message


def test_a_reward_without_a_gradient_where_one_is_needed(capsys):
    message = said(capsys, *LM, "--rm", "{name: function, function: 'math:sin'}", "--allow-code")
    assert "differentiable" in message
    assert "--method.dto.objective likelihood" in message


def test_advice_in_options(capsys):
    message = said(capsys, *LM, "--method.dto.objective", "likelihood")
    assert "--method.acceptance always" in message


def test_a_reward_model_as_language_model(capsys, tmp_path):
    message = said(capsys, "--lm", "sandbox:arithmetic-reward", "--rm", "sandbox:arithmetic-reward")
    assert "reward model or a classifier" in message
    assert "--rm PATH" in message
    with pytest.raises(ModelError, match=r"writes no text.*rm=\.\.\."):
        NablaReasoner.from_pretrained(str(model_path("latin-reward")), str(model_path("latin-reward")))
    config = EvaluationConfig.of(
        {
            "tasks": {"a": {"task": {"name": "sandbox", "family": "latin"}, "lm": "sandbox:latin-reward"}},
            "methods": {"greedy": "greedy"},
            "budgets": {"calls": 10},
        }
    )
    with pytest.raises(ModelError, match="writes no text"):
        config.resolved()


def test_models_that_are_not_there_are_all_said_before_the_first_is_loaded(capsys):
    assert "reward model cannot be loaded" in said(capsys, *LM, "--rm", "./nowhere")
    ensemble = "{name: ensemble, members: [sandbox:arithmetic-reward, ./nowhere]}"
    assert "reward model cannot be loaded" in said(capsys, *LM, "--rm", ensemble)
    with pytest.raises(ModelError, match="reward model cannot be loaded"):
        NablaReasoner.from_pretrained(str(model_path("latin-policy")), "./nowhere")


def test_python_hears_it_in_its_own_words():
    with pytest.raises(ConfigError, match=r"rm=\.\.\."):
        NablaReasoner.from_pretrained(str(model_path("latin-policy")))
    with pytest.raises(ConfigError, match="max_rollouts is a whole number"):
        NablaReasoner.from_pretrained(str(model_path("latin-policy")), max_rollouts="8")
    with pytest.raises(ConfigError, match="Unknown part"):
        NablaReasoner.from_pretrained(str(model_path("latin-policy")), stepz=3)


def evaluation(tmp_path, **changes) -> str:
    values = {
        "tasks": {"a": {"task": {"name": "sandbox", "family": "latin"}, "lm": "sandbox:latin-policy"}},
        "methods": {"best": {"name": "best-of-n", "n": 2}},
        "budgets": {"calls": 10},
        "problems": 2,
    }
    (tmp_path / "e.yaml").write_text(yaml.safe_dump({**values, **changes}))
    return str(tmp_path / "e.yaml")


def test_an_evaluation_hears_it_in_keys_of_its_file(tmp_path, capsys):
    assert main(["evaluate", evaluation(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "methods.best" in message
    assert "rewards: {NAME: PATH}" in message
    for key, value in (("engine", {"batch_size": 0}), ("precision", "8-bit"), ("engine", {"live": 3})):
        assert main(["evaluate", evaluation(tmp_path, methods={"g": "greedy"}, **{key: value})]) == 2
        assert key in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e.yaml"]


@pytest.mark.parametrize(
    ("option", "place"),
    [
        ("--method.max_new_tokens", "--method.sampling.max_new_tokens"),
        ("--method.temperature", "--method.sampling.temperature"),
        ("--method.steps", "--method.dto.steps"),
        ("--method.estimator", "--method.dto.estimator"),
    ],
)
def test_an_argument_one_level_too_high_is_told_its_place(option, place, capsys, tmp_path):
    assert place.removeprefix("--") in said(capsys, option, "3")
    name = option.rpartition(".")[2]
    spec = f"{{name: nabla-reasoner, {name}: 3}}"
    (tmp_path / "c.yaml").write_text(f"lm: sandbox:latin-policy\nmethod: {spec}\n")
    assert main(["show", "c.yaml"]) == 2
    assert place.removeprefix("--") in capsys.readouterr().err


# -- code --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rm", "{name: function, function: 'evil:run'}"],
        ["--rm", "{name: ensemble, members: [{name: function, function: 'evil:run'}]}"],
        ["--lm_arguments.trust_remote_code", "true"],
        ["--rm_arguments.trust_remote_code", "true"],
        ["--rm", "{path: sandbox:arithmetic-reward, trust_remote_code: true}"],
    ],
)
def test_configurations_that_are_code_need_leave(arguments, capsys, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("open('ran', 'w')\ndef run(prompt, response): return 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "--allow-code" in said(capsys, *LM, "--method", "best-of-n", *arguments)
    assert not (tmp_path / "ran").exists()


def test_so_in_an_evaluation(tmp_path, capsys):
    rewards = {"f": {"name": "function", "function": "a:b"}}
    setup = {"task": "sandbox", "lm": "sandbox:latin-policy", "rewards": rewards}
    for tasks in ({"a": setup}, {"a": {**setup, "rewards": {}, "lm_arguments": {"trust_remote_code": True}}}):
        assert main(["evaluate", evaluation(tmp_path, tasks=tasks, methods={"g": "greedy"})]) == 2
        message = capsys.readouterr().err
        assert "--allow-code" in message
        assert "tasks.a" in message


# -- pieces ------------------------------------------------------------------------------------------


def test_what_a_specification_promises():
    assert prospect(None) is None
    for rm, differentiable in (
        ("path", True),
        ({"name": "process", "path": "x"}, True),
        ({"name": "function", "function": "a:b"}, False),
        (lambda p, r: 1.0, False),
        ({"name": "ensemble", "members": ["x", {"name": "function"}]}, False),
        ({"name": "ensemble", "members": ["x", "y"]}, True),
    ):
        found = prospect(rm)
        assert found is not None
        assert found.differentiable == differentiable


def test_what_needs_a_model_to_be_checked_waits_for_it():
    require_parts(methods.build("tpo"), "path")  # looks at the chat template
    require_parts(methods.build("greedy"), None)


def test_the_default_length_fits_the_context(latin_lm):
    from nabla.core.sampling import Sampling

    limit = latin_lm.vocabulary.context_length
    assert Sampling().max_new_tokens > limit
    assert latin_lm.vocabulary.room(30, Sampling().max_new_tokens) == limit - 30




def test_a_reward_that_is_not_loaded_yet_promises_its_values():
    from nabla.launch.readiness import prospect

    assert prospect("some/model").has_values
    assert prospect({"name": "process", "path": "x"}).has_values
    assert prospect({"name": "likelihood", "path": "x"}).has_values
    assert not prospect({"name": "function", "function": "math:cos"}).has_values
    assert not prospect(lambda prompt, response: 0.0).has_values
    assert prospect({"name": "ensemble", "members": ["a", "b"]}).has_values
    silent = {"name": "function", "function": "math:cos"}
    assert not prospect({"name": "ensemble", "members": ["a", silent]}).has_values


def test_a_task_of_srun_that_no_process_of_the_run_is_says_so(monkeypatch):
    for name, value in (("NTASKS", "2"), ("NTASKS_PER_NODE", "2"), ("PROCID", "1"), ("LOCALID", "1")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.delenv("SLURM_JOB_NAME", raising=False)
    with pytest.raises(ConfigError, match="srun has started 2 processes"):
        require_ready(RunConfig(lm="sandbox:latin-policy", method="greedy", accelerator="cpu"))
