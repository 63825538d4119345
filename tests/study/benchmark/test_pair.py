"""``nabla bench`` for models from folders: what it writes is consistent. Nothing is asserted of times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nabla.cli import FAILURE, main
from nabla.core.errors import ConfigError
from nabla.rewards.function import FunctionReward
from nabla.study.benchmark.bench import Stand
from nabla.study.benchmark.models import Workbench
from nabla.study.benchmark.pair import measure_pair, pair_setting
from tests import tiny


def saved(folder: Path, model: Any) -> str:
    model.float().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("models")
    tok = tiny.tokenizer()
    lm, rm = tiny.lm_model("qwen2", tok), tiny.outcome_model("qwen2", tok)
    return saved(folder / "writer", lm), saved(folder / "judge", rm)


@pytest.fixture(scope="module")
def results(pair: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    sizes = ["--prompt-tokens", "12", "--response-tokens", "6", "--problems", "2", "--repeats", "1"]
    arguments = ["--lm", pair[0], "--rm", pair[1], "--threads", "1", "--device", "cpu", *sizes]
    assert main(["bench", *arguments, "--output", str(folder)]) == 0
    return folder


def test_every_figure_of_a_pair_is_there(results: Path) -> None:
    found = json.loads((results / "results.json").read_text())
    assert found["setting"] == "writer + judge"
    named = {m["name"]: m for m in found["measurements"]}
    assert all(m["value"] is not None and m["low"] <= m["value"] <= m["high"] for m in named.values())
    assert {m["target"] for m in named.values()} == {1, 2, 4, 5, 6, 8}
    ratios = {
        "refine with likelihood / floor": ("refine", "floor"),
        "plain passes of transformers / gradient": ("plain", "gradient"),
        "refine the next position / floor": ("next", "floor"),
        "rollouts / generate, 2 at a time": ("rollouts", "generate"),
        "throughput together / in turn: 2 problems": ("in turn", "together"),
    }
    for name, (top, bottom) in ratios.items():
        assert named[name]["value"] == pytest.approx(named[name]["parts"][top] / named[name]["parts"][bottom])
    for way in ("together", "alone"):
        shares = named[f"share of solves outside rollouts and rewards, {way}"]["parts"]
        assert 0 < sum(share for phase, share in shares.items() if phase != "wall") < 1.05
    for name in ("pair.png", "floor.png", "measurements.csv", "samples.csv"):
        assert (results / name).stat().st_size > 0


def test_its_figures_are_drawn_again(results: Path, tmp_path: Path) -> None:
    assert main(["plot", str(results), "--format", "svg", "--output", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"pair.svg", "floor.svg"}
    assert "LM backward" in (tmp_path / "floor.svg").read_text()
    assert main(["plot", str(results), "--methods", "nabla"]) == 2


def test_a_kept_graph_costs_a_backward_pass(results: Path) -> None:
    """FLOPs do not depend on the machine."""
    found = json.loads((results / "results.json").read_text())
    named = {m["name"]: m for m in found["measurements"]}

    def gradient(label: str, way: str) -> float:
        value: float = named[f"gradient {label} / scored proposal, {way}, FLOPs"]["parts"]["gradient"]
        return value

    for label in ("with likelihood", "without likelihood"):
        assert gradient(label, "kept graph") < gradient(label, "no graph")
    # What is saved is the reward's forward pass, whatever the objective is.
    saved = [
        gradient(label, "no graph") - gradient(label, "kept graph")
        for label in ("with likelihood", "without likelihood")
    ]
    assert saved[0] == pytest.approx(saved[1])
    kept = named["memory of a kept graph of the reward, MB per token"]["parts"]
    assert kept["kept"] > 0
    assert kept["estimate"] > 0


def test_prompts_and_texts_of_given_models_have_their_tokens() -> None:
    lm, reward = tiny.causal_lm(), tiny.outcome()
    setting = pair_setting("a pair", lm, reward, prefix=20, response=6, problems=2)
    workbench = Workbench(setting, (lm, reward))
    special = set(lm.tokenizer.all_special_ids)
    assert not special & set(workbench.text(0, 200).tolist())
    assert workbench.prompt(1) == workbench.prompt(1)
    assert workbench.prompt(1) != workbench.prompt(2)


def test_a_process_reward_has_no_floor_and_all_else() -> None:
    lm, reward = tiny.causal_lm(), tiny.process(arguments={"step_separators": ";"})
    setting = pair_setting("steps", lm, reward, prefix=12, response=6, problems=2)
    found = measure_pair(Stand(setting, 1, 0, threads=1, models=(lm, reward)))
    missing = [m.name for m in found if m.value is None]
    assert missing == ["refine / floor", "refine the next position / floor"]


def test_a_reward_without_a_gradient_is_an_error() -> None:
    for reward in (None, FunctionReward(lambda prompt, text: 0.0)):
        with pytest.raises(ConfigError, match="differentiates one reward model"):
            pair_setting("a pair", tiny.causal_lm(), reward, prefix=1, response=1, problems=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lm", "somewhere"], "needs a language model and a reward model"),
        (["--rm", "somewhere"], "needs a language model and a reward model"),
        (["--lm", "a", "--rm", "b", "--setting", "A"], "--setting is of models of fixed shapes"),
        (["--lm", "a", "--rm", "b", "--targets", "1"], "--targets is of models of fixed shapes"),
        (["--lm", "a", "--rm", "b", "--ablate"], "--ablate works with --setting only"),
        (["--lm", "/no/such/folder", "--rm", "/no/such/folder"], "cannot be loaded"),
        (["--prompt-tokens", "0"], "--prompt-tokens must be at least 1"),
    ],
)
def test_wrong_arguments(arguments: list[str], said: str, capsys: Any) -> None:
    assert main(["bench", *arguments, "--output", "none"]) == FAILURE
    assert said in capsys.readouterr().err


def test_a_reward_model_is_no_language_model(pair: tuple[str, str], capsys: Any) -> None:
    sizes = ["--prompt-tokens", "12", "--response-tokens", "6", "--problems", "1", "--repeats", "1"]
    assert main(["bench", "--lm", pair[1], "--rm", pair[1], *sizes, "--output", "none"]) == FAILURE
    assert "language model" in capsys.readouterr().err


def test_advice_is_in_options(pair: tuple[str, str], tmp_path: Path, capsys: Any) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in Path(pair[0]).iterdir():
        if "token" not in path.name:
            (bare / path.name).symlink_to(path)
    assert main(["bench", "--lm", str(bare), "--rm", pair[1], "--output", "none"]) == FAILURE
    assert "--lm_arguments.tokenizer VALUE" in capsys.readouterr().err
