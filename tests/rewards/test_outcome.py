"""Outcome rewards: transformers' own score of the rendered conversation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nabla.core.costs import Account, CostMeter
from nabla.core.errors import ConfigError, ModelError
from nabla.core.prompt import Prompt
from nabla.models.prefixes import PrefixStore
from nabla.models.runner import Runner
from nabla.rewards.base import RelaxedResponse, Response
from nabla.rewards.outcome import OutcomeReward
from tests import tiny
from tests.tiny import CHATML, END, OTHER_END, PAD, ids, outcome_model, tokenizer

TEXTS = ("3", "1+2;\n3", "sum 3" + END, END, "11111111111111111111111111111" + END)


def bound(
    arch: str = "qwen2", tok: Any = None, eos: tuple[str, ...] = (END,), **arguments: Any
) -> OutcomeReward:
    reward = tiny.outcome(arch, tok, arguments=arguments)
    return reward.bind(tiny.causal_lm("qwen2", eos=eos).vocabulary)


def response(text: str, prompt: Prompt | None = None, problem: str = "p") -> Response:
    prompt = prompt or Prompt.of("1+2=")
    return Response(prompt, ids(tokenizer(), text), Account(problem, CostMeter(), "reward"))


def rendered(tok: Any, prompt: Prompt, answer: str) -> Tensor:
    turns = [{"role": m.role, "content": m.content} for m in prompt.messages]
    turns.append({"role": "assistant", "content": answer})
    return ids(tok, tok.apply_chat_template(turns, tokenize=False))


def transformers_score(reward: OutcomeReward, tokens: Tensor) -> float:
    with torch.no_grad():
        return float(reward.model(input_ids=tokens[None]).logits[0, 0])


@pytest.mark.parametrize("arch", ["qwen2", "llama", "gpt-neox", "gemma2", "gemma3", "gpt2", "mistral"])
@pytest.mark.parametrize("system", [None, "use +"])
def test_scores_are_transformers_own(arch: str, system: str | None) -> None:
    prompt = Prompt.of("1+2=", system=system)
    reward = bound(arch)
    expected = [
        transformers_score(reward, rendered(tokenizer(), prompt, text.removesuffix(END))) for text in TEXTS
    ]
    asked = [response(text, prompt, str(i)) for i, text in enumerate(TEXTS)]
    found = tiny.rewards_of(reward, asked, Runner())
    assert found == pytest.approx(expected, rel=1e-5 if arch == "gemma2" else 1e-9)
    assert len({round(x, 6) for x in found}) > 3


def test_an_end_that_the_template_does_not_write() -> None:
    """The language model ends with one token, the reward model's turns with another one."""
    tok = tokenizer(template=OTHER_END, permute=2)
    reward = bound("llama", tok)
    prompt = Prompt.of("1+2=")
    for text in TEXTS:
        (found,) = tiny.rewards_of(reward, [response(text, prompt)], Runner())
        assert found == pytest.approx(
            transformers_score(reward, rendered(tok, prompt, text.removesuffix(END)))
        )


def test_several_ends() -> None:
    """Of two ends, the template writes one: behind the other, the template's own is written."""
    reward = bound("llama", eos=(END, PAD))
    prompt = Prompt.of("1+2=")
    expected = transformers_score(reward, rendered(tokenizer(), prompt, "1+2"))
    for end in (END, PAD, ""):
        (found,) = tiny.rewards_of(reward, [response("1+2" + end, prompt)], Runner())
        assert found == pytest.approx(expected)


def test_the_end_of_a_reward_model_that_lacks_it() -> None:
    tok = tokenizer((*tiny.TOKENS, "<eot>"))
    lm = tiny.causal_lm("qwen2", tok, eos=("<eot>",))
    reward = tiny.outcome("llama", tokenizer())
    reward = reward.bind(lm.vocabulary)
    prompt = Prompt.of("1+2=")
    answer = torch.cat([ids(tok, "1+2"), torch.tensor([len(tiny.TOKENS)])])
    asked = Response(prompt, answer, Account("p", CostMeter(), "reward"))
    (found,) = tiny.rewards_of(reward, [asked], Runner())
    assert found == pytest.approx(transformers_score(reward, rendered(tokenizer(), prompt, "1+2")))


