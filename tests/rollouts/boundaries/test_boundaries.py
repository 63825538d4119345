"""Boundaries close where the decoded text says so, whatever the tokenizer."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from nabla.core.errors import ConfigError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.engine.engine import Engine
from nabla.rollouts.boundaries.base import boundaries
from tests import tiny

LM = tiny.causal_lm()
TEXTS = st.text(alphabet="st15=;. \n", min_size=1, max_size=12)


def closed(boundary, text, lm=LM):
    return boundary.closed(tiny.ids(lm.tokenizer, text).tolist(), lm.vocabulary)


@given(TEXTS, st.sampled_from([r"[;.]", r"\n", "s=", r"\d\d", r"(?i:S)|t$", "(s)\\1"]))
def test_a_regex_step_ends_where_the_text_ends_with_a_match(text, pattern):
    expected = any(re.fullmatch(pattern, text[i:]) for i in range(len(text)))
    assert closed(boundaries.build({"name": "regex", "pattern": pattern}), text) == expected


@given(TEXTS, st.integers(1, 3))
def test_a_newline_step_ends_with_that_many_line_breaks_behind_something(text, count):
    tail = text[len(text.rstrip()) :]
    expected = text[-1] == "\n" and bool(text.strip()) and tail.count("\n") >= count
    assert closed(boundaries.build({"name": "newline", "count": count}), text) == expected


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [("s\n", 1, True), ("s\n", 2, False), ("s\n\n", 2, True), ("\n", 1, False), ("s\n \n", 2, True)],
)
def test_lines_and_paragraphs(text, count, expected):
    assert closed(boundaries.build({"name": "newline", "count": count}), text) == expected


STEPS = [
    "newline",
    {"name": "newline", "count": 2},
    {"name": "regex", "pattern": "s=|\\d\\d"},
    {"name": "length", "tokens": 4},
    {"name": "token", "tokens": [";", "\n"]},
]


@given(TEXTS, st.integers(1, 11), st.sampled_from(STEPS))
def test_behind_an_opening_within_a_step_it_ends_where_it_would_have_ended(text, cut, spec):
    """A change within a line, say, whose end is the very next token."""
    tokens = tiny.ids(LM.tokenizer, text).tolist()
    boundary = boundaries.build(spec)
    if cut >= len(tokens):
        return
    behind = boundary.within(tokens[:cut], LM.vocabulary)
    expected = next(end for end in boundary.split(tokens, LM.vocabulary) if end > cut)
    assert cut + behind.first(tokens[cut:], LM.vocabulary) == expected


def test_token_boundaries_take_ids_and_texts():
    (semicolon,) = tiny.ids(LM.tokenizer, ";").tolist()
    for token in (";", semicolon):
        boundary = boundaries.build({"name": "token", "tokens": [token, "."]})
        assert [closed(boundary, t) for t in ("s;", "s.", ";s")] == [True, True, False]


def test_a_text_is_looked_up_in_each_models_own_vocabulary():
    other = tiny.causal_lm(tok=tiny.tokenizer(permute=3))
    boundary = boundaries.build({"name": "token", "tokens": [";"]})
    assert [closed(boundary, "s;", lm) for lm in (LM, other)] == [True, True]
    assert [closed(boundary, "s.", lm) for lm in (LM, other)] == [False, False]
    assert tiny.ids(LM.tokenizer, ";") != tiny.ids(other.tokenizer, ";")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "regex", "pattern": "("}, "no regular expression"),
        ({"name": "regex", "pattern": "x*"}, "empty text"),
        ({"name": "newline", "count": 0}, "at least 1"),
        ({"name": "length", "tokens": 0}, "tokens must be at least 1"),
        ({"name": "token", "tokens": []}, "list of tokens"),
        ({"name": "token", "tokens": ";"}, "list of tokens"),
    ],
)
def test_bad_settings_are_found_at_once(spec, message):
    with pytest.raises(ConfigError, match=message):
        boundaries.build(spec)


@pytest.mark.parametrize(
    ("token", "message"), [("s=", "not one token"), ("é", "not one token"), (10**6, "no such token")]
)
def test_bad_tokens_are_found_at_the_first_use(token, message):
    with pytest.raises(ConfigError, match=message):
        closed(boundaries.build({"name": "token", "tokens": [token]}), "s")


@given(TEXTS, st.integers(1, 5))
def test_length_cuts_into_equal_steps(text, size):
    boundary = boundaries.build({"name": "length", "tokens": size})
    tokens = tiny.ids(LM.tokenizer, text).tolist()
    ends = boundary.split(tokens, LM.vocabulary)
    assert ends == [*range(size, len(text), size), len(text)]
    assert boundary.first(tokens, LM.vocabulary) == ends[0]


def byte_tokenizer():
    """One token per byte, as byte-level tokenizers write characters that they have no token for."""
    names = [f"<0x{i:02X}>" for i in range(256)]
    vocabulary = {token: i for i, token in enumerate([*tiny.SPECIAL, *names])}
    core = Tokenizer(BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token=tiny.UNKNOWN))
    core.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    core.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in tiny.SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=tiny.END,
        pad_token=tiny.PAD,
        unk_token=tiny.UNKNOWN,
        chat_template=tiny.CHATML,
        clean_up_tokenization_spaces=False,
    )


def test_characters_of_several_tokens_are_decoded_together():
    lm = tiny.causal_lm(tok=byte_tokenizer())
    boundary = boundaries.build({"name": "regex", "pattern": "é"})
    tokens = tiny.ids(lm.tokenizer, "né").tolist()
    assert len(tokens) == 3
    assert [boundary.closed(tokens[:end], lm.vocabulary) for end in (1, 2, 3)] == [False, False, True]


def test_a_space_that_a_tokenizer_drops_at_the_start_is_seen_inside_a_step():
    words = ["▁Step", "▁one", "s"]
    vocabulary = {token: i for i, token in enumerate([*tiny.SPECIAL, *words])}
    core = Tokenizer(BPE(vocab=vocabulary, merges=[], unk_token=tiny.UNKNOWN))
    core.decoder = decoders.Metaspace()
    core.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in tiny.SPECIAL])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=tiny.END,
        pad_token=tiny.PAD,
        chat_template="{{- '<|im_start|>' -}}",
        clean_up_tokenization_spaces=False,
    )
    lm = tiny.causal_lm(tok=tokenizer)
    first, one, plural = (vocabulary[word] for word in words)
    assert lm.decode([first, one]) == "Step one"
    boundary = boundaries.build({"name": "regex", "pattern": "Step ones"})
    known = lm.vocabulary
    assert [boundary.closed([first, one, plural][:n], known) for n in (1, 2, 3)] == [False, False, True]


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "regex", "pattern": "[s1 ]"},
        {"name": "length", "tokens": 3},
        {"name": "token", "tokens": ["s"]},
    ],
    ids=lambda spec: spec["name"],
)
def test_responses_are_written_up_to_the_ends_that_split_finds(spec):
    boundary = boundaries.build(spec)
    sampling = Sampling(temperature=1.5, max_new_tokens=16)

    async def method(session):
        grown = await session.rollout(sampling, n=6, until=boundary)
        ends = [[len(t)] for t in grown]
        while not all(session.ended(t) for t in grown):
            grown = await session.extend(grown, until=boundary)
            for row, t in zip(ends, grown, strict=True):
                row += [len(t)] if len(t) > row[-1] else []
        return [(t.tokens.tolist(), row) for t, row in zip(grown, ends, strict=True)]

    rows = tiny.drive(Engine(LM), Prompt.of("1+1", id="0"), method)
    assert any(len(ends) > 2 for _, ends in rows)
    for tokens, ends in rows:
        assert boundary.split(tokens, LM.vocabulary) == ends
        assert boundary.first(tokens, LM.vocabulary) == ends[0]
