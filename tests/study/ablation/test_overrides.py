"""Dotted paths: what they change, and what they cannot."""

from __future__ import annotations

import pytest

from nabla.core.errors import ConfigError
from nabla.study.ablation.overrides import apply
from nabla.study.evaluation.config import METHOD
from tests.study.ablation.small import small


@pytest.fixture(scope="module")
def base():
    return small().base


def spec(config):
    return config.method(METHOD, "squares")


def test_nothing_changes_nothing(base):
    assert apply(base, {}).resolved() == base.resolved()


def test_nested_arguments_change_and_all_others_stay(base):
    changed = spec(apply(base, {"method.dto.steps": 7, "method.selector": "all"}))
    before = spec(base)
    assert changed["dto"] == {**before["dto"], "steps": 7}
    assert changed["selector"] == {"name": "all"}
    assert changed["sampling"] == before["sampling"]


def test_a_component_the_base_says_nothing_of_is_its_default_with_a_change(base):
    changed = spec(apply(base, {"method.dto.estimator.temperature": 0.5}))
    assert changed["dto"]["estimator"] == {"name": "straight-through", "temperature": 0.5}


def test_a_name_then_an_argument_of_it_in_any_order(base):
    paths = {"method.proposal.temperature": 0.25, "method.proposal": "sample"}
    for order in (list(paths), list(paths)[::-1]):
        changed = spec(apply(base, {path: paths[path] for path in order}))
        assert changed["proposal"] == {"name": "sample", "temperature": 0.25, "top_k": 0, "top_p": 1.0}


def test_another_method_keeps_what_both_have(base):
    changed = spec(apply(base, {"method": "revision"}))
    assert (changed["name"], changed["max_rollouts"]) == ("revision", 3)
    assert changed["sampling"]["max_new_tokens"] == 48
    assert "dto" not in changed


def test_shared_arguments_are_laid_under_and_a_tasks_own_stay_open():
    from dataclasses import replace

    base = small().base
    task = replace(base.tasks["squares"], shared={"acceptance": "always"})
    base = replace(base, shared={"selector": {"name": "entropy", "threshold": 0.5}}, tasks={"squares": task})
    changed = spec(apply(base, {"method.selector.threshold": 0.7}))
    assert changed["selector"] == {"name": "entropy", "threshold": 0.7}
    assert changed["acceptance"] == {"name": "always"}


def test_a_tasks_own_arguments_come_before_shared_ones_at_every_point():
    from dataclasses import replace

    base = small().base
    task = replace(base.tasks["squares"], shared={"acceptance": "always"})
    base = replace(base, shared={"acceptance": "never"}, tasks={"squares": task})
    assert spec(base)["acceptance"] == {"name": "always"}
    assert spec(apply(base, {"method.max_rollouts": 2}))["acceptance"] == {"name": "always"}


def test_engine_models_and_rewards(base):
    changed = apply(
        base,
        {
            "engine.kept_gradients": 0,
            "shard": 1,
            "tasks.*.lm": "sandbox:latin-policy-weak",
            "tasks.squares.rewards.third": "sandbox:latin-reward-weak",
            "method.rm": "third",
        },
    )
    assert changed.engine == {"kept_gradients": 0}
    assert changed.shard == 1
    assert changed.tasks["squares"].lm == "sandbox:latin-policy-weak"
    assert list(changed.tasks["squares"].rewards) == ["good", "bad", "third"]
    assert changed.reward_name(METHOD, "squares") == "third"
    assert base.tasks["squares"].lm == "sandbox:latin-policy"
    assert changed.tasks["squares"].task == base.tasks["squares"].task


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("metod.selector", "all", r"Did you mean 'method\.selector'"),
        ("dto.steps", 3, r"Did you mean 'method\.dto\.steps'"),
        ("problems", 3, "nothing to change at 'problems'"),
        ("seeds", [1], "nothing to change"),
        ("method.dto.stepz", 3, "Did you mean 'steps'"),
        ("method.boundary", "newline", "has no argument 'boundary'"),
        ("method", "revison", "Did you mean 'revision'"),
        ("method", 3, "is a mapping"),
        ("tasks.square.lm", "x", "Did you mean 'squares'"),
        ("tasks.squares.task", {"name": "gsm8k"}, "of the same problems"),
        ("tasks.squares.task.family", "arithmetic", "of the same problems"),
        ("tasks.squares.lmm", "x", "Did you mean 'lm'"),
        ("tasks.squares", "x", "is a mapping"),
        ("engine", 3, "is a mapping"),
        ("shard", 0, "shard must be at least 1"),
    ],
)
def test_what_cannot_be_changed(base, path, value, message):
    with pytest.raises(ConfigError, match=message):
        apply(base, {path: value})
