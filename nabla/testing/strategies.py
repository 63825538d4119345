"""Hypothesis strategies for the values that flow through nabla's slots.

Values are drawn number by number, so that a failing example shrinks to a few small round ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from nabla.core.sampling import Sampling
from nabla.core.trajectory import Trajectory
from nabla.schedulers.base import Step
from nabla.testing.inputs import INF, KINDS, make_trajectory, shape_logits
from nabla.testing.optional import st

#: Seeds of generators.
seeds = st.integers(0, 2**31 - 1)


@st.composite
def logits(
    draw: Callable[..., Any],
    *,
    kinds: Iterable[Any] = KINDS,
    dtypes: Iterable[Any] = (torch.float64,),
    masked: bool | None = None,
    min_rows: int = 1,
    max_rows: int = 3,
    min_width: int = 1,
    max_width: int = 6,
) -> Tensor:
    """Ragged shapes ``[rows, k]``; ties, ±1e4, nearly one-hot, nearly uniform; with or without -inf.

    Args:
        kinds: of :data:`nabla.testing.inputs.KINDS`; in all but ``ties`` the values of a row differ.
        dtypes: one is drawn.
        masked: True and False fix whether some candidates are -inf (never all of a row); None draws it.
    """
    kind = draw(st.sampled_from(tuple(kinds)))
    rows, width = draw(st.integers(min_rows, max_rows)), draw(st.integers(min_width, max_width))
    number = st.integers(-48, 48)
    drawn = [
        draw(st.lists(number, min_size=width, max_size=width, unique=kind != "ties")) for _ in range(rows)
    ]
    values = shape_logits(kind, torch.tensor(drawn, dtype=torch.float64) / 16)
    if draw(st.booleans()) if masked is None else masked:
        keep = torch.zeros(rows, width, dtype=torch.bool)
        for row in range(rows):
            kept = draw(st.sets(st.integers(0, width - 1), min_size=1))
            keep[row, sorted(kept)] = True
        values = values.masked_fill(~keep, -INF)
    return values.to(draw(st.sampled_from(tuple(dtypes))))


def tokens(
    vocabulary: int | Iterable[Any] = 11, *, min_length: int = 1, max_length: int = 8
) -> st.SearchStrategy[list[int]]:
    """Token ids of a response, from ``range(vocabulary)`` or the given ids."""
    ids = range(vocabulary) if isinstance(vocabulary, int) else vocabulary
    return st.lists(st.sampled_from(list(ids)), min_size=min_length, max_size=max_length)


#: Finite rewards, small and large, in the reward's own unit.
rewards = st.one_of(
    st.integers(-64, 64).map(lambda n: n / 16), st.floats(-1e6, 1e6, allow_nan=False, allow_infinity=False)
)

#: What a model may write: answers in the usual forms among words, numbers, brackets and other scripts.
responses = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "The answer is ", "#", "#### ", "\\boxed{", "}", "{", "$", "\\frac{1}{2}", "Answer: ", ".",
                "\n", " ", "42", "-7", "0.5", "1,000", "x=", "yes", "No", "...", "12*7=84",
            ]
        ),
        st.integers(-999, 999).map(str),
        st.text(max_size=3),
    ),
    max_size=5,
).map("".join)  # fmt: skip

samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.05, 0.5, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 3, 50]),
    top_p=st.sampled_from([0.05, 0.5, 0.8, 0.95, 1.0]),
)

#: Steps of runs of 1 to 60.
steps = st.integers(1, 60).flatmap(lambda n: st.builds(Step, st.integers(0, n - 1), st.just(n)))


@st.composite
def trajectories(draw: Callable[..., Any], *, min_length: int = 1, max_length: int = 8) -> Trajectory:
    """Any length, partly committed, finished or cut off."""
    ids = draw(tokens(min_length=min_length, max_length=max_length))
    parts = st.lists(st.integers(0, 32), min_size=len(ids), max_size=len(ids))
    return make_trajectory(
        ids,
        committed=draw(st.integers(0, len(ids))),
        finished=draw(st.booleans()),
        entropy=3 * torch.tensor(draw(parts)) / 32,
        top1=torch.tensor(draw(parts)) / 32,
    )
