"""Rewards read the ids of the whole rendering, where transformers reads them: as published."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from nabla.core.errors import ConfigError, ModelError, PromptError
from nabla.core.prompt import Prompt
from nabla.models.runner import Runner
from nabla.models.vocabulary import Vocabulary
from nabla.rewards.base import RelaxedResponse, SoftTokens
from nabla.rewards.outcome import OutcomeReward
from tests import tiny
from tests.rewards.published import (
    dense,
    forward,
    model,
    published,
    response,
    slopes,
    tokens,
    vocabulary,
    whole,
)

#: Llama-2's, Vicuna's and the like: a blank before the answer.
BLANK = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)
CHATML = tiny.CHATML
#: Llama-3's and Gemma's: the answer is trimmed.
TRIM = CHATML.replace("m['content']", "(m['content'] | trim)")
#: R1's: what is before the end of thinking is dropped.
R1 = CHATML.replace("m['content']", "m['content'].split('</think>')[-1]")
#: gpt-oss's: an answer may not hold its control tokens.
CHANNELS = (
    "{% for m in messages %}{% if '<|channel|>' in m['content'] %}"
    "{{ raise_exception('You have passed a message containing <|channel|> tags in the content field') }}"
    "{% endif %}{{ m['role'] + ':' + m['content'] + '\\n' }}{% endfor %}"
)
ANSWERS = ("The answer is 84.", " The answer", "42", "\n\nx = 1\n", "12*7=84;\n\n84", "Yes")
THOUGHT = "<think>\n12 times 7 is 84.\n</think>\n\nThe answer is 84."


@cache
def made(name: str, pad: int | None, template: str | None, **arguments: Any) -> OutcomeReward:
    tok = published(name)
    changes = {} if pad is None else {"pad_token_id": pad}
    return OutcomeReward(model(tok, **changes), tok, chat_template=template, **arguments)


def bound(
    name: str, template: str | None = None, lm: str | None = None, pad: int | None = None, **arguments: Any
) -> OutcomeReward:
    return made(name, pad, template, **arguments).bind(words(lm or name))


@cache
def words(name: str) -> Any:
    return vocabulary(published(name))


def score(reward: Any, ids: Tensor) -> float:
    (found,) = tiny.rewards_of(reward, [response(ids)], Runner())
    return found


def read(text: str, tok: Any, ids: Tensor) -> str:
    """What a reader gets: the text of the ids."""
    return tok.decode(ids, clean_up_tokenization_spaces=False)


PAIRS = [
    ("mistral-v0.2", None),
    ("mistral-v0.3", None),
    ("phi3", None),
    ("qwen2.5", None),
    ("qwen3", None),
    ("phonelm", None),
    ("mistral-v0.2", BLANK),
    ("qwen2.5", BLANK),
    ("phonelm", BLANK),
    ("phi2", BLANK),
    ("qwen2.5", TRIM),
    ("phi3", TRIM),
    ("qwen2.5", R1),
]


@pytest.mark.parametrize(("name", "template"), PAIRS, ids=str)
def test_scores_are_those_of_the_whole_rendering(name: str, template: str | None) -> None:
    reward = bound(name, template)
    tok = reward.tokenizer
    values = []
    for text in (*ANSWERS, THOUGHT):
        ids = tokens(tok, text)
        for end in ([], [tok.eos_token_id]):
            expected = forward(reward, whole(tok, read(text, tok, ids), template))
            values.append(score(reward, torch.cat([ids, torch.tensor(end, dtype=torch.long)])))
            assert values[-1] == pytest.approx(float(expected[0]), abs=1e-9), (text, end)
    assert len({round(v, 6) for v in values}) > 3


# -- pooling ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mistral-v0.2", "phi3"])
def test_padding_at_the_end_is_not_read(name: str) -> None:
    """Pad = eos, and a template that writes it last: transformers reads the token before it."""
    tok = published(name)
    reward = bound(name, pad=tok.eos_token_id)
    ids = whole(tok, "The answer is 84.")
    assert int(ids[-1]) == tok.eos_token_id
    answer = tokens(tok, "The answer is 84.")
    found = score(reward, answer)
    assert found == pytest.approx(float(forward(reward, ids)[0]), abs=1e-9)
    with torch.no_grad():
        last = float(reward.head(reward.model.base_model(input_ids=ids[None]).last_hidden_state[0, -1])[0])
    assert abs(found - last) > 1e-3
    # The gradient is that of the token that is read.
    layout = reward.layout(response(answer))
    assert torch.equal(layout.tokens, ids)
    rows = dense(reward, ids, len(ids) - 2) @ reward.model.get_input_embeddings().weight.mT
    got = slopes(reward, response(answer))
    for i, place in enumerate(layout.places.tolist()):
        if i:
            torch.testing.assert_close(got[i], rows[len(layout.before) + place], atol=1e-10, rtol=1e-9)


def test_free_tokens_behind_the_one_that_is_read() -> None:
    """An answer that ends with the padding token itself: its row has no gradient, and no error."""
    reward = tiny.outcome("llama", tiny.tokenizer(template=tiny.NO_END))
    reward = reward.bind(tiny.causal_lm("qwen2", eos=(tiny.END,)).vocabulary)
    ids = torch.cat([tiny.ids(reward.tokenizer, "1+2"), torch.tensor([reward.tokenizer.pad_token_id])])
    got = slopes(reward, response(ids, "1+2="))
    assert float(got[-1].abs().max()) == 0
    assert float(got[-2].abs().max()) > 0
    assert torch.equal(slopes(reward, response(ids, "1+2="), start=3), torch.zeros(1, got.shape[-1]).double())


def test_a_model_that_reads_elsewhere_is_refused() -> None:
    tok = tiny.tokenizer()
    classifier = tiny.outcome_model("llama", tok)
    own = classifier.forward

    def last(input_ids: Tensor, **arguments: Any) -> Any:
        classifier.config.pad_token_id, pad = None, classifier.config.pad_token_id
        try:
            return own(input_ids=input_ids, **arguments)
        finally:
            classifier.config.pad_token_id = pad

    classifier.forward = last
    with pytest.raises(ModelError, match="do not give its scores"):
        OutcomeReward(classifier, tok)


# -- gradients ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "template"), PAIRS[1:5] + PAIRS[7:8] + PAIRS[10:11], ids=str)
@pytest.mark.parametrize("text", ["The answer is 84.", THOUGHT])
def test_gradients_are_those_of_the_whole_rendering(name: str, template: str | None, text: str) -> None:
    """Rows in the middle of an answer against a dense gradient at the same ids."""
    reward = bound(name, template)
    tok = reward.tokenizer
    answer = tokens(tok, text)
    item = response(answer)
    layout = reward.layout(item)
    ids = whole(tok, read(text, tok, answer), template)
    assert torch.equal(layout.tokens, ids)
    at = dense(reward, ids, reward._stop(ids) - 1)
    got = slopes(reward, item)
    table = reward.model.get_input_embeddings().weight
    seen = 0
    for i, place in enumerate(layout.places.tolist()):
        if place < 0:
            assert float(got[i].abs().max()) == 0
        elif not (layout.seam and i == 0):
            expected = at[len(layout.before) + place] @ table.mT
            torch.testing.assert_close(got[i], expected, atol=1e-10, rtol=1e-9)
            assert int(ids[len(layout.before) + place]) == int(answer[i])
            seen += 1
    assert seen >= 3


@pytest.mark.parametrize(
    ("name", "template"),
    [("mistral-v0.2", None), ("mistral-v0.3", None), ("qwen2.5", BLANK), ("phi2", BLANK)],
    ids=str,
)
def test_a_candidate_at_the_seam_stands_for_what_the_whole_rendering_gives(
    name: str, template: str | None
) -> None:
    reward = bound(name, template)
    tok = reward.tokenizer
    answer = tokens(tok, "The answer is 84.")
    item = response(answer)
    layout = reward.layout(item)
    assert layout.seam
    ids = layout.tokens
    place = len(layout.before) + int(layout.places[0])
    at = dense(reward, ids, reward._stop(ids) - 1)[place]
    got = slopes(reward, item)[0]
    table = reward.model.get_input_embeddings().weight
    changed = checked = 0
    for token in range(300, min(len(got), 20000), 97):
        text = read("", tok, torch.cat([torch.tensor([token]), answer[1:]]))
        other = whole(tok, text, template)
        differs = (other != ids).nonzero()[:, 0].tolist() if len(other) == len(ids) else None
        if differs != [place] or "\ufffd" in text:
            continue
        checked += 1
        changed += int(other[place]) != token
        torch.testing.assert_close(got[token], at @ table[other[place]], atol=1e-10, rtol=1e-9)
    assert checked > 20
    assert changed > 5


@pytest.mark.parametrize(
    ("name", "template"), [("mistral-v0.3", None), ("qwen2.5", BLANK), ("phi2", BLANK)], ids=str
)
def test_a_candidate_that_makes_another_number_of_ids_is_none(
    name: str, template: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The first token is not refined towards it, and that is said: its slope is that of staying."""
    reward = bound(name, template)
    tok = reward.tokenizer
    answer = tokens(tok, "The answer is 84.")
    layout = reward.layout(response(answer))
    with caplog.at_level(logging.WARNING):
        got = slopes(reward, response(answer))[0]
        slopes(reward, response(answer))
    assert caplog.text.count("another number of ids") == 1
    stays = got[int(answer[0])]
    others = 0
    for token in range(300, min(len(got), 20000), 97):
        text = read("", tok, torch.cat([torch.tensor([token]), answer[1:]]))
        if "\ufffd" not in text and len(whole(tok, text, template)) != len(layout.tokens):
            others += 1
            torch.testing.assert_close(got[token], stays, atol=1e-12, rtol=1e-12)
    assert others > 3
    assert len(got.unique()) > 1000
    # The same in a mixture: what is on such a candidate is on the token that stands there.
    breaking = int((reward.seam.family[:20000] != layout.family).nonzero()[400])
    keeping = int((reward.seam.family == layout.family).nonzero()[7])
    ids = torch.tensor([[int(answer[0]), breaking, keeping]])

    def value(weights: list[float]) -> float:
        soft = SoftTokens(0, ids, torch.tensor([weights], dtype=torch.float64))
        (found,) = reward.relaxed([RelaxedResponse(response(answer), 0, soft)], Runner())
        return float(found.value.detach())

    assert value([1.0, 0.0, 0.0]) == pytest.approx(score(reward, answer), abs=1e-12)
    assert value([0.5, 0.2, 0.3]) == pytest.approx(value([0.7, 0.0, 0.3]), abs=1e-12)
    assert value([0.5, 0.2, 0.3]) != pytest.approx(value([0.5, 0.0, 0.5]), abs=1e-9)


