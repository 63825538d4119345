from __future__ import annotations

import pytest

from nabla.core.errors import ConfigError
from nabla.core.sampling import Sampling
from nabla.launch.config.resolve import fill, resolve
from nabla.launch.config.slots import slots

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
