"""Llama-2 with Phi-3: one vocabulary, cut alike but for what stands before a text and behind a control token.

Phi-3's files are published ones. Llama-2's are put together from its first 32,000 tokens, which are its own:
as its tokenizer.json is published (a blank before every piece of text), and as transformers' own class makes
it (before every piece, or before the first one only).
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

from nabla.models.runner import Runner
from nabla.models.vocabulary import Vocabulary, align
from nabla.rewards.outcome import OutcomeReward
from tests.rewards.published import FOLDER, dense, forward, model, published, response, slopes, tokens, whole

#: Llama-2's chat template without its system message.
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + m['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
#: Of other families, in Llama-2's tokens: blanks, trimming, thoughts that are stripped, an end that ends.
OTHERS = {
    "vicuna": "{% for m in messages %}"
    "{{ ('USER: ' if m['role'] == 'user' else ' ASSISTANT: ') + m['content'] }}"
    "{% if m['role'] != 'user' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}",
    "gemma": "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + m['role'] + '\n' }}"
    "{{ m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>assistant\n' }}{% endif %}",
    "llama-3": "{% for m in messages %}"
    "{{ '<|start|>' + m['role'] + '\n\n' + m['content'] | trim + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n\n' }}{% endif %}",
    "exaone": "{% for m in messages %}{{ '[|' + m['role'] + '|]' }}{% if '</thought>' in m['content'] %}"
    "{{ m['content'].split('</thought>')[-1].lstrip('\n') }}{% else %}{{ m['content'] }}{% endif %}"
    "{{ '[|endofturn|]\n' }}{% endfor %}{% if add_generation_prompt %}{{ '[|assistant|]' }}{% endif %}",
    "deepseek-v3": "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}"
    "{% if m['role'] != 'user' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
}
KINDS = ("published", "legacy", "first")
TEXTS = ("The answer is 84.", " The  answer", "42", "\n\nx = 1\n", "Yes, 日本語 é.\n\n  Two")


@cache
def llama(kind: str) -> Any:
    """Llama-2's tokenizer."""
    published("phi3")  # or the test is skipped
    settings = json.loads((FOLDER / "phi3" / "tokenizer.json").read_text(encoding="utf-8"))
    if kind == "published":
        settings["added_tokens"] = [
            {**token, "rstrip": False, "special": True} for token in settings["added_tokens"][:3]
        ]
        core = Tokenizer.from_str(json.dumps(settings))
        tok = PreTrainedTokenizerFast(
            tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
        )
    else:
        pairs = settings["model"]["merges"]
        merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in pairs]
        tok = LlamaTokenizer(vocab=settings["model"]["vocab"], merges=merges, legacy=kind == "legacy")
    tok.chat_template = TEMPLATE
    assert len(tok) == 32000
    return tok


def tokenizer(name: str) -> Any:
    return published("phi3") if name == "phi3" else llama(name)


@cache
def pair(lm: str, rm: str) -> Any:
    """The reward model with one tokenizer for a language model with the other."""
    words = Vocabulary(tokenizer(lm), eos_ids=[32007, 32000] if lm == "phi3" else None)
    return OutcomeReward(model(tokenizer(rm)), tokenizer(rm)).bind(words)


def answers(lm: Any) -> list[Tensor]:
    """As a tokenizer writes texts, and as a model goes on behind other text: with and without its end."""
    found = []
    for text in TEXTS:
        ids = tokens(lm, text)
        behind = tokens(lm, "0\n" + text)[len(tokens(lm, "0\n")) :]
        found += [ids, behind, torch.cat([ids, torch.tensor([lm.eos_token_id])])]
    return [ids for ids in found if len(ids)]


PAIRS = [*((kind, "phi3") for kind in KINDS), *(("phi3", kind) for kind in KINDS), ("published", "first")]


