"""Rewards by their names."""

from __future__ import annotations

import pytest

from nabla.core.errors import ConfigError
from nabla.launch.config.run import RunConfig
from nabla.rewards.base import Reward, rewards
from nabla.rewards.loading import load_reward, registered


class Nines(Reward):
    """One without arguments."""

    def score(self, responses, runner):
        raise AssertionError


@pytest.fixture
def nines():
    rewards.register("nines-of-tests")(Nines)
    yield "nines-of-tests"
    rewards._names.pop(rewards._classes.pop("nines-of-tests"))


def test_a_bare_name_is_the_registered_reward(nines):
    assert RunConfig(rm=nines).rm == {"name": nines}
    assert isinstance(load_reward(nines), Nines)
    assert registered({"name": "ensemble", "members": [nines]})["members"] == [{"name": nines}]


def test_one_that_needs_arguments_says_how_it_is_written():
    with pytest.raises(ConfigError, match=r"needs more than its name.*\{name: process, path: PATH_OR_ID\}"):
        RunConfig(rm="process")
    with pytest.raises(ConfigError, match=r"\{name: function, function: \.\.\.\}"):
        registered("function")


def test_a_path_of_that_name_is_not_guessed(nines, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / nines).mkdir()
    with pytest.raises(ConfigError, match=rf"Write \./{nines} for the path"):
        RunConfig(rm=nines)
    assert RunConfig(rm=f"./{nines}").rm == f"./{nines}"


@pytest.mark.parametrize("spec", ["gpt2", "sandbox:latin-reward", "a/nines", None])
def test_models_stay_models(spec):
    assert RunConfig(rm=spec).rm == spec
