"""Problems of reasoning-gym: by seeds that never meet, graded by their own verifier in another process."""

from __future__ import annotations

import os
import re
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from nabla.core.errors import ConfigError
from nabla.problems.tasks import reasoning_gym
from nabla.problems.tasks.base import tasks
from nabla.problems.tasks.reasoning_gym import TRAIN, ReasoningGym, gym

#: A package of that name with one data set: n + n; its verifier can be sent round in circles.
FAKE = '''
import random
class Data:
    def __init__(self, seed, size, most=9, unkind=False):
        assert not unkind, "most must be kind"
        self.seed, self.most = seed, most
    def __getitem__(self, i):
        n = random.Random(self.seed + i).randint(0, self.most)
        return {"question": f"{n} + {n} =", "answer": str(2 * n), "metadata": {"n": n, "odd": object()}}
    def score_answer(self, answer, entry):
        print("noise that is no reply")
        while answer == "loop":
            pass
        if answer == "crash":
            raise ValueError(answer)
        if answer == "memory":
            return float(len(bytes(1 << 40)))
        return 1.0 if answer == entry["answer"] else 0.25
def create_dataset(name, seed, size, **arguments):
    if name not in factory.DATASETS:
        raise ValueError(name)
    return Data(seed, size, **arguments)
from reasoning_gym import factory
'''


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: Any) -> Any:
    """The package above in place of the real one."""
    package = tmp_path / "reasoning_gym"
    package.mkdir()
    (package / "__init__.py").write_text(FAKE)
    (package / "factory.py").write_text("DATASETS = {'doubles': None, 'others': None}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    clear()
    yield lambda **arguments: ReasoningGym("doubles", **arguments)
    clear()


def clear() -> None:
    gym.close()
    reasoning_gym._drawn.cache_clear()
    reasoning_gym._scored.cache_clear()


def test_problems_are_their_seeds(fake: Any) -> None:
    task = fake(size=20)
    problems = task.problems()
    assert [p.metadata["seed"] for p in problems] == list(range(20))
    assert [p.id for p in problems[:2]] == ["doubles-0", "doubles-1"]
    assert problems[0].prompt == problems[0].metadata["question"] + (
        "\n\nWrite your final answer between <answer> and </answer>."
    )
    assert task.problems(5, offset=3) == problems[3:8]
    assert fake(size=20, seed=7).problems(5) == problems[7:12]
    assert task.problems(5, seed=1)[0].metadata["seed"] == 20
    assert fake(size=3, arguments={"most": 0}).problems()[2].gold == "0"


def test_test_and_training_seeds_never_meet(fake: Any) -> None:
    tested = {p.metadata["seed"] for p in fake(size=50, seed=10).problems()}
    trained = {p.metadata["seed"] for p in fake(size=50, seed=0, split="train").problems()}
    assert max(tested) < TRAIN <= min(trained)
    with pytest.raises(ConfigError, match="Seeds of test and training problems would overlap"):
        fake(seed=TRAIN - 5, size=6)
    assert fake(seed=TRAIN - 5, size=5).problems(1)
    with pytest.raises(ConfigError, match="would overlap"):
        fake(size=2**20).problems(1, seed=2**10)


def test_its_own_verifier_grades_and_partial_scores_are_kept(fake: Any) -> None:
    task = fake(size=3, arguments={"most": 4})
    problem = task.problems()[0]
    right, wrong = f"so <answer>{problem.gold}</answer>", "<answer>99</answer>"
    assert (task.grade(problem, right), task.score(problem, right)) == (True, 1.0)
    assert (task.grade(problem, wrong), task.score(problem, wrong)) == (False, 0.25)
    assert (task.grade(problem, "no tags"), task.score(problem, "no tags")) == (False, 0.0)
    own = fake(size=3, template="{problem}", answers={"name": "regex", "pattern": "([0-9]+)$"})
    assert own.problems()[0].prompt == own.problems()[0].metadata["question"]
    assert own.grade(own.problems()[0], f"it is {own.problems()[0].gold}")


def test_a_verifier_is_stopped_and_the_next_answer_is_graded(fake: Any) -> None:
    task = fake(size=1, seconds=1)
    problem = task.problems()[0]
    lost, begin = gym.counts.unanswered, time.monotonic()
    assert task.score(problem, "<answer>loop</answer>") == 0.0
    assert gym.counts.unanswered == lost + 1
    assert time.monotonic() - begin < 20
    assert task.score(problem, "<answer>crash</answer>") == 0.0
    assert task.score(problem, "<answer>memory</answer>") == 0.0
    assert task.score(problem, f"<answer>{problem.gold}</answer>") == 1.0


def test_what_it_does_not_know_is_named(fake: Any) -> None:
    with pytest.raises(ConfigError, match=re.compile("doubls.*doubles, others", re.DOTALL)):
        ReasoningGym("doubls").problems(1)
    with pytest.raises(ConfigError, match="cannot draw this data set: AssertionError: most must be kind"):
        fake(arguments={"unkind": True}).problems(1)
    with pytest.raises(ConfigError, match=r"The task itself sets these arguments.*seed"):
        fake(arguments={"seed": 3})
    with pytest.raises(ConfigError, match="Unknown split"):
        fake(split="validation")
    with pytest.raises(ConfigError, match="was given the size 4"):
        fake(size=4).problems(5)


# -- the package itself -------------------------------------------------------------------------------

real = pytest.mark.skipif(
    find_spec("reasoning_gym") is None, reason="pip install 'nabla-reasoner[gym]': reasoning-gym is missing"
)


@real
def test_a_chain_of_sums() -> None:
    arguments = {"min_terms": 6, "max_terms": 7, "min_digits": 1, "max_digits": 1}
    task = tasks.build(
        {"name": "reasoning-gym", "dataset": "chain_sum", "size": 8, "arguments": arguments}
    )
    again = tasks.build(
        {"name": "reasoning-gym", "dataset": "chain_sum", "size": 8, "arguments": arguments}
    )
    assert task.name == "chain_sum"
    assert task.problems() == again.problems()
    for problem in task.problems():
        expression = re.search(r"([-+0-9 ]+)=", problem.prompt)
        assert expression is not None
        assert eval(expression[1]) == int(str(problem.gold))
        assert task.grade(problem, f"<answer>{problem.gold}</answer>")
        assert not task.grade(problem, f"<answer>{int(str(problem.gold)) + 1}</answer>")


@real
def test_a_problem_in_words_has_its_written_solution() -> None:
    task = ReasoningGym("gsm_symbolic", size=2)
    problem = task.problems()[0]
    assert problem.metadata["answer_cot"]
    assert task.grade(problem, f"<answer>{problem.gold}</answer>")
