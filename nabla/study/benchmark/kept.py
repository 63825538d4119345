"""What the prefix store takes for many live problems, of models that need not exist: shapes on ``meta``.

Each problem's response is rewritten token by token, as ∇-Reasoner does: at one position after another a
proposal keeps what is before it, and every text is put for the language model and the reward. ``python -m
nabla.study.benchmark.kept`` prints what that takes for the shapes of Qwen2.5-7B and a 4B reward.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from nabla.models.body import Body, KeyValues
from nabla.models.ledger import ACCELERATOR_SHARE, CEILING, ByteBudget
from nabla.models.prefixes import PrefixStore
from nabla.study.benchmark.models import random_model
from nabla.study.benchmark.settings import SETTINGS, Shape

#: Keys and values of so many tokens of a text.
KeysOf = Callable[[int], KeyValues]


@dataclass(frozen=True)
class Kept:
    """What a store took.

    Args:
        peak: bytes, at most.
        each: of which for a live problem.
        found, lost: tokens of lookups that were there, and that had given way.
    """

    peak: int
    each: float
    found: int
    lost: int


def rewriting(
    models: Sequence[tuple[Body, KeysOf]],
    *,
    problems: int,
    prompt: int,
    response: int,
    positions: int,
    limit: int | None,
    accepted: float = 0.5,
    seed: int = 0,
) -> Kept:
    """Puts and lookups of ``problems`` texts that are rewritten at ``positions`` places, in turn.

    Args:
        models: bodies with their keys and values.
        prompt, response: tokens.
        limit: bytes of the store.
        accepted: share of proposals that become the text.
    """
    draw = torch.Generator().manual_seed(seed)
    store = PrefixStore(budget=ByteBudget(limit))
    length, found, lost = prompt + response, 0, 0

    def fresh(count: int) -> torch.Tensor:
        return torch.randint(1 << 30, (count,), generator=draw)

    texts = [fresh(length) for _ in range(problems)]
    for number in range(positions + 1):
        place = prompt + number * response // (positions + 1)
        for problem, text in enumerate(texts):
            new = text if number == 0 else torch.cat([text[:place], fresh(length - place)])
            for body, keys_of in models:
                if number:
                    prefix = store.get(str(problem), body, new)
                    found, lost = found + len(prefix), lost + prefix.lost
                store.put(str(problem), body, new, keys_of(length))
            if float(torch.rand((), generator=draw)) < accepted:
                texts[problem] = new
    return Kept(store.peak, store.peak / max(store.peak_problems, 1), found, lost)


def on_meta(
    shape: Shape, kind: str, length: int, dtype: torch.dtype = torch.bfloat16
) -> tuple[Body, KeysOf]:
    """A model's body without storage, and keys and values as its own forward pass shapes them."""
    from transformers import DynamicCache

    model = random_model(shape, kind, positions=length, dtype=dtype, device="meta")
    body, cache = Body(model.base_model, model.config), DynamicCache()
    embedded = torch.empty(1, length, shape.hidden, dtype=dtype, device="meta")
    body.module(inputs_embeds=embedded, use_cache=True, **{body.cache_name: cache})
    keys = KeyValues(tuple((layer.keys[0], layer.values[0]) for layer in cache.layers))
    return body, keys.crop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=112)
    parser.add_argument("--response", type=int, default=400)
    parser.add_argument("--positions", type=int, default=16)
    parser.add_argument("--gpu", type=float, default=80e9, help="Bytes that the budget is a share of.")
    options = parser.parse_args()
    setting = SETTINGS["gpu"]
    length = options.prompt + options.response
    models = [
        on_meta(setting.lm, "ForCausalLM", length),
        on_meta(setting.rm, "ForSequenceClassification", length),
    ]
    for body, keys_of in models:
        each = keys_of(1).bytes_per_token
        print(f"{body.parameters / 1e9:.1f}B parameters without the embedding: {each:,} bytes a token")
    shares = {"no limit": None, "default": int(min(ACCELERATOR_SHARE * options.gpu, CEILING))}
    for name, limit in shares.items():
        kept = rewriting(
            models,
            problems=options.problems,
            prompt=options.prompt,
            response=options.response,
            positions=options.positions,
            limit=limit,
        )
        print(
            f"{name}: {kept.peak / 1e9:.2f} GB, {kept.each / 1e6:.0f} MB a live problem; "
            f"{kept.found:,} tokens found, {kept.lost:,} lost"
        )


if __name__ == "__main__":
    main()
