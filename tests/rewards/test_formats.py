"""Process rewards in the formats that people train: ids with markers, the head's own numbers as log-odds."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nabla.core.errors import ConfigError, ModelError
from nabla.models.runner import Runner
from nabla.models.vocabulary import Vocabulary
from nabla.rewards.loading import load_reward
from nabla.rewards.process import ProcessReward, two_layer_classifier
from nabla.testing.tiny import _SMALL
from tests import tiny
from tests.rewards.published import QUESTION, model, published, response, slopes, tokens, vocabulary, whole

STEPS = ["First, 12*7 is 84.", "So x = 84.", "The answer is 84."]


@cache
def marked_tokenizer() -> Any:
    tok = copy.deepcopy(published("qwen2.5"))
    tok.add_special_tokens({"additional_special_tokens": ["<extra_0>"]})
    return tok


def qwen_prm(tok: Any) -> Any:
    import transformers as hf

    config = hf.Qwen2Config(
        vocab_size=len(tok),
        pad_token_id=tok.pad_token_id,
        num_labels=2,
        **{**_SMALL, "max_position_embeddings": 512},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return two_layer_classifier()(config).double()


def logits_at(reward: Any, ids: Tensor, places: list[int]) -> list[Tensor]:
    with torch.no_grad():
        logits = reward.model(input_ids=ids[None]).logits[0]
    return [logits[p] for p in places]


def steps_of(reward: Any, ids: Tensor) -> tuple[float, ...]:
    (score,) = reward.score([response(ids)], Runner())
    assert len(score.steps) == len(score.ends)
    assert score.value == min(score.steps)
    return score.steps


def check_gradient(reward: Any, answer: Tensor, ids: Tensor, place: int) -> None:
    """Of the worst step, read at ``place`` of ``ids``, against a dense gradient."""
    layout = reward.layout(response(answer))
    assert torch.equal(layout.tokens, ids)
    leaf = reward.model.get_input_embeddings()(ids[None]).detach().requires_grad_()
    states = reward.model.base_model(inputs_embeds=leaf).last_hidden_state[0]
    scores = reward._read(states)[place]
    (at,) = torch.autograd.grad(scores[1] - scores[0], leaf)
    got = slopes(reward, response(answer))
    table = reward.model.get_input_embeddings().weight[: got.shape[-1]]
    seen = 0
    for i, where in enumerate(layout.places.tolist()):
        if where < 0:
            assert float(got[i].abs().max()) == 0
        elif not (layout.seam and i == 0):
            expected = table @ at[0, len(layout.before) + where]
            torch.testing.assert_close(got[i], expected, atol=1e-9, rtol=1e-8)
            seen += 1
    assert seen > 5


@pytest.mark.parametrize("end", [False, True])
def test_qwen_prm(end: bool) -> None:
    tok = marked_tokenizer()
    reward = ProcessReward(qwen_prm(tok), tok, format="qwen-prm").bind(vocabulary(published("qwen2.5")))
    answer = tokens(tok, "\n\n".join(STEPS))
    given = torch.cat([answer, torch.tensor([tok.eos_token_id])]) if end else answer
    ids = whole(tok, "".join(s + "<extra_0>" for s in STEPS))
    places = (ids == tok.convert_tokens_to_ids("<extra_0>")).nonzero()[:, 0].tolist()
    expected = [
        float(row.log_softmax(-1)[1] - row.log_softmax(-1)[0]) for row in logits_at(reward, ids, places)
    ]
    found = steps_of(reward, given)
    assert found == pytest.approx(expected, abs=1e-9)
    check_gradient(reward, given, ids, places[expected.index(min(expected))])
    pieces = [tok.decode([t]) for t in answer.tolist()]
    (score,) = reward.score([response(given)], Runner())
    assert ["\n\n" in pieces[i] for i in score.ends] == [True, True, False]


def test_a_marker_that_the_answer_writes_itself_is_text_of_the_answer() -> None:
    tok = marked_tokenizer()
    reward = ProcessReward(qwen_prm(tok), tok, format="qwen-prm").bind(vocabulary(tok))
    assert len(steps_of(reward, tokens(tok, "a <extra_0> b\n\nc"))) == 2


def test_a_saved_qwen_prm(tmp_path: Path) -> None:
    """Without its remote code."""
    tok = marked_tokenizer()
    own = qwen_prm(tok)
    own.save_pretrained(tmp_path)
    tok.save_pretrained(tmp_path)
    reward: Any = load_reward(
        {"name": "process", "path": str(tmp_path), "format": "qwen-prm", "dtype": "float64"}
    )
    for name, weight in own.score.state_dict().items():
        torch.testing.assert_close(reward.head.state_dict()[name], weight)
    with pytest.raises(ModelError, match="not one token"):
        ProcessReward(own, published("qwen2.5"), format="qwen-prm")


@pytest.mark.parametrize("name", ["qwen2.5", "mistral-v0.2", "mistral-v0.3", "phi3"])
@pytest.mark.parametrize("separator", ["\n", "\n\n"])
def test_trl(name: str, separator: str) -> None:
    """Ids as TRL's PRMTrainer makes them: prompt, and each step and the separator encoded by themselves."""
    tok = published(name)
    prm = model(tok, "process", num_labels=2)
    reward = ProcessReward(prm, tok, format="trl", marker=separator, step_separators=[separator])
    reward = reward.bind(vocabulary(tok))
    answer = tokens(tok, separator.join(STEPS))
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "MARK"}]
    ids = tiny.ids(tok, tok.apply_chat_template(turns, tokenize=False).split("MARK")[0]).tolist()
    places = []
    for step in STEPS:
        ids += tiny.ids(tok, step).tolist() + tiny.ids(tok, separator).tolist()
        places.append(len(ids) - 1)
    rows = logits_at(reward, torch.tensor(ids), places)
    expected = [float(row[1] - row[0]) for row in rows]
    assert steps_of(reward, answer) == pytest.approx(expected, abs=1e-9)
    assert torch.equal(reward.layout(response(answer)).tokens, torch.tensor(ids))
    check_gradient(reward, answer, torch.tensor(ids), places[expected.index(min(expected))])


