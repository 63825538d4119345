"""What one reward says of the texts that were drawn: their scores, the values at their tokens, the gradient
at the wrong response, and the exact values that it stands for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nabla.core.costs import Usage
from nabla.core.sampling import Sampling
from nabla.core.trajectory import Trajectory
from nabla.engine.edits import replaced
from nabla.moves.base import MoveView
from nabla.moves.gradient import gains
from nabla.objectives.reward import RewardObjective
from nabla.rewards.base import Reward
from nabla.study.diagnosis.measures import Labelled
from nabla.study.diagnosis.process_bench import LabelledText, step_values, text_ids
from nabla.study.diagnosis.texts import Drawn, Swap, spent

if TYPE_CHECKING:
    from nabla.engine.session import Session


@dataclass(frozen=True, eq=False)
class Judged:
    """What a reward says of one problem's texts. Lists over swaps hold NaN where it says nothing.

    Args:
        rewards: of the samples.
        values: at each of their tokens.
        prefixes: exact value of the text up to each swap's new token.
        gains: first-order gain of each swap.
        changes: exact change of the reward by each swap, all other tokens as they were.
        rerolled: rewards of the texts behind the swaps.
        scoring: what scoring these took, all together.
        gradient: what the gradient took; nothing where there is none.
    """

    rewards: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]
    prefixes: tuple[float, ...] = ()
    gains: tuple[float, ...] = ()
    changes: tuple[float, ...] = ()
    rerolled: tuple[float, ...] = ()
    scoring: Usage = field(default_factory=Usage)
    gradient: Usage = field(default_factory=Usage)


async def judge(session: Session, drawn: Drawn, reward: Reward) -> Judged:
    """What the session's reward says of a problem's texts.

    Args:
        session: of the problem, with the reward.
        drawn: the texts.
        reward: of the session.
    """
    judged = await session.judge([sample.trajectory for sample in drawn.samples])
    rewards = tuple(_number(text.reward) for text in judged)
    values = tuple(tuple(text.values) for text in judged)
    if drawn.base is None or not drawn.swaps:
        return Judged(rewards, values)
    before = session.cost.phases.get("reward", Usage())
    scored = await session.score(drawn.written)
    scoring = spent(before, session.cost.phases.get("reward", Usage()))
    # With the engine's keep_graph the gradient below is a backward pass alone.
    (base,) = await session.score([drawn.base], keep_graph=True)
    pairs = [(swap.position, swap.token) for swap in drawn.swaps]
    heads = [replaced(session.vocabulary, session.workspace.lm, base, *pair) for pair in pairs]
    prefixes = [_last(head) for head in await session.judge(heads)] if reward.has_values else []
    texts = [base.tokens.clone() for _ in pairs]
    for text, (position, token) in zip(texts, pairs, strict=True):
        text[position] = token
    objective = RewardObjective()
    exact = await session.values(base, objective, texts, phase="selection")
    own, others = _number(base.reward), next(iter(exact.values()))
    slopes, gradient = await _gains(session, base, drawn.swaps, objective, reward)
    return Judged(
        rewards,
        values,
        tuple(prefixes or [math.nan] * len(pairs)),
        slopes,
        tuple(-other - own for other in others),  # the objective is the reward's negative
        tuple(_number(text.reward) for text in scored),
        scoring,
        gradient,
    )


async def _gains(
    session: Session, base: Trajectory, swaps: tuple[Swap, ...], objective: RewardObjective, reward: Reward
) -> tuple[tuple[float, ...], Usage]:
    """First-order gain of each swap, and what the gradient took."""
    if not reward.differentiable:
        return (math.nan,) * len(swaps), Usage()
    session.objective = objective
    reference = session.reference(base, slice(0, len(base)), min(64, session.vocabulary.usable))
    before = session.cost.phases.get("gradient", Usage())
    rows = await gains(MoveView(base, reference, session))
    taken = spent(before, session.cost.phases.get("gradient", Usage()))
    found = []
    for swap in swaps:
        own = rows[swap.position][reference.ids(swap.position) == swap.token].tolist()
        found.append((own or [math.nan])[0])
    return tuple(found), taken


async def judge_steps(
    session: Session, text: LabelledText, sampling: Sampling, reward: Reward | None
) -> tuple[Labelled, Labelled | None]:
    """The steps of a labelled text by the least log-probability of a token in each, and by the reward.

    Args:
        session: its prompt is the text's problem.
        text: with its label.
        sampling: of the run.
        reward: of the session; None: by the language model alone.
    """
    ids, ends = text_ids(session.vocabulary, text)
    (read,) = await session.read([ids], sampling, phase="selection")
    surprise = Labelled(step_values(read.log_probs.tolist(), ends, least=True), text.label)
    if reward is None or not reward.has_values:
        return surprise, None
    (judged,) = await session.judge([replace(read, score=None)])
    return surprise, Labelled(step_values(judged.values, ends), text.label)


def _last(judged: Trajectory) -> float:
    """The value at the last token."""
    return judged.values[-1]


def _number(reward: float | None) -> float:
    return math.nan if reward is None else reward
