"""Threads of torch: as many as pay for the models, and as before when the run is over."""

from __future__ import annotations

import pytest
import torch

from nabla.core.errors import ConfigError
from nabla.engine.events import Callback
from nabla.launch import threads as rule
from nabla.launch.config.run import RunConfig
from nabla.launch.launcher import TestTimeLoop
from nabla.launch.threads import threads, threads_for
from nabla.study.evaluation.config import EvaluationConfig
from tests.study.evaluation.small import VALUES


@pytest.fixture(autouse=True)
def two():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_one_for_small_models_on_the_cpu(latin_lm, latin_rm, monkeypatch):
    bodies = [latin_lm.body, *latin_rm.bodies()]
    assert threads_for(bodies) == 1
    assert threads_for([]) is None
    monkeypatch.setattr(rule, "LARGE", max(body.parameters for body in bodies))
    assert threads_for(bodies) is None  # the largest decides
    monkeypatch.setattr(rule, "LARGE", 10**9)
    monkeypatch.setattr(type(latin_lm.body), "device", property(lambda _: torch.device("meta")))
    assert threads_for(bodies) is None


def test_they_are_put_back_after_an_error_too():
    def fails():
        with threads(1):
            assert torch.get_num_threads() == 1
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fails()
    assert torch.get_num_threads() == 2
    with threads(None):
        assert torch.get_num_threads() == 2


class Looks(Callback):
    def __init__(self):
        self.seen = set()

    def on_solution(self, solution):
        self.seen.add(torch.get_num_threads())


@pytest.mark.parametrize(("given", "seen"), [(None, 1), (2, 2)])
def test_a_run_of_the_embedded_models_takes_one_unless_told_otherwise(latin_lm, latin_prompts, given, seen):
    looks = Looks()
    loop = TestTimeLoop("greedy", latin_lm, accelerator="cpu", threads=given, callbacks=[looks])
    loop.run(latin_prompts[:1])
    assert looks.seen == {seen}
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("count", [0, -1, True, 1.5, 10**9])
def test_numbers_that_cannot_be(count, latin_lm):
    for make in (
        lambda: RunConfig.of({"threads": count}),
        lambda: TestTimeLoop("greedy", latin_lm, threads=count),
        lambda: EvaluationConfig.of({**VALUES, "threads": count}),
    ):
        with pytest.raises((ConfigError, TypeError), match="threads"):  # or the type checker
            make()
