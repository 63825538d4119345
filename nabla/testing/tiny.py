"""Deterministic tiny models: real transformers architectures, random weights, built in milliseconds.

Float64 by default, 2 layers, hidden size 16. The weights are large (standard deviation 0.4), so that
gradients and differences of rewards are far from zero. Everything follows from the arguments alone.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    "tie_word_embeddings": True,
}
_NEOX = {k: v for k, v in _SMALL.items() if k not in ("num_key_value_heads", "head_dim")}

#: Name → (transformers' prefix, settings of its configuration).
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("Qwen2", _SMALL),
    "qwen3": ("Qwen3", {**_SMALL, "tie_word_embeddings": False}),
    "llama": ("Llama", {**_SMALL, "tie_word_embeddings": False}),
    "llama-tied": ("Llama", _SMALL),
    "gpt-neox": ("GPTNeoX", {**_NEOX, "tie_word_embeddings": False}),
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
    tokens = [*special, *dict.fromkeys(characters)]
    core = Tokenizer(WordLevel({token: i for i, token in enumerate(tokens)}, unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    core.decoder = decoders.Fuse()
    core.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    wrap: Any = PreTrainedTokenizerFast
    return wrap(
        tokenizer_object=core,
        eos_token=END if END in special else None,
        pad_token=PAD if PAD in special else None,
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


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
    vocabulary = tokenizer.get_vocab()
    settings = {"eos_token_id": vocabulary[END], "pad_token_id": vocabulary[PAD], **changes}
    model = _build(architecture, "ForCausalLM", len(vocabulary), seed, dtype, settings)
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
    settings = {"pad_token_id": tokenizer.get_vocab()[PAD], "num_labels": 1, **changes}
    size = len(tokenizer.get_vocab())
    model = _build(architecture, "ForSequenceClassification", size, seed, dtype, settings)
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
    settings = {"pad_token_id": tokenizer.get_vocab()[PAD], "num_labels": label + 1, **changes}
    size = len(tokenizer.get_vocab())
    model = _build(architecture, "ForTokenClassification", size, seed, dtype, settings)
    return ProcessReward(
        model,
        tokenizer,
        aggregation=aggregation,
        step_separators=step_separators,
        label=label,
        reuse_prefix=reuse_prefix,
    )


TinyLM, TinyReward, TinyProcessReward = tiny_lm, tiny_reward, tiny_process_reward


def _build(
    architecture: str, suffix: str, vocabulary: int, seed: int, dtype: torch.dtype, settings: dict[str, Any]
) -> Any:
    if architecture not in ARCHITECTURES:
        raise ConfigError(
            "Unknown architecture of a tiny model",
            got=architecture,
            fix=f"Known: {', '.join(ARCHITECTURES)}.",
        )
    prefix, defaults = ARCHITECTURES[architecture]
    common = {"vocab_size": vocabulary, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    config = getattr(hf, f"{prefix}Config")(**{**common, **defaults, **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(hf, prefix + suffix)(config)
        for name, weight in model.named_parameters():
            if name.endswith("bias"):  # zero at first: a forgotten bias would go unseen
                with torch.no_grad():
                    weight.normal_(0, 0.3)
    model = model.to(dtype).eval()
    if dtype == torch.float64:
        for module in model.modules():
            if type(module).__name__.endswith("RMSNorm"):
                module.forward = MethodType(_exact_norm, module)
    return model


def _exact_norm(module: Any, states: Tensor) -> Tensor:
    """RMSNorm in its input's dtype; transformers' own works in float32 whatever the weights are, which
    would leave seven digits of a float64 model."""
    scaled = states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + module.variance_epsilon)
    return scaled * module.weight  # type: ignore[no-any-return]


@torch.no_grad()
def tiny_trajectory(
    lm: CausalLM, prompt: Prompt, tokens: Int[Tensor, " length"], *, committed: int = 0, limit: int = 64
) -> Trajectory:
    """A response as a rollout would return it, from transformers' own forward pass of the whole text."""
    question = lm.encode(prompt)
    whole = torch.cat([question, tokens])[None]
    at = slice(len(question) - 1, -1)
    hidden = lm.model.base_model(input_ids=whole).last_hidden_state[0, at]
    log_pi = lm.model(input_ids=whole).logits[0, at, : lm.head.usable].log_softmax(-1)
    p = log_pi.exp()
    return Trajectory(
        prompt=prompt,
        tokens=tokens,
        finished=int(tokens[-1]) in lm.eos_ids,
        log_probs=log_pi.gather(-1, tokens[:, None])[:, 0],
        states=States(hidden, -(p * log_pi).sum(-1), p.amax(-1)),
        noise_keys=torch.zeros_like(tokens),
        sampling=Sampling(temperature=1.0, max_new_tokens=limit),
        committed=committed,
    )
