"""QAlign's chain against enumeration: it leaves its target, and its mutants do not (SPEC section 15)."""

from __future__ import annotations

import numpy as np
import pytest

from nabla.core.errors import ConfigError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.engine.engine import Engine
from nabla.methods.searches.qalign import QAlign
from nabla.theory.problems.text import SequenceSpace
from tests import running
from tests.toy import p_value

RUNS = 1500


@pytest.fixture(scope="module")
def space() -> SequenceSpace:
    return SequenceSpace(length=3, weight=1.0, seed=3)


def transitions(space: SequenceSpace, *, lengths: bool = True, fixed_end: bool = False) -> np.ndarray:
    """The chain's matrix, written out; mutants leave out the lengths, or never draw the last position."""
    texts = [tuple(y.tolist()) for y in space.responses]
    pi, reward = np.exp(space.log_pi.double().numpy()), space.reward.double().numpy()
    matrix = np.zeros((len(texts), len(texts)))
    for a, old in enumerate(texts):
        positions = range(max(len(old) - 1, 1) if fixed_end else len(old))
        for i in positions:
            head = sum(pi[c] for c, text in enumerate(texts) if text[:i] == old[:i])
            for b, new in enumerate(texts):
                if new[:i] != old[:i] or len(new) <= i:
                    continue
                ratio = np.exp(space.weight * (reward[b] - reward[a]))
                ratio *= len(old) / len(new) if lengths else 1.0
                matrix[a, b] += pi[b] / head / len(positions) * min(1.0, ratio)
    matrix[np.arange(len(texts)), np.arange(len(texts))] += 1 - matrix.sum(1)
    return matrix


def steps_from(space: SequenceSpace, start: int, method: QAlign) -> np.ndarray:
    """Where independent steps of the production chain from one text end."""
    prompts = [Prompt(str(i), space.prompt.messages) for i in range(RUNS)]
    found = np.zeros(len(space))

    async def solve(session):
        (text,) = await session.score(await session.read([space.responses[start]], method.sampling))
        end = await method.step(session, text, 0)
        found[space.index[tuple(end.tokens.tolist())]] += 1
        return method.solution(session, end)

    for _, outcome in Engine(space.lm, space.rm, seed=11).run(solve, prompts):
        if isinstance(outcome, Exception):
            raise outcome
    return found


def method(space: SequenceSpace) -> QAlign:
    return QAlign(beta=1 / space.weight, sampling=Sampling(temperature=1.0, max_new_tokens=space.length))


def test_the_chain_leaves_its_target_and_its_mutants_do_not(space):
    target = space.target.double().numpy()
    gap = {
        name: np.abs(target @ transitions(space, **changes) - target).sum() / 2
        for name, changes in {"": {}, "lengths": {"lengths": False}, "end": {"fixed_end": True}}.items()
    }
    assert gap[""] < 1e-12
    assert gap["lengths"] > 1e-3
    assert gap["end"] > 1e-3


@pytest.mark.timeout(900)
def test_production_steps_follow_the_chain_and_no_mutant(space):
    short = [i for i, y in enumerate(space.responses) if len(y) == 2]
    start = max(short, key=lambda i: float(space.target[i]))
    found = steps_from(space, start, method(space))
    assert p_value(found, transitions(space)[start]) > 1e-3
    assert p_value(found, transitions(space, lengths=False)[start]) < 1e-3
    assert p_value(found, transitions(space, fixed_end=True)[start]) < 1e-3


def test_answers_and_costs_do_not_depend_on_what_else_runs():
    running.assert_same_alone_and_together(QAlign(steps=4, sampling=running.SAMPLING))


def test_it_goes_on_to_a_budget():
    running.assert_anytime(QAlign(steps=2, sampling=running.SAMPLING), (60.0, 150.0))


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="beta"):
        QAlign(beta=0.0)
    with pytest.raises(ConfigError, match="steps"):
        QAlign(steps=0)
