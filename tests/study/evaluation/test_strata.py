"""Thirds of the problems: their differences add up to the whole."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from nabla.core.errors import ConfigError
from nabla.study.evaluation.results import ABOUT, Results
from nabla.study.evaluation.runner import Evaluation
from tests.study.evaluation.small import small

PATH = Path(__file__).parents[3] / "experiments" / "strata.py"


@pytest.fixture(scope="module")
def strata():
    spec = importlib.util.spec_from_file_location("strata", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strata") / "r"
    Evaluation(small(budgets={"flops": [1e9]}, problems=6, offset=2, seeds=[0]), folder).run()
    return folder


def test_thirds_add_up_to_the_whole(strata, folder, capsys):
    assert strata.main([str(folder), "--methods", "best", "--against", "greedy"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [[c.strip() for c in x.split("|")[1:-1]] for x in lines if x.startswith(("| entropy", "| length"))]
    cells = Results.load(folder).cells
    means = [cells["squares", m, "flops", 1e9].correct.mean() for m in ("best", "greedy")]
    for name in ("entropy", "length"):
        own = [row for row in rows if row[0] == name]
        assert sum(int(row[2]) for row in own) == 6
        whole = sum(int(row[2]) * float(row[6]) for row in own) / 6
        assert whole == pytest.approx(100 * (means[0] - means[1]), abs=0.06)


def test_equal_values_stay_together(strata):
    assert [(span, int(mask.sum())) for span, mask in strata.thirds(np.array([7, 7, 7]))] == [("7 to 7", 3)]
    masks = [mask for _, mask in strata.thirds(np.arange(9))]
    assert np.array_equal(np.stack(masks).sum(0), np.ones(9))
    assert [int(mask.sum()) for mask in masks] == [3, 3, 3]


def test_an_unknown_method_is_refused(strata, folder):
    with pytest.raises(ConfigError, match="There are greedy, best"):
        strata.main([str(folder), "--methods", "best", "--against", "nobody"])


def test_an_unknown_unit_is_refused(strata, folder):
    with pytest.raises(ConfigError, match="Use flops"):
        strata.main([str(folder), "--methods", "best", "--against", "greedy", "--unit", "calls"])


def test_greedy_responses_have_the_configuration_s_limit(strata, folder):
    config = json.loads((folder / ABOUT).read_text())["config"]
    config["shared"]["sampling"] = {"max_new_tokens": 10}
    (ids,) = Results.load(folder).tasks.values()
    assert strata.properties(config, "squares", ids)["length"].tolist() == [10] * len(ids)