def test_a_first_token_that_no_other_could_replace_is_not_refined(caplog: pytest.LogCaptureFixture) -> None:
    """Any word in its place would merge with the template's blank: another number of ids."""
    reward = bound("mistral-v0.3")
    tok = reward.tokenizer
    answer = tokens(tok, "0日\n84")[-4:]
    with caplog.at_level(logging.WARNING):
        layout = reward.layout(response(answer))
    assert torch.equal(layout.tokens, whole(tok, read("", tok, answer)))
    assert int(layout.places[0]) == -1
    assert "no reward gradient" in caplog.text
    got = slopes(reward, response(answer))
    assert float(got[0].abs().max()) == 0
    assert float(got[-1].abs().max()) > 0


@pytest.mark.parametrize("name", ["mistral-v0.2", "mistral-v0.3", "phi3", "qwen2.5"])
@pytest.mark.parametrize("template", ["raw", "plain"])
def test_a_base_models_answer_is_what_continues_the_text(name: str, template: str) -> None:
    """From the beginning of the text on as the tokenizer begins one, and with the answer's first blank."""
    tok = published(name)
    words = Vocabulary(tok, chat_template=template)
    reward = OutcomeReward(model(tok), tok, chat_template=template).bind(words)
    front = "The sum 2+2 is" + ("\n" if template == "plain" else "")
    begun = tok(front)["input_ids"]
    for text in (" four, I think.", "    four"):
        ids = tok(front + text)["input_ids"]
        assert ids[: len(begun)] == begun
        answer = torch.tensor(ids[len(begun) :])
        layout = reward.layout(response(answer, "The sum 2+2 is"))
        assert layout.tokens.tolist() == ids
        assert words.encode(Prompt.of("The sum 2+2 is")).tolist() == begun
        expected = forward(reward, torch.tensor(ids))
        (found,) = tiny.rewards_of(reward, [response(answer, "The sum 2+2 is")], Runner())
        assert found == pytest.approx(float(expected[0]), abs=1e-12)
        at = dense(reward, torch.tensor(ids), len(ids) - 1) @ reward.model.get_input_embeddings().weight.mT
        got = slopes(reward, response(answer, "The sum 2+2 is"))
        for i, place in enumerate(layout.places.tolist()):
            if place >= 0 and not (layout.seam and i == 0):
                torch.testing.assert_close(got[i], at[len(layout.before) + place], atol=1e-12, rtol=1e-9)
        assert (layout.places >= 0).all()


