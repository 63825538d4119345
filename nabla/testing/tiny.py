"""Deterministic tiny models: real transformers architectures, random weights, built in milliseconds.

Float64 by default, 2 layers, hidden size 16. The weights are large (standard deviation 0.4), so that
gradients and differences of rewards are far from zero. Everything follows from the arguments alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any, Literal

import torch
import transformers as hf
from jaxtyping import Int
from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from nabla.core.errors import ConfigError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.trajectory import States, Trajectory
from nabla.models.causal_lm import CausalLM
from nabla.rewards.outcome import OutcomeReward
from nabla.rewards.process import ProcessReward

PAD, START, END, UNKNOWN = "<|pad|>", "<|im_start|>", "<|im_end|>", "<|unk|>"

#: A chat template without role names, so that a vocabulary of a few characters can write it.
TEMPLATE = (
    "{%- for m in messages -%}{{- '<|im_start|>' + m['content'] + '<|im_end|>' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>' -}}{%- endif -%}"
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
    """A model family of transformers in miniature.

    Args:
        prefix: of transformers' class names.
        settings: of its configuration.
        lm: the language model's class, behind the prefix.
        config: name of the configuration's class; ``<prefix>Config`` by default.
        outcome: the sequence classifier's class, behind the prefix; None: transformers has none.
        process: the token classifier's class, behind the prefix; None: transformers has none.
        exact: whether a float64 model works in float64 throughout; else finite differences of its values
            have about three digits.
    """

    prefix: str
    settings: dict[str, Any]
    lm: str = "ForCausalLM"
    config: str | None = None
    outcome: str | None = "ForSequenceClassification"
    process: str | None = "ForTokenClassification"
    exact: bool = True


#: By name.
ARCHITECTURES = {
    "qwen2": Architecture("Qwen2", {**_SMALL, "tie_word_embeddings": True}),
    "qwen3": Architecture("Qwen3", {**_SMALL, "tie_word_embeddings": False}),
    "llama": Architecture("Llama", {**_SMALL, "tie_word_embeddings": False}),
    "llama-tied": Architecture("Llama", {**_SMALL, "tie_word_embeddings": True}),
    "gpt-neox": Architecture("GPTNeoX", {**_NEOX, "tie_word_embeddings": False, "attention_dropout": 0.1}),
    # With soft caps transformers' attention takes its softmax in float32, whatever the weights are.
    "gemma2": Architecture("Gemma2", {**_GEMMA, "tie_word_embeddings": True}, exact=False),
    "gemma3": Architecture(
        "Gemma3",
        {**_GEMMA, "attn_logit_softcapping": None, "tie_word_embeddings": True},
        config="Gemma3TextConfig",
        outcome="TextForSequenceClassification",
        process=None,
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
    "granite": Architecture(
        "Granite",
        {**_SMALL, "logits_scaling": 1.7, "tie_word_embeddings": True},
        outcome=None,
        process=None,
    ),
    "cohere": Architecture(
        "Cohere",
        {**_SMALL, "logit_scale": 0.6, "tie_word_embeddings": True},
        outcome=None,
        process=None,
    ),
}


def char_tokenizer(
    characters: str = "ab",
    *,
    special: Sequence[str] = (PAD, START, END, UNKNOWN),
    template: str | None = TEMPLATE,
) -> Any:
    """A transformers tokenizer with one token per character.

    Args:
        characters: the vocabulary behind the special tokens, in the order of its ids.
        special: special tokens, first in the vocabulary: padding, start and end of a turn, unknown.
        template: chat template.
    """
    return tokenizer_of(
        [*special, *dict.fromkeys(characters)],
        special=special,
        eos_token=END if END in special else None,
        pad_token=PAD if PAD in special else None,
        chat_template=template,
    )


def tokenizer_of(
    tokens: Sequence[str], *, special: Sequence[str], pattern: str = r"[\s\S]", **settings: Any
) -> Any:
    """A transformers tokenizer whose tokens are whole words of a text.

    Args:
        tokens: the vocabulary, in the order of its ids.
        special: those of them that no text is split inside.
        pattern: regular expression of a word; a character by default.
        settings: of ``PreTrainedTokenizerFast``.
    """
    core = Tokenizer(WordLevel({token: i for i, token in enumerate(tokens)}, unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    core.decoder = decoders.Fuse()
    core.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    wrap: Any = PreTrainedTokenizerFast
    return wrap(tokenizer_object=core, clean_up_tokenization_spaces=False, **settings)


def tiny_lm(
    tokenizer: Any = None,
    *,
    architecture: str = "qwen2",
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    reuse_prefix: bool = True,
    **changes: Any,
) -> CausalLM:
    """A language model with random weights; ``changes`` go to its configuration.

    Args:
        tokenizer: :func:`char_tokenizer`'s by default.
        architecture: one of :data:`ARCHITECTURES`.
        seed: of the weights.
        dtype: of the weights.
        reuse_prefix: see :class:`~nabla.models.causal_lm.CausalLM`.
    """
    tokenizer = char_tokenizer() if tokenizer is None else tokenizer
    model = lm_model(architecture, tokenizer, seed=seed, dtype=dtype, **changes)
    return CausalLM(model, tokenizer, reuse_prefix=reuse_prefix)


def tiny_reward(
    tokenizer: Any = None,
    *,
    architecture: str = "qwen2",
    seed: int = 7,
    dtype: torch.dtype = torch.float64,
    reuse_prefix: bool = True,
    **changes: Any,
) -> OutcomeReward:
    """An outcome reward model with random weights; the arguments are :func:`tiny_lm`'s."""
    tokenizer = char_tokenizer() if tokenizer is None else tokenizer
    model = outcome_model(architecture, tokenizer, seed=seed, dtype=dtype, **changes)
    return OutcomeReward(model, tokenizer, reuse_prefix=reuse_prefix)


