"""Trajectories with what they lack: the language model's states, a score."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from jaxtyping import Int
from torch import Tensor

from nabla.core.costs import Account
from nabla.core.prompt import Prompt
from nabla.core.trajectory import Score, Trajectory
from nabla.engine.requests import ReadRequest, ScoreRequest, Wait
from nabla.rewards.base import Response, Reward
from nabla.rollouts.base import Continuation

#: Prompt and response ids.
Text = tuple[Prompt, tuple[int, ...]]


async def readings(
    texts: Sequence[Int[Tensor, " length"]],
    prompt: Prompt,
    ids: Int[Tensor, " prompt"],
    account: Account,
    free: int | None,
) -> list[Continuation]:
    """What the language model knows of given responses, all in one batch.

    Args:
        texts: response ids.
        prompt: what they answer.
        ids: of the prompt.
        account: who pays.
        free: first position that gradients may be asked from; None: none will be.
    """
    accounts = account.branches(len(texts))
    requests = [ReadRequest(a, ids, text, prompt, free) for a, text in zip(accounts, texts, strict=True)]
    return await Wait(requests) if requests else []


async def with_states(
    trajectories: Sequence[Trajectory],
    ids: Callable[[Prompt], Int[Tensor, " prompt"]],
    account: Account,
    keep_graph: bool = False,
) -> list[Trajectory]:
    """The trajectories with states; those that lack them are read, all in one batch.

    Args:
        trajectories: with states or without.
        ids: of a prompt.
        account: who pays.
        keep_graph: gradients from their first uncommitted positions on may be asked for.
    """
    todo = [i for i, t in enumerate(trajectories) if t.states is None]
    unread = [trajectories[i] for i in todo]
    requests = [
        ReadRequest(own, ids(t.prompt), t.tokens, t.prompt, t.committed if keep_graph else None)
        for t, own in zip(unread, account.branches(len(unread)), strict=True)
    ]
    found: list[Continuation] = await Wait(requests) if requests else []
    known = list(trajectories)
    for i, part in zip(todo, found, strict=True):
        known[i] = replace(known[i], states=part.states, log_probs=part.log_probs)
    return known


async def with_scores(
    trajectories: Sequence[Trajectory],
    first: dict[Text, Score],
    reward: Reward | None,
    account: Account,
    keep_graph: bool = False,
) -> list[Trajectory]:
    """The trajectories with scores; those that lack one are scored, all in one batch, but where the score
    follows from what the rollout knows.

    Args:
        trajectories: scored or not.
        first: the first score of each text, which stays its score; it grows.
        reward: of the run.
        account: who pays.
        keep_graph: gradients from their first uncommitted positions on may be asked for.
    """
    lacking = [i for i, t in enumerate(trajectories) if t.score is None]
    known = {i: _of_policy(trajectories[i], reward, account) for i in lacking}
    todo = [i for i in lacking if known[i] is None]
    unscored = [trajectories[i] for i in todo]
    requests = [
        ScoreRequest(own, Response(t.prompt, t.tokens, own), t.committed if keep_graph else None)
        for t, own in zip(unscored, account.branches(len(unscored)), strict=True)
    ]
    found: list[Score] = await Wait(requests) if requests else []
    known.update(zip(todo, found, strict=True))
    scored = list(trajectories)
    for i, score in known.items():
        assert score is not None
        text = (trajectories[i].prompt, tuple(trajectories[i].tokens.tolist()))
        scored[i] = scored[i].with_score(first.setdefault(text, score))
    return scored


def _of_policy(trajectory: Trajectory, reward: Reward | None, account: Account) -> Score | None:
    """The score where it is a function of the policy's own log-probabilities, and these are known."""
    if reward is None:
        return None
    response = Response(trajectory.prompt, trajectory.tokens, account)
    values = reward.of_policy(trajectory.log_probs.tolist(), response)
    if not values or any(map(math.isnan, values)):
        return None
    total = reward.together(values, response)
    return None if total is None else Score(total, tuple(values), tuple(range(len(values))))
