"""Exact gradients and the problems they belong to."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nabla.core.errors import ConfigError
from nabla.study.laboratory.problems import (
    Problem,
    all_texts,
    exponential,
    linear,
    mean_entropy,
    normal_logits,
    quadratic,
    text_rows,
    with_entropy,
)
from tests.strategies import seeded

MAKERS = {"linear": linear, "quadratic": quadratic, "exp": lambda z, g: exponential(z, g, 0.5)}


def make(family: str, length: int, width: int, seed: int = 0) -> Problem:
    source = seeded(seed)
    return MAKERS[family](normal_logits(length, width, source), source)


@pytest.mark.parametrize("family", MAKERS)
@pytest.mark.parametrize(("length", "width"), [(1, 4), (2, 3), (3, 2)])
def test_the_exact_gradient_is_the_score_function_summed_over_all_texts(family, length, width):
    problem = make(family, length, width)
    p = problem.logits.softmax(-1)
    expected = torch.zeros_like(p)
    for number, text in enumerate(itertools.product(range(width), repeat=length)):
        mass = math.prod(float(p[i, t]) for i, t in enumerate(text))
        for i, t in enumerate(text):
            for k in range(width):
                expected[i, k] += mass * float(problem.values[number]) * ((t == k) - float(p[i, k]))
    torch.testing.assert_close(problem.exact(), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(problem.exact().sum(-1), torch.zeros(length, dtype=p.dtype))


@pytest.mark.parametrize("family", MAKERS)
def test_slopes_are_derivatives_of_the_values(family):
    """f of a family is a function of relaxed rows: its slope agrees with finite differences of slopes'
    own integral, here the trapezium rule between two texts (exact to second order)."""
    problem = make(family, 2, 3)
    rows = text_rows(2, 3)
    steps = torch.linspace(0, 1, 2001, dtype=torch.float64)
    path = rows[0] + steps[:, None, None] * (rows[7] - rows[0])
    speed = (problem.relaxed(path) * (rows[7] - rows[0])).sum((-2, -1))
    found = float(torch.trapezoid(speed, steps))
    assert found == pytest.approx(float(problem.values[7] - problem.values[0]), abs=1e-6)
    assert torch.equal(problem.slopes, problem.relaxed(rows))


@given(length=st.integers(1, 3), width=st.integers(2, 4), seed=st.integers(0, 99))
@settings(max_examples=20)
def test_texts_are_found_by_their_rows(length, width, seed):
    problem = make("quadratic", length, width, seed)
    rows = text_rows(length, width)
    assert torch.equal(problem.number(rows), torch.arange(width**length))
    assert torch.equal(problem.at(rows), problem.values)
    assert torch.equal(rows.argmax(-1), all_texts(length, width))
    assert torch.equal(problem.derivative(rows, hard=True), problem.slopes)


@given(share=st.floats(0.01, 0.99), width=st.integers(2, 30), length=st.integers(1, 3))
@settings(max_examples=30)
def test_logits_of_an_entropy(share, width, length):
    wanted = share * math.log(width)
    z = with_entropy(normal_logits(length, width, seeded(0)), wanted)
    assert mean_entropy(z) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("entropy", [0.0, -1.0, 2.0, float("nan")])
def test_an_entropy_out_of_range(entropy):
    with pytest.raises(ConfigError, match="between 0 and log K"):
        with_entropy(torch.zeros(1, 3), entropy)


def test_too_many_texts():
    with pytest.raises(ConfigError, match="Too many texts"):
        all_texts(9, 9)