def tiny_process_reward(
    tokenizer: Any = None,
    *,
    architecture: str = "qwen2",
    seed: int = 8,
    dtype: torch.dtype = torch.float64,
    reuse_prefix: bool = True,
    aggregation: Literal["sum", "mean", "min", "last"] = "min",
    step_separators: Sequence[str] = (),
    label: int = 0,
    **changes: Any,
) -> ProcessReward:
    """A process reward model with random weights; further arguments are
    :class:`~nabla.rewards.process.ProcessReward`'s and :func:`tiny_lm`'s."""
    tokenizer = char_tokenizer() if tokenizer is None else tokenizer
    model = process_model(architecture, tokenizer, seed=seed, dtype=dtype, labels=label + 1, **changes)
    return ProcessReward(
        model,
        tokenizer,
        aggregation=aggregation,
        step_separators=step_separators,
        label=label,
        reuse_prefix=reuse_prefix,
    )


TinyLM, TinyReward, TinyProcessReward = tiny_lm, tiny_reward, tiny_process_reward


def lm_model(
    architecture: str, tokenizer: Any, *, padded: int = 0, eos: Sequence[str] = (END,), **changes: Any
) -> Any:
    """transformers' causal language model, as it comes: not in evaluation mode.

    Args:
        architecture: one of :data:`ARCHITECTURES`.
        tokenizer: its vocabulary is the model's.
        padded: rows of the embedding matrix behind the vocabulary.
        eos: end-of-sequence tokens.
        changes: :func:`build_model`'s arguments and settings of the configuration.
    """
    vocabulary = tokenizer.get_vocab()
    ids = [vocabulary[token] for token in eos]
    settings = {"eos_token_id": ids[0] if len(ids) == 1 else ids, "pad_token_id": vocabulary[PAD], **changes}
    return build_model(architecture, "lm", size=len(vocabulary) + padded, **settings)


def outcome_model(
    architecture: str, tokenizer: Any, *, padded: int = 0, seed: int = 7, **changes: Any
) -> Any:
    """transformers' sequence classifier with one label; the arguments are :func:`lm_model`'s."""
    vocabulary = tokenizer.get_vocab()
    settings = {"pad_token_id": vocabulary.get(PAD), "num_labels": 1, **changes}
    return build_model(architecture, "outcome", size=len(vocabulary) + padded, seed=seed, **settings)


