"""Messages that say what was wrong, what was got and what to do."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from nabla.core import errors
from nabla.core.costs import Cost
from nabla.core.errors import (
    ConfigError,
    NablaError,
    NumericalError,
    PromptError,
    nearest,
    require_count,
    require_finite,
    require_one_of,
    require_positive,
)
from nabla.core.prompt import Prompt
from nabla.core.solution import Interrupted, RunError, Solution


def solution(id: str) -> Solution:
    return Solution(Prompt.of("?", id=id), "4", (4,), 1.0, True, "greedy", Cost())


def test_one_tree():
    kinds = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]
    assert len(kinds) > 5
    assert all(issubclass(kind, NablaError) for kind in kinds)
    assert issubclass(errors.VocabularyError, errors.ModelError)


def test_message():
    assert str(NablaError("It broke")) == "It broke"
    assert str(NablaError("It broke", got=None)) == "It broke (got None)"
    full = ConfigError("steps must be positive", got=-1, fix="Pass 1 or more.")
    assert str(full) == "steps must be positive (got -1). Pass 1 or more."
    assert (full.what, full.got, full.fix) == ("steps must be positive", "-1", "Pass 1 or more.")


def test_a_long_value_is_shortened():
    assert len(NablaError("x", got="y" * 1000).got) == 200
    assert NablaError("x", got="y" * 1000).got.endswith("...")
    assert NablaError("x", got="y" * 198).got == repr("y" * 198)


@pytest.mark.parametrize("error", [ConfigError("a", got=1, fix="b"), NumericalError("a")])
def test_errors_cross_processes(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), copy.what, copy.got, copy.fix) == (str(error), error.what, error.got, error.fix)


def test_trap_errors_dropped_from_the_denominator():
    """A failed problem is neither an answer nor forgotten: finished and failed ones add up."""
    done = [solution("a"), solution("c")]
    error = RunError(done, {"b": NumericalError("NaN reward", fix="Check the model.")})
    assert error.solutions == done
    assert set(error.failures) == {"b"}
    assert "1 of 3 problems failed" in str(error)
    assert "'b': NaN reward. Check the model." in str(error)


def test_a_single_problems_error_is_shown_as_it_is():
    cause = NumericalError("NaN reward", got=float("nan"), fix="Check the model.")
    error = RunError([], {"b": cause})
    assert str(error) == str(cause)
    assert (error.what, error.got, error.fix) == (cause.what, cause.got, cause.fix)


def test_interrupted_keeps_what_was_finished():
    error = Interrupted([solution("a")], 3)
    assert error.solutions[0].prompt.id == "a"
    assert "Interrupted after 1 of 3 problems" in str(error)


def test_errors_of_a_run_survive_pickling():
    failure = RunError([], {"a": PromptError("no", got=1, fix="yes")})
    copy = pickle.loads(pickle.dumps(failure))
    assert str(copy) == str(failure)
    assert list(copy.failures) == ["a"]
    stop = pickle.loads(pickle.dumps(Interrupted([], 3)))
    assert (stop.solutions, stop.total) == ([], 3)


def test_counts_are_whole_numbers():
    assert require_count("n", 3) == 3
    for value in (float("nan"), float("inf"), True, 2.0, "3", None, [1]):
        with pytest.raises(ConfigError, match="n must be a whole number"):
            require_count("n", value)
        with pytest.raises(ConfigError, match="n must be a whole number"):
            require_positive(n=value)
    with pytest.raises(ConfigError, match="at least 2 candidates"):
        require_count("n", 1, minimum=2, note=" candidates")
    for value in (True, "0.5", float("nan"), float("inf"), None, 10**400):
        with pytest.raises(ConfigError, match="x must be"):
            require_finite("x", value)


ODD = """
import math
from nabla import DTO, Sampling, TestTimeLoop
from nabla.core.errors import NablaError
from nabla.engine.engine import Engine
from nabla.estimators.rao_gumbel import RaoGumbel
from nabla.methods.base import methods
from nabla.rollouts.boundaries.newline import Newline
from nabla.rollouts.huggingface import HuggingFaceRollout
from nabla.schedulers.cosine import Cosine
nan, inf = math.nan, math.inf
tries = [
    lambda: Sampling(top_k=nan), lambda: Sampling(max_new_tokens=inf), lambda: Sampling(temperature="1"),
    lambda: Sampling(top_p=True), lambda: DTO(steps=nan), lambda: DTO(steps=2.5),
    lambda: DTO(learning_rate=nan),
    lambda: methods["nabla-reasoner"](max_rollouts=nan), lambda: methods["nabla-reasoner"](max_rollouts=True),
    lambda: methods["nabla-reasoner"](rounds=inf), lambda: methods["best-of-n"](n=nan),
    lambda: methods["cold"](top_k=inf), lambda: methods["tpo"](n=nan),
    lambda: methods["coordinate-search"](batch=nan),
    lambda: methods.build({"name": "best-of-n", "n": "4"}), lambda: Newline(count=nan),
    lambda: HuggingFaceRollout(batch_size=nan), lambda: Cosine(warmup=nan), lambda: Engine("a path"),
    lambda: TestTimeLoop("greedy", None),
]
for number, attempt in enumerate(tries):
    try:
        attempt()
    except NablaError as error:
        assert "constructor" not in str(error), error
    else:
        raise SystemExit(f"try {number} is taken")
"""


def test_python_refuses_odd_numbers_too():
    """In a process without the type checker of these tests."""
    done = subprocess.run([sys.executable, "-c", ODD], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_misspelt_name_is_answered_with_the_nearest_and_with_all():
    require_one_of("cost", ("cost", "stream"), "Unknown callback")
    with pytest.raises(ConfigError) as caught:
        require_one_of("strem", (name for name in ("cost", "stream")), "Unknown callback", "Callbacks")
    said = "Unknown callback (got 'strem'). Did you mean 'stream'? Callbacks: cost, stream."
    assert str(caught.value) == said
    with pytest.raises(ConfigError, match=r"^Unknown callback \(got 3\)\. Known: none\.$"):
        require_one_of(3, (), "Unknown callback")
    assert nearest("xyz", ["cost"]) == ""
    assert nearest("metod", ["method"], ".dto") == "Did you mean 'method.dto'? "


class Unshown:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize("got", [10**6000, Unshown(), [Unshown()]], ids=["digits", "class", "list"])
def test_a_value_that_cannot_be_shown_is_told_all_the_same(got):
    assert "It broke (got a " in str(NablaError("It broke", got=got, fix="Mend it."))
