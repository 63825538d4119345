"""Families of reward models: classifiers of sequences and of tokens over the decoders of
:mod:`tests.families.language`, and encoders."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.families.language import ENCODER, LANGUAGE, Family

#: Decoders of which transformers has a classifier of sequences, of tokens.
_SEQUENCE = {
    "Llama", "Mistral", "Ministral", "Ministral3", "Qwen2", "Qwen3", "Gemma", "Gemma2", "Phi", "Phi3",
    "GPT2", "GPTBigCode", "GPTNeo", "GPTNeoX", "GPTJ", "CTRL", "OPT", "Bloom", "Falcon", "Mpt",
    "StableLm", "Olmo", "Olmo2", "Olmo3", "Glm", "Glm4", "Exaone4", "SmolLM3", "Starcoder2", "Persimmon",
    "Nemotron", "BioGpt", "Arcee", "DiffLlama", "Doge", "Helium", "HunYuanDenseV1", "SeedOss", "MiniCPM3",
    "Mixtral", "Qwen2Moe", "Qwen3Moe", "Phimoe", "JetMoe", "DeepseekV2", "DeepseekV3", "GptOss",
    "HunYuanMoEV1", "MiniMax", "Jamba", "Zamba", "Zamba2", "Qwen3Next", "OpenAIGPT", "ModernBertDecoder",
}  # fmt: skip
_TOKEN = {
    "Llama", "Mistral", "Ministral", "Ministral3", "Qwen2", "Qwen3", "Gemma", "Gemma2", "Phi", "Phi3",
    "GPT2", "GPTBigCode", "GPTNeo", "GPTNeoX", "Bloom", "Falcon", "Mpt", "StableLm", "Glm", "Glm4",
    "Exaone4", "SmolLM3", "Starcoder2", "Persimmon", "Nemotron", "BioGpt", "Apertus", "Arcee",
    "DiffLlama", "Helium", "SeedOss", "Mixtral", "Qwen2Moe", "Qwen3Moe", "DeepseekV3", "GptOss",
    "MiniMax", "Qwen3Next",
}  # fmt: skip
_FAST = {"Llama", "Qwen3", "GPT2", "Gemma2", "Mixtral", "Bert"}
#: Those that are refused, and why.
_REFUSED = {
    "ModernBertDecoderForSequenceClassification": "do not give its scores",
    "T5ForSequenceClassification": "no 'score' or 'classifier' head",
    "XLNetForSequenceClassification": "no 'score' or 'classifier' head",
}

_ENCODERS: dict[str, dict[str, Any]] = {
    "Bert": {}, "Roberta": {}, "XLMRoberta": {}, "Electra": {"embedding_size": 16},
    "Albert": {"embedding_size": 16},
    "Deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "DebertaV2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "DistilBert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 40},
    "ModernBert": {"local_attention": 16},
    "EuroBert": {}, "Ernie": {}, "MPNet": {}, "RoFormer": {"embedding_size": 32}, "RemBert": {
        "input_embedding_size": 16, "output_embedding_size": 16}, "ConvBert": {"embedding_size": 32},
    "BigBird": {"attention_type": "original_full"}, "Longformer": {"attention_window": 8},
    "XLNet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 40},
    "T5": {"d_model": 32, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_heads": 4},
}  # fmt: skip


def _decoders(names: set[str], kind: str) -> tuple[Family, ...]:
    """The language models' families as classifiers."""
    found = []
    for family in LANGUAGE:
        prefix = family.model.split("For")[0].removesuffix("LMHeadModel")
        if prefix in names and family.refused in (None, _HEAD):
            name = family.name.replace(family.model, f"{prefix}For{kind}Classification")
            plain = prefix in _FAST and " " not in name
            config = family.config or f"{prefix}Config"
            found.append(replace(family, name=name, config=config, refused=_REFUSED.get(name), fast=plain))
    return tuple(found)


_HEAD = "do not give its logits"  # of ModernBERT's decoder: its classifier is another head


def _encoders(kind: str) -> tuple[Family, ...]:
    return tuple(
        Family(
            f"{prefix}For{kind}Classification",
            {**ENCODER, "initializer_range": 0.3, **settings},
            config=f"{prefix}Config",
            small=False,
            refused=_REFUSED.get(f"{prefix}For{kind}Classification", "not causal"),
            fast=prefix in _FAST,
        )
        for prefix, settings in _ENCODERS.items()
    )


_GEMMA3 = next(f for f in LANGUAGE if f.name == "Gemma3ForCausalLM")
OUTCOME = (
    *_decoders(_SEQUENCE, "Sequence"),
    replace(_GEMMA3, name="Gemma3TextForSequenceClassification"),
    replace(
        _GEMMA3,
        name="Gemma3TextForSequenceClassification (bidirectional)",
        settings={**_GEMMA3.settings, "use_bidirectional_attention": True},
        refused="not causal",
    ),
    *_encoders("Sequence"),
)
PROCESS = (*_decoders(_TOKEN, "Token"), *_encoders("Token"))
