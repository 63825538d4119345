from __future__ import annotations

import pytest

from nabla.core.errors import ConfigError
from nabla.core.sampling import Sampling
from nabla.launch.config.reader import dump, parse
from nabla.launch.config.resolve import fill, resolve
from nabla.launch.config.run import RunConfig
from nabla.launch.config.slots import slots
from nabla.methods.base import Method

METHODS = slots()["methods"]


def test_slots_are_the_folders_with_a_registry():
    assert {"estimators", "methods", "callbacks", "rows", "schedulers"} <= set(slots())
    assert "sandbox" not in slots()
    assert "models" not in slots()


@pytest.mark.parametrize("name", ["nabla-reasoner", "best-of-n", "greedy"])
def test_a_resolved_method_is_a_fixed_point_and_builds(name):
    resolved = resolve(METHODS, name)
    assert resolve(METHODS, resolved) == resolved
    assert METHODS.name_of(METHODS.build(resolved)) == name


def test_every_default_is_written_out_down_to_schedules_and_weights():
    dto = resolve(METHODS, "nabla-reasoner")["dto"]
    assert dto["learning_rate"] == {"name": "cosine", "start": 0.01, "end": 0.001, "warmup": 0}
    assert dto["objective"]["weights"] == {"reward": 1.0, "likelihood": 0.001}
    assert dto["estimator"] == {"name": "straight-through", "temperature": 1.0}


def test_changes_reach_nested_arguments_and_leave_the_rest():
    before = resolve(METHODS, "nabla-reasoner")
    changes = {"dto": {"steps": 3, "learning_rate": {"start": 0.5}}, "max_rollouts": 2}
    after = resolve(METHODS, before, changes)
    assert after["dto"].pop("steps") == 3
    assert after["dto"]["learning_rate"].pop("start") == 0.5
    assert after.pop("max_rollouts") == 2
    before["dto"].pop("steps")
    before["dto"]["learning_rate"].pop("start")
    before.pop("max_rollouts")
    assert after == before


def test_a_change_is_laid_over_a_default_that_the_signature_hides():
    changed = resolve(METHODS, "nabla-reasoner", {"dto": {"objective": {"weights": {"kl": 0.1}}}})
    assert changed["dto"]["objective"]["weights"] == {"reward": 1.0, "likelihood": 0.001, "kl": 0.1}


def test_another_name_keeps_the_arguments_that_both_have():
    base = {"name": "nabla-reasoner", "sampling": {"max_new_tokens": 7}, "max_rollouts": 3}
    changed = resolve(METHODS, base, {"name": "best-of-n", "n": 4})
    assert changed["sampling"] == fill(Sampling, {"max_new_tokens": 7})
    assert (changed["name"], changed["n"]) == ("best-of-n", 4)
    assert "max_rollouts" not in changed


def test_a_name_alone_replaces_a_component():
    base = {"name": "nabla-reasoner", "dto": {"estimator": {"name": "soft-embedding", "temperature": 0.5}}}
    changed = resolve(METHODS, base, {"dto": {"estimator": "gumbel-softmax"}})
    assert changed["dto"]["estimator"] == {"name": "gumbel-softmax", "temperature": 1.0}


def test_lists_of_components_are_resolved():
    spec = {"name": "and", "parts": ["entropy", {"name": "gradient-norm", "threshold": 4.0}]}
    parts = resolve(slots()["selectors"], spec)["parts"]
    assert parts == [
        {"name": "entropy", "threshold": 0.25},
        {"name": "gradient-norm", "threshold": 4.0, "centred": True},
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dto": {"stepz": 3}}, "Did you mean 'steps'"),
        ({"max_rolouts": 3}, "Did you mean 'max_rollouts'"),
        ({"name": "nabla-resoner"}, "Did you mean 'nabla-reasoner'"),
        ({"dto": {"estimator": "gumbel"}}, "gumbel-softmax"),
    ],
)
def test_misspellings_name_the_nearest(changes, message):
    with pytest.raises(ConfigError, match=message):
        resolve(METHODS, "nabla-reasoner", changes)


def test_a_missing_required_argument_is_named():
    with pytest.raises(ConfigError, match="needs the argument 'value'"):
        resolve(slots()["schedulers"], "constant")


def test_whole_numbers_become_floats_where_a_float_is_meant():
    threshold = resolve(slots()["selectors"], {"name": "entropy", "threshold": 1})["threshold"]
    assert isinstance(threshold, float)


def test_something_that_is_no_spec():
    with pytest.raises(ConfigError, match="Not a component of methods"):
        resolve(METHODS, 3)


class Tournament(Method):
    """A method with value classes among its settings."""

    def __init__(
        self,
        sampling: Sampling | None = None,
        later: Sampling = Sampling(top_k=3),  # noqa: B008 - frozen
        each: list[Sampling] | None = None,
        named: dict[str, Sampling] | None = None,
    ) -> None:
        self.sampling = sampling or Sampling(max_new_tokens=9)
        self.later, self.each, self.named = later, each, named

    async def solve(self, session):
        raise AssertionError


class Keeper(Method):
    """A setting that no file can hold."""

    def __init__(self, rule=len) -> None:
        self.rule = rule

    async def solve(self, session):
        raise AssertionError


@pytest.fixture
def own():
    METHODS.register("tournament-of-tests")(Tournament)
    METHODS.register("keeper-of-tests")(Keeper)
    yield
    for name in ("tournament-of-tests", "keeper-of-tests"):
        METHODS._names.pop(METHODS._classes.pop(name))


def test_value_classes_are_written_as_mappings_and_read_back(own, tmp_path):
    spec = {"name": "tournament-of-tests", "sampling": {"temperature": 0.5}, "each": [{"top_k": 2}]}
    config = RunConfig(method={**spec, "named": {"a": {"top_p": 0.5}}})
    method = parse(dump(config.resolved()))["method"]
    assert method["sampling"] == fill(Sampling, {"temperature": 0.5})
    assert method["later"]["top_k"] == 3
    assert resolve(METHODS, method) == method
    made = METHODS.build(method)
    assert made.sampling == Sampling(temperature=0.5)
    assert (made.each, made.named) == ([Sampling(top_k=2)], {"a": Sampling(top_p=0.5)})
    assert resolve(METHODS, method, {"sampling": {"top_k": 4}})["sampling"]["temperature"] == 0.5


def test_what_none_stands_for_is_written_too(own):
    assert resolve(METHODS, "tournament-of-tests")["sampling"]["max_new_tokens"] == 9


def test_what_no_file_can_hold_is_refused_by_name_before_a_run(own):
    with pytest.raises(ConfigError, match=r"method\.rule cannot be written.*builtin.*Make anything else"):
        RunConfig(method="keeper-of-tests").resolved()