def process_model(
    architecture: str, tokenizer: Any, *, padded: int = 0, seed: int = 8, labels: int = 1, **changes: Any
) -> Any:
    """transformers' token classifier; the arguments are :func:`lm_model`'s."""
    vocabulary = tokenizer.get_vocab()
    settings = {"pad_token_id": vocabulary.get(PAD), "num_labels": labels, **changes}
    return build_model(architecture, "process", size=len(vocabulary) + padded, seed=seed, **settings)


def build_model(
    architecture: str,
    kind: Literal["lm", "outcome", "process"],
    *,
    size: int,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    **settings: Any,
) -> Any:
    """A model with random weights and ``size`` rows of the embedding matrix."""
    if architecture not in ARCHITECTURES:
        raise ConfigError(
            "Unknown architecture of a tiny model",
            got=architecture,
            fix=f"Known: {', '.join(ARCHITECTURES)}.",
        )
    spec = ARCHITECTURES[architecture]
    suffix = getattr(spec, kind)
    if suffix is None:
        fitting = [name for name, other in ARCHITECTURES.items() if getattr(other, kind) is not None]
        raise ConfigError(
            f"transformers has no {kind} model of this architecture",
            got=architecture,
            fix=f"Choose one of {', '.join(fitting)}.",
        )
    common = {"vocab_size": size, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    config = getattr(hf, spec.config or f"{spec.prefix}Config")(**{**common, **spec.settings, **settings})
    model = random_model(getattr(hf, spec.prefix + suffix), config, seed=seed).to(dtype)
    if dtype == torch.float64:
        for module in model.modules():
            if type(module).__name__.endswith(("RMSNorm", "CohereLayerNorm")):
                module.forward = MethodType(exact_norm, module)
    return model


def random_model(cls: Any, config: Any, *, seed: int = 0, constants: bool = False) -> Any:
    """A model of a class of transformers; biases are random too: they are zero at first, and a forgotten one
    would go unseen.

    Args:
        cls: of the model.
        config: its configuration.
        seed: of the weights.
        constants: what else begins as a constant (norms, decays) is random too, so that no choice by them is
            one among equals.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = cls(config)
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.normal_(0, 0.3)
            elif constants and weight.numel() and bool((weight == weight.flatten()[0]).all()):
                weight += 0.3 * torch.randn_like(weight)
    return model


def exact_norm(module: Any, states: Tensor) -> Tensor:
    """A norm layer in its input's dtype; transformers' own work in float32 whatever the weights are,
    which would leave seven digits of a float64 model."""
    name = type(module).__name__
    if name == "CohereLayerNorm":
        states = states - states.mean(-1, keepdim=True)
    eps = getattr(module, "variance_epsilon", None) or module.eps
    states = states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + eps)
    scale: Tensor = 1 + module.weight if name.startswith("Gemma") else module.weight
    return states * scale


@torch.no_grad()
def tiny_trajectory(
    lm: CausalLM,
    prompt: Prompt,
    tokens: Int[Tensor, " length"],
    *,
    committed: int = 0,
    limit: int = 64,
    temperature: float = 1.0,
) -> Trajectory:
    """A response as a rollout would return it, from transformers' own forward pass of the whole text.

    Args:
        lm: writes.
        prompt: the problem.
        tokens: of the response, at least one.
        committed: leading ones that are final.
        limit: of the response's length.
        temperature: that later continuations draw with.
    """
    question = lm.encode(prompt)
    whole = torch.cat([question, tokens])[None]
    at = slice(len(question) - 1, -1)
    hidden = lm.model.base_model(input_ids=whole).last_hidden_state[0, at]
    logits = lm.model(input_ids=whole).logits[0, at, : lm.head.usable]
    if lm.head.blocked is not None:
        logits = logits.masked_fill(lm.head.blocked, float("-inf"))
    log_pi = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    p = log_pi.exp()
    entropy = -(p * log_pi.masked_fill(p == 0, 0.0)).sum(-1)
    return Trajectory(
        prompt=prompt,
        tokens=tokens,
        finished=int(tokens[-1]) in lm.eos_ids,
        log_probs=log_pi.gather(-1, tokens[:, None])[:, 0],
        states=States(hidden, entropy, p.amax(-1)),
        noise_keys=torch.zeros_like(tokens),
        sampling=Sampling(temperature=temperature, max_new_tokens=limit),
        committed=committed,
    )
