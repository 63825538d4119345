"""Conversations as token ids, for the language model and around an answer for a reward model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import processors

from nabla.core.errors import ModelError, PromptError
from nabla.core.prompt import Message, Prompt
from nabla.models.chat import PLAIN, ChatFormat
from tests import tiny
from tests.tiny import CHATML, END, ids, tokenizer

USER = (Message("user", "1+2="),)
SYSTEM = (Message("system", "use +"), Message("user", "1+2="))
LONG = (*SYSTEM, Message("assistant", "3"), Message("user", "4 = 1"))


def render(tok: Any, messages: tuple[Message, ...], **arguments: Any) -> str:
    turns = [{"role": m.role, "content": m.content} for m in messages]
    return tok.apply_chat_template(turns, tokenize=False, **arguments)


@pytest.mark.parametrize("messages", [USER, SYSTEM, LONG], ids=["user", "system", "turns"])
def test_prompt_is_the_templates_own(messages: tuple[Message, ...]) -> None:
    tok = tokenizer()
    turns = [{"role": m.role, "content": m.content} for m in messages]
    expected = tok.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert ChatFormat(tok).prompt(messages).tolist() == expected


@pytest.mark.parametrize("template", [CHATML, tiny.OTHER_END, tiny.NO_END])
@pytest.mark.parametrize("messages", [USER, SYSTEM, LONG], ids=["user", "system", "turns"])
@pytest.mark.parametrize("answer", ["3", "1\n2;  3", ""])
def test_the_pieces_around_an_answer(messages: tuple[Message, ...], template: str, answer: str) -> None:
    tok = tokenizer(template=template)
    before, after = ChatFormat(tok).around(messages)
    whole = torch.cat([before, ids(tok, answer), after])
    assert whole.tolist() == ids(tok, render(tok, (*messages, Message("assistant", answer)))).tolist()


@given(answer=st.text("sum0123+=; \n", max_size=12))
def test_any_answer_is_kept(answer: str) -> None:
    tok = tokenizer()
    before, after = ChatFormat(tok).around(SYSTEM)
    whole = torch.cat([before, ids(tok, answer), after])
    assert whole.tolist() == ids(tok, render(tok, (*SYSTEM, Message("assistant", answer)))).tolist()


def test_what_the_template_adds_to_the_last_turn_is_kept() -> None:
    """An empty block before the answer, as Qwen3's template writes it."""
    thinking = CHATML.replace(
        "m['content'] + ", "('=\\n' if m['role'] == 'assistant' else '') + m['content'] + "
    )
    before, after = ChatFormat(tokenizer(), thinking).around(USER)
    text = tokenizer().decode(before)
    assert text.endswith("assistant\n=\n")
    assert tokenizer().decode(after) == END + "\n"


def test_system_prompts_reach_both() -> None:
    tok = tokenizer()
    chat = ChatFormat(tok)
    for pieces in (chat.prompt(SYSTEM), chat.around(SYSTEM)[0]):
        assert "use +" in tok.decode(pieces)
    prompt = Prompt.of("1+2=", system="use +")
    assert torch.equal(chat.prompt(prompt.messages), chat.prompt(SYSTEM))


def test_a_missing_template_is_an_error() -> None:
    with pytest.raises(ModelError, match="no chat template"):
        ChatFormat(tokenizer(template=None))
    given_template = ChatFormat(tokenizer(template=None), CHATML)
    assert torch.equal(given_template.prompt(USER), ChatFormat(tokenizer()).prompt(USER))


def test_plain() -> None:
    tok = tokenizer(template=None)
    chat = ChatFormat(tok, PLAIN)
    assert tok.decode(chat.prompt(SYSTEM)) == "use +\n1+2=\n"
    before, after = chat.around(USER)
    assert tok.decode(before) == "1+2=\n"
    assert len(after) == 0


@pytest.mark.parametrize(
    "template",
    [
        CHATML.replace("m['content']", "m['content'] + m['content']"),
        CHATML.replace("m['content']", "''"),
        CHATML.replace("m['content']", "m['content'][1:]"),
    ],
    ids=["twice", "never", "cut"],
)
def test_templates_that_change_the_answer(template: str) -> None:
    with pytest.raises(ModelError, match="does not keep the assistant's text"):
        ChatFormat(tokenizer(), template).around(USER)


def test_templates_that_trim_are_fine() -> None:
    before, after = ChatFormat(tokenizer(), CHATML.replace("m['content']", "m['content'] | trim")).around(
        USER
    )
    assert torch.equal(before, ChatFormat(tokenizer()).around(USER)[0])
    assert torch.equal(after, ChatFormat(tokenizer()).around(USER)[1])


def test_roles_that_the_template_refuses() -> None:
    strict = (
        "{%- for m in messages -%}{%- if m['role'] == 'system' -%}{{ raise_exception('no system') }}"
        "{%- endif -%}{%- endfor -%}1"
    )
    with pytest.raises(PromptError, match="no system"):
        ChatFormat(tokenizer(), strict).prompt(SYSTEM)


def test_a_prompt_without_tokens() -> None:
    with pytest.raises(PromptError, match="no tokens"):
        ChatFormat(tokenizer(), "{{ '' }}").prompt(USER)


def test_plain_text_begins_as_the_tokenizer_begins_a_text():
    tok = tiny.tokenizer()
    plain = ChatFormat(tok, "plain").prompt((Message("user", "12"),))
    tok.bos_token = tiny.START
    tok.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{tiny.START} $A", special_tokens=[(tiny.START, tok.get_vocab()[tiny.START])]
    )
    begun = ChatFormat(tok, "plain").prompt((Message("user", "12"),))
    assert begun.tolist() == [tok.get_vocab()[tiny.START], *plain.tolist()]
