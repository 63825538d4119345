"""What passes are counted with, against the products that torch has run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch.utils.flop_counter import FlopCounterMode

from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.engine.engine import Engine
from nabla.models.body import Body
from nabla.refinement.dto import DTO
from nabla.rewards.base import Reward
from nabla.rewards.likelihood import LikelihoodReward
from nabla.testing.tiny import char_tokenizer, tiny_lm, tiny_reward

#: A vocabulary beside which the layers are small: a product with a head that nobody counts would show.
TOKENIZER = char_tokenizer("abcd" + "".join(chr(0x4E00 + i) for i in range(600)))


def outcome() -> Reward:
    return tiny_reward(TOKENIZER, architecture="llama")


def judge() -> Reward:
    return LikelihoodReward(tiny_lm(TOKENIZER, architecture="llama", seed=5))


@pytest.mark.parametrize("rows", ["first", "all", {"name": "all", "support": 200}], ids=str)
@pytest.mark.parametrize("reward", [outcome, judge])
@pytest.mark.parametrize(
    "settings",
    [{}, {"estimator": "soft-embedding"}, {"parameterization": "latents"}],
    ids=["hard", "soft", "latents"],
)
def test_flops_of_a_refinement_are_those_of_its_products(
    settings: dict[str, Any], reward: Callable[[], Reward], rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Attention is counted causally, and run without a mask's holes.
    monkeypatch.setattr(Body, "_attention", lambda *_: 0.0)
    dto = DTO(steps=3, rows=rows, **settings)
    lm = tiny_lm(TOKENIZER, architecture="llama")
    engine = Engine(lm, reward(), batch_size=1, split_padding=0)

    async def method(session: Any) -> Solution:
        (text,) = await session.rollout(Sampling(temperature=1.0, max_new_tokens=6))
        before = session.cost.total.flops
        with FlopCounterMode(display=False) as counter:
            await dto.refine(text, session)
        run.append(counter.get_total_flops())
        counted.append(session.cost.total.flops - before)
        return Solution(session.prompt, "", (), None, True, "test", session.cost)

    run: list[float] = []
    counted: list[float] = []
    ((_, solution),) = engine.run(method, [Prompt.of("abca")])
    assert isinstance(solution, Solution), solution
    # Weights of norms are counted like those of products.
    assert run[0] <= counted[0] * 1.0005
    assert counted[0] == pytest.approx(run[0], rel=0.02)
