"""What is drawn: responses to each problem, and other tokens in one of the wrong ones with what comes of
them.

No reward is asked, so that the same texts serve every reward.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nabla.core.costs import Usage
from nabla.core.sampling import Sampling
from nabla.core.trajectory import Trajectory
from nabla.moves.base import MoveView
from nabla.moves.policy import Policy

if TYPE_CHECKING:
    from nabla.engine.session import Session


#: Tokens of at most this probability are not tried: a search would not draw them.
FLOOR = 1e-3


@dataclass(frozen=True)
class Settings:
    """How much is drawn.

    Args:
        samples: responses per problem.
        swaps: pairs of a position and another token, in the first wrong response of each problem; drawn by
            the language model's probability, jointly and without replacement.
        rerolls: continuations behind each of them.
    """

    samples: int = 4
    swaps: int = 24
    rerolls: int = 2


@dataclass(frozen=True, eq=False)
class Sample:
    """A response.

    Args:
        trajectory: without the language model's states, which take memory.
        response: its text.
        right: whether it is.
    """

    trajectory: Trajectory
    response: str
    right: bool


@dataclass(frozen=True, eq=False)
class Swap:
    """Another token at a position of a wrong response, and what came of it.

    Args:
        position: of the response.
        token: in place of its own.
        log_own, log_new: log-probability of its own token and of the other, nats.
        entropy: of the language model's row there, nats.
        ends: the texts behind it: right or not.
    """

    position: int
    token: int
    log_own: float
    log_new: float
    entropy: float
    ends: tuple[bool, ...]


@dataclass(frozen=True, eq=False)
class Drawn:
    """Of one problem.

    Args:
        samples: its responses.
        wrong: which of them the swaps change; None where all are right.
        base: the same with the language model's states.
        swaps: in it.
        written: the texts behind the swaps, in their order.
        writing: what it took to write them.
    """

    samples: tuple[Sample, ...]
    wrong: int | None = None
    base: Trajectory | None = None
    swaps: tuple[Swap, ...] = ()
    written: tuple[Trajectory, ...] = ()
    writing: Usage = field(default_factory=Usage)


async def draw(
    session: Session, settings: Settings, sampling: Sampling, grade: Callable[[str], bool]
) -> Drawn:
    """Draws a problem's texts.

    Args:
        session: of the problem.
        settings: how many.
        sampling: how tokens are drawn, those of the swaps too.
        grade: says whether a response is right.
    """
    texts = await session.rollout(sampling, n=settings.samples)
    samples = []
    for text in texts:
        response = session.decode(text.tokens)
        samples.append(Sample(_light(text), response, grade(response)))
    wrong = next((i for i, sample in enumerate(samples) if not sample.right), None)
    if wrong is None:
        return Drawn(tuple(samples))
    (base,) = await session.states([texts[wrong]])
    law = await Policy(temperature=1.0, floor=FLOOR).law(base, session)
    drawn, pairs = session.generator("swaps"), list[tuple[int, int]]()
    while len(pairs) < settings.swaps:
        pair = law.draw(drawn, tried=pairs)
        if pair is None:
            break
        pairs.append(pair)
    before = session.cost.phases.get("rollout", Usage())
    written = await session.fork(base, [pair for pair in pairs for _ in range(settings.rerolls)])
    writing = spent(before, session.cost.phases.get("rollout", Usage()))
    right = [grade(session.decode(text.tokens)) for text in written]
    swaps = _swaps(session, base, pairs, right, settings.rerolls)
    return Drawn(tuple(samples), wrong, base, swaps, tuple(map(_light, written)), writing)


def _swaps(
    session: Session, base: Trajectory, pairs: list[tuple[int, int]], right: list[bool], rerolls: int
) -> tuple[Swap, ...]:
    reference = session.reference(base, slice(0, len(base)), min(64, session.vocabulary.usable))
    log_policy = MoveView(base, reference, session).log_policy
    own = log_policy.gather(-1, reference.chosen.unsqueeze(-1))[:, 0].tolist()
    found = []
    for number, (position, token) in enumerate(pairs):
        new = log_policy[position][reference.ids(position) == token].tolist()
        ends = tuple(right[number * rerolls : (number + 1) * rerolls])
        entropy = float(base.entropy[position])
        found.append(Swap(position, token, own[position], (new or [math.nan])[0], entropy, ends))
    return tuple(found)


def _light(trajectory: Trajectory) -> Trajectory:
    return replace(trajectory, states=None)


def spent(before: Usage, after: Usage) -> Usage:
    """What was used between two readings of a meter: calls, tokens, FLOPs and seconds."""
    return Usage(
        after.decode_steps - before.decode_steps,
        after.forward_passes - before.forward_passes,
        after.backward_passes - before.backward_passes,
        after.tokens - before.tokens,
        after.flops - before.flops,
        after.seconds - before.seconds,
    )
