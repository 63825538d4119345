"""A model's tokens apart from its weights, and how two models' tokens agree (SPEC section 12)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from nabla.core.errors import ModelError, PromptError, VocabularyError
from nabla.core.prompt import Prompt
from nabla.core.text import Decoder
from nabla.models.chat import ChatFormat
from nabla.models.templates import PLAIN, RAW

log = logging.getLogger(__name__)

#: Texts whose encodings must agree for two tokenizers to count as the same.
SAMPLE_TEXTS = (
    "The answer is 42.",
    "12*7=84;84+16=100#100",
    "Let $x^2 + 3x - \\frac{1}{2} = 0$.\n\nThen x = ",
    "  indented\n\ttabbed, UPPER lower_case 3.14159",
    "123456/234561",
)

#: Goes before a sample text.
_LEAD = "0\n"


class Vocabulary:
    """Tokenizer, ids and chat format of a language model, without weights: all that is needed to ask a
    server for texts and to read them.

    Args:
        tokenizer: of the model.
        chat_template: see :class:`~nabla.models.chat.ChatFormat`.
        eos_ids: end-of-sequence tokens; the tokenizer's own by default.
        usable: ids that may be written are below this; all of the tokenizer's by default.
        context_length: largest number of positions, None if unlimited.
        template_arguments: see :class:`~nabla.models.chat.ChatFormat`.
        special_tokens: likewise.

    Warns if the template ends turns with a token that is no end-of-sequence token.

    Raises ModelError if there is no end-of-sequence token.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        chat_template: str | None = None,
        eos_ids: Sequence[int] | None = None,
        usable: int | None = None,
        context_length: int | None = None,
        template_arguments: Mapping[str, Any] | None = None,
        special_tokens: str = "text",
    ) -> None:
        self.tokenizer = tokenizer
        self.chat = ChatFormat(
            tokenizer,
            chat_template,
            arguments=template_arguments,
            special_tokens=special_tokens,
            role="language model",
        )
        own = tokenizer.eos_token_id
        self.eos_ids = tuple(eos_ids) if eos_ids is not None else (() if own is None else (int(own),))
        if not self.eos_ids:
            raise ModelError(
                "The language model has no end-of-sequence token",
                fix="Set eos_token_id in its generation config or tokenizer.",
            )
        self._decoder = Decoder(tokenizer, self.eos_ids)
        self.usable = usable_ids(tokenizer) if usable is None else usable
        self.context_length = context_length
        end = self.chat.end_of_turn()
        if end is not None and end not in self.eos_ids:
            log.warning(
                "The chat template ends a turn with %r, which is no end-of-sequence token of the language "
                "model (%s): responses will go on behind it. Set eos_token_id in its generation config.",
                tokenizer.convert_ids_to_tokens(end),
                ", ".join(map(repr, tokenizer.convert_ids_to_tokens(list(self.eos_ids)))),
            )

    def encode(self, prompt: Prompt) -> Int[Tensor, " prompt"]:
        """Prompt ids. Raises PromptError if they leave no room for an answer."""
        ids = self.chat.prompt(prompt.messages)
        limit = self.context_length
        if limit is not None and len(ids) >= limit:
            raise PromptError(
                f"The prompt has {len(ids)} tokens, the language model's context holds {limit}",
                got=prompt.id,
                fix="Shorten the prompt or use a model with a longer context.",
            )
        return ids

    def room(self, prompt_length: int, max_new_tokens: int) -> int:
        """Length limit of a response: ``max_new_tokens`` or what the context leaves."""
        limit = self.context_length
        return max_new_tokens if limit is None else min(max_new_tokens, limit - prompt_length)

    def decode(self, tokens: Int[Tensor, " n"] | list[int]) -> str:
        """Text of ids as a text of its own, all as it was written but for control tokens: see
        :class:`nabla.core.text.Decoder`."""
        return self._decoder(tokens.tolist() if isinstance(tokens, Tensor) else tokens)

    def response(self, tokens: Int[Tensor, " n"] | list[int]) -> str:
        """Text of response ids as they continue the prompt: a base model's first blank is kept, which a
        tokenizer of the Llama family drops where a text begins."""
        ids = tokens.tolist() if isinstance(tokens, Tensor) else list(tokens)
        return self.decode([*self.lead, *ids])[len(self.decode([*self.lead])) :]

    @cached_property
    def lead(self) -> tuple[int, ...]:
        """Ids to decode before a response, and to cut off again; none where a response's text is that of its
        ids alone. So it is in a chat: an answer is a text of its own there, whose first blank, if there is to
        be one, is the template's."""
        if self.chat.template not in (PLAIN, RAW):
            return ()
        letter, word = (
            list(self.tokenizer(text, add_special_tokens=False)["input_ids"])[-1:] for text in ("0\na", "a b")
        )
        texts = [self.decode(ids) for ids in (letter, letter + letter, word, letter + word)]
        return tuple(letter) if texts == ["a", "aa", "b", "a b"] else ()