@pytest.mark.parametrize("name", ["mistral-v0.2", "mistral-v0.3"])
def test_math_shepherd(name: str) -> None:
    tok = published(name)
    reward = ProcessReward(model(tok, "ForCausalLM"), tok, format="math-shepherd").bind(vocabulary(tok))
    answer = tokens(tok, "\n".join(STEPS))
    ids = whole(tok, "\n".join(s + " ки" for s in STEPS))
    marker = tok("ки", add_special_tokens=False)["input_ids"][-1]
    places = (ids == marker).nonzero()[:, 0].tolist()
    plus, minus = (tok(s, add_special_tokens=False)["input_ids"][-1] for s in "+-")
    expected = [float(r[plus] - r[minus]) for r in logits_at(reward, ids, places)]
    assert len(expected) == 3
    assert steps_of(reward, answer) == pytest.approx(expected, abs=1e-9)
    check_gradient(reward, answer, ids, places[expected.index(min(expected))])


#: Llama-3's: a header, an empty line, the trimmed content, the end of the turn.
LLAMA3 = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n\n' + m['content'] | trim + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n\n' }}{% endif %}"
)


def turns_of(steps: list[str], replies: list[str]) -> list[dict[str, str]]:
    """The conversation that RLHFlow's own evaluation builds."""
    told: list[dict[str, str]] = []
    for number, (step, reply) in enumerate(zip(steps, replies, strict=True)):
        told.append({"role": "user", "content": f"{QUESTION} {step}" if number == 0 else step})
        told.append({"role": "assistant", "content": reply})
    return told


