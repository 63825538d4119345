"""A reward that errs, in a way that can be told beforehand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from nabla.core.costs import Account, CostMeter
from nabla.core.errors import ConfigError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.engine.engine import Engine
from nabla.models.runner import Runner
from nabla.rewards.base import Reading, Response
from nabla.rewards.function import FunctionReward
from nabla.rewards.likelihood import LikelihoodReward
from nabla.rewards.loading import load_reward
from nabla.rewards.noisy import NoisyReward, calibrated
from nabla.testing import check_reward
from nabla.testing.tiny import char_tokenizer, tiny_lm, tiny_process_reward, tiny_reward
from tests.rewards.published import published, tokens, vocabulary

PROMPT = Prompt.of("abba")
TOKENS = char_tokenizer("abcd")
LM = tiny_lm(TOKENS)


def ids(text):
    return torch.tensor(TOKENS(text, add_special_tokens=False)["input_ids"])


def process(**arguments):
    return tiny_process_reward(TOKENS, step_separators=[], **arguments)


def response(text):
    return Response(PROMPT, ids(text), Account("p", CostMeter(), "reward"))


def noisy(inner, scale=2.0, **arguments):
    return NoisyReward(inner, scale, **arguments).bind(LM.vocabulary)


def errors(text, **arguments):
    return noisy(process(), **arguments).errors(PROMPT, ids(text))


def test_an_error_is_that_of_the_step_and_of_what_was_before_it():
    one, other = errors("abcabd", steps=["c"]), errors("bac" + "dda", steps=["c"])
    assert one[:3] == [one[0]] * 3
    assert one[3:] == [one[3]] * 3
    assert one[3] != one[0]
    assert other[0] == one[0]  # nothing is before a first step
    assert other[3] != one[3]
    # Drawn again, the step errs as before.
    assert errors("abcdda", steps=["c"]) == one
    assert len(set(errors("abcabd"))) == 6


def test_errors_follow_from_seed_and_prompt():
    assert errors("abc") == errors("abc")
    assert errors("abc", seed=1) != errors("abc")
    assert noisy(process()).errors(Prompt.of("b"), ids("abc")) != errors("abc")


@pytest.mark.parametrize("persistence", [0.0, 0.8])
def test_errors_have_the_size_and_persistence_that_were_asked_for(persistence):
    """Over many texts: SPEC 14's errors that last along the prefix."""
    reward = noisy(process(), scale=3.0, persistence=persistence)
    draws = torch.randint(4, 8, (1500, 4), generator=torch.Generator().manual_seed(0))
    found = {}
    for seed, row in enumerate(draws):
        reward.seed = seed
        found[seed] = reward.errors(PROMPT, row)
    rows = torch.tensor(list(found.values()))
    assert rows.std(0).tolist() == pytest.approx([3.0] * 4, abs=0.25)
    assert rows.mean(0).tolist() == pytest.approx([0.0] * 4, abs=0.3)
    correlations = torch.corrcoef(rows.T)
    assert float(correlations[0, 1]) == pytest.approx(persistence, abs=0.08)
    assert float(correlations[0, 2]) == pytest.approx(persistence**2, abs=0.08)


def test_values_err_and_the_outcome_does_so_where_asked():
    clean = process().bind(LM.vocabulary)
    (score,) = clean.score([response("abcd")], Runner())
    sound, wrong = noisy(process()), noisy(process(), outcome=True)
    added = sound.errors(PROMPT, ids("abcd"))
    for reward, total in ((sound, score.value), (wrong, score.value + added[-1])):
        (found,) = reward.score([response("abcd")], Runner())
        assert found.value == pytest.approx(total)
        assert found.steps == pytest.approx([a + b for a, b in zip(score.steps, added, strict=True)])
        (values,) = reward.values([Reading(response("abcd"), known=1)], Runner())
        assert values == pytest.approx(list(found.steps[1:]))


def test_no_error_is_the_reward_within():
    clean, reward = process().bind(LM.vocabulary), noisy(process(), scale=0.0, outcome=True)
    assert reward.score([response("abca")], Runner()) == clean.score([response("abca")], Runner())


