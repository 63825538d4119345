from __future__ import annotations

import pytest
import yaml

from nabla.core.errors import ConfigError, NablaError
from nabla.launch.config.presets import DEMOS, SANDBOX_RUNS
from nabla.launch.config.run import RunConfig, locate
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
