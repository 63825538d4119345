"""The shared tokenizer: lossless, one token per character, ChatML."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from nabla.problems.sandbox import TASKS, build_tokenizer
from nabla.problems.sandbox.tokenizer import CHARACTERS

TOKENIZER = build_tokenizer()


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=CHARACTERS, max_size=80))
def test_round_trip(text: str) -> None:
    ids = TOKENIZER(text).input_ids
    assert TOKENIZER.decode(ids) == text
    assert TOKENIZER.unk_token_id not in ids


@pytest.mark.parametrize("text", [" a  b , . n't ' 's", "system user  assistant", "\n\n 1 \n"])
def test_no_spaces_come_or_go(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER(text).input_ids) == text


def test_one_token_per_character() -> None:
    assert len(TOKENIZER) == 103
    for task in TASKS.values():
        problem = task.problems("train", 1, 0)[0]
        assert len(TOKENIZER(problem.gold).input_ids) == len(problem.gold)


def test_template() -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1"}]
    text = TOKENIZER.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\n1+1<|im_end|>\n<|im_start|>assistant\n"
    )
    turns.append({"role": "assistant", "content": "2"})
    closed = TOKENIZER.apply_chat_template(turns, tokenize=False)
    assert closed == text + "2<|im_end|>\n"
    assert len(TOKENIZER(closed[len(text) :]).input_ids) == 3


def test_special_tokens() -> None:
    assert TOKENIZER.eos_token == "<|im_end|>"
    assert TOKENIZER.pad_token == "<|endoftext|>"
    assert TOKENIZER("é").input_ids == [TOKENIZER.unk_token_id]
    assert TOKENIZER.decode(TOKENIZER("1<|im_end|>").input_ids, skip_special_tokens=True) == "1"


def test_saved_copy_is_the_same(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == TOKENIZER.get_vocab()
    assert loaded.chat_template == TOKENIZER.chat_template
    assert loaded.decode(loaded(" a 1 , b").input_ids) == " a 1 , b"