@pytest.mark.parametrize(("lm", "rm"), PAIRS)
def test_scores_and_gradients_are_exact(lm: str, rm: str) -> None:
    reward = pair(lm, rm)
    words = tokenizer(lm)
    assert align(words, tokenizer(rm)).coverage > 0.999
    weights = reward.model.get_input_embeddings().weight
    index = torch.arange(reward.table.usable) if reward.table.index is None else reward.table.index
    known = (index >= 0).nonzero()[:, 0]
    values = set()
    for answer in answers(words):
        own = answer[:-1] if int(answer[-1]) == words.eos_token_id else answer
        text = words.decode(own, clean_up_tokenization_spaces=False)
        ids = whole(tokenizer(rm), text)
        item = response(answer)
        layout = reward.layout(item)
        assert layout.tokens.equal(ids), text
        (score,) = reward.score([item], Runner())
        assert score.value == pytest.approx(float(forward(reward, ids)[0]), abs=1e-12)
        values.add(round(score.value, 9))
        at = dense(reward, ids, reward._stop(ids) - 1)
        got = slopes(reward, item)
        for i, place in enumerate(layout.places.tolist()):
            if place < 0:
                assert float(got[i].abs().max()) == 0
            elif not (layout.seam and i == 0):
                expected = weights[index[known]] @ at[len(layout.before) + place]
                torch.testing.assert_close(got[i, known], expected, atol=1e-12, rtol=1e-9)
        # All but white space that a template trims has its place; the first word may make one with a blank.
        if text.strip() == text:
            assert (layout.places[1 : len(own)] >= 0).all()
    assert len(values) >= len(TEXTS) - 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_candidate_in_the_first_place_stands_for_what_the_whole_rendering_gives(kind: str) -> None:
    reward = pair("phi3", kind)
    words, tok = published("phi3"), llama(kind)
    answer = tokens(words, "The answer is 84.")
    layout = reward.layout(response(answer))
    place = len(layout.before) + int(layout.places[0])
    at = dense(reward, layout.tokens, reward._stop(layout.tokens) - 1)[place]
    got = slopes(reward, response(answer))[0]
    weights = reward.model.get_input_embeddings().weight
    checked = 0
    for token in range(300, 31000, 997):
        ids = [token, *answer[1:].tolist()]
        text = words.decode(ids, clean_up_tokenization_spaces=False)
        other = whole(tok, text)
        if len(other) == len(layout.tokens) and (other != layout.tokens).nonzero()[:, 0].tolist() == [place]:
            checked += 1
            torch.testing.assert_close(got[token], weights[other[place]] @ at, atol=1e-12, rtol=1e-9)
    assert checked > 10


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("kind", ["published", "first"])
def test_templates_of_other_families(kind: str, name: str) -> None:
    """Padded with the token that ends a sequence: what is read is the last token that is none."""
    tok, template = llama(kind), OTHERS[name]
    classifier = model(tok, pad_token_id=tok.eos_token_id)
    reward = OutcomeReward(classifier, tok, chat_template=template)
    reward = reward.bind(Vocabulary(tok, chat_template=template))
    weights = reward.model.get_input_embeddings().weight
    thought = "<thought>a b</thought>\n\nThe answer is 84."
    for text in ("The answer is 84.", "  The  answer\n", thought, "日本"):
        for answer in (tokens(tok, text), tokens(tok, "0\n" + text)[len(tokens(tok, "0\n")) :]):
            ids = whole(tok, tok.decode(answer, clean_up_tokenization_spaces=False), template)
            layout = reward.layout(response(answer))
            assert layout.tokens.equal(ids), text
            (score,) = reward.score([response(answer)], Runner())
            assert score.value == pytest.approx(float(forward(reward, ids)[0]), abs=1e-12)
            read = int((ids != tok.eos_token_id).nonzero()[-1])
            at = dense(reward, ids, read) @ weights.mT
            got = slopes(reward, response(answer))
            for i, place in enumerate(layout.places.tolist()):
                if place < 0:
                    assert float(got[i].abs().max()) == 0
                elif not (layout.seam and i == 0):
                    expected = at[len(layout.before) + place]
                    torch.testing.assert_close(got[i], expected, atol=1e-12, rtol=1e-9)