def test_a_first_token_that_merges_has_no_gradient(caplog: pytest.LogCaptureFixture) -> None:
    reward = bound("qwen2.5")
    answer = tokens(reward.tokenizer, "\nThe answer")
    with caplog.at_level(logging.WARNING):
        got = slopes(reward, response(answer))
        slopes(reward, response(answer))
    layout = reward.layout(response(answer))
    assert torch.equal(layout.tokens, whole(reward.tokenizer, "\nThe answer"))
    assert layout.places[0] == -1
    assert float(got[0].abs().max()) == 0
    assert float(got[1].abs().max()) > 0
    assert caplog.text.count("no reward gradient") == 1


# -- templates that rewrite ---------------------------------------------------------------------------


def test_a_stripped_thinking_block_has_no_gradient() -> None:
    reward = bound("qwen2.5", R1)
    answer = tokens(reward.tokenizer, "so 84.</think>The answer is 84.")
    layout = reward.layout(response(answer))
    pieces = [reward.tokenizer.decode([t]) for t in answer.tolist()]
    end = max(i for i, p in enumerate(pieces) if ">" in p)
    got = slopes(reward, response(answer))
    assert float(got[: end + 1].abs().max()) == 0
    assert float(got[end + 1 :].abs().amax(-1).min()) > 0
    assert (layout.places[end + 1 :] >= 0).all()


