from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from nabla.core.text import pieces, token_text
from nabla.problems.sandbox import build_tokenizer


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
