"""One sample."""

from __future__ import annotations

from nabla.core.sampling import Sampling
from nabla.methods.base import methods
from tests import running, toy


def test_it_is_the_first_of_the_pool_whatever_the_budget():
    method = methods.build("sampling", sampling=running.SAMPLING)
    plain = running.run(running.tiny_engine(), method)
    pool = running.run(running.tiny_engine(), methods.build("best-of-n", n=1, sampling=running.SAMPLING))
    assert [s.tokens for s in plain] == [s.tokens for s in pool]
    rich = running.run(running.tiny_engine(**toy.calls(500.0)), method)
    assert running.facts(rich) == running.facts(plain)


def test_at_temperature_zero_it_is_greedy():
    method = methods.build("sampling", sampling=Sampling(temperature=0.0, max_new_tokens=12))
    greedy = running.run(running.tiny_engine(), methods.build("greedy", max_new_tokens=12))
    assert [s.tokens for s in running.run(running.tiny_engine(), method)] == [s.tokens for s in greedy]
