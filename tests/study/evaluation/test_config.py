"""Evaluations as data: what is filled in, and what is refused before any model is loaded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nabla.core.errors import ConfigError, ModelError, NablaError
from nabla.launch.config.reader import dump
from nabla.launch.fingerprint import difference
from nabla.problems.tasks.base import Problem
from nabla.study.evaluation.config import EvaluationConfig, TaskSetup, unreached
from nabla.study.evaluation.fingerprint import fingerprint
from nabla.study.evaluation.plan import plan
from tests.study.evaluation.small import VALUES, small


def test_shared_arguments_reach_the_methods_that_have_them():
    config = small()
    assert config.method("best", "squares")["sampling"]["max_new_tokens"] == 48
    assert "sampling" not in config.method("greedy", "squares")


def test_a_tasks_own_arguments_come_before_shared_ones_and_a_methods_before_both():
    task = {**VALUES["tasks"]["squares"], "shared": {"sampling": {"temperature": 0.3}}}
    methods = {"best": "best-of-n", "hot": {"name": "best-of-n", "sampling": {"temperature": 2.0}}}
    config = small(tasks={"squares": task}, methods=methods)
    assert config.method("best", "squares")["sampling"]["temperature"] == 0.3
    assert config.method("hot", "squares")["sampling"]["temperature"] == 2.0


def test_methods_choose_their_reward():
    best = {"name": "best-of-n", "rm": "process"}
    methods = {"a": "best-of-n", "b": best, "c": {"name": "greedy", "rm": None}}
    config = small(methods=methods)
    assert [config.reward_name(m, "squares") for m in methods] == ["outcome", "process", None]
    with pytest.raises(ConfigError, match=r"wants a reward.*Rewards: outcome, process"):
        small(methods={"a": {"name": "best-of-n", "rm": "proces"}}).resolved()


def test_methods_can_be_restricted_to_tasks():
    config = small(methods={"a": "greedy", "b": {"name": "greedy", "tasks": []}})
    assert (config.runs("a", "squares"), config.runs("b", "squares")) == (True, False)
    with pytest.raises(ConfigError, match="unknown task"):
        small(methods={"a": {"name": "greedy", "tasks": ["cubes"]}}).resolved()


def test_resolved_data_resolves_and_has_every_default():
    found = small().resolved()
    assert found["methods"]["best"]["squares"]["weight"] == "sigmoid"
    assert found["tasks"]["squares"]["task"]["split"] == "test"
    assert found["engine"]["batch_size"] == 64
    assert found["budgets"] == {"calls": [50.0, 100.0]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": {}}, "needs tasks"),
        ({"tasks": {"x": {"task": "squares", "lm": "a"}}}, "Unknown component in tasks"),
        ({"tasks": {"x": {"task": "sandbox"}}}, "needs 'lm'"),
        ({"tasks": {"x": {"task": "sandbox", "lm": "a", "rm": "b"}}}, "no key 'rm'"),
        ({"tasks": {"x": "sandbox"}}, "is a mapping"),
        ({"methods": {}}, "needs methods"),
        ({"methods": {"x": "best-of-m"}}, "Did you mean 'best-of-n'"),
        ({"methods": {"x": {"name": "best-of-n", "m": 3}}}, "no argument 'm'"),
        ({"methods": {"x": {"n": 3}}}, "with 'name'"),
        ({"methods": {"x": {"name": "best-of-n", "n": 0}}}, "n must be at least 1"),
        ({"methods": {"x": {"name": {}}}}, r"methods\.x\.name is text"),
        ({"methods": ["greedy"]}, "is a mapping"),
        ({"engine": {"split_padding": -1}}, "engine: split_padding must be"),
        ({"precision": "8-bit"}, "Unknown precision"),
        ({"budgets": {}}, "needs budgets"),
        ({"budgets": {"dollars": [1]}}, "Unknown budget unit"),
        ({"budgets": {"calls": [2, 1]}}, "ascend"),
        ({"budgets": {"calls": ["many"]}}, r"budgets\.calls\.0 is a number"),
        ({"seeds": []}, "needs seeds"),
        ({"seeds": [1, 1]}, "twice"),
        ({"seeds": ["a"]}, r"seeds\.0 is a whole number"),
        ({"problems": 0}, "problems must be at least 1"),
        ({"shard": 0}, "shard must be at least 1"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"threads": "many"}, "threads is a whole number"),
        ({"problems": True}, "problems is a whole number"),
        ({"offset": -1}, "offset must be at least 0"),
        ({"offset": 1.5}, "offset is a whole number"),
        ({"reference": "nobody"}, "reference is no method"),
        ({"foo": 1}, "no key 'foo'"),
        ({"engine": {"batchsize": 3}}, "batch_size"),
        ({"engine": {"live": 3}}, "sets this argument"),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(NablaError, match=message):
        small(**changes).resolved()


@pytest.mark.parametrize(
    ("lm", "message"),
    [("sandbox:latin-policies", "Did you mean|did you mean"), ("nowhere/at/all", "cannot be loaded")],
)
def test_missing_models_are_named_without_loading_any(lm, message):
    task = {**VALUES["tasks"]["squares"], "lm": lm}
    with pytest.raises(NablaError, match=message):
        small(tasks={"squares": task}).resolved()


def test_a_missing_reward_model():
    task = {**VALUES["tasks"]["squares"], "rewards": {"outcome": "./no-such-folder"}}
    with pytest.raises(ModelError, match="reward model cannot be loaded: there is no such folder"):
        small(tasks={"squares": task}).resolved()


@pytest.mark.parametrize(
    ("text", "message"),
    [("tasks: [\n", "cannot be read"), ("- 1\n", "is a mapping"), ("methods: {a: greedy}\n", "needs tasks")],
)
def test_unreadable_files(text, message, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        EvaluationConfig.load(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        EvaluationConfig.load(tmp_path / "none.yaml")


def test_exponents_without_a_point_are_numbers(tmp_path):
    path = tmp_path / "x.yaml"
    text = dump({**VALUES, "budgets": None})
    path.write_text(text.replace("budgets: null", "budgets: {flops: [1e8, 1e9]}"))
    assert EvaluationConfig.load(path).ladder == [("flops", 1e8), ("flops", 1e9)]
    with pytest.raises(ConfigError, match=r"budgets\.flops\.0 is a number \(got '1e8'\)"):
        small(budgets={"flops": ["1e8"]})  # quotes are respected


def test_seconds_steer_only_where_nothing_else_does():
    assert [b.unit for b in small(budgets={"seconds": [1], "calls": [9]}).driving] == ["calls"]
    assert [b.unit for b in small(budgets={"seconds": [1]}).driving] == ["seconds"]


def test_a_run_that_only_the_clock_steers_ends_by_it(tmp_path):
    from nabla.study.evaluation.journal import read
    from nabla.study.evaluation.runner import Evaluation

    methods = {"best": VALUES["methods"]["best"]}
    config = small(methods=methods, budgets={"seconds": [1e-6, 0.05]}, problems=1, seeds=[0])
    Evaluation(config, tmp_path / "r").run()
    run, early, late = read(tmp_path / "r")
    assert run["timing"]["seconds"] >= 0.05
    assert (early["response"], early["exhausted"], late["exhausted"]) == (None, True, True)


def test_quick_and_only():
    config = small(quick={"problems": 2, "seeds": [7]}, reference="best")
    assert (config.quickened().problems, config.quickened().seeds) == (2, [7])
    with pytest.raises(ConfigError, match="no quick form"):
        small().quickened()
    with pytest.raises(ConfigError, match="quick has no key"):
        small(quick={"problem": 2}).quickened()
    chosen = config.only(["greedy", "sampling"])
    assert list(chosen.methods) == ["greedy", "sampling"]
    assert chosen.reference is None
    with pytest.raises(ConfigError, match="Unknown component in methods"):
        config.only(["gredy"])


def test_some_of_the_tasks():
    """Methods of other tasks are left out, and what a method says of tasks is cut to those that are left."""
    (label,) = small().tasks
    setup = small().tasks[label]
    methods = {"a": "greedy", "b": {"name": "greedy", "tasks": ["other"]},
               "c": {"name": "greedy", "tasks": [label, "other"]}}  # fmt: skip
    config = replace(small(), tasks={label: setup, "other": setup}, methods=methods, reference="b")
    chosen = config.on([label])
    assert (list(chosen.tasks), list(chosen.methods), chosen.reference) == ([label], ["a", "c"], None)
    assert [chosen.runs(method, label) for method in chosen.methods] == [True, True]
    assert list(config.on(["other"]).methods) == ["a", "b", "c"]
    with pytest.raises(ConfigError, match="no such task"):
        config.on(["squares of squares"])


def test_units_are_ordered_and_cover_everything_once():
    config = small()
    chosen = [Problem(str(i), "x", "y") for i in range(5)]
    problems = {"squares": chosen}
    found = plan(config, problems)
    assert [u.key for u in found[:4]] == [
        ("squares", "greedy", 0, 0), ("squares", "greedy", 0, 1), ("squares", "greedy", 0, 2),
        ("squares", "greedy", 1, 0),
    ]  # fmt: skip
    assert [u.problems for u in found[:3]] == [tuple(chosen[:2]), tuple(chosen[2:4]), (chosen[4],)]
    assert len({u.key for u in found}) == len(found) == 12


# -- fingerprints --------------------------------------------------------------------------------------


def test_arguments_that_older_journals_lack_differ_only_where_they_are_set():
    old = {"config": {"engine": {"batch_size": 64}, "tasks": {}}}
    for value, name in (("auto", None), (10**9, "config.engine.prefix_bytes is in one of them alone")):
        new = {"config": {"engine": {"batch_size": 64, "prefix_bytes": value}, "tasks": {}}}
        assert difference(old, new) == difference(new, old) == name
    other = {"config": {"engine": {"batch_size": 64}, "tasks": {"prefix_bytes": "auto"}}}
    assert "tasks.prefix_bytes" in difference(old, other)


def test_fingerprints_see_the_configuration_the_problems_and_the_weights(tmp_path):
    import shutil

    from nabla.problems.sandbox import TASKS, model_path

    drawn = TASKS["latin"].problems("test", 2, 0)
    problems = {"squares": [Problem(p.id, p.prompt, p.gold) for p in drawn]}
    folder = tmp_path / "policy"
    shutil.copytree(model_path("latin-policy"), folder)
    config = small(tasks={"squares": {"task": "sandbox", "lm": str(folder)}}, methods={"a": "greedy"})
    first = fingerprint(config, problems)
    assert difference(first, fingerprint(config, problems)) is None
    other = {"squares": problems["squares"][:1]}
    assert "problems.squares" in difference(first, fingerprint(config, other))
    hotter = small(tasks=config.tasks, methods={"a": {"name": "greedy", "max_new_tokens": 9}})
    assert "max_new_tokens: 1024 there, 9 here" in difference(first, fingerprint(hotter, problems))
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert "models.squares.lm.files.model.safetensors" in difference(first, fingerprint(config, problems))


def test_shared_arguments_that_methods_lack_are_told():
    found = unreached(small().resolved())
    assert found == ["shared.sampling does not reach greedy: no such argument; their own settings hold"]
    assert unreached(small(shared={}).resolved()) == []


def test_the_name_of_a_registered_reward_is_that_reward():
    task = {**VALUES["tasks"]["squares"], "rewards": {"own": "likelihood"}}
    assert small(tasks={"a": task}).tasks["a"].rewards == {"own": {"name": "likelihood"}}


def test_a_reward_s_own_arguments_are_of_its_fingerprint():
    reward = {"name": "outcome", "path": "a", "tokenizer": "own"}
    setup = TaskSetup("latin", "lm", {"rm": reward}, rm_arguments={"tokenizer": "shared", "dtype": "auto"})
    assert setup.paths()["rm.0"] == ("a", {"tokenizer": "own", "dtype": "auto"})
