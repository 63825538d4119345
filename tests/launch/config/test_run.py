from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from nabla.core.errors import ConfigError, NablaError
from nabla.launch.config.presets import BOUNDARIES, DEMOS, SANDBOX_RUNS, changed, embedded
from nabla.launch.config.run import RunConfig, locate, model_paths, with_paths
from nabla.problems.sandbox import TASKS


def test_sandbox_names_become_folders_and_paths_stay():
    assert locate("sandbox:latin-policy").endswith("latin-policy")
    assert locate("some/model") == "some/model"
    with pytest.raises(NablaError, match="latin-policy"):
        locate("sandbox:latin-polcy")


@pytest.mark.parametrize("task", TASKS)
def test_every_family_has_settings_that_resolve_to_plain_data(task):
    resolved = SANDBOX_RUNS[task].resolved()
    assert yaml.safe_load(yaml.safe_dump(resolved)) == resolved
    assert RunConfig.of(resolved).resolved() == resolved
    assert DEMOS[task].problems > 0


def test_the_engine_s_arguments_are_checked_before_models_are_loaded():
    with pytest.raises(ConfigError, match="Did you mean 'live'"):
        RunConfig(lm="x", engine={"lives": 3}).resolved()
    with pytest.raises(ConfigError, match="engine has no argument 'seed'"):
        RunConfig(lm="x", engine={"seed": 3}).resolved()


def test_an_embedded_model_that_does_not_exist_is_found_before_loading():
    with pytest.raises(NablaError, match="sandbox model"):
        RunConfig(lm="sandbox:latin-policy", rm={"name": "process", "path": "sandbox:nope"}).resolved()


def test_no_language_model():
    with pytest.raises(ConfigError, match="no language model"):
        RunConfig().load_models()


def test_loggers_need_a_folder(latin_lm, latin_rm):
    with pytest.raises(ConfigError, match="folder"):
        RunConfig(loggers=["csv"], accelerator="cpu").loop(latin_lm, latin_rm)


def test_paths_of_a_specification_are_found_and_changed_at_any_depth():
    inner = {"name": "process", "path": "b"}
    spec = {"name": "ensemble", "members": ["a", inner, {"name": "x", "members": ["c"]}]}
    assert model_paths(spec) == ["a", "b", "c"]
    assert (model_paths("a"), model_paths(None), model_paths({"name": "function"})) == (["a"], [], [])
    changed = with_paths(spec, str.upper)
    assert model_paths(changed) == ["A", "B", "C"]
    assert (changed["name"], inner["path"]) == ("ensemble", "b")
    with pytest.raises(ConfigError, match=r"^members\.0 is text or a mapping"):
        model_paths({"members": [3]})


def test_an_argument_of_the_engine_that_the_run_sets_itself_is_never_taken_twice(latin_lm):
    with pytest.raises(TypeError, match="multiple values"):
        RunConfig(accelerator="cpu", method="greedy", engine={"seed": 3}).loop(latin_lm, None)


def test_loggers_are_the_first_processes_alone(tmp_path, monkeypatch):
    config = RunConfig(loggers=["csv"])
    assert len(config.build_loggers(tmp_path)) == 1
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert config.build_loggers(None) == []  # it has no folder either


@pytest.mark.parametrize("family", BOUNDARIES)
def test_methods_that_go_by_steps_have_the_familys(family):
    base = embedded(RunConfig(), family)
    stepwise = changed(base, {"name": "backtrack"}).resolved()["method"]
    assert stepwise["boundary"]["tokens"] == BOUNDARIES[family]["tokens"]
    own = changed(base, {"name": "backtrack", "boundary": {"name": "length", "tokens": 2}})
    assert own.resolved()["method"]["boundary"] == {"name": "length", "tokens": 2}
    given = replace(base, method={"name": "backtrack", "boundary": "newline"})
    assert changed(given, {"attempts": 3}).resolved()["method"]["boundary"]["name"] == "newline"
    assert "boundary" not in changed(base, {"max_rollouts": 2}).resolved()["method"]
    other = changed(replace(base, lm="elsewhere"), {"name": "backtrack"})
    assert other.method["boundary"]["name"] == "newline"
