"""Ablations as values: designs, bad input, the checked-in ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from nabla.core.errors import ConfigError
from nabla.study.ablation.config import POINTS, AblationConfig
from nabla.study.ablation.factors import Factor, label_of
from tests.study.ablation.small import VALUES, small, values

FOLDER = Path(__file__).parents[3] / "experiments" / "ablations"
FILES = sorted(FOLDER.glob("*.yaml"))


def test_there_is_one_for_each_question():
    assert {
        *("reward_weight", "estimators", "rows", "delta_terms", "accelerations"),
        *("reward_quality", "policy_quality", "proposals"),
    } <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_checked_in_ablation_loads_resolves_and_its_methods_build(path):
    config = AblationConfig.load(path)
    json.dumps(config.resolved(), default=str)
    points = config.points()
    assert len(points) == config.size >= 3
    assert len({point.label for point in points}) == config.size
    assert config.quickened().base.problems < 20 < config.base.problems
    assert all(point.config.problems == config.base.problems for point in points)


def test_a_grid_is_every_combination_in_order():
    assert [point.label for point in small().points()] == [
        *("nabla-reasoner, sample", "nabla-reasoner, argmax", "revision, sample", "revision, argmax")
    ]


def test_points_are_levels_of_one_factor_and_cross_with_others():
    points = {"as it is": {}, "other": {"engine.kept_gradients": 0, "method.selector": "all"}}
    config = small(points=points, factors={"method.proposal": ["sample", "argmax"]})
    assert config.size == 4
    assert [factor.name for factor in config.factors] == [POINTS, "method.proposal"]
    assert config.points()[3].config.engine == {"kept_gradients": 0}
    alone = small(points=points, factors=None, reference="other")
    assert alone.factors[0].reference == "other"


def test_levels_by_label_and_by_path():
    config = small(
        factors={
            "reward": {"good": {}, "bad": {"method.rm": "bad"}},
            "method.dto.learning_rate": {
                "small": 0.01,
                "large": {"name": "cosine", "start": 1.0, "end": 0.1},
            },
        },
        reference={"reward": "bad"},
    )
    assert config.factors[0].reference == "bad"
    assert config.points()[3].levels == {"reward": "bad", "method.dto.learning_rate": "large"}


@pytest.mark.parametrize(
    ("levels", "named", "label"),
    [
        ([0.5, 1.0], 1.0, "1"), ([True, False], False, "false"), ([1, 0], 0, "0"), ([3, None], None, "none"),
        ([2, 10**7], 10**7, "1e+07"), (["all", {"name": "few", "k": 2}], {"name": "few", "k": 2}, "few(k=2)"),
        ({True: 1, False: 2}, False, "False"), ({"one": 1, None: 2}, None, "None"), ([1, 2], "2", "2"),
    ],
)  # fmt: skip
def test_a_reference_is_named_by_its_value_or_its_label(levels, named, label):
    """As YAML reads them: 1.0, false and null are no texts."""
    assert Factor.of("method.dto.steps", levels, named).reference == label


def test_null_is_a_reference_and_no_reference_is_the_first_level():
    factors = {"precision": ["bf16-true", None]}
    assert small(factors=factors, reference={"precision": None}).factors[0].reference == "none"
    assert small(factors=factors).factors[0].reference == "bf16-true"


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (None, "none"), (True, "true"), (0.001, "0.001"), (20, "20"), ("all", "all"),
        ({"name": "sample", "temperature": 0.5}, "sample(temperature=0.5)"), ({"name": "all"}, "all"),
        ({"reward": 1.0, "kl": 0}, "reward=1, kl=0"), ([1, 2], "[1, 2]"),
    ],
)  # fmt: skip
def test_labels(value, label):
    assert label_of(value) == label


def test_without_budgets_the_methods_own_rule_decides():
    base = small().base
    assert (base.driving, base.ladder) == ((), [])
    assert base.resolved()["budgets"] == {}
    with pytest.raises(ConfigError, match="problems must be at least 1"):  # all else is checked
        small(base={**VALUES["base"], "problems": 0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": None}, "needs a base"),
        ({"base": {"methods": {}}}, "needs a base"),
        ({"base": {**VALUES["base"], "problem": 3}}, "no key 'problem'"),
        ({"factor": {}}, "no key 'factor'"),
        ({"factors": {}}, "needs factors or points"),
        ({"factors": [1]}, "factors is a mapping"),
        ({"points": [1]}, "points is a mapping"),
        ({"sampler": "sobol"}, "Unknown sampler"),
        ({"trials": 3}, "no trials"),
        ({"sampler": "random"}, "needs trials"),
        ({"sampler": "tpe", "trials": 0}, "trials is a whole number"),
        ({"seed": "a"}, "seed is a whole number"),
        ({"factors": {"method.dto.steps": {"low": 1, "high": 3}}}, "no ranges"),
        ({"factors": {"method.dto.steps": [2]}}, "two levels at least"),
        ({"factors": {"method.dto.steps": [2, 2]}}, "given twice"),
        ({"factors": {"method.dto.steps": {1: 2, "1": 3, "2": 4}}}, "given twice"),
        ({"factors": {"method.dto.steps": 2}}, "no levels"),
        ({"factors": {"method.dto.stepz": [2, 3]}}, r"At method\.dto\.stepz = 2: .*Did you mean 'steps'"),
        ({"factors": {"method.dto.steps": [2, 0]}}, r"At method\.dto\.steps = 0: steps must be"),
        ({"factors": {"dto.steps": [2, 3]}}, r"Did you mean 'method\.dto\.steps'"),
        ({"factors": {"size": {"a": 1, "b": 2}}}, "nothing to change at 'size'"),
        ({"factors": {"size": {"low": 1, "high": 2}}}, "nothing to change at 'size'"),
        ({"factors": {"method.selector": ["entropy", "entropi"]}}, "Did you mean 'entropy'"),
        ({"factors": {"method.rm": ["good", "better"]}}, "a reward that task 'squares' has not"),
        ({"factors": {"engine.live": [1, 2]}}, "The evaluation itself sets"),
        ({"factors": {"engine.keptgradients": [1, 2]}}, "Did you mean 'kept_gradients'"),
        ({"reference": {"metod": "revision"}}, "names no factor"),
        ({"reference": {"method": "revison"}}, "Did you mean 'revision'"),
        ({"factors": {"a": {"x": {}, "y": {}}}}, "the same configuration"),
        (
            {"factors": {"method.rm": ["good", "bad"], "a": {"x": {}, "y": {"method.rm": "bad"}}}},
            "Two factors change the same path",
        ),
    ],
)
def test_bad_input_is_a_config_error(changes, message):
    with pytest.raises(ConfigError, match=message):
        small(**changes)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"low": 3, "high": 1}, "ascends"),
        ({"low": 0, "high": 1, "log": True}, "ascends"),
        ({"low": "a", "high": 1}, "numbers low and high"),
        ({"low": 1}, "numbers low and high"),
        ({"low": 1, "high": 2, "steps": 3}, "no key 'steps'"),
        ({"low": 1, "high": 2, "log": 1}, "true or false"),
        ({"low": 1.5, "high": 3, "int": True}, "whole ends"),
        ({"low": 0, "high": 3, "int": True}, "steps must be at least 1"),
    ],
)
def test_bad_ranges(given, message):
    with pytest.raises(ConfigError, match=message):
        small(sampler="random", trials=2, factors={"method.dto.steps": given})


def test_files(tmp_path):
    shared = {key: value for key, value in VALUES["base"].items() if key != "problems"}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(shared, sort_keys=False))
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump(values(base={"file": "base.yaml", "problems": 3})))
    assert AblationConfig.load(path).resolved() == small().resolved()
    for text, message in (
        ("base: [", "cannot be read"),
        ("- 1", "is a mapping"),
        ("base: {file: nowhere.yaml}", "cannot be read"),
        ("base: {file: 3}", "is a path"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            AblationConfig.load(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        AblationConfig.load(tmp_path / "nowhere.yaml")