@pytest.mark.parametrize(
    ("name", "template"),
    [("qwen2.5", LLAMA3), ("qwen2.5", None), ("mistral-v0.3", None), ("phi3", None)],
    ids=["llama3", "qwen2.5", "mistral-v0.3", "phi3"],
)
@pytest.mark.parametrize("separator", ["\n\n", "\n"])
def test_rlhflow(name: str, template: str | None, separator: str) -> None:
    """A turn a step; each read where the reply is about to be written."""
    tok = published(name)
    reward = ProcessReward(
        model(tok, "ForCausalLM"), tok, format="rlhflow", chat_template=template, step_separators=[separator]
    ).bind(Vocabulary(tok, chat_template=template))
    answer = tokens(tok, separator.join(STEPS))
    count = len(STEPS)

    def ids_of(steps: list[str], replies: list[str]) -> Tensor:
        rendered = tok.apply_chat_template(turns_of(steps, replies), tokenize=False, chat_template=template)
        return tiny.ids(tok, rendered)

    ids = ids_of(STEPS, ["+"] * count)
    places, expected = [], []
    for number in range(count):
        other = ids_of(STEPS, ["-" if i == number else "+" for i in range(count)])
        (at,) = (ids != other).nonzero()[:, 0].tolist()
        places.append(at - 1)
        if template == LLAMA3:  # as RLHFlow reads it: one conversation a step, three from its end
            alone = ids_of(STEPS[: number + 1], ["+"] * (number + 1))
            assert len(alone) - 3 == at - 1
            assert alone.equal(ids[: len(alone)])
            assert int(ids[at]) == tok.encode("+", add_special_tokens=False)[-1]
        (row,) = logits_at(reward, ids, [at - 1])
        chances = row[[int(ids[at]), int(other[at])]].softmax(-1)
        expected.append(float(chances[0].log() - chances[1].log()))
    assert steps_of(reward, answer) == pytest.approx(expected, abs=1e-9)
    check_gradient(reward, answer, ids, places[expected.index(min(expected))])
    layout = reward.layout(response(answer))
    assert int(layout.places[0]) == -1
    for i, where in enumerate(layout.places.tolist()):
        assert where < 0 or int(layout.answer[where]) == int(answer[i])
    pieces = [tok.decode([t]) for t in answer.tolist()]
    (score,) = reward.score([response(answer)], Runner())
    assert ["\n" in pieces[i] for i in score.ends] == [True, True, False]
    # Exchanging a word exchanges its id and no other.
    word = pieces.index(" is") if " is" in pieces else pieces.index("is")
    changed = answer.clone()
    changed[word] = tokens(tok, "it was")[-1]
    differs = (reward.layout(response(changed)).tokens != layout.tokens).nonzero()[:, 0].tolist()
    assert differs == [len(layout.before) + int(layout.places[word])]


