"""Process rewards: scores per token or step, aggregated."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from nabla.core.costs import Account, CostMeter
from nabla.core.errors import ConfigError
from nabla.core.prompt import Prompt
from nabla.engine.engine import Engine
from nabla.models.runner import Runner
from nabla.models.vocabulary import Vocabulary
from nabla.rewards.base import Reading, RelaxedResponse, Response
from nabla.rewards.marks import CAUSAL
from nabla.rewards.process import ProcessReward
from tests import tiny
from tests.rewards.published import forward, model, published, tokens, vocabulary
from tests.rewards.published import response as answered
from tests.rewards.test_templates import TRIM
from tests.tiny import CHATML, END, NO_END, OTHER_END, ids, tokenizer

HOW = {"sum": sum, "mean": lambda v: sum(v) / len(v), "min": min, "last": lambda v: v[-1]}
TEXTS = ("3", "1+2;\n3; 4+", "sum 3;1" + END, ";", "111;1111111;111111111111;" + END)


def bound(arch: str = "qwen2", tok: Any = None, *, labels: int = 1, **arguments: Any) -> ProcessReward:
    reward = tiny.process(arch, tok, labels=labels, arguments=arguments)
    return reward.bind(tiny.causal_lm("qwen2").vocabulary)


def response(text: str, problem: str = "p", prompt: str = "1+2=") -> Response:
    return Response(Prompt.of(prompt), ids(tokenizer(), text), Account(problem, CostMeter(), "reward"))


def scores(reward: ProcessReward, text: str, label: int = 0) -> tuple[list[float], Tensor, int]:
    """transformers' scores of every token of the rendered conversation, its ids, and the answer's begin."""
    tok = reward.tokenizer
    question = [{"role": "user", "content": "1+2="}]
    before = ids(tok, tok.apply_chat_template(question, tokenize=False, add_generation_prompt=True))
    answer = [{"role": "assistant", "content": text.removesuffix(END)}]
    whole = ids(tok, tok.apply_chat_template(question + answer, tokenize=False))
    with torch.no_grad():
        return reward.model(input_ids=whole[None]).logits[0, :, label].tolist(), whole, len(before)


def expected(
    reward: ProcessReward, text: str, how: str, separators: tuple[str, ...], label: int = 0
) -> float:
    """The rule in words: a step ends at a separator and at the last token that the answer has."""
    values, _, begin = scores(reward, text, label)
    characters = list(text.removesuffix(END))
    if text.endswith(END) and reward.tokenizer.chat_template == CHATML:
        characters.append(END)
    if not characters:
        return values[begin - 1]
    at = [i for i, c in enumerate(characters) if not separators or c in separators]
    if not at or at[-1] != len(characters) - 1:
        at.append(len(characters) - 1)
    return HOW[how]([values[begin + i] for i in at])


@pytest.mark.parametrize("separators", [(), (";",), (";", "\n"), ("y",)], ids=repr)
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("arch", ["qwen2", "gemma2", "gpt-neox", "gpt2"])
def test_aggregations(arch: str, how: str, separators: tuple[str, ...]) -> None:
    reward = bound(arch, aggregation=how, step_separators=separators)
    found = tiny.rewards_of(reward, [response(t, str(i)) for i, t in enumerate(TEXTS)], Runner())
    assert found == pytest.approx(
        [expected(reward, t, how, separators) for t in TEXTS], rel=1e-5 if arch == "gemma2" else 1e-9
    )


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("template", [CHATML, OTHER_END, NO_END], ids=["same end", "other end", "no end"])
@pytest.mark.parametrize("reuse_prefix", [True, False])
def test_templates(template: str, how: str, reuse_prefix: bool) -> None:
    tok = tokenizer(template=template, permute=5)
    reward = bound("llama", tok, aggregation=how, step_separators=(";",), reuse_prefix=reuse_prefix)
    for text in (*TEXTS, END):
        (found,) = tiny.rewards_of(reward, [response(text)], Runner())
        assert found == pytest.approx(expected(reward, text, how, (";",)), rel=1e-9)


def test_labels() -> None:
    for label in range(3):
        reward = bound("llama", labels=3, label=label, aggregation="sum")
        (found,) = tiny.rewards_of(reward, [response("1+2")], Runner())
        assert found == pytest.approx(expected(reward, "1+2", "sum", (), label))


def test_an_empty_answer_has_the_score_of_the_question() -> None:
    for template in (OTHER_END, NO_END):
        reward = bound("llama", tokenizer(template=template))
        values, _, begin = scores(reward, END)
        (found,) = tiny.rewards_of(reward, [response(END)], Runner())
        assert found == pytest.approx(values[begin - 1])
        (relaxed,) = reward.relaxed([RelaxedResponse(response(END), 0)], Runner())
        assert float(relaxed.value.detach()) == pytest.approx(values[begin - 1])


@pytest.mark.parametrize("template", [CHATML, OTHER_END, NO_END])
def test_cached_prefixes_change_nothing(template: str) -> None:
    tok = tokenizer(template=template)
    texts = ("1+2=3; sum 3", "1+2=3; sum 3" + END, "1+2=3; sum 4", END, "1+2=3; sum 3")
    reward = bound("mistral", tok, aggregation="sum")
    other = bound("mistral", tok, aggregation="sum", reuse_prefix=False)
    runner = Runner()
    wanted = tiny.rewards_of(other, [response(t) for t in texts], Runner())
    assert [tiny.rewards_of(reward, [response(t)], runner)[0] for t in texts] == pytest.approx(wanted)
    assert tiny.rewards_of(reward, [response(t) for t in texts], runner) == pytest.approx(wanted)
    for text, value in zip(texts, wanted, strict=True):
        for start in range(len(ids(tok, text))):
            (relaxed,) = reward.relaxed([RelaxedResponse(response(text), start)], runner)
            assert float(relaxed.value.detach()) == pytest.approx(value)


def test_an_end_in_the_middle_that_the_reward_model_lacks() -> None:
    """A refinement may stand at such a text; it reads as an empty embedding."""
    tok = tokenizer((*tiny.TOKENS, "<eot>"))
    lm = tiny.causal_lm("qwen2", tok, eos=("<eot>",))
    reward = tiny.process("llama", tokenizer(), arguments={"step_separators": (";",), "aggregation": "sum"})
    prompt = Prompt.of("1+2=")
    trajectory = tiny.trajectory(lm, prompt, ids(tok, "1;2+3"))
    text = trajectory.tokens.clone()
    text[3] = len(tiny.TOKENS)
    from nabla.refinement.dto import DTO

    engine = Engine(lm, reward)

    async def method(session: Any) -> Any:
        return await session.gradient(trajectory, DTO().objective, tokens=text)

    gradient = tiny.drive(engine, prompt, method)
    assert torch.isfinite(gradient.terms["reward"].pulls[1].vectors).all()


def test_wrong_settings() -> None:
    with pytest.raises((ConfigError, TypeError), match="aggregation"):  # or the tests' type checker
        tiny.process(arguments={"aggregation": "median"})


@pytest.mark.parametrize("separators", [(), ("\n",)], ids=repr)
@pytest.mark.parametrize("template", [None, TRIM], ids=["merges", "trims"])
def test_a_step_that_ends_at_a_first_token_without_an_id_of_its_own(
    template: str | None, separators: tuple[str, ...]
) -> None:
    """The template drops a line break that an answer begins with, or it merges with the template's own: its
    step is read at the token before the answer."""
    tok = published("qwen2.5")
    reward = ProcessReward(
        model(tok, "process"), tok, step_separators=separators, aggregation="sum", chat_template=template
    ).bind(vocabulary(tok))
    item = answered(tokens(tok, "\n12\n7"))
    layout = reward.layout(item)
    assert int(layout.places[0]) == -1
    (score,) = reward.score([item], Runner())
    assert score.ends[0] == 0
    told = forward(reward, layout.tokens)[:, 0]
    assert score.steps[0] == pytest.approx(float(told[len(layout.before) - 1]))
    assert score.value == pytest.approx(sum(score.steps))
    (values,) = reward.values([Reading(item)], Runner())
    assert [values[end] for end in score.ends] == pytest.approx(score.steps)
    assert reward.together(values) == pytest.approx(score.value)
    for start in range(len(item.tokens)):
        (relaxed,) = reward.relaxed([RelaxedResponse(item, start)], Runner())
        assert float(relaxed.value.detach()) == pytest.approx(score.value)


@pytest.mark.parametrize("format", ["classifier", "trl", "math-shepherd", "rlhflow"])
def test_an_empty_answer_has_no_steps(format: Any) -> None:
    """A model may end at once: there is a reward, and no token at which a step ends."""
    tok = published("qwen2.5")
    labels = {"num_labels": 2} if format == "trl" else {}
    kind = "ForCausalLM" if format in CAUSAL else "process"
    reward = ProcessReward(
        model(tok, kind, **labels), tok, format=format, chat_template=tiny.CHATML.replace(END, "<|end|>")
    ).bind(vocabulary(tok))
    item = answered(torch.tensor([tok.eos_token_id]))
    (score,) = reward.score([item], Runner())
    assert (score.steps, score.ends) == ((), ())
    assert math.isnan(score.by_token(1)[0])
    (values,) = reward.values([Reading(item)], Runner())
    assert math.isnan(values[0])


def test_a_first_token_that_merges_with_all_that_is_before_it() -> None:
    """There is no token before the id that both make: the step is read there."""
    tok = published("phi2")
    reward = ProcessReward(
        model(tok, "process"), tok, step_separators=(), aggregation="sum", chat_template="raw"
    ).bind(Vocabulary(tok, chat_template="raw"))
    item = answered(tokens(tok, "lo world"), "Hel")
    layout = reward.layout(item)
    assert (len(layout.before), layout.places.tolist()) == (0, [-1, 1])
    (score,) = reward.score([item], Runner())
    told = forward(reward, layout.tokens)[:, 0].tolist()
    assert score.steps == pytest.approx(told)
    assert reward.values([Reading(item)], Runner())[0] == pytest.approx(told)
    (relaxed,) = reward.relaxed([RelaxedResponse(item, 0)], Runner())
    assert float(relaxed.value.detach()) == pytest.approx(sum(told))
