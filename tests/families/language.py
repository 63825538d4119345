"""Families of language models, a few lines each: sizes that are tiny, and scalings, caps, windows and experts
that change what is computed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.families.made import SMALL

#: Layers that see the last tokens, and layers that see all: longer than what is probed at load, shorter than
#: the texts.
WINDOWS = {
    "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}  # fmt: skip
PARTIAL = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}
#: Latent attention (DeepSeek).
LATENT = {
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
    "num_key_value_heads": 4,
}  # fmt: skip
#: Experts that matter: two of four, chosen in groups where there are any.
ROUTED = {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 24,
    "routed_scaling_factor": 1.7, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
GRANITE = {
    "logits_scaling": 1.7, "embedding_multiplier": 2.5, "residual_multiplier": 0.6,
    "attention_multiplier": 0.5,
}  # fmt: skip
CAPS = {"final_logit_softcapping": 4.0, "attn_logit_softcapping": 5.0, "query_pre_attn_scalar": 4}
MAMBA2 = {
    "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_n_groups": 2, "mamba_chunk_size": 8,
}  # fmt: skip
DELTA = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}  # fmt: skip
GPT = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256, "initializer_range": 0.3}
PER_LAYER = {
    **WINDOWS, "vocab_size_per_layer_input": 330, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0,
}  # fmt: skip
ENCODER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40}
SEQ2SEQ = {
    "d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 40,
    "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 40, "init_std": 0.3,
    "max_position_embeddings": 256, "scale_embedding": True,
}  # fmt: skip
MIXED = {"layer_types": ["linear_attention", "full_attention", "linear_attention"]}
LONGROPE = {
    "rope_type": "longrope", "short_factor": [1.0, 1.5, 2.0, 2.5], "long_factor": [4.0, 5.0, 6.0, 8.0],
    "original_max_position_embeddings": 100, "rope_theta": 1e4, "factor": 4.0,
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """A family and what is expected of it.

    Args:
        name: of the model's class in transformers; with a remark in brackets if there are several.
        settings: of its configuration, beside :data:`~tests.families.made.SMALL`.
        config: the configuration's class; by default the prefix of the model's with ``Config``.
        tokenizer: its class.
        small: whether the names of :data:`~tests.families.made.SMALL` are this configuration's.
        without: those that are not.
        refused: what the error says (a regular expression); None: exact.
        fast: one of those that always run.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    config: str | None = None
    tokenizer: str = "Qwen2Tokenizer"
    small: bool = True
    without: tuple[str, ...] = ()
    refused: str | None = None
    fast: bool = False

    @property
    def model(self) -> str:
        """The model's class."""
        return self.name.split(" ")[0]

    @property
    def config_class(self) -> str:
        """The configuration's class."""
        return self.config or self.model.split("For")[0] + "Config"

    @property
    def all_settings(self) -> dict[str, Any]:
        """Of its configuration."""
        small = {k: v for k, v in SMALL.items() if k not in self.without} if self.small else {}
        return {**small, **self.settings}


