"""Deterministic tiny models: real transformers architectures, random weights, built in milliseconds.

Float64, 2 layers, hidden size 16, about 30 characters. The weights are large (standard deviation 0.4), so
that gradients and differences of rewards are far from zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
import transformers as hf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from nabla.core.errors import NablaError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.trajectory import States, Trajectory
from nabla.engine.engine import Engine
from nabla.models.causal_lm import CausalLM
from nabla.rewards.outcome import OutcomeReward
from nabla.rewards.process import ProcessReward

PAD, START, END, UNKNOWN = "<|pad|>", "<|im_start|>", "<|im_end|>", "<|unk|>"
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
    vocabulary = {token: i for i, token in enumerate(kept)}
    core = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    core.decoder = decoders.Fuse()
    core.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL if t in kept])
    wrap: Any = PreTrainedTokenizerFast
    return wrap(
        tokenizer_object=core,
        eos_token=eos,
        pad_token=PAD if PAD in kept else None,
        unk_token=UNKNOWN,
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


_SMALL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.4,
}
_GEMMA = {
    **_SMALL,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "query_pre_attn_scalar": 8,
    "sliding_window": 12,
    "layer_types": ["sliding_attention", "full_attention"],
    "final_logit_softcapping": 4.0,
    "attn_logit_softcapping": 5.0,
}
_NEOX = {k: v for k, v in _SMALL.items() if k not in ("num_key_value_heads", "head_dim")}


@dataclass(frozen=True)
class Architecture:
    """A transformers model family in miniature."""

    prefix: str
    settings: dict[str, Any]
    lm: str = "ForCausalLM"
    config: str | None = None
    outcome: str = "ForSequenceClassification"


ARCHITECTURES = {
    "qwen2": Architecture("Qwen2", {**_SMALL, "tie_word_embeddings": True}),
    "qwen3": Architecture("Qwen3", {**_SMALL, "tie_word_embeddings": False}),
    "llama": Architecture("Llama", {**_SMALL, "tie_word_embeddings": False}),
    "llama-tied": Architecture("Llama", {**_SMALL, "tie_word_embeddings": True}),
    "gpt-neox": Architecture("GPTNeoX", {**_NEOX, "tie_word_embeddings": False, "attention_dropout": 0.1}),
    "gemma2": Architecture("Gemma2", {**_GEMMA, "tie_word_embeddings": True}),
    "gemma3": Architecture(
        "Gemma3",
        {**_GEMMA, "attn_logit_softcapping": None, "tie_word_embeddings": True},
        config="Gemma3TextConfig",
        outcome="TextForSequenceClassification",
    ),
    "gpt2": Architecture(
        "GPT2",
        {
            "n_embd": 16,
            "n_inner": 24,
            "n_layer": 2,
            "n_head": 2,
            "n_positions": 256,
            "initializer_range": 0.3,
            "resid_pdrop": 0.1,
            "embd_pdrop": 0.1,
            "attn_pdrop": 0.1,
        },
        lm="LMHeadModel",
    ),
    "mistral": Architecture("Mistral", {**_SMALL, "sliding_window": 12, "tie_word_embeddings": False}),
    "granite": Architecture("Granite", {**_SMALL, "logits_scaling": 1.7, "tie_word_embeddings": True}),
    "cohere": Architecture("Cohere", {**_SMALL, "logit_scale": 0.6, "tie_word_embeddings": True}),
}


def build(
    arch: str, suffix: str, *, vocab: int, seed: int = 0, dtype: Any = torch.float64, **changes: Any
) -> Any:
    """A model of an architecture with random weights."""
    spec = ARCHITECTURES[arch]
    config = getattr(hf, spec.config or f"{spec.prefix}Config")(
        vocab_size=vocab,
        bos_token_id=None,
        **{"eos_token_id": None, "pad_token_id": None, **spec.settings, **changes},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(hf, spec.prefix + suffix)(config)
        for name, weight in model.named_parameters():
            if name.endswith("bias"):  # zero at first: a forgotten bias would go unseen
                with torch.no_grad():
                    weight.normal_(0, 0.3)
    model = model.to(dtype)
    if dtype == torch.float64:
        for module in model.modules():
            if type(module).__name__.endswith(("RMSNorm", "CohereLayerNorm")):
                module.forward = MethodType(_exact_norm, module)
    return model


def _exact_norm(module: Any, states: Tensor) -> Tensor:
    """A norm layer in its input's dtype; transformers' own work in float32 whatever the weights are,
    which would leave seven digits of a float64 model."""
    name = type(module).__name__
    if name == "CohereLayerNorm":
        states = states - states.mean(-1, keepdim=True)
    eps = getattr(module, "variance_epsilon", None) or module.eps
    states = states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + eps)
    return states * (1 + module.weight if name.startswith("Gemma") else module.weight)


def lm_model(arch: str, tok: Any, *, padded: int = 0, eos: Sequence[str] = (END,), **changes: Any) -> Any:
    """A causal language model whose embedding matrix has ``padded`` rows more than the tokenizer."""
    ids = [tok.get_vocab()[t] for t in eos]
    changes = {
        "eos_token_id": ids[0] if len(ids) == 1 else ids,
        "pad_token_id": tok.get_vocab()[PAD],
        **changes,
    }
    return build(arch, ARCHITECTURES[arch].lm, vocab=len(tok.get_vocab()) + padded, **changes)


def outcome_model(arch: str, tok: Any, *, padded: int = 0, seed: int = 7, **changes: Any) -> Any:
    """A sequence classifier with one label."""
    changes = {"pad_token_id": tok.get_vocab().get(PAD), "num_labels": 1, **changes}
    suffix = ARCHITECTURES[arch].outcome
    return build(arch, suffix, vocab=len(tok.get_vocab()) + padded, seed=seed, **changes)


def process_model(
    arch: str, tok: Any, *, padded: int = 0, seed: int = 8, labels: int = 1, **changes: Any
) -> Any:
    """A token classifier."""
    changes = {"pad_token_id": tok.get_vocab().get(PAD), "num_labels": labels, **changes}
    return build(arch, "ForTokenClassification", vocab=len(tok.get_vocab()) + padded, seed=seed, **changes)


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


def ids(tok: Any, text: str) -> Tensor:
    """Token ids of a text."""
    return torch.tensor(tok(text, add_special_tokens=False)["input_ids"], dtype=torch.long)


def trajectory(
    lm: CausalLM, prompt: Prompt, tokens: Tensor | str, *, committed: int = 0, limit: int = 64
) -> Trajectory:
    """A response as a rollout would return it, from transformers' own forward pass of the whole text."""
    response = ids(lm.tokenizer, tokens) if isinstance(tokens, str) else tokens
    question = lm.encode(prompt)
    with torch.no_grad():
        whole = torch.cat([question, response])[None]
        at = slice(len(question) - 1, -1)
        hidden = lm.model.base_model(input_ids=whole).last_hidden_state[0, at]
        logits = lm.model(input_ids=whole).logits[0, at, : lm.head.usable]
        if lm.head.blocked is not None:
            logits = logits.masked_fill(lm.head.blocked, float("-inf"))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        log_pi = logits.log_softmax(-1)
        p = log_pi.exp()
    entropy = -(p * log_pi.masked_fill(p == 0, 0.0)).sum(-1)
    return Trajectory(
        prompt=prompt,
        tokens=response,
        finished=int(response[-1]) in lm.eos_ids,
        log_probs=log_pi.gather(-1, response[:, None])[:, 0],
        states=States(hidden, entropy, p.amax(-1)),
        noise_keys=torch.zeros_like(response),
        sampling=Sampling(max_new_tokens=limit),
        committed=committed,
    )


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
