"""The critical path of what methods ask for: batches are as long as their longest row."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from nabla.core.sampling import Sampling
from nabla.engine.session import Session
from nabla.objectives.base import objectives
from tests import tiny
from tests.running import PROMPTS, tiny_engine

SAMPLING = Sampling(temperature=1.0, max_new_tokens=9)
LIKELY = objectives.build({"name": "sum", "weights": {"reward": 1.0, "likelihood": 0.1}})


def steps(method: Any, prompts: Any = PROMPTS[0], **engine: Any) -> Any:
    return tiny.drive(tiny_engine(**engine), prompts, method)


async def pool(session: Session) -> tuple[int, int, int, int]:
    """Calls and critical steps of a pool's rollouts, and of its scores."""
    texts = await session.rollout(SAMPLING, n=6)
    written = session.cost.total
    await session.score(texts)
    scored = session.cost.total
    longest = max(len(t) for t in texts)
    assert written.calls == 1 + sum(len(t) - 1 for t in texts)
    assert written.critical_steps == 1 + longest - 1  # the prompt's pass, then all rows at once
    passes, depth = scored.calls - written.calls, scored.critical_steps - written.critical_steps
    return written.calls, written.critical_steps, passes, depth


def test_rows_of_a_batch_wait_for_nothing_of_each_other() -> None:
    calls, path, passes, depth = steps(pool)
    assert path < calls
    assert passes >= 6
    assert depth <= passes // 6 + 1


def test_requests_wait_for_those_before() -> None:
    async def one_by_one(session: Session) -> tuple[int, int]:
        for _ in range(3):
            await session.score(await session.rollout(SAMPLING))
        return session.cost.total.calls, session.cost.total.critical_steps

    calls, path = steps(one_by_one)
    assert path == calls


@pytest.mark.parametrize("continuous", [True, False])
def test_several_texts_forked_and_valued_together(continuous: bool) -> None:
    async def forked(session: Session) -> list[int]:
        (text,) = await session.rollout(SAMPLING)
        found, edits = [session.cost.total], [(i, int(text.tokens[0])) for i in range(min(4, len(text)))]
        heads = await session.fork(text, edits)
        found.append(session.cost.total)
        await session.values(text, LIKELY, [h.tokens for h in heads])
        found.append(session.cost.total)
        await session.gradient(text, LIKELY)
        found.append(session.cost.total)
        return [b.critical_steps - a.critical_steps for a, b in itertools.pairwise(found)] + [
            b.calls - a.calls for a, b in itertools.pairwise(found)
        ]

    alone = [steps(forked, prompt, continuous=continuous, live=1) for prompt in PROMPTS]
    assert steps(forked, PROMPTS, continuous=continuous, live=3) == alone
    for fork, values, gradient, *calls in alone:
        assert fork < calls[0]
        assert values < calls[1]
        assert gradient == calls[2]  # of one text: pass after pass


def test_a_text_that_is_read_and_judged_with_others() -> None:
    async def read(session: Session) -> list[int]:
        texts = [torch.tensor([5, 6, 7 + i]) for i in range(4)]
        found = await session.read(texts, SAMPLING)
        usage = session.cost.total
        await session.judge(found)
        judged = session.cost.total
        return [
            usage.calls, usage.critical_steps,
            judged.calls - usage.calls, judged.critical_steps - usage.critical_steps,
        ]  # fmt: skip

    calls, path, judgements, depth = steps(read)
    assert (calls, path) == (4, 1)
    assert 1 <= depth < judgements