def test_it_costs_what_the_reward_within_does():
    """Judged token by token, a finished text is not scored again."""

    def judged(reward):
        found = []

        async def solve(session):
            written = await session.judge(await session.rollout(Sampling(max_new_tokens=8), n=3))
            again = await session.score([replace(t, score=None) for t in written])
            found.append((session.cost.total.flops, [t.reward for t in written], [t.reward for t in again]))

        for _, error in Engine(LM, reward).run(solve, [PROMPT]):
            assert found, error
        return found[0]

    flops, clean, _ = judged(process())
    noisy_flops, sound, again = judged(NoisyReward(process(), 2.0, persistence=0.5))
    assert noisy_flops == flops
    assert sound == pytest.approx(clean)
    assert again == sound


def test_the_policy_s_own_likelihood_stays_free():
    lm = tiny_lm(TOKENS)
    reward = NoisyReward(LikelihoodReward(), 1.0).written_by(lm).bind(lm.vocabulary)
    text = response("ab")
    free = reward.of_policy([math.log(0.5), math.log(0.5)], text)
    assert free == pytest.approx(reward.errors(PROMPT, text.tokens))
    assert reward.of_policy([-1.0, -1.0]) is None


@pytest.mark.parametrize("auc", [0.95, 0.85, 0.75])
def test_a_scale_is_found_for_an_auc(auc):
    generator = torch.Generator().manual_seed(1)
    good = (3 + torch.randn(2000, generator=generator)).tolist()
    bad = (-3 + torch.randn(2000, generator=generator)).tolist()
    scale = calibrated(good, bad, auc)
    noise = scale * torch.randn(2, 2000, generator=generator)
    gaps = (torch.tensor(good) + noise[0])[:, None] - (torch.tensor(bad) + noise[1])
    assert float((gaps > 0).double().mean()) == pytest.approx(auc, abs=0.02)


def test_no_scale_raises_an_auc():
    with pytest.raises(ConfigError, match="only lower"):
        calibrated([1.0, 0.0], [0.5], 0.9)
    with pytest.raises(ConfigError, match="only lower"):
        calibrated([], [], 0.9)


@pytest.mark.parametrize(
    "arguments", [{"scale": -1.0}, {"scale": 1.0, "persistence": 1.0}, {"scale": 1.0, "steps": ";"},
                  {"scale": 1.0, "steps": [""]}]
)
def test_wrong_settings_are_refused(arguments):
    with pytest.raises(ConfigError):
        NoisyReward(process(), **arguments)


def test_it_is_made_from_a_specification():
    found = load_reward({"name": "noisy", "reward": process(), "scale": 1.5, "persistence": 0.5})
    assert isinstance(found, NoisyReward)
    assert (found.scale, found.persistence) == (1.5, 0.5)
    with pytest.raises(ConfigError, match="reward"):
        load_reward({"name": "noisy", "scale": 1.0})


@pytest.mark.parametrize(
    "reward",
    [
        NoisyReward(process(aggregation="mean"), 0.7, persistence=0.6, steps=["c"], outcome=True),
        NoisyReward(tiny_reward(TOKENS), 0.7, steps=["b", "d"]),
        NoisyReward(LikelihoodReward(LM, "mean"), 0.7),
    ],
    ids=["process", "outcome", "likelihood"],
)
def test_laws(reward):
    """Neighbours and batches among them."""
    check_reward(reward, max_examples=12)


@pytest.mark.parametrize("name", ["mistral-v0.3", "phi3", "qwen2.5"])
def test_a_step_ends_where_its_text_does_whatever_the_tokenizer(name):
    """A word's blank, which some tokenizers drop where a text begins, and a character of several tokens."""
    tok = published(name)
    reward = NoisyReward(FunctionReward(lambda *_: 0.0), 1.0, steps=[". ", "🐑"]).bind(vocabulary(tok))
    text = tokens(tok, "It is so. The next one. A 🐑 more")
    found = reward.errors(PROMPT, text)
    last = [i for i in range(len(text)) if i + 1 == len(text) or found[i + 1] != found[i]]
    steps = [tok.decode(text[: i + 1].tolist()) for i in last]
    assert [step.split()[-1] for step in steps] == ["The", "A", "🐑", "more"]
