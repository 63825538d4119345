"""Hand-made inputs and the statistics of checks; nothing here needs hypothesis or a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nabla.core.coroutines import at_once as at_once
from nabla.core.errors import ConfigError
from nabla.core.prompt import Prompt
from nabla.core.random import generator
from nabla.core.sampling import Sampling
from nabla.core.trajectory import Score, States, Trajectory

INF = float("inf")
PROMPT = Prompt.of("What is 2 + 2?")

#: False-alarm rate of every statistical check. Seeds are fixed: a check that passes keeps passing.
ALPHA = 1e-4

#: Kinds of logits whose values are all different: the argmax does not depend on the order of columns.
DISTINCT = ("normal", "extreme", "one-hot", "uniform")
KINDS = (*DISTINCT, "ties")


def make_logits(kind: str, rows: int, width: int, seed: int, dtype: torch.dtype, masked: bool) -> Tensor:
    """Random logits of a kind; ``masked`` sets -inf at some candidates, a different number in each row."""
    source = seeded(seed)
    normal = torch.randn(rows, width, generator=source, dtype=torch.float64)
    logits = shape_logits(kind, normal)
    if masked:
        keep = torch.rand(rows, width, generator=source) < torch.rand(rows, 1, generator=source)
        keep[torch.arange(rows), torch.randint(width, (rows,), generator=source)] = True
        logits = logits.masked_fill(~keep, -INF)
    return logits.to(dtype)


def shape_logits(kind: str, values: Float[Tensor, "rows k"]) -> Float[Tensor, "rows k"]:
    """Logits of a kind from numbers of size about one: ties, ±1e4, nearly one-hot, nearly uniform."""
    if kind == "normal":
        return 2 * values
    if kind == "ties":
        return values.round()
    if kind == "extreme":
        return 1e4 * values.sign() + values
    if kind == "one-hot":
        return values + 60.0 * torch.nn.functional.one_hot(values.argmax(-1), values.shape[-1])
    return 1e-3 * values  # nearly uniform


def make_trajectory(
    tokens: Iterable[Any] | None = None,
    *,
    reward: float | None = None,
    committed: int = 0,
    finished: bool = False,
    entropy: Tensor | None = None,
    top1: Tensor | None = None,
    key: int = 0,
    sampling: Sampling | None = None,
) -> Trajectory:
    """A hand-made trajectory (token ids and the rest): no model has seen it."""
    ids = torch.tensor([5, 6, 7] if tokens is None else list(tokens))
    length = len(ids)
    return Trajectory(
        prompt=PROMPT,
        tokens=ids,
        finished=finished,
        log_probs=torch.full((length,), -0.5),
        states=States(
            torch.zeros(length, 2),
            torch.linspace(0, 1, length) if entropy is None else entropy,
            torch.linspace(1, 0.1, length) if top1 is None else top1,
        ),
        noise_keys=torch.full((length,), key),
        sampling=sampling or Sampling(),
        committed=committed,
        score=None if reward is None else Score(reward),
    )


class SessionStandIn:
    """A session for one hand-made trajectory: what a selector awaits is there at once, and no model runs.

    Args:
        seed: of every number and generator.
        norms: plain and centred gradient norms ``[L]``; None: there is no objective to differentiate.
    """

    #: As after a first rollout.
    written = 1

    def __init__(self, seed: int, norms: tuple[Tensor, Tensor] | None) -> None:
        self.seed, self.norms = seed, norms

    def generator(self, *labels: object) -> torch.Generator:
        """For (seed, labels)."""
        return generator(self.seed, *labels)

    async def gradient_norms(self, _: Trajectory) -> tuple[Tensor, Tensor]:
        """The given ones. Raises ConfigError without any, as a session without an objective does."""
        if self.norms is None:
            raise ConfigError("Gradient norms need an objective, and this session has none")
        return self.norms

    async def states(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        """As they are: their states are known."""
        return list(trajectories)

    async def score(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        """With a step reward per token, drawn once per seed and position, where they have none."""
        return [t if t.score is not None else t.with_score(self._score(len(t))) for t in trajectories]

    def _score(self, length: int) -> Score:
        draws = torch.randn(length, generator=generator(self.seed, "score"))
        steps = [float(x) for x in draws]
        return Score(min(steps, default=0.0), tuple(steps), tuple(range(length)))


def seeded(seed: int = 0) -> torch.Generator:
    """A CPU generator."""
    return torch.Generator().manual_seed(seed)


def follows(draws: Int[Tensor, "*any"], probabilities: Float[Tensor, " k"], alpha: float = ALPHA) -> bool:
    """Chi-square test of draws against a law at false-alarm rate ``alpha``.

    A draw of zero probability fails at once. Categories expected less than five times are pooled with the
    next ones (Cochran's rule).
    """
    p = probabilities.double()
    counts = torch.bincount(draws.flatten(), minlength=len(p)).double()
    if bool((counts[p == 0] > 0).any()):
        return False
    observed, expected = [0.0], [0.0]
    order = p.argsort()
    for index in order[p[order] > 0].tolist():
        observed[-1] += float(counts[index])
        expected[-1] += float(p[index] * counts.sum())
        if expected[-1] >= 5:
            observed.append(0.0)
            expected.append(0.0)
    rest_observed, rest_expected = observed.pop(), expected.pop()
    if not expected:
        return True
    observed[-1] += rest_observed
    expected[-1] += rest_expected
    if len(expected) == 1:
        return True
    statistic = sum((o - e) ** 2 / e for o, e in zip(observed, expected, strict=True))
    half = torch.tensor([(len(expected) - 1) / 2, statistic / 2], dtype=torch.float64)
    return bool(torch.special.gammaincc(half[0], half[1]) > alpha)
