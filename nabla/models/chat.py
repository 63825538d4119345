"""Conversations → token ids, once: from here on a response is token ids end to end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from nabla.core.errors import ModelError, PromptError
from nabla.core.prompt import Message

_MARK = "\u2063nabla-response\u2063"

#: ``chat_template`` value for base models: contents joined by newlines, no roles.
PLAIN = "plain"


class ChatFormat:
    """How one model writes conversations.

    Args:
        tokenizer: of the model.
        template: None uses the tokenizer's chat template, ``"plain"`` joins the contents by newlines,
            anything else is a Jinja template.

    Raises ModelError if there is no template.
    """

    def __init__(self, tokenizer: Any, template: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.template = template
        # A base model's text begins as its tokenizer begins one (templates write this themselves).
        first = tokenizer("a")["input_ids"][:1]
        begins = tokenizer.bos_token_id is not None and first == [tokenizer.bos_token_id]
        self._begin = tokenizer.bos_token if begins else ""
        if template is None and not getattr(tokenizer, "chat_template", None):
            raise ModelError(
                "The tokenizer has no chat template",
                got=getattr(tokenizer, "name_or_path", None),
                fix="Pass chat_template='plain' for a base model that continues text, or a Jinja template.",
            )

    def _render(self, messages: Sequence[Message], *, generate: bool) -> str:
        if self.template == PLAIN:
            joined = "\n".join(m.content for m in messages)
            return self._begin + joined + ("\n" if generate else "")
        turns = [{"role": m.role, "content": m.content} for m in messages]
        try:
            text: str = self.tokenizer.apply_chat_template(
                turns,
                tokenize=False,
                add_generation_prompt=generate,
                chat_template=self.template,
            )
        except Exception as error:
            raise PromptError(
                f"The chat template cannot write this conversation: {error}",
                got=[m.role for m in messages],
                fix="Use the roles that the model's template knows (many know no system role).",
            ) from error
        return text

    def _encode(self, text: str) -> Int[Tensor, " n"]:
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return torch.tensor(ids, dtype=torch.long)

    def prompt(self, messages: Sequence[Message]) -> Int[Tensor, " prompt"]:
        """Ids up to where the answer begins."""
        ids = self._encode(self._render(messages, generate=True))
        if len(ids) == 0:
            raise PromptError("The prompt has no tokens", got=[m.content for m in messages])
        return ids

    def encode(self, text: str) -> Int[Tensor, " n"]:
        """Ids of a rendering: special tokens are the template's affair."""
        return self._encode(text)

    def finished(self, messages: Sequence[Message], answer: str) -> str:
        """The rendering of a conversation that ends with this answer; templates may trim it, or move or
        strip a thinking block."""
        return self._render([*messages, Message("assistant", answer)], generate=False)

    def generation(self, messages: Sequence[Message]) -> str:
        """The rendering up to where the answer begins, as a language model continues it."""
        return self._render(messages, generate=True)

    def surroundings(self, messages: Sequence[Message]) -> tuple[str, str]:
        """Text before and after the assistant's answer in a finished conversation. Raises ModelError
        where the template does not write an answer once and as it is."""
        text = self.finished(messages, _MARK)
        if text.count(_MARK) != 1:
            raise ModelError(
                "The reward model's chat template does not keep the assistant's text as it is",
                fix="Pass a chat_template that writes the content once and unchanged.",
            )
        before, after = text.split(_MARK)
        return before, after

    def around(self, messages: Sequence[Message]) -> tuple[Int[Tensor, " before"], Int[Tensor, " after"]]:
        """Ids before and after the assistant's answer in a finished conversation, as a reward model
        reads it; what the template puts around the last turn (an empty think block, an end-of-turn
        token) is in them."""
        before, after = self.surroundings(messages)
        return self._encode(before), self._encode(after)