def test_the_thinking_marks_are_not_exchangeable() -> None:
    """Another token in the place of one would make Qwen3's template arrange the answer anew."""
    reward = bound("qwen3")
    tok = reward.tokenizer
    answer = tokens(tok, THOUGHT)
    layout = reward.layout(response(answer))
    pieces = tok.convert_ids_to_tokens(answer.tolist())
    for i, piece in enumerate(pieces):
        if "think>" in piece:
            assert layout.places[i] == -1, piece
    words = [i for i, p in enumerate(pieces) if p.strip("Ġ").isascii() and p.strip("Ġ").isalnum()]
    assert all(layout.places[i] >= 0 for i in words)
    # Exchanging a word is exchanging its id.
    changed = answer.clone()
    changed[words[2]] = tokens(tok, " plus")[0]
    other = whole(tok, tok.decode(changed))
    place = len(layout.before) + int(layout.places[words[2]])
    assert (other != layout.tokens).nonzero()[:, 0].tolist() == [place]


@pytest.mark.parametrize(("name", "template"), [("qwen3", None), ("qwen2.5", TRIM), ("qwen2.5", R1)], ids=str)
def test_the_raw_answer(name: str, template: str | None) -> None:
    reward = bound(name, template, answer="raw")
    tok = reward.tokenizer
    text = "  " + THOUGHT + " "
    answer = tokens(tok, text)
    mark = "MARK"
    turns = [{"role": "user", "content": "What is 12*7?"}, {"role": "assistant", "content": mark}]
    rendered = tok.apply_chat_template(turns, tokenize=False, chat_template=template).replace(mark, text)
    ids = tiny.ids(tok, rendered)
    assert score(reward, answer) == pytest.approx(float(forward(reward, ids)[0]), abs=1e-9)
    at = dense(reward, ids, len(ids) - 1) @ reward.model.get_input_embeddings().weight.mT
    layout = reward.layout(response(answer))
    got = slopes(reward, response(answer))
    for i, place in enumerate(layout.places.tolist()):
        if place >= 0 and not (layout.seam and i == 0):
            torch.testing.assert_close(got[i], at[len(layout.before) + place], atol=1e-10, rtol=1e-9)
    assert (layout.places >= 0).sum() >= len(answer) - 2
    assert score(bound(name, template), answer) != pytest.approx(score(reward, answer))


