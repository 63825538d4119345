"""Random-weight models of a setting, with a tokenizer of as many words, ready for nabla."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf
from jaxtyping import Int
from tokenizers import AddedToken, Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from nabla.core.errors import ConfigError, ModelError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.engine.engine import Engine
from nabla.models.body import EMPTY, Chunk
from nabla.models.causal_lm import CausalLM
from nabla.refinement.dto import DTO
from nabla.rewards.outcome import OutcomeReward
from nabla.rewards.transformer import TransformerReward
from nabla.study.benchmark.settings import Setting, Shape

PAD, START, END, UNKNOWN = "<|pad|>", "<|im_start|>", "<|im_end|>", "<|unk|>"
SPECIAL = (PAD, START, END, UNKNOWN)
TEMPLATE = (
    "{%- for m in messages -%}{{- '<|im_start|> ' + m['content'] + ' <|im_end|>' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|> ' -}}{%- endif -%}"
)

#: Standard deviation of the language model's logits: peaked as a trained model's, so that 20 steps of
#: AdamW (which move a logit by 0.11 at most) leave the argmax where it is.
LOGIT_SPREAD = 4.0
#: Lead of the most likely token over the second that no refinement at the default rate can close.
SAFE_LEAD = 0.5
#: Objectives that are measured: the default one, and the one without likelihood.
OBJECTIVES: dict[str, Any] = {
    "likelihood": {"name": "sum", "weights": {"reward": 1.0, "likelihood": 1e-3}},
    "reward": {"name": "sum", "weights": {"reward": 1.0}},
}


def word_tokenizer(vocab: int) -> Any:
    """A transformers tokenizer of exactly ``vocab`` words, four of them special."""
    words = [*SPECIAL, *(f"w{i}" for i in range(vocab - len(SPECIAL)))]
    core = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # Without a decoder words are joined by blanks: a reward reads a response as text, and must get its words
    # back.
    core.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    wrap: Any = PreTrainedTokenizerFast
    return wrap(
        tokenizer_object=core,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def random_model(
    shape: Shape, kind: str, *, positions: int, dtype: torch.dtype, device: str, seed: int = 0
) -> Any:
    """``kind`` is ``ForCausalLM`` or ``ForSequenceClassification``; weights are drawn on the device."""
    prefix = {"qwen2": "Qwen2", "qwen3": "Qwen3"}[shape.family]
    settings: dict[str, Any] = {"head_dim": shape.head_dim} if shape.family == "qwen3" else {}
    if kind == "ForSequenceClassification":
        settings["num_labels"] = 1
    config = getattr(hf, f"{prefix}Config")(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=positions,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
        **settings,
    )
    before = torch.get_default_dtype()
    cuda = [torch.cuda.current_device()] if device == "cuda" else []
    with torch.random.fork_rng(devices=cuda), torch.device(device):
        torch.manual_seed(seed)
        torch.set_default_dtype(dtype)
        try:
            model = getattr(hf, prefix + kind)(config)
        finally:
            torch.set_default_dtype(before)
        with torch.no_grad():
            if kind == "ForCausalLM":  # hidden states leave the last norm with unit mean square
                model.lm_head.weight.normal_(0, LOGIT_SPREAD / shape.hidden**0.5)
    return model.eval()


class Workbench:
    """The models of a setting, and prompts and texts for them.

    Args:
        setting: which.
        models: those of a setting whose models are given; the others are made, with random weights.
    """

    def __init__(
        self, setting: Setting, models: tuple[CausalLM, TransformerReward] | None = None
    ) -> None:
        self.setting = setting
        self.sampling = Sampling(temperature=1.0, max_new_tokens=setting.response)
        self.lm: CausalLM
        self.reward: TransformerReward
        if models is None:
            self._make(setting)
        else:
            self.lm, self.reward = models[0], models[1].bind(models[0].vocabulary)

    def _make(self, setting: Setting) -> None:
        if setting.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError(
                "This setting needs a CUDA GPU, and there is none",
                got=setting.name,
                fix="Run it on a machine with a GPU, or choose --setting A or B with --device cpu.",
            )
        if setting.lm.vocab != setting.rm.vocab:
            raise ConfigError("Both models of a setting share one vocabulary", got=setting.name)
        dtype = getattr(torch, setting.dtype)
        positions = setting.prefix + max(setting.response, setting.new_tokens) + 16
        common: dict[str, Any] = {"positions": positions, "dtype": dtype, "device": setting.device}
        tokenizer = word_tokenizer(setting.lm.vocab)
        self.lm = CausalLM(random_model(setting.lm, "ForCausalLM", seed=1, **common), tokenizer)
        self.reward = OutcomeReward(
            random_model(setting.rm, "ForSequenceClassification", seed=2, **common), tokenizer
        ).bind(self.lm.vocabulary)

    def engine(self, **arguments: Any) -> Engine:
        """An engine over both models."""
        return Engine(self.lm, self.reward, **arguments)

    def dto(self, objective: str = "likelihood", **arguments: Any) -> DTO:
        """The inner loop at the setting's T. With given models it moves by so little that no argmax flips."""
        if self.setting.given:
            arguments = {"learning_rate": 1e-9, **arguments}
        return DTO(objective=OBJECTIVES[objective], **{"steps": self.setting.steps, **arguments})

    def prompt(self, seed: int = 0) -> Prompt:
        """A prompt of ``setting.prefix`` tokens whose first row no refinement can flip. For given models, of
        about as many, which are random."""
        if self.setting.given:
            ids = self.text(1000 + seed, self.setting.prefix)
            return Prompt.of(self.lm.decode(ids), id=f"bench-{seed}")
        for attempt in range(1000):
            draw = torch.Generator().manual_seed(1000 * seed + attempt)
            count = self.setting.prefix - 3  # the template writes three tokens
            words = torch.randint(self.setting.lm.vocab - len(SPECIAL), (count,), generator=draw)
            prompt = Prompt.of(" ".join(f"w{i}" for i in words.tolist()), id=f"bench-{seed}")
            ids = self.lm.encode(prompt)
            with torch.no_grad():
                (output,) = self.lm.body.run([Chunk(EMPTY, self.lm.body.embed(ids))])
            if bool(self.safe(output.hidden[-1:])[0]):
                return prompt
        raise ModelError("No prompt of a thousand has a clear most likely token", got=self.setting.name)

    @torch.no_grad()
    def safe(self, hidden: Tensor) -> Tensor:
        """Which rows no refinement can flip, from the states that predict them ``[n, H]``."""
        if self.setting.given:
            return torch.ones(len(hidden), dtype=torch.bool)
        head = self.lm.head
        tops = torch.cat([head.logits(hidden[part]).topk(2).values for part in head.chunks(len(hidden))])
        return (tops[:, 0] - tops[:, 1] > SAFE_LEAD).cpu()

    def text(self, seed: int, length: int | None = None) -> Int[Tensor, " length"]:
        """A response of random words (no end-of-sequence token)."""
        draw = torch.Generator().manual_seed(seed)
        size = (length or self.setting.response,)
        if self.setting.given:
            special = set(self.lm.tokenizer.all_special_ids)
            known = torch.tensor([i for i in self.lm.candidates.tolist() if i not in special])
            return known[torch.randint(len(known), size, generator=draw)]
        return torch.randint(len(SPECIAL), self.setting.lm.vocab, size, generator=draw)