@pytest.mark.parametrize("arch", ["qwen2", "gemma3", "gpt2"])
@pytest.mark.parametrize("batch_size", [1, 64])
def test_cached_prefixes_change_nothing(arch: str, batch_size: int) -> None:
    reward, other = bound(arch), bound(arch, reuse_prefix=False)
    texts = ("1+2=3; sum 3", "1+2=3; sum 3" + END, "1+2=3; sum 4", "1+1", "1+2=3; sum 3")
    prompt = Prompt.of("1+2=" * 3)
    runner = Runner(batch_size)
    expected = tiny.rewards_of(other, [response(t, prompt) for t in texts], Runner())
    one_by_one = [tiny.rewards_of(reward, [response(t, prompt)], runner)[0] for t in texts]
    together = tiny.rewards_of(reward, [response(t, prompt) for t in texts], runner)
    storeless = Runner(64, PrefixStore(entries=0))
    unstored = tiny.rewards_of(reward, [response(t, prompt) for t in texts], storeless)
    for found in (one_by_one, together, unstored):
        assert found == pytest.approx(expected, rel=1e-9)


def test_what_was_read_is_not_read_again() -> None:
    reward, runner = bound(), Runner()
    prompt = Prompt.of("1+2=" * 3)
    first, second = response("1+2=3; sum 3", prompt), response("1+2=3; sum 45", prompt)
    tiny.rewards_of(reward, [first], runner)
    tiny.rewards_of(reward, [second], runner)
    whole = len(reward.layout(first).tokens)
    assert first.account.meter.snapshot().total.tokens == whole
    assert second.account.meter.snapshot().total.tokens == 2 + 2  # the new digits, the template's end


def test_layout() -> None:
    reward = bound("llama", tokenizer(permute=4))
    tok = reward.tokenizer
    layout = reward.layout(response("1+2" + END))
    assert tok.decode(layout.answer) == "1+2" + END
    assert tok.decode(layout.after) == "\n"
    assert layout.visible == 4
    unfinished = reward.layout(response("1+2"))
    assert tok.decode(unfinished.after) == END + "\n"
    assert torch.equal(layout.tokens, unfinished.tokens)
    assert tok.decode(layout.before).endswith("assistant\n")


@pytest.mark.parametrize("start", [0, 2, 5])
@pytest.mark.parametrize("text", ["1+2=3", "1+2=3" + END])
@pytest.mark.parametrize("template", [CHATML, OTHER_END])
def test_the_relaxed_value_is_the_score(start: int, text: str, template: str) -> None:
    reward = bound("qwen3", tokenizer(template=template))
    runner = Runner()
    item = response(text)
    start = min(start, len(item.tokens) - 1)
    (expected,) = tiny.rewards_of(reward, [item], Runner())
    (relaxed,) = reward.relaxed([RelaxedResponse(item, start)], runner)
    assert float(relaxed.value.detach()) == pytest.approx(expected)
    assert len(relaxed.leaves) == 1
    assert relaxed.leaves[0].shape == (len(item.tokens) - start, 16)


def test_answers_beyond_the_context() -> None:
    tok = tokenizer()
    reward = OutcomeReward(outcome_model("llama", tok, max_position_embeddings=30), tok)
    reward = reward.bind(tiny.causal_lm("qwen2").vocabulary)
    assert len(tiny.rewards_of(reward, [response("11111")], Runner())) == 1
    with pytest.raises(ModelError, match="context holds 30"):
        tiny.rewards_of(reward, [response("1111111111")], Runner())


def test_before_binding() -> None:
    reward = tiny.outcome()
    for call in (
        lambda: tiny.rewards_of(reward, [response("1")], Runner()),
        reward.channels,
        lambda: reward.layout(response("1")),
    ):
        with pytest.raises(ConfigError, match="not bound"):
            call()


def test_differentiable() -> None:
    reward = bound()
    assert reward.differentiable
    (channel,) = reward.channels()
    assert channel.table.usable == len(tiny.TOKENS)


def test_half_precision() -> None:
    reward = tiny.outcome("llama", dtype=torch.bfloat16)
    reward = reward.bind(tiny.causal_lm("qwen2", dtype=torch.bfloat16).vocabulary)
    (found,) = tiny.rewards_of(reward, [response("1+2")], Runner())
    expected = transformers_score(reward, rendered(tokenizer(), Prompt.of("1+2="), "1+2"))
    assert found == pytest.approx(expected, abs=0.05)
