"""What tests need around the tiny models of :mod:`nabla.testing.tiny`: vocabularies of about 30 characters,
in many variants, and short names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from nabla.core.errors import NablaError
from nabla.core.prompt import Prompt
from nabla.core.trajectory import Trajectory
from nabla.engine.engine import Engine
from nabla.models.causal_lm import CausalLM
from nabla.rewards.outcome import OutcomeReward
from nabla.rewards.process import ProcessReward
from nabla.testing.tiny import (
    ARCHITECTURES,
    END,
    PAD,
    START,
    UNKNOWN,
    build_model,
    lm_model,
    outcome_model,
    process_model,
    tiny_trajectory,
    tokenizer_of,
)

__all__ = [
    "ARCHITECTURES",
    "CHATML",
    "END",
    "NO_END",
    "OTHER_END",
    "PAD",
    "SPECIAL",
    "START",
    "TOKENS",
    "UNKNOWN",
    "build",
    "causal_lm",
    "drive",
    "ids",
    "lm_model",
    "outcome",
    "outcome_model",
    "process",
    "process_model",
    "rewards_of",
    "tokenizer",
    "trajectory",
]

SPECIAL = (PAD, START, END, UNKNOWN)
CHARACTERS = "systemurani012345+=;. \n"
TOKENS = (*SPECIAL, *dict.fromkeys(CHARACTERS))

CHATML = (
    "{%- for m in messages -%}"
    "{{- '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
#: The same, but a turn ends with the padding token: the LM's end-of-sequence token is not in it.
OTHER_END = CHATML.replace(END, PAD)
#: A template with nothing behind the answer.
NO_END = CHATML.replace("+ '<|im_end|>\\n'", "+ ('' if m['role'] == 'assistant' else '\\n')")


def tokenizer(
    tokens: Sequence[str] = TOKENS,
    *,
    permute: int | None = None,
    missing: Sequence[str] = (),
    template: str | None = CHATML,
    eos: str | None = END,
    pattern: str = r"[\s\S]",
) -> PreTrainedTokenizerFast:
    """One token per character.

    Args:
        tokens: the vocabulary, in the order of its ids.
        permute: seed of a random order.
        missing: tokens left out.
        template: chat template.
        eos: end-of-sequence token.
        pattern: what a pre-token is; characters by default.
    """
    kept = [t for t in tokens if t not in missing]
    if permute is not None:
        order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(permute))
        kept = [kept[i] for i in order.tolist()]
    return tokenizer_of(
        kept,
        special=[t for t in SPECIAL if t in kept],
        pattern=pattern,
        eos_token=eos,
        pad_token=PAD if PAD in kept else None,
        unk_token=UNKNOWN,
        chat_template=template,
    )


def causal_lm(arch: str = "qwen2", tok: Any = None, *, reuse_prefix: bool = True, **changes: Any) -> CausalLM:
    """nabla's language model."""
    tok = tok or tokenizer()
    return CausalLM(lm_model(arch, tok, **changes), tok, reuse_prefix=reuse_prefix)


def outcome(
    arch: str = "qwen2", tok: Any = None, *, arguments: dict[str, Any] | None = None, **changes: Any
) -> OutcomeReward:
    """nabla's outcome reward."""
    tok = tok or tokenizer()
    return OutcomeReward(outcome_model(arch, tok, **changes), tok, **(arguments or {}))


def process(
    arch: str = "qwen2", tok: Any = None, *, arguments: dict[str, Any] | None = None, **changes: Any
) -> ProcessReward:
    """nabla's process reward."""
    tok = tok or tokenizer()
    return ProcessReward(process_model(arch, tok, **changes), tok, **(arguments or {}))


_KINDS = {"ForCausalLM": "lm", "ForSequenceClassification": "outcome", "ForTokenClassification": "process"}


def build(arch: str, suffix: str, *, vocab: int, **settings: Any) -> Any:
    """A model of an architecture with so many ids, whatever its tokenizer is."""
    return build_model(arch, _KINDS[suffix], size=vocab, **settings)


def ids(tok: Any, text: str) -> Tensor:
    """Token ids of a text."""
    return torch.tensor(tok(text, add_special_tokens=False)["input_ids"], dtype=torch.long)


def trajectory(
    lm: CausalLM, prompt: Prompt, tokens: Tensor | str, *, committed: int = 0, limit: int = 64
) -> Trajectory:
    """A response as a rollout would return it, at the temperature of :class:`~nabla.core.sampling.Sampling`'s
    default; see :func:`~nabla.testing.tiny.tiny_trajectory`."""
    response = ids(lm.tokenizer, tokens) if isinstance(tokens, str) else tokens
    return tiny_trajectory(lm, prompt, response, committed=committed, limit=limit, temperature=0.7)


def rewards_of(reward: Any, responses: Sequence[Any], runner: Any) -> list[float]:
    """The values of a reward's scores."""
    return [score.value for score in reward.score(responses, runner)]


def drive(engine: Engine, prompts: Prompt | Sequence[Prompt], method: Callable[[Any], Any]) -> Any:
    """Runs ``async method(session)`` for a prompt, or for several together; results in their order.
    An error is raised."""
    many = [prompts] if isinstance(prompts, Prompt) else list(prompts)

    async def wrapped(session: Any) -> Any:
        return ("result", await method(session))

    found: dict[str, Any] = {}
    for prompt, value in engine.run(wrapped, many):
        if isinstance(value, NablaError):
            raise value
        found[prompt.id] = value[1]
    results = [found[p.id] for p in many]
    return results[0] if isinstance(prompts, Prompt) else results
