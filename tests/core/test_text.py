from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from nabla.core.text import Decoder, ids_text, library, pieces, text_ids, token_text
from nabla.problems.sandbox import build_tokenizer
from tests import tiny


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte: characters outside ASCII are several tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("text", ["plain words", "∇-Reasoner: naïve café, 漢字 and 🙂 " * 3, ""])
@pytest.mark.parametrize("make", [byte_tokenizer, build_tokenizer])
def test_pieces_join_to_the_decoded_text(make, text):
    tokenizer = make()
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert "".join(pieces(tokenizer, tokens)) == tokenizer.decode(tokens, skip_special_tokens=True)
    assert len(pieces(tokenizer, tokens)) == len(tokens)


def test_part_of_a_character_waits_for_the_rest():
    tokenizer = byte_tokenizer()
    assert pieces(tokenizer, tokenizer("é", add_special_tokens=False)["input_ids"]) == ["", "é"]


def test_special_tokens_add_nothing_but_have_a_name():
    tokenizer = build_tokenizer()
    end = tokenizer.eos_token_id
    assert pieces(tokenizer, [*tokenizer("12", add_special_tokens=False)["input_ids"], end]) == ["1", "2", ""]
    assert token_text(tokenizer, end) == tokenizer.eos_token
    newline = tokenizer("\n", add_special_tokens=False)["input_ids"][0]
    assert token_text(tokenizer, newline) == "\\n"


def test_channels_are_kept_as_they_are_written():
    """All control tokens but the end's, in the whole text and token by token."""
    tokenizer = byte_tokenizer()
    names = ["<|start|>", "<|end|>", "<|channel|>", "<|message|>", "<|return|>", "<|call|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": names, "eos_token": "<|return|>"})
    text = "<|channel|>analysis<|message|>6*7 é🙂<|end|><|start|>assistant<|channel|>final<|message|>42"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    call = tokenizer.convert_tokens_to_ids("<|call|>")
    for end in ([], [tokenizer.eos_token_id], [call]):
        assert Decoder(tokenizer, [call])([*ids, *end]) == text
        assert "".join(pieces(tokenizer, [*ids, *end], ends=[call])) == text
    assert pieces(tokenizer, [*ids, tokenizer.eos_token_id])[-1] == ""
    assert Decoder(tokenizer)([*ids, call]) == text + "<|call|>"


def test_control_tokens_without_channels_are_left_out():
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|start|>", "<|end|>", "<|message|>"]})
    ids = tokenizer("<|start|>a<|message|>42<|end|>", add_special_tokens=False)["input_ids"]
    assert Decoder(tokenizer)(ids) == "a42"
    assert "".join(pieces(tokenizer, ids)) == "a42"


def test_a_fast_tokenizer_is_asked_directly_and_says_the_same() -> None:
    tokenizer = tiny.tokenizer()
    assert library(tokenizer) is tokenizer.backend_tokenizer
    for text in ("12*7=84", "", "1 2 3"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert text_ids(tokenizer, text) == ids
        for hidden in (True, False):
            expected = tokenizer.decode(ids, skip_special_tokens=hidden, clean_up_tokenization_spaces=False)
            assert ids_text(tokenizer, ids, hide_controls=hidden) == expected


def test_a_tokenizer_that_adds_something_or_cuts_texts_is_asked_itself() -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(2)  # as a tokenizer.json may say
    assert text_ids(tokenizer, "12*7=84") == tokenizer("12*7=84", add_special_tokens=False)["input_ids"]
    assert len(text_ids(tokenizer, "12*7=84")) > 2

    class Own(type(tokenizer)):  # type: ignore[misc]
        def _decode(self, *_: object, **__: object) -> str:
            return "own"

    other = tiny.tokenizer()
    other.__class__ = Own
    assert library(other) is None
    assert ids_text(other, [5, 6], hide_controls=True) == "own"