def test_channels_are_refused_by_the_templates_own_words() -> None:
    reward = bound("qwen2.5", CHANNELS)
    answer = tokens(reward.tokenizer, "<|channel|>analysis<|message|>x")
    with pytest.raises(PromptError, match="channel"):
        score(reward, answer)
    raw = bound("qwen2.5", CHANNELS, answer="raw")
    ids = tiny.ids(raw.tokenizer, "user:What is 12*7?\nassistant:<|channel|>analysis<|message|>x\n")
    assert score(raw, answer) == pytest.approx(float(forward(raw, ids)[0]), abs=1e-9)
    with pytest.raises((ConfigError, TypeError), match="answer"):  # or the tests' type checker
        tiny.outcome(arguments={"answer": "both"})


# -- comparisons at load ------------------------------------------------------------------------------


def test_another_beginning_of_the_answer_is_said(caplog: pytest.LogCaptureFixture) -> None:
    made.cache_clear()
    with caplog.at_level(logging.WARNING):
        bound("qwen2.5")
    assert "begins an answer" not in caplog.text
    with caplog.at_level(logging.WARNING):
        bound("qwen3")
    assert "begins an answer" in caplog.text
    assert "think" in caplog.text


def test_a_template_without_the_question_is_refused() -> None:
    tok = tiny.tokenizer(
        template="{% for m in messages if m['role'] != 'user' %}{{ m['content'] }}{% endfor %}"
    )
    with pytest.raises(ModelError, match="does not write the question"):
        tiny.outcome("llama", tok)


# -- valid pairs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lm", "rm"), [("mistral-v0.2", "mistral-v0.3"), ("mistral-v0.3", "mistral-v0.2")])
def test_tokenizers_that_differ_only_at_a_texts_beginning(lm: str, rm: str) -> None:
    reward = bound(rm, lm=lm)
    answer = tokens(published(lm), "The answer is 84.\n\nYes")
    ids = whole(published(rm), "The answer is 84.\n\nYes")
    assert score(reward, answer) == pytest.approx(float(forward(reward, ids)[0]), abs=1e-12)
    at = dense(reward, ids, reward._stop(ids) - 1)
    layout = reward.layout(response(answer))
    table = reward.model.get_input_embeddings().weight
    index = reward.table.index
    known = (index >= 0).nonzero()[:, 0]
    got = slopes(reward, response(answer))
    for i, place in enumerate(layout.places.tolist()):
        assert place >= 0
        if i:
            expected = table[index[known]] @ at[len(layout.before) + place]
            torch.testing.assert_close(got[i, known], expected, atol=1e-12, rtol=1e-9)


