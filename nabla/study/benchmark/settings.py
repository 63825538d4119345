"""What is measured: shapes of random-weight models, lengths, steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nabla.core.errors import ConfigError


@dataclass(frozen=True)
class Shape:
    """A transformer's sizes. ``hidden`` and the like are numbers of features, ``vocab`` of rows of E."""

    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    family: Literal["qwen2", "qwen3"] = "qwen3"


@dataclass(frozen=True)
class Setting:
    """One benchmark.

    Args:
        name: as on the command line.
        lm, rm: shapes of the language and the reward model (untied, random weights).
        prefix: tokens of the prompt, chat template included.
        response: tokens of the response.
        steps: T.
        dtype: of both models; optimised logits are float32 at least.
        device: the models' device.
        judged: whether the targets are meant for it; otherwise figures come without a verdict.
        given: its models are given, not made: their shapes only inform.
        problems: of each sandbox family in whole solves.
        rows, new_tokens: rollouts decoded together and tokens of each, beside transformers' generate.
        growth: of the sweeps, axis → values.
    """

    name: str
    lm: Shape
    rm: Shape
    prefix: int
    response: int
    steps: int = 20
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    device: Literal["cpu", "cuda"] = "cpu"
    judged: bool = True
    given: bool = False
    problems: int = 64
    rows: int = 8
    new_tokens: int = 64
    growth: tuple[tuple[str, tuple[int, ...]], ...] = (
        ("length", (64, 128, 256, 512, 1024, 2048)),
        ("vocabulary", (4096, 8192, 16384, 32768, 65536, 131072)),
        ("steps", (5, 10, 20, 40, 80)),
        ("batch", (1, 2, 4, 8, 16, 32)),
    )


def _square(vocab: int, hidden: int, layers: int, *, heads: int, head_dim: int = 64) -> Shape:
    """Qwen3's proportions: half as many key/value heads, a gated MLP three times as wide."""
    return Shape(vocab, hidden, layers, heads, max(1, heads // 2), head_dim, 3 * hidden)


_A = _square(151_936, 256, 6, heads=4)
_B = _square(32_768, 512, 8, heads=8)
_SMALL = _square(512, 32, 2, heads=2, head_dim=16)
#: Qwen2.5-7B and the 4B reward models over Qwen3, both cut to one vocabulary.
_QWEN_7B = Shape(151_936, 3584, 28, 28, 4, 128, 18_944, "qwen2")
_QWEN_4B = Shape(151_936, 2560, 36, 32, 8, 128, 9_728)

SETTINGS: dict[str, Setting] = {
    s.name: s
    for s in (
        Setting("A", _A, _A, prefix=256, response=512),
        Setting("B", _B, _B, prefix=1024, response=256),
        Setting(
            "small",
            _SMALL,
            _SMALL,
            prefix=16,
            response=24,
            steps=5,
            judged=False,
            problems=2,
            rows=2,
            new_tokens=8,
            growth=(
                ("length", (8, 16, 32)),
                ("vocabulary", (256, 512)),
                ("steps", (2, 4)),
                ("batch", (1, 2)),
            ),
        ),
        Setting(
            "gpu",
            _QWEN_7B,
            _QWEN_4B,
            prefix=256,
            response=3840,
            dtype="bfloat16",
            device="cuda",
            growth=(
                ("length", (256, 512, 1024, 2048, 3840)),
                ("vocabulary", (16384, 32768, 65536, 131072)),
                ("steps", (5, 10, 20, 40, 80)),
                ("batch", (1, 2, 4, 8)),
            ),
        ),
    )
}


def setting(name: str) -> Setting:
    """By name. Raises ConfigError."""
    if name not in SETTINGS:
        raise ConfigError("Unknown benchmark setting", got=name, fix=f"Use {', '.join(SETTINGS)}.")
    return SETTINGS[name]
