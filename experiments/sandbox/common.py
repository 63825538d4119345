"""Shared pieces of the sandbox trainings: encoding, model configurations, sampling, saving."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerFast, Qwen3Config

from nabla.problems.sandbox import TASKS, Family, LatinSquare, build_tokenizer

WIDTH = 128
HEADS = 4
POLICY_LAYERS = 4
REWARD_EXTRA_LAYERS = 3

#: The longest right response of each family in tokens, end of turn included.
RESPONSE_TOKENS = {"latin": 42, "arithmetic": 52}


class Codec:
    """Fast character-level encoding into the chat template, equal to the tokenizer's own."""

    def __init__(self) -> None:
        self.tokenizer: PreTrainedTokenizerFast = build_tokenizer()
        self.vocab: dict[str, int] = self.tokenizer.get_vocab()
        self.pad: int = self.vocab["<|endoftext|>"]
        self.end: int = self.vocab["<|im_end|>"]
        start, line = self.vocab["<|im_start|>"], self.vocab["\n"]
        self.head = [start, self.vocab["user"], line]
        self.middle = [self.end, line, start, self.vocab["assistant"], line]
        self.tail = [self.end, line]
        self.characters = {i: c for c, i in self.vocab.items()}

    def prompt(self, prompt: str) -> list[int]:
        return [*self.head, *(self.vocab[c] for c in prompt), *self.middle]

    def response(self, response: str) -> list[int]:
        return [*(self.vocab[c] for c in response), *self.tail]

    def text(self, ids: Sequence[int]) -> str:
        """The response before the end of turn; an unfinished one gets a marker that is wrong."""
        ids = list(ids)
        done = self.end in ids
        cut = ids[: ids.index(self.end)] if done else ids
        return "".join(self.characters[i] for i in cut) + ("" if done else "~")

    def pad_rows(self, rows: Sequence[Sequence[float]], value: float | None = None) -> Tensor:
        """Right-padded rows as one tensor, [batch, length]."""
        filler = self.pad if value is None else value
        length = max(map(len, rows))
        return torch.tensor([[*row, *[filler] * (length - len(row))] for row in rows])


def policy_config(codec: Codec, layers: int = POLICY_LAYERS, **extra: Any) -> Qwen3Config:
    """The architecture of every sandbox model; reward models only have more layers."""
    return Qwen3Config(
        vocab_size=len(codec.tokenizer),
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=WIDTH // HEADS,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        pad_token_id=codec.pad,
        eos_token_id=codec.end,
        bos_token_id=None,
        initializer_range=0.05,
        **extra,
    )


def reward_config(codec: Codec, layers: int = POLICY_LAYERS + REWARD_EXTRA_LAYERS) -> Qwen3Config:
    return policy_config(codec, layers, num_labels=1, classifier_dropout=0.0)


def save(model: torch.nn.Module, folder: Path, codec: Codec) -> None:
    """Save the weights in float16, to be loaded in float32 unless told otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    copy.deepcopy(model).half().save_pretrained(folder)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"dtype": "float16"', '"dtype": "float32"'))
    codec.tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)


@torch.no_grad()
def sample(
    model: Any,
    codec: Codec,
    prompts: Sequence[str],
    *,
    temperature: float,
    tokens: int,
    seed: int,
    batch: int = 512,
) -> list[str]:
    """One response per prompt; temperature 0 is greedy. Prompts must be of equal length."""
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    out: list[str] = []
    for start in range(0, len(prompts), batch):
        ids = torch.tensor([codec.prompt(p) for p in prompts[start : start + batch]])
        cache = DynamicCache(config=model.config)
        rows: list[Tensor] = []
        done = torch.zeros(len(ids), dtype=torch.bool)
        step = ids
        for _ in range(tokens):
            logits = model(step, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            last = logits[:, -1].float()
            if temperature == 0:
                chosen = last.argmax(-1)
            else:
                law = torch.softmax(last / temperature, -1)
                chosen = torch.multinomial(law, 1, generator=generator)[:, 0]
            rows.append(chosen)
            done |= chosen == codec.end
            if bool(done.all()):
                break
            step = chosen[:, None]
        out += [codec.text(row) for row in torch.stack(rows, 1).tolist()]
    return out


def accuracy(task: Family, prompts: Sequence[str], responses: Sequence[str]) -> float:
    right = [task.check(p, r) for p, r in zip(prompts, responses, strict=True)]
    return sum(right) / max(len(right), 1)


def training_task(name: str) -> Family:
    """The task at the difficulty that is trained on, wider than the default for Latin squares."""
    return LatinSquare(10, 20) if name == "latin" else TASKS[name]


def seeded(*parts: object) -> random.Random:
    return random.Random(":".join(map(str, parts)))
