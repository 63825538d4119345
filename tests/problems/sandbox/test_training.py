"""The training scripts run end to end for two steps; their data are labelled as they should be."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from transformers import Qwen3ForCausalLM

pytest.importorskip("lightning")

from experiments.sandbox import cards, export, train_policy, train_reward
from experiments.sandbox.common import Codec, policy_config, sample
from experiments.sandbox.metrics import auc, pair_accuracy
from experiments.sandbox.negatives import near_miss, scrambled
from nabla.problems.sandbox import MODELS, TASKS


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec()


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", TASKS)
def test_two_steps_of_each_script(family: str, tmp_path: Path, codec: Codec) -> None:
    common = ["--task", family, "--out", str(tmp_path), "--steps", "2", "--every", "2"]
    train_policy.main([*common, "--batch", "4", "--eval-problems", "2"])
    train_reward.main([*common, "--batch", "4", "--body", "2", "--samplers", "2", "--pool", "5"])
    policy = torch.load(tmp_path / f"{family}-policy" / "step_00002.pt")
    reward = torch.load(tmp_path / f"{family}-reward" / "step_00002.pt")
    assert isinstance(export.build("policy", policy, codec), Qwen3ForCausalLM)
    outcome = export.build("reward", reward, codec)
    torch.testing.assert_close(outcome.score.weight, reward["outcome.weight"])
    assert export.build("process-reward", reward, codec).score.bias.shape == (1,)


@pytest.mark.parametrize("family", TASKS)
def test_codec_equals_the_chat_template(family: str, codec: Codec) -> None:
    problem = TASKS[family].problems("train", 1, 0)[0]
    turns = [
        {"role": "user", "content": problem.prompt},
        {"role": "assistant", "content": problem.gold},
    ]
    expected = codec.tokenizer.apply_chat_template(turns, return_dict=False)
    assert [*codec.prompt(problem.prompt), *codec.response(problem.gold)] == expected
    assert codec.text(codec.response(problem.gold)) == problem.gold


@pytest.mark.parametrize("family", TASKS)
def test_near_misses_are_wrong(family: str) -> None:
    task, rng = TASKS[family], random.Random(0)
    for problem in task.problems("train", 100, 0):
        for corrupt in (near_miss, scrambled):
            wrong = corrupt(task, rng, problem.prompt, problem.gold)
            assert not task.check(problem.prompt, wrong)
            assert wrong.isascii()


def test_labels(codec: Codec) -> None:
    task = TASKS["arithmetic"]
    prompt, right, wrong = "12*3+10", "12*3=36;36+10=46#46", "12*3=37;37+10=47#47"
    batch = train_reward.encode(task, codec, [(prompt, right), (prompt, wrong)])
    begin = len(codec.prompt(prompt))
    assert batch["right"].tolist() == [1.0, 0.0]
    assert bool(batch["fine"][0].all())
    assert batch["fine"][1, begin:].tolist() == [1.0] * 6 + [0.0] * (len(wrong) + 2 - 6)
    assert batch["next"][1, begin - 1 : begin + 6].tolist() == [*codec.response("12*3=3")[:6], -100]


def test_sampling_is_reproducible(codec: Codec) -> None:
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(policy_config(codec))
    prompts = [p.prompt for p in TASKS["arithmetic"].problems("train", 3, 0)]
    draws = [
        sample(model, codec, prompts, temperature=1.0, tokens=5, seed=seed) for seed in (1, 1, 2)
    ]
    assert draws[0] == draws[1] != draws[2]


def test_ranking_measures() -> None:
    assert auc([3.0, 2.0, 1.0], [True, False, False]) == 1.0
    assert auc([1.0, 1.0], [True, False]) == 0.5
    assert pair_accuracy([[1.0, 0.0], [0.0, 1.0]], [[True, False], [True, False]]) == (0.5, 2)


def test_cards_are_filled_and_refilled() -> None:
    recipe = train_reward.RECIPES["latin"]
    text = cards.card(MODELS["latin-reward"], 100, recipe)
    filled = cards.fill(cards.fill(text, "first"), "second")
    assert "second" in filled
    assert "first\n" not in filled
    assert "Not measured yet" not in filled