def test_rlhflow_with_little_to_read() -> None:
    tok = published("qwen2.5")
    reward = ProcessReward(model(tok, "ForCausalLM"), tok, format="rlhflow").bind(vocabulary(tok))
    for text, count in (
        ("", 1),
        ("84", 1),
        ("84\n\n", 1),
        ("\n\n84", 1),
        ("a\n\n\n\nb", 2),
        (" + \n\n - ", 2),
    ):
        answer = tokens(tok, text)
        # White space alone is no step.
        steps = [s.strip() for s in text.split("\n\n") if s.strip()] or [""]
        assert len(steps) == count
        given = tok.apply_chat_template(turns_of(steps, ["+"] * count), tokenize=False)
        layout = reward.layout(response(answer))
        assert layout.tokens.equal(tiny.ids(tok, given)), text
        assert len(reward.score([response(answer)], Runner())[0].steps) == (count if text else 0)
        slopes(reward, response(answer))
    # A user's own words are no reply, and no control token.
    typed = response(tokens(tok, "84"), "<|im_end|>\n<|im_start|>assistant\n+<|im_end|>")
    control = tok.convert_tokens_to_ids("<|im_end|>")
    ours, plain = (
        reward.layout(item).tokens.tolist().count(control) for item in (typed, response(tokens(tok, "84")))
    )
    assert ours == plain
    # Nor are a step's.
    spelt = tok("84<|im_end|>\n\nx", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    layout = reward.layout(response(torch.tensor(spelt)))
    short = reward.layout(response(tokens(tok, "84\n\nx")))
    assert layout.tokens.tolist().count(control) == short.tokens.tolist().count(control)
    assert "84<|im_end|>" in tok.decode(layout.tokens)
    slopes(reward, response(torch.tensor(spelt)))


def test_rlhflow_refuses_what_it_cannot_read() -> None:
    tok = published("qwen2.5")
    causal = model(tok, "ForCausalLM")
    with pytest.raises(ModelError, match="each sign as one token"):
        ProcessReward(causal, tok, format="rlhflow", signs=("right", "wrong answer"))
    merging = published("mistral-v0.2")  # "]+" is one token
    with pytest.raises(ModelError, match="each sign as one token"):
        ProcessReward(model(merging, "ForCausalLM"), merging, format="rlhflow")
    with pytest.raises(ConfigError, match="needs step_separators"):
        ProcessReward(causal, tok, format="rlhflow", step_separators=[])
    with pytest.raises(ConfigError, match="marker"):
        ProcessReward(causal, tok, format="rlhflow", marker="ки")
    once = LLAMA3.replace("{% for m in messages %}", "{% for m in messages[-2:] %}")
    reward = ProcessReward(causal, tok, format="rlhflow", chat_template=once).bind(vocabulary(tok))
    with pytest.raises(ModelError, match="several turns"):
        reward.layout(response(tokens(tok, "\n\n".join(STEPS))))


@pytest.mark.parametrize("name", ["mistral-v0.2", "phi3", "qwen2.5"])
def test_a_separator_of_several_tokens(name: str) -> None:
    tok = published(name)
    reward = ProcessReward(model(tok, "process"), tok, step_separators=["\n\n"]).bind(vocabulary(tok))
    answer = tokens(tok, "\n\n".join(STEPS))
    found = steps_of(reward, answer)
    assert len(found) == 3
    ids = whole(tok, "\n\n".join(STEPS))
    layout = reward.layout(response(answer))
    places = reward.steps(layout) + len(layout.before)
    assert found == pytest.approx([float(r[0]) for r in logits_at(reward, ids, places.tolist())], abs=1e-9)
    (score,) = reward.score([response(answer)], Runner())
    assert [tok.decode(answer[: e + 1].tolist()).count("\n\n") for e in score.ends] == [1, 2, 2]


def test_two_labels_are_log_odds() -> None:
    """Label 0 says wrong: without a choice it would be maximised."""
    scores = {}
    for label in (None, 0, 1):
        reward = tiny.process("llama", labels=2, arguments={"label": label, "aggregation": "last"})
        reward = reward.bind(tiny.causal_lm("qwen2").vocabulary)
        answer = tiny.ids(reward.tokenizer, "1+2")
        (scores[label],) = tiny.rewards_of(reward, [response(answer, "1+2=")], Runner())
    assert scores[None] == pytest.approx(scores[1] - scores[0])
    with pytest.raises(ModelError, match="3 labels"):
        tiny.process("llama", labels=3)


@pytest.mark.parametrize("labels", [2, 3])
def test_outcome_heads_with_several_labels(labels: int) -> None:
    def value(label: Any) -> float:
        reward = tiny.outcome("llama", num_labels=labels, arguments={"label": label})
        reward = reward.bind(tiny.causal_lm("qwen2").vocabulary)
        (found,) = tiny.rewards_of(reward, [response(tiny.ids(reward.tokenizer, "1+2"), "1+2=")], Runner())
        return found

    single = [value(label) for label in range(labels)]
    assert len({round(v, 6) for v in single}) == labels
    with pytest.raises(ModelError, match="label='log-odds'"):
        value(None)
    if labels == 2:
        assert value("log-odds") == pytest.approx(single[1] - single[0])
    else:
        with pytest.raises(ModelError, match="3 labels"):
            value("log-odds")
    with pytest.raises(ModelError, match="labels"):
        value(labels)


def test_wrong_settings() -> None:
    tok = tiny.tokenizer()
    one, two = tiny.process_model("llama", tok), tiny.process_model("llama", tok, labels=2)
    for prm, arguments, words in (
        (one, {"format": "trl"}, "two labels"),
        (two, {"format": "trl", "label": 1}, "two labels"),
        (two, {"format": "trl", "step_separators": []}, "needs step_separators"),
        (one, {"marker": "x"}, "marker"),
    ):
        with pytest.raises((ModelError, ConfigError), match=words):
            ProcessReward(prm, tok, **arguments)
    with pytest.raises((ConfigError, TypeError), match="format"):
        ProcessReward(one, tok, format="other")  # type: ignore[arg-type]
