"""Conversations → token ids, once: from here on a response is token ids end to end."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from nabla.core.errors import ConfigError, ModelError, PromptError
from nabla.core.prompt import Message
from nabla.core.text import text_ids
from nabla.models.templates import PLAIN, RAW, find_template

_MARK = "\u2063nabla-response\u2063"

#: What special tokens in the content of a message are: text, or the control tokens that they name.
SPECIAL_TOKENS = ("text", "control")


class ChatFormat:
    """How one model writes conversations.

    Args:
        tokenizer: of the model.
        template: None uses the tokenizer's chat template; ``"plain"`` joins the contents by newlines and
            writes one behind them; ``"raw"`` writes the contents exactly as they are. Else the name of one
            of the tokenizer's templates, a file, or a Jinja template.
        arguments: what the template is given besides the conversation (``{"enable_thinking": False}``).
        special_tokens: ``"text"`` reads ``<|im_end|>`` in a message's content as the text that it is;
            ``"control"`` as the token, as transformers does.
        role: whose tokenizer it is, for messages.

    Raises ModelError if there is no template, ConfigError if ``template`` names nothing.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: str | None = None,
        *,
        arguments: Mapping[str, Any] | None = None,
        special_tokens: str = "text",
        role: str = "model",
    ) -> None:
        if special_tokens not in SPECIAL_TOKENS:
            raise ConfigError(
                "Unknown use of special tokens", got=special_tokens, fix=f"Use {' or '.join(SPECIAL_TOKENS)}."
            )
        self.tokenizer = tokenizer
        self.template = find_template(tokenizer, template)
        self.arguments = dict(arguments or {})
        self.special_tokens = special_tokens
        self.role = role
        self._first = _written_first(tokenizer)
        self._names = _control_names(tokenizer)
        #: What stands in a rendering for the name of a control token that is text → that name.
        self._marks = {f"\ue0f0{number}\ue0f1": name for number, name in enumerate(self._names)}
        self._texts: _TextReader | None = None
        # A base model's text begins as its tokenizer begins one (templates write this themselves).
        begins = tokenizer.bos_token_id is not None and self._first == [tokenizer.bos_token_id]
        self._begin = tokenizer.bos_token if begins else ""
        if template is None and not getattr(tokenizer, "chat_template", None):
            raise ModelError(
                f"The tokenizer has no chat template (of the {role})",
                got=getattr(tokenizer, "name_or_path", None),
                fix="Pass chat_template='plain' or 'raw' for a base model that continues text, or a Jinja "
                "template.",
            )
        if self.arguments and self.template in (PLAIN, RAW):
            raise ConfigError(
                f"The template {self.template!r} takes no arguments", got=sorted(self.arguments)
            )

    def _joined(self, messages: Sequence[Message], *, generate: bool) -> str:
        """The text of the templates that are none."""
        if self.template == RAW:
            return "".join(m.content for m in messages)
        return "\n".join(m.content for m in messages) + ("\n" if generate else "")

    def _render(self, messages: Sequence[Message], *, generate: bool) -> str:
        if self.template in (PLAIN, RAW):
            return self._begin + self._joined(messages, generate=generate)
        turns = [{"role": m.role, "content": m.content} for m in messages]
        try:
            text: str = self.tokenizer.apply_chat_template(
                turns,
                tokenize=False,
                add_generation_prompt=generate,
                chat_template=self.template,
                **self.arguments,
            )
        except Exception as error:
            if type(error).__name__ == "TemplateSyntaxError":  # jinja2's; wrong for every conversation
                raise ConfigError(
                    f"The chat template of the {self.role} is no valid Jinja: {error}",
                    got=self.template or "the tokenizer's",
                ) from error
            raise PromptError(
                f"The chat template cannot write this conversation: {error}",
                got=[m.role for m in messages],
                fix="Use the roles that the model's template knows (many know no system role).",
            ) from error
        return text

    def _encode(self, text: str) -> Int[Tensor, " n"]:
        return torch.tensor(text_ids(self.tokenizer, text), dtype=torch.long)

    def prompt(self, messages: Sequence[Message]) -> Int[Tensor, " prompt"]:
        """Ids up to where the answer begins.

        Raises PromptError for a conversation that the template or the tokenizer cannot write.
        """
        self._check(messages)
        if self.template in (PLAIN, RAW):
            # Encoded as a text of its own, not behind the written name of its first token: tokenizers
            # that put a space before the first word would not see it as the first.
            text = self._joined(messages, generate=True)
            own = self._as_text(text) if self._typed(text) else self._encode(text)
            ids = torch.cat([torch.tensor(self._first, dtype=torch.long), own])
        else:
            ids = self._templated(messages)
        if len(ids) == 0:
            raise PromptError("The prompt has no tokens", got=[m.content for m in messages])
        return ids

    def _check(self, messages: Sequence[Message]) -> None:
        """What the user wrote can be encoded; raises PromptError. The template's own text is not looked at:
        it may well write a token that the tokenizer also uses for what it does not know."""
        unknown = self.tokenizer.unk_token_id
        for content in (m.content for m in messages):
            try:
                content.encode("utf-8")
            except UnicodeEncodeError as error:
                raise PromptError(
                    "The prompt holds half a character (a lone surrogate), which no tokenizer can read",
                    got=repr(content),
                    fix="Repair the text: in JSON, characters beyond the first 65,536 are written as two "
                    "escapes.",
                ) from error
            if unknown is None:
                continue
            for token in self._names if self.special_tokens == "control" else ():
                content = content.replace(token, "")
            if (
                unknown
                in self.tokenizer(content, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            ):
                raise PromptError(
                    "The tokenizer does not know a character of the prompt",
                    got=content,
                    fix="Use characters that the language model's tokenizer can write.",
                )

    def _typed(self, text: str) -> bool:
        """Whether a text names control tokens that are to be read as text."""
        return self.special_tokens == "text" and any(name in text for name in self._names)

    def _as_text(self, text: str, control: Mapping[str, str] | None = None) -> Int[Tensor, " n"]:
        if self._texts is None:
            self._texts = _TextReader(self.tokenizer, self._names)
        return self._texts.encode(text, control or {})

    def _templated(self, messages: Sequence[Message]) -> Int[Tensor, " n"]:
        return self.encode(self._render(self.hide(messages), generate=True))

    def hide(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The messages with private marks for the names of control tokens in their contents, where these
        are to be read as text: so they can be told in a rendering from those that the template writes
        itself. :meth:`encode` reads such a rendering. Raises PromptError for a content that has marks."""
        typed = any(self._typed(m.content) for m in messages)
        masked = []
        for message in messages:
            content = message.content
            if self.marked(content) or (typed and ("\ue0f0" in content or "\ue0f1" in content)):
                raise PromptError(
                    "The prompt holds a private character (U+E0F0 or U+E0F1) beside the name of a control "
                    "token",
                    got=content,
                    fix="Leave one of both out.",
                )
            for mark, name in self._marks.items() if typed else ():
                content = content.replace(name, mark)
            masked.append(Message(message.role, content))
        return tuple(masked) if typed else tuple(messages)

    def marked(self, text: str) -> bool:
        """Whether a text holds a mark of :meth:`hide`."""
        return (
            self.special_tokens == "text" and "\ue0f0" in text and any(mark in text for mark in self._marks)
        )

    def end_of_turn(self) -> int | None:
        """The control token that the template writes first behind an answer; None if it writes none."""
        if self.template in (PLAIN, RAW):
            return None
        try:
            turns = (Message("user", "a"), Message("assistant", _MARK))
            text = self._render(turns, generate=False)
        except PromptError:
            return None
        control = {int(i) for i, t in self.tokenizer.added_tokens_decoder.items() if t.special}
        behind = self._encode(text.split(_MARK)[-1]).tolist() if _MARK in text else []
        return next((token for token in behind if token in control), None)

    def encode(self, text: str) -> Int[Tensor, " n"]:
        """Ids of a rendering: special tokens are the template's affair, but for those that :meth:`hide` has
        marked as text. Raises PromptError where the tokenizer cannot read these as text."""
        if self._begun(text):  # as in :meth:`prompt`
            rest = self.encode(text[len(self._begin) :])
            return torch.cat([torch.tensor(self._first, dtype=torch.long), rest])
        return self._as_text(text, self._marks) if self.marked(text) else self._encode(text)

    def _begun(self, text: str) -> bool:
        """Whether a text is one of a base model's from its beginning on, the first token's name included."""
        return self.template in (PLAIN, RAW) and bool(self._begin) and text.startswith(self._begin)

    def offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of a rendering as :meth:`encode` gives them, and the characters of each in ``text``."""
        if self._begun(text):
            shift = len(self._begin)
            ids, spans = self.offsets(text[shift:])
            first = [(0, shift)] * len(self._first)
            return [*self._first, *ids], [*first, *((a + shift, b + shift) for a, b in spans)]
        if self.marked(text):
            self._as_text(text, self._marks)  # raises where they cannot be read as text
            assert self._texts is not None
            return self._texts.offsets(text, self._marks)
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return found["input_ids"], found["offset_mapping"]

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
                f"The {self.role}'s chat template does not keep the assistant's text as it is",
                fix="Pass a chat_template that writes the content once and unchanged.",
            )
        before, after = text.split(_MARK)
        return before, after

    def around(self, messages: Sequence[Message]) -> tuple[Int[Tensor, " before"], Int[Tensor, " after"]]:
        """Ids before and after the assistant's answer in a finished conversation, as a reward model
        reads it; what the template puts around the last turn (an empty think block, an end-of-turn
        token) is in them."""
        before, after = self.surroundings(self.hide(messages))
        return self.encode(before), self.encode(after)


def _written_first(tokenizer: Any) -> list[int]:
    """Ids that the tokenizer writes before a text."""
    whole = list(tokenizer("a")["input_ids"])
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    for first in range(len(whole) - len(bare) + 1):
        if whole[first : first + len(bare)] == bare:
            return whole[:first]
    return []


def _control_names(tokenizer: Any) -> list[str]:
    """Texts of the control tokens, longest first."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    names = {str(token.content) for token in added.values() if token.special}
    return sorted(names, key=lambda name: (-len(name), name))


class _TextReader:
    """Encodes a text in which the names of control tokens are text, except where they are meant.

    A copy of the tokenizer knows its control tokens under private names, so that all else in it, normaliser,
    space before the first word and the rest, works as ever.

    Args:
        tokenizer: one with a backend of the tokenizers library.
        names: of its control tokens.
    """

    def __init__(self, tokenizer: Any, names: Sequence[str]) -> None:
        from tokenizers import Tokenizer

        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise PromptError(
                "The prompt names a control token, and this tokenizer cannot read it as text",
                got=type(tokenizer).__name__,
                fix="Set special_tokens='control' if the token is meant, or leave it out.",
            )
        self._tokenizer = tokenizer
        self._private = {name: f"\ue0f2{number}\ue0f3" for number, name in enumerate(names)}
        settings = json.loads(backend.to_str())
        settings["post_processor"] = None
        old = {}
        for token in settings["added_tokens"]:
            name = token["content"]
            token["content"] = self._private.get(name, name)
            old[token["content"]] = token["id"]
        self._core = Tokenizer.from_str(json.dumps(settings))
        self._core.encode_special_tokens = False
        #: The copy numbers its added tokens anew.
        self._ids = {self._core.token_to_id(name): number for name, number in old.items()}
        self._control = {old[private] for private in self._private.values() if private in old}

    def encode(self, text: str, marks: Mapping[str, str]) -> Int[Tensor, " n"]:
        """Ids. Names of control tokens in ``text`` are controls if there are ``marks``, which then stand
        for names that are text; without marks all are text. Raises PromptError if that cannot be had."""
        plain = text
        if marks:
            for name, private in self._private.items():
                text = text.replace(name, private)
            for mark in marks:
                plain = plain.replace(mark, "")
        meant = sum(text.count(private) for private in self._private.values())
        for mark, name in marks.items():
            text = text.replace(mark, name)
        ids = self._read(text)
        # The copy reads as the tokenizer does, and no name has become its token.
        alike = (
            not marks
            or self._read(self._hide(plain)) == self._tokenizer(plain, add_special_tokens=False)["input_ids"]
        )
        if not alike or sum(number in self._control for number in ids) != meant:
            raise PromptError(
                "The prompt names a control token, and this tokenizer cannot read it as text",
                got=text,
                fix="Set special_tokens='control' if the token is meant, or leave it out.",
            )
        return torch.tensor(ids, dtype=torch.long)

    def offsets(self, text: str, marks: Mapping[str, str]) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of a text as :meth:`encode` reads it, and the characters of each in ``text``."""
        exchanged = {**self._private, **marks}
        pattern = re.compile("|".join(map(re.escape, sorted(exchanged, key=len, reverse=True))))
        pieces: list[str] = []
        begins: list[int] = []  # of each character of the text that is read, in ``text``
        ends: list[int] = []
        at = 0
        for hit in [*pattern.finditer(text), None]:
            begin = len(text) if hit is None else hit.start()
            pieces.append(text[at:begin])
            begins += range(at, begin)
            ends += range(at + 1, begin + 1)
            if hit is not None:
                at = hit.end()
                pieces.append(exchanged[hit.group()])
                begins += [begin] * len(pieces[-1])
                ends += [at] * len(pieces[-1])
        found = self._core.encode("".join(pieces), add_special_tokens=False)
        spans = [(begins[a], ends[b - 1]) if b > a else (begins[a - 1],) * 2 for a, b in found.offsets]
        return [self._ids.get(number, number) for number in found.ids], spans

    def _hide(self, text: str) -> str:
        for name, private in self._private.items():
            text = text.replace(name, private)
        return text

    def _read(self, text: str) -> list[int]:
        return [
            self._ids.get(number, number) for number in self._core.encode(text, add_special_tokens=False).ids
        ]