_NO_HEAD_DIM = ("head_dim",)
LANGUAGE = (
    # -- dense decoders -------------------------------------------------------------------------------
    Family("LlamaForCausalLM", {"attention_bias": True, "mlp_bias": True, "rope_parameters": {"rope_type":
        "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32}}, tokenizer="LlamaTokenizer", fast=True),
    Family("LlamaForCausalLM (yarn, tied)", {"tie_word_embeddings": True, "rope_parameters": {"rope_type":
        "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}},
        tokenizer="LlamaTokenizer"),
    Family("LlamaForCausalLM (dynamic)", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4,
        "factor": 4.0}}, tokenizer="LlamaTokenizer"),
    Family("MistralForCausalLM", {"sliding_window": 16}, tokenizer="LlamaTokenizer", fast=True),
    Family("MinistralForCausalLM", WINDOWS),
    Family("Ministral3ForCausalLM", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor":
        4.0, "original_max_position_embeddings": 16, "llama_4_scaling_beta": 0.4}}),
    Family("Qwen2ForCausalLM", {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 16}),
    Family("Qwen3ForCausalLM", {"use_sliding_window": True, **WINDOWS}, fast=True),
    Family("GemmaForCausalLM", tokenizer="GemmaTokenizer"),
    Family("Gemma2ForCausalLM", {**WINDOWS, **CAPS, "attn_implementation": "eager"},
        tokenizer="GemmaTokenizer", fast=True),
    Family("Gemma3ForCausalLM", {**WINDOWS, "final_logit_softcapping": 4.0, "query_pre_attn_scalar": 4},
        config="Gemma3TextConfig", tokenizer="GemmaTokenizer"),
    Family("Gemma4ForCausalLM (without per-layer embeddings)", {**WINDOWS, "hidden_size_per_layer_input": 0,
        "global_head_dim": 8, "final_logit_softcapping": 4.0}, config="Gemma4TextConfig",
        tokenizer="GemmaTokenizer"),
    Family("VaultGemmaForCausalLM", {**WINDOWS, **CAPS, "attn_implementation": "eager"},
        tokenizer="GemmaTokenizer"),
    Family("PhiForCausalLM", {**PARTIAL, "qk_layernorm": True}, tokenizer="CodeGenTokenizer"),
    Family("Phi3ForCausalLM", {**PARTIAL, "sliding_window": 16}, without=_NO_HEAD_DIM,
        tokenizer="LlamaTokenizer"),
    Family("Phi3ForCausalLM (longrope)", {"rope_parameters": LONGROPE, "original_max_position_embeddings":
        100}, without=_NO_HEAD_DIM, tokenizer="LlamaTokenizer"),
    Family("GPT2LMHeadModel", {**GPT, "scale_attn_by_inverse_layer_idx": True}, config="GPT2Config",
        small=False, tokenizer="GPT2Tokenizer", fast=True),
    Family("GPTBigCodeForCausalLM", {**GPT, "multi_query": True}, small=False, tokenizer="GPT2Tokenizer"),
    Family("GPTNeoForCausalLM", {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"],
        1]], "window_size": 16}, without=("head_dim", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads"), tokenizer="GPT2Tokenizer"),
    Family("GPTNeoXForCausalLM", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4,
        "partial_rotary_factor": 0.5}}, without=("head_dim", "num_key_value_heads"),
        tokenizer="GPTNeoXTokenizer"),
    Family("GPTNeoXJapaneseForCausalLM", without=("head_dim", "num_key_value_heads")),
    Family("GPTJForCausalLM", {**GPT, "rotary_dim": 4}, small=False, tokenizer="GPT2Tokenizer"),
    Family("CodeGenForCausalLM", {**GPT, "rotary_dim": 4}, small=False, tokenizer="CodeGenTokenizer"),
    Family("OpenAIGPTLMHeadModel", {**GPT}, config="OpenAIGPTConfig", small=False),
    Family("CTRLLMHeadModel", {**GPT, "dff": 40}, config="CTRLConfig", small=False),
    Family("OPTForCausalLM", {"ffn_dim": 40, "word_embed_proj_dim": 16}, without=_NO_HEAD_DIM,
        tokenizer="GPT2Tokenizer"),
    Family("BloomForCausalLM", {"n_layer": 3, "n_head": 4, "hidden_size": 32, "initializer_range": 0.3},
        small=False, fast=True),
    Family("FalconForCausalLM (rotary, multi-query)", {"multi_query": True}, without=_NO_HEAD_DIM),
    Family("FalconForCausalLM (new decoder)", {"new_decoder_architecture": True, "num_kv_heads": 2},
        without=_NO_HEAD_DIM),
    Family("FalconForCausalLM (alibi)", {"alibi": True, "multi_query": False, "parallel_attn": False},
        without=_NO_HEAD_DIM),
    Family("MptForCausalLM", {"d_model": 32, "n_heads": 4, "n_layers": 3, "expansion_ratio": 2,
        "max_seq_len": 128, "initializer_range": 0.3}, small=False, tokenizer="GPTNeoXTokenizer"),
    Family("StableLmForCausalLM", {**PARTIAL, "use_qkv_bias": True, "qk_layernorm": True},
        without=_NO_HEAD_DIM, tokenizer="GPTNeoXTokenizer"),
    Family("StableLmForCausalLM (parallel)", {**PARTIAL, "use_parallel_residual": True},
        without=_NO_HEAD_DIM),
    Family("OlmoForCausalLM", {"clip_qkv": 0.5}, without=_NO_HEAD_DIM, tokenizer="GPTNeoXTokenizer"),
    Family("Olmo2ForCausalLM", without=_NO_HEAD_DIM),
    Family("Olmo3ForCausalLM", WINDOWS, without=_NO_HEAD_DIM),
    Family("GraniteForCausalLM", GRANITE, without=_NO_HEAD_DIM, tokenizer="GPT2Tokenizer"),
    Family("CohereForCausalLM", {"logit_scale": 0.3, "use_qk_norm": True}, without=_NO_HEAD_DIM,
        tokenizer="CohereTokenizer"),
    Family("Cohere2ForCausalLM", {**WINDOWS, "logit_scale": 0.3}, tokenizer="CohereTokenizer"),
    Family("GlmForCausalLM", PARTIAL),
    Family("Glm4ForCausalLM", PARTIAL),
    Family("Exaone4ForCausalLM", {**WINDOWS, "sliding_window_pattern": 2}),
    Family("SmolLM3ForCausalLM", {"no_rope_layers": [1, 0, 1], "use_sliding_window": True, **WINDOWS}),
    Family("Starcoder2ForCausalLM", {"sliding_window": 16, "use_bias": True}, without=_NO_HEAD_DIM,
        tokenizer="GPT2Tokenizer"),
    Family("PersimmonForCausalLM", {**PARTIAL, "qk_layernorm": True}, without=_NO_HEAD_DIM,
        tokenizer="LlamaTokenizer"),
    Family("NemotronForCausalLM", {**PARTIAL, "mlp_bias": True}),
    Family("XGLMForCausalLM", {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 40,
        "init_std": 0.3, "scale_embedding": True, "max_position_embeddings": 256}, small=False,
        tokenizer="XGLMTokenizer"),
    Family("BioGptForCausalLM", {"scale_embedding": True}, without=("head_dim", "num_key_value_heads")),
    Family("ArceeForCausalLM"),
    Family("ApertusForCausalLM"),
    Family("BitNetForCausalLM", without=_NO_HEAD_DIM),
    Family("CwmForCausalLM", WINDOWS),
    Family("DiffLlamaForCausalLM", without=_NO_HEAD_DIM),
    Family("Ernie4_5ForCausalLM"),
    Family("HeliumForCausalLM"),
    Family("HunYuanDenseV1ForCausalLM"),
    Family("NanoChatForCausalLM", {"final_logit_softcapping": 4.0}, without=_NO_HEAD_DIM),
    Family("SeedOssForCausalLM"),
    Family("ModernBertDecoderForCausalLM", {"local_attention": 16, "global_attn_every_n_layers": 2},
        refused="do not give its logits"),
    Family("MiniCPM3ForCausalLM", {**LATENT, "scale_emb": 3, "scale_depth": 1.1, "dim_model_base": 8}),
    Family("YoutuForCausalLM", LATENT),
    Family("Jais2ForCausalLM"),
    Family("GraniteSWAForCausalLM", {**GRANITE, **WINDOWS}, without=_NO_HEAD_DIM),
    Family("HyperCLOVAXForCausalLM", GRANITE, without=_NO_HEAD_DIM),
    Family("HrmTextForCausalLM"),
    # -- mixtures of experts ----------------------------------------------------------------------------
    Family("MixtralForCausalLM", {**LOCAL, "sliding_window": 16}, tokenizer="LlamaTokenizer", fast=True),
    Family("Qwen2MoeForCausalLM", {**EXPERTS, "shared_expert_intermediate_size": 24, "norm_topk_prob":
        True}, without=_NO_HEAD_DIM),
    Family("Qwen3MoeForCausalLM", {**EXPERTS, "norm_topk_prob": True}),
    Family("OlmoeForCausalLM", {**EXPERTS, "clip_qkv": 0.5}, without=_NO_HEAD_DIM),
    Family("FlexOlmoForCausalLM", EXPERTS, without=_NO_HEAD_DIM),
    Family("PhimoeForCausalLM", {**LOCAL, "sliding_window": 16, "lm_head_bias": True, "attention_bias":
        True}, without=_NO_HEAD_DIM),
    Family("GraniteMoeForCausalLM", {**GRANITE, **LOCAL}, without=_NO_HEAD_DIM),
    Family("GraniteMoeSharedForCausalLM", {**GRANITE, **LOCAL, "shared_intermediate_size": 24},
        without=_NO_HEAD_DIM),
    Family("JetMoeForCausalLM", {**LOCAL, "kv_channels": 8}, without=("head_dim", "num_attention_heads")),
    Family("DbrxForCausalLM", {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 256,
        "initializer_range": 0.3, "attn_config": {"kv_n_heads": 2, "clip_qkv": 0.5, "rope_theta": 1e4},
        "ffn_config": {"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32}},
        small=False),
    Family("DeepseekV2ForCausalLM", {**LATENT, **ROUTED, "topk_method": "group_limited_greedy"},
        without=_NO_HEAD_DIM),
    Family("DeepseekV3ForCausalLM", {**LATENT, **ROUTED}, without=_NO_HEAD_DIM, fast=True),
    Family("DeepseekV32ForCausalLM", {**LATENT, **ROUTED, "index_topk": 100, "index_head_dim": 16,
        "index_n_heads": 16}, without=_NO_HEAD_DIM),
    Family("GlmMoeDsaForCausalLM", {**LATENT, **ROUTED, "index_topk": 100, "index_head_dim": 16,
        "index_n_heads": 16}, without=_NO_HEAD_DIM),
    Family("Glm4MoeForCausalLM", {**PARTIAL, **ROUTED, "use_qk_norm": True}),
    Family("Glm4MoeLiteForCausalLM", {**LATENT, **ROUTED}, without=_NO_HEAD_DIM),
    Family("GptOssForCausalLM", {**LOCAL, **WINDOWS, "attn_implementation": "eager"}, fast=True),
    Family("Ernie4_5_MoeForCausalLM", {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 24,
        "moe_num_shared_experts": 1}),
    Family("HunYuanMoEV1ForCausalLM", {"num_experts": 4, "moe_topk": 2}),
    Family("MiniMaxM2ForCausalLM", LOCAL),
    Family("Dots1ForCausalLM", {**ROUTED, **WINDOWS}),
    Family("ExaoneMoeForCausalLM", {**ROUTED, **WINDOWS, "num_experts": 4}),
    Family("AfmoeForCausalLM", {**EXPERTS, **WINDOWS, "num_shared_experts": 1, "num_dense_layers": 1,
        "mup_enabled": True}),
    Family("AriaTextForCausalLM", {"moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 1}),
    Family("Cohere2MoeForCausalLM", {**EXPERTS, **WINDOWS, "logit_scale": 0.3}),
    Family("LongcatFlashForCausalLM", {**LATENT, "num_layers": 2, "ffn_hidden_size": 40, "n_routed_experts":
        4, "moe_topk": 2, "zero_expert_num": 2, "expert_ffn_hidden_size": 24, "routed_scaling_factor": 1.7,
        "head_dim": 8}, without=("num_hidden_layers", "intermediate_size")),
    Family("SolarOpenForCausalLM", ROUTED),
    Family("GraniteMoeSWAForCausalLM", {**GRANITE, **WINDOWS, **LOCAL}, without=_NO_HEAD_DIM),
    Family("MellumForCausalLM", {**EXPERTS, **WINDOWS}),
    Family("MiMoV2FlashForCausalLM", {**ROUTED, **WINDOWS}),
    Family("HYV3ForCausalLM", EXPERTS),
    Family("LagunaForCausalLM", {**EXPERTS, **WINDOWS}),
    Family("AXK1ForCausalLM", {**LATENT, **ROUTED}, without=_NO_HEAD_DIM),
    Family("BeamForCausalLM", {**EXPERTS, **WINDOWS, "n_group": 1, "topk_group": 1,
        "final_logit_softcapping": 4.0}),
    Family("Llama4ForCausalLM", {"intermediate_size_mlp": 40, **LOCAL, "attention_chunk_size": 16,
        "floor_scale": 16, "attn_scale": 0.3, "no_rope_layers": [1, 0, 1]}, config="Llama4TextConfig",
        fast=True),
    # -- recurrences and convolutions -------------------------------------------------------------------
    Family("MambaForCausalLM", {"state_size": 4}, without=("head_dim", "num_attention_heads",
        "num_key_value_heads"), tokenizer="GPTNeoXTokenizer"),
    Family("Mamba2ForCausalLM", {"num_heads": 8, "head_dim": 8, "state_size": 4, "n_groups": 2,
        "chunk_size": 8}, without=("head_dim", "num_attention_heads", "num_key_value_heads"),
        tokenizer="GPTNeoXTokenizer"),
    Family("FalconMambaForCausalLM", {"state_size": 4}, without=("head_dim", "num_attention_heads",
        "num_key_value_heads")),
    Family("RwkvForCausalLM", {"attention_hidden_size": 32, "context_length": 128}, without=("head_dim",
        "num_attention_heads", "num_key_value_heads", "max_position_embeddings"),
        tokenizer="GPTNeoXTokenizer", fast=True),
    Family("RecurrentGemmaForCausalLM", {"lru_width": 32, "attention_window_size": 16, "logits_soft_cap":
        4.0}, tokenizer="GemmaTokenizer"),
    Family("xLSTMForCausalLM", {"num_heads": 4, "output_logit_soft_cap": 4.0, "chunk_size": 8,
        "autocast_kernel_dtype": "float32", "hidden_size": 128, "num_hidden_layers": 2, "mode":
        "inference"}, small=False),
    Family("JambaForCausalLM", {**EXPERTS, "attn_layer_period": 2, "attn_layer_offset": 1,
        "expert_layer_period": 2, "expert_layer_offset": 1, "mamba_d_state": 4, "mamba_dt_rank": 4,
        "use_mamba_kernels": False}, without=_NO_HEAD_DIM, tokenizer="LlamaTokenizer"),
    Family("BambaForCausalLM", {**MAMBA2, "attn_layer_indices": [1]}, without=_NO_HEAD_DIM),
    Family("ZambaForCausalLM", {"layers_block_type": ["hybrid", "mamba", "hybrid"], "mamba_d_state": 4,
        "mamba_dt_rank": 4, "use_mamba_kernels": False, "attention_head_dim": 16}, without=_NO_HEAD_DIM),
    Family("Zamba2ForCausalLM", {"layers_block_type": ["mamba", "hybrid", "mamba"], "mamba_d_state": 4,
        "n_mamba_heads": 4, "mamba_ngroups": 1, "chunk_size": 8, "use_mamba_kernels": False},
        without=_NO_HEAD_DIM),
    Family("FalconH1ForCausalLM", {**MAMBA2, "mamba_d_ssm": 64, "lm_head_multiplier": 0.3,
        "embedding_multiplier": 2.0, "key_multiplier": 0.5, "attention_out_multiplier": 0.7,
        "ssm_out_multiplier": 1.3}, fast=True),
    Family("GraniteMoeHybridForCausalLM", {**GRANITE, **LOCAL, **MAMBA2, "shared_intermediate_size": 24,
        "layer_types": ["mamba", "attention", "mamba"]}, without=_NO_HEAD_DIM),
    Family("NemotronHForCausalLM", {"layers_block_type": ["mamba", "attention", "moe"], "mamba_num_heads":
        8, "mamba_head_dim": 8, "ssm_state_size": 4, "n_groups": 2, "chunk_size": 8, "n_routed_experts": 4,
        "num_experts_per_tok": 2, "moe_intermediate_size": 24, "moe_shared_expert_intermediate_size": 24,
        "use_mamba_kernels": False}, without=("num_hidden_layers",)),
    Family("Lfm2ForCausalLM", {"layer_types": ["conv", "full_attention", "conv"], "block_multiple_of": 8}),
    Family("Lfm2MoeForCausalLM", {**EXPERTS, "layer_types": ["conv", "full_attention", "conv"],
        "num_dense_layers": 1}),
    Family("Qwen3NextForCausalLM", {**EXPERTS, **DELTA, "shared_expert_intermediate_size": 24, **MIXED},
        fast=True),
    Family("Qwen3_5ForCausalLM", {**DELTA, "layer_types": ["linear_attention", "full_attention",
        "linear_attention"]}, config="Qwen3_5TextConfig"),
    Family("Qwen3_5MoeForCausalLM", {**DELTA, **EXPERTS, "shared_expert_intermediate_size": 24, **MIXED},
        config="Qwen3_5MoeTextConfig"),
    Family("BailingHybridForCausalLM", {**LATENT, **LOCAL, **ROUTED, **MIXED}),
    Family("OlmoHybridForCausalLM", {**DELTA, "layer_types": ["linear_attention", "full_attention",
        "linear_attention"]}, without=_NO_HEAD_DIM),
    Family("MiniMaxForCausalLM", {**LOCAL, "block_size": 8, "full_attn_alpha_factor": 1.2,
        "mlp_beta_factor": 0.7, **MIXED}),
    Family("KimiLinearForCausalLM", {**LATENT, **LOCAL, "q_lora_rank": None, "moe_intermediate_size": 24,
        "linear_head_dim": 8, "linear_num_heads": 4, "layer_types": ["linear_attention", "full_attention",
        "linear_attention"]}, without=_NO_HEAD_DIM),
    Family("DogeForCausalLM", {"keep_window_size": 100}),
    # -- parts of models with other senses --------------------------------------------------------------
    Family("MllamaForCausalLM", {"cross_attention_layers": []}, config="MllamaTextConfig",
        without=_NO_HEAD_DIM),
    Family("BartForCausalLM", SEQ2SEQ, small=False, fast=True),
    Family("MBartForCausalLM", SEQ2SEQ, small=False),
    Family("PegasusForCausalLM", SEQ2SEQ, small=False),
    Family("MarianForCausalLM", SEQ2SEQ, small=False),
    Family("BlenderbotForCausalLM", SEQ2SEQ, small=False),
    Family("BlenderbotSmallForCausalLM", SEQ2SEQ, small=False),
    Family("BigBirdPegasusForCausalLM", SEQ2SEQ, small=False),
    Family("PLBartForCausalLM", SEQ2SEQ, small=False),
    Family("MvpForCausalLM", SEQ2SEQ, small=False),
    Family("TrOCRForCausalLM", SEQ2SEQ, small=False),
    Family("BertGenerationDecoder", {**ENCODER, "is_decoder": True}, config="BertGenerationConfig",
        small=False, tokenizer="BertTokenizer"),
    Family("Emu3ForCausalLM", config="Emu3TextConfig", without=_NO_HEAD_DIM),
    Family("MoshiForCausalLM", {"ffn_dim": 48, "sliding_window": 16, "audio_vocab_size": 20},
        without=("intermediate_size",)),
    # -- refused ----------------------------------------------------------------------------------------
    Family("DogeForCausalLM (beyond its window)", {"keep_window_size": 8}, refused="context holds 8",
        fast=True),
    Family("DeepseekV32ForCausalLM (beyond its top-k)", {**LATENT, **ROUTED, "index_topk": 8,
        "index_head_dim": 16, "index_n_heads": 16}, without=_NO_HEAD_DIM, refused="context holds 8",
        fast=True),
    Family("Phi3ForCausalLM (longrope, beyond its short table)", {"rope_parameters": {**LONGROPE,
        "original_max_position_embeddings": 12}, "original_max_position_embeddings": 12},
        without=_NO_HEAD_DIM, refused="context holds 12"),
    Family("Gemma3nForCausalLM", {**PER_LAYER, "activation_sparsity_pattern": [0.0] * 3},
        config="Gemma3nTextConfig", refused="embedding of every layer", fast=True),
    Family("Gemma4ForCausalLM", {**PER_LAYER, "global_head_dim": 8}, config="Gemma4TextConfig",
        refused="embedding of every layer"),
    Family("XLMWithLMHeadModel", {"emb_dim": 32, "n_layers": 2, "n_heads": 4}, config="XLMConfig",
        small=False, refused="not causal"),
    Family("BertLMHeadModel (is_decoder)", {**ENCODER, "is_decoder": True}, config="BertConfig",
        small=False, tokenizer="BertTokenizer", refused="do not give its logits"),
    Family("CpmAntForCausalLM", {"hidden_size": 32, "num_attention_heads": 4, "dim_head": 8, "dim_ff": 40,
        "num_hidden_layers": 2}, small=False, refused="on embeddings in the place of token ids"),
    Family("XLNetLMHeadModel", {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 40},
        config="XLNetConfig", small=False, tokenizer="XLNetTokenizer", refused="not causal"),
    Family("BertLMHeadModel", ENCODER, config="BertConfig", small=False, tokenizer="BertTokenizer",
        refused="not causal"),
    Family("RobertaForCausalLM", ENCODER, small=False, tokenizer="RobertaTokenizer", refused="not causal"),
    Family("ElectraForCausalLM", {**ENCODER, "embedding_size": 16}, small=False, tokenizer="BertTokenizer",
        refused="not causal"),
    Family("ReformerModelWithLMHead", {"hidden_size": 32, "attn_layers": ["local", "local"],
        "num_attention_heads": 2, "attention_head_size": 16, "feed_forward_size": 40, "axial_pos_embds":
        False, "is_decoder": True, "local_attn_chunk_length": 4, "max_position_embeddings": 64},
        config="ReformerConfig", small=False, refused="on embeddings in the place of token ids"),
    Family("ProphetNetForCausalLM", {"hidden_size": 32, "num_decoder_layers": 2,
        "num_decoder_attention_heads": 4, "decoder_ffn_dim": 40, "num_encoder_layers": 2,
        "num_encoder_attention_heads": 4, "encoder_ffn_dim": 40, "max_position_embeddings": 128},
        small=False, refused="do not give its logits"),
    Family("DeepseekV4ForCausalLM", {**ROUTED, "sliding_window": 16, "index_topk": 4, "index_head_dim": 16,
        "index_n_heads": 2, "o_groups": 2, "o_lora_rank": 16, "q_lora_rank": 16, "num_key_value_heads": 1},
        refused="on embeddings in the place of token ids"),
)  # fmt: skip
