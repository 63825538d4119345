"""Shared inputs of the property-based tests: awkward logits and hand-made trajectories."""

from __future__ import annotations

import math

import torch
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from nabla.types import Prompt, Sampling, Trajectory

INF = float("inf")
PROMPT = Prompt.of("What is 2 + 2?")

#: False-alarm rate of every statistical test. Seeds are fixed, so a test that passes keeps passing.
ALPHA = 1e-4

#: Kinds of logits whose values are all different: the argmax does not depend on the order of columns.
DISTINCT = ("normal", "extreme", "one-hot", "uniform")
KINDS = (*DISTINCT, "ties")


def make_logits(kind: str, rows: int, width: int, seed: int, dtype: torch.dtype, masked: bool) -> Tensor:
    """Logits of a kind; ``masked`` sets -inf at some candidates, a different number in each row."""
    source = torch.Generator().manual_seed(seed)
    normal = torch.randn(rows, width, generator=source, dtype=torch.float64)
    if kind == "normal":
        logits = 2 * normal
    elif kind == "ties":
        logits = normal.round()
    elif kind == "extreme":
        logits = 1e4 * normal.sign() + normal
    elif kind == "one-hot":
        logits = normal + 60.0 * torch.nn.functional.one_hot(normal.argmax(-1), width)
    else:  # nearly uniform
        logits = 1e-3 * normal
    if masked:
        keep = torch.rand(rows, width, generator=source) < torch.rand(rows, 1, generator=source)
        keep[torch.arange(rows), torch.randint(width, (rows,), generator=source)] = True
        logits = logits.masked_fill(~keep, -INF)
    return logits.to(dtype)


def logits(
    *,
    kinds: tuple[str, ...] = KINDS,
    dtypes: tuple[torch.dtype, ...] = (torch.float64,),
    masked: bool | None = None,
    min_rows: int = 1,
) -> st.SearchStrategy[Tensor]:
    """Ragged shapes ``[rows, k]``; ties, ±1e4, nearly one-hot, nearly uniform; with or without -inf."""
    return st.builds(
        make_logits,
        kind=st.sampled_from(kinds),
        rows=st.integers(min_rows, 4),
        width=st.integers(1, 9),
        seed=st.integers(0, 2**31),
        dtype=st.sampled_from(dtypes),
        masked=st.booleans() if masked is None else st.just(masked),
    )


samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.05, 0.5, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 3, 50]),
    top_p=st.sampled_from([0.05, 0.5, 0.8, 0.95, 1.0]),
)


def make_trajectory(
    tokens: list[int] | None = None,
    *,
    reward: float | None = None,
    committed: int = 0,
    finished: bool = False,
    entropy: Tensor | None = None,
    top1: Tensor | None = None,
    key: int = 0,
    sampling: Sampling | None = None,
) -> Trajectory:
    """A hand-made trajectory: no model has seen it."""
    ids = torch.tensor([5, 6, 7] if tokens is None else tokens)
    length = len(ids)
    return Trajectory(
        prompt=PROMPT,
        tokens=ids,
        finished=finished,
        hidden=torch.zeros(length, 2),
        log_probs=torch.full((length,), -0.5),
        entropy=torch.linspace(0, 1, length) if entropy is None else entropy,
        top1=torch.linspace(1, 0.1, length) if top1 is None else top1,
        noise_keys=torch.full((length,), key),
        sampling=sampling or Sampling(),
        committed=committed,
        reward=reward,
    )


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    """Any length, partly committed, finished or cut off."""
    length = draw(st.integers(1, 8))
    source = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return make_trajectory(
        torch.randint(11, (length,), generator=source).tolist(),
        committed=draw(st.integers(0, length)),
        finished=draw(st.booleans()),
        entropy=3 * torch.rand(length, generator=source),
        top1=torch.rand(length, generator=source),
    )


def seeded(seed: int = 0) -> torch.Generator:
    """A CPU generator."""
    return torch.Generator().manual_seed(seed)


def follows(draws: Tensor, probabilities: Tensor) -> bool:
    """Chi-square test at rate ALPHA; a draw of zero probability fails at once."""
    p = probabilities.double()
    counts = torch.bincount(draws.flatten(), minlength=len(p)).double()
    if bool((counts[p == 0] > 0).any()):
        return False
    expected = (p * counts.sum())[p > 0]
    if len(expected) == 1:
        return True
    assert float(expected.min()) >= 5, "the chi-square law needs more draws"
    statistic = float(((counts[p > 0] - expected) ** 2 / expected).sum())
    return bool(stats.chi2.sf(statistic, len(expected) - 1) > ALPHA)


def softmax_list(logits: list[float], temperature: float) -> list[float]:
    """Naive softmax."""
    top = max(logits)
    weights = [math.exp((z - top) / temperature) for z in logits]
    return [w / sum(weights) for w in weights]