# -- missing tokens -----------------------------------------------------------------------------------


def test_tokens_that_the_reward_model_lacks(caplog: pytest.LogCaptureFixture) -> None:
    lm, tok = published("qwen3"), published("qwen2.5")
    with caplog.at_level(logging.WARNING):
        forbidding = bound("qwen2.5", lm="qwen3")
    assert "</think>" in caplog.text
    assert forbidding.unreadable is not None
    end = lm.convert_tokens_to_ids("</think>")
    assert end in forbidding.unreadable.tolist()
    from nabla.core.errors import VocabularyError

    with pytest.raises(VocabularyError, match="</think>"):
        bound("qwen2.5", lm="qwen3", missing="error")
    reading = bound("qwen2.5", lm="qwen3", missing="text")
    assert reading.unreadable is None
    answer = tokens(lm, THOUGHT)
    assert end in answer.tolist()
    ids = whole(tok, THOUGHT)
    assert score(reading, answer) == pytest.approx(float(forward(reading, ids)[0]), abs=1e-9)
    layout = reading.layout(response(answer))
    got = slopes(reading, response(answer))
    at = dense(reading, ids, len(ids) - 1)
    where = answer.tolist().index(end)
    assert float(got[where].abs().max()) == 0
    table = reading.model.get_input_embeddings().weight
    word = where + 2
    place = len(layout.before) + int(layout.places[word])
    torch.testing.assert_close(got[word, :1000], table[:1000] @ at[place], atol=1e-10, rtol=1e-9)


def test_an_embedding_matrix_smaller_than_the_tokenizer() -> None:
    """Its tokens beyond the matrix are missing ones; a template that writes one is refused at load."""
    tok = tiny.tokenizer((*tiny.TOKENS, "z"))
    short = tiny.build("llama", "ForSequenceClassification", vocab=len(tiny.TOKENS), num_labels=1)
    reward = OutcomeReward(short, tok).bind(tiny.causal_lm("qwen2", tok).vocabulary)
    assert reward.unreadable is not None
    assert reward.unreadable.tolist() == [len(tiny.TOKENS)]
    assert tiny.rewards_of(reward, [response(tiny.ids(tok, "1+2"), "1+2=")], Runner())
    with pytest.raises(ModelError, match="embedding matrix"):
        tiny.rewards_of(reward, [response(tiny.ids(tok, "1+2"), "z")], Runner())
    with pytest.raises(ModelError, match="embedding matrix"):
        OutcomeReward(
            short, tiny.tokenizer((*tiny.TOKENS, "z"), template=tiny.CHATML.replace("'\\n' +", "'z' +"))
        )


def test_the_beginning_of_a_sequence() -> None:
    tok = published("mistral-v0.2")
    ids = whole(tok, "Yes")
    for bos, expected in ((None, ids), (True, ids), (False, ids[1:])):
        reward = bound("mistral-v0.2", bos=bos)
        assert score(reward, tokens(tok, "Yes")) == pytest.approx(
            float(forward(reward, expected)[0]), abs=1e-9
        )
    plain = tiny.outcome(arguments={"bos": None})
    assert plain.bos is None
    with pytest.raises(ConfigError, match="no beginning-of-sequence"):
        tiny.outcome(arguments={"bos": True})


def test_a_text_cut_in_another_way_keeps_its_ids_behind_a_seam() -> None:
    reward = bound("mistral-v0.2")
    tok = reward.tokenizer
    ids = tok.convert_tokens_to_ids(["▁The", "▁an", "s", "w", "er"])
    layout = reward.layout(response(torch.tensor(ids)))
    assert layout.answer.tolist() == [tok.convert_tokens_to_ids("The"), *ids[1:]]
    assert layout.seam
