"""Shapes of chat templates, over published and over trained tokenizers; formats of step rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.families import made
from tests.families.compare import ANSWERS
from tests.rewards.published import published
from tests.rewards.test_templates import BLANK, CHANNELS, CHATML, R1, THOUGHT, TRIM

_BODY = "{% for m in messages %}{{ m['role'] + '\\n' + m['content'] + eos_token }}{% endfor %}"
_TWICE = _BODY.replace("m['content']", "m['content'] + m['content']")
_NEVER = _BODY.replace("m['content']", "(m['content'] if m['role'] == 'user' else '')")
_DEAF = _BODY.replace("m['content']", "(m['content'] if m['role'] != 'user' else '')")
_BOS = "{{ bos_token }}" + _BODY
_OPEN = "{% for m in messages %}{{ m['role'] + ':\\n' + m['content'] + '\\n' }}{% endfor %}"
_THOUGHTS = (THOUGHT, "<think>\nso\n</think>\n\nx = 2", "Yes, I think so.")
_SPACED = ("  The answer is 84. ", "\nYes, x is 2.\n", " No; it is 7.")


@dataclass(frozen=True)
class Shape:
    """A template over a tokenizer.

    Args:
        name: what it does, and who does so.
        tokenizer: a published folder's name, or a class's.
        template: None: the tokenizer's own.
        answers: three, to the suite's questions.
        raw: the answer is kept as it is.
        padding: the end-of-sequence token is the padding token, too.
        refused: what the error says (a regular expression); None: exact.
        fast: one of those that always run.
    """

    name: str
    tokenizer: str
    template: str | None = None
    answers: Sequence[str] = ANSWERS
    raw: bool = False
    padding: bool = False
    refused: str | None = None
    fast: bool = False

    @property
    def label(self) -> str:
        """For the table."""
        return f"{self.name} ({self.tokenizer})"

    def words(self) -> Any:
        """The tokenizer with the template; skips where it is not on this machine."""
        if self.tokenizer.endswith("Tokenizer"):
            return made.tokenizer(self.tokenizer, self.template or made.TEMPLATE)
        tok = published(self.tokenizer)
        return made.with_template(tok, self.template)


SHAPES = (
    Shape("as it is: ChatML", "qwen2.5"),
    Shape("as it is: ChatML", "phonelm"),
    Shape("as it is: ChatML", "Qwen2Tokenizer", CHATML, fast=True),
    Shape("as it is: [INST], pad = eos", "mistral-v0.2", padding=True),
    Shape("as it is: Phi-3, whose pad is written last", "phi3", padding=True),
    Shape("as it is, pad = eos", "LlamaTokenizer", _BODY, padding=True, fast=True),
    Shape("as it is, nothing behind it", "GPT2Tokenizer", _OPEN, fast=True),
    Shape("as it is, behind bos", "LlamaTokenizer", _BOS),
    Shape("a blank before it: Llama-2", "mistral-v0.2", BLANK),
    Shape("a blank before it: Llama-2", "qwen2.5", BLANK),
    Shape("a blank before it: Llama-2", "phi2", BLANK),
    Shape("a blank before it: Llama-2", "GPT2Tokenizer", BLANK, fast=True),
    Shape("a blank before it: Llama-2", "LlamaTokenizer", BLANK),
    Shape("a blank before it: Mistral v0.3", "mistral-v0.3"),
    Shape("trimmed: Mistral v0.3", "mistral-v0.3", answers=_SPACED),
    Shape("trimmed: Llama-3, Gemma", "qwen2.5", TRIM, _SPACED),
    Shape("trimmed: Llama-3, Gemma", "phi3", TRIM, _SPACED),
    Shape("trimmed: Llama-3, Gemma", "GPT2Tokenizer", TRIM, _SPACED, fast=True),
    Shape("trimmed: Llama-3, Gemma; raw", "GPT2Tokenizer", TRIM, _SPACED, raw=True),
    Shape("thinking moved: Qwen3", "qwen3", answers=_THOUGHTS),
    Shape("thinking moved: Qwen3; raw", "qwen3", answers=_THOUGHTS, raw=True),
    Shape("thinking dropped: R1", "qwen2.5", R1, _THOUGHTS),
    Shape("thinking dropped: R1", "GPT2Tokenizer", R1, _THOUGHTS, fast=True),
    Shape("thinking dropped: R1; raw", "GPT2Tokenizer", R1, _THOUGHTS, raw=True),
    Shape("channels: gpt-oss", "GPT2Tokenizer", CHANNELS, ("<|channel|>analysis<|message|>x",) * 3,
          refused="You have passed a message containing"),
    Shape("channels: gpt-oss; raw", "GPT2Tokenizer", CHANNELS, ("<|channel|>analysis<|message|>x is 2",) * 3,
          raw=True),
    Shape("the answer twice", "Qwen2Tokenizer", _TWICE, refused="does not keep the assistant's text",
          fast=True),
    Shape("no answer", "Qwen2Tokenizer", _NEVER, refused="does not keep the assistant's text"),
    Shape("no question", "Qwen2Tokenizer", _DEAF, refused="does not write the question"),
)  # fmt: skip


@dataclass(frozen=True)
class Format:
    """A form of step rewards, checked by a function of :mod:`tests.rewards.test_formats`."""

    name: str
    check: str
    arguments: dict[str, Any]

    @property
    def label(self) -> str:
        """For the table."""
        given = ", ".join(f"{k} {v!r}" for k, v in self.arguments.items())
        return f"{self.name} ({given})" if given else self.name


FORMATS = (
    *(Format("qwen-prm", "test_qwen_prm", {"end": end}) for end in (False, True)),
    *(Format("trl", "test_trl", {"name": name, "separator": separator})
      for name in ("qwen2.5", "mistral-v0.2", "mistral-v0.3", "phi3") for separator in ("\n", "\n\n")),
    *(Format("math-shepherd", "test_math_shepherd", {"name": name})
      for name in ("mistral-v0.2", "mistral-v0.3")),
    *(Format("rlhflow", "test_rlhflow", {"name": name, "template": None, "separator": "\n\n"})
      for name in ("mistral-v0.3", "phi3", "qwen2.5")),
    *(Format("classifier, separator of several tokens", "test_a_separator_of_several_tokens", {"name": name})
      for name in ("mistral-v0.2", "phi3", "qwen2.5")),
    Format("classifier, two labels", "test_two_labels_are_log_odds", {}),
    *(Format("outcome, labels", "test_outcome_heads_with_several_labels", {"labels": n}) for n in (2, 3)),
)  # fmt: skip