@dataclass(frozen=True, eq=False)
class Alignment:
    """Where each token of the language model is in another model's vocabulary.

    Args:
        index: the other model's id per language-model id, -1 where it has none; None if ids are equal.
        coverage: share of the language model's tokens that the other model has.
        missing: some tokens that the other model lacks.
    """

    index: Int[Tensor, " usable"] | None
    coverage: float
    missing: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Every token has the same id. Texts are cut alike in any case: :func:`align` refuses others."""
        return self.index is None


def usable_ids(tokenizer: Any) -> int:
    """One more than the largest id the tokenizer knows: rows of a matrix beyond it are padding."""
    return int(max(tokenizer.get_vocab().values())) + 1


def align(
    lm_tokenizer: Any, rm_tokenizer: Any, *, minimum_coverage: float = 0.9, rows: int | None = None
) -> Alignment:
    """Compares the tokenizers themselves: vocabulary maps, special tokens, encodings of sample texts.

    Args:
        lm_tokenizer: of the language model.
        rm_tokenizer: of the other one.
        minimum_coverage: smallest share of the language model's tokens that the other one must have.
        rows: of the other model's embedding matrix: tokens beyond it are missing; None: none is.

    Raises VocabularyError under ``minimum_coverage``, and where the same text is cut differently by
    tokenizers of the same tokens (the gradient would be taken at a text the reward model never reads).
    """
    lm_vocab, rm_vocab = lm_tokenizer.get_vocab(), rm_tokenizer.get_vocab()
    if rows is not None:
        rm_vocab = {token: number for token, number in rm_vocab.items() if number < rows}
    size = usable_ids(lm_tokenizer)
    index = torch.full((size,), -1, dtype=torch.long)
    missing = []
    for token, number in lm_vocab.items():
        other = rm_vocab.get(token)
        if other is None:
            missing.append(token)
        else:
            index[number] = other
    coverage = 1 - len(missing) / len(lm_vocab)
    shown = tuple(sorted(missing)[:5])
    if coverage < minimum_coverage:
        raise VocabularyError(
            f"Language model and reward model share {coverage:.1%} of the language model's "
            f"{len(lm_vocab)} tokens; at least {minimum_coverage:.1%} are needed",
            got=f"missing: {', '.join(map(repr, shown))}",
            fix="Use a reward model of the same tokenizer family, or lower minimum_coverage, which "
            "forbids the language model the missing tokens.",
        )
    # A text that needs a missing token is cut differently of necessity: only the others tell.
    absent = set(missing)
    disagreeing = [
        text
        for text in SAMPLE_TEXTS
        if absent.isdisjoint(pieces := _pieces(lm_tokenizer, text)) and pieces != _pieces(rm_tokenizer, text)
    ]
    if disagreeing:
        raise VocabularyError(
            "Language model and reward model share their tokens but cut texts differently",
            got=disagreeing[0],
            fix="Use a reward model with the language model's tokenizer.",
        )
    known = index >= 0
    same = bool((index[known] == torch.arange(size)[known]).all())
    return Alignment(index=None if same and not missing else index, coverage=coverage, missing=shown)


def _pieces(tokenizer: Any, text: str) -> list[str]:
    """Tokens of a text in the middle of another one: what a tokenizer puts before a text's first word (a
    blank, in some of the Llama family) is not compared, as an answer is never at the beginning."""
    lead = tokenizer(_LEAD, add_special_tokens=False)["input_ids"]
    ids = tokenizer(_LEAD + text, add_special_tokens=False)["input_ids"]
    common = 0
    while common < min(len(lead), len(ids)) and lead[common] == ids[common]:
        common += 1
    pieces: list[str] = tokenizer.convert_ids_to_tokens(ids[common:])
    return pieces
