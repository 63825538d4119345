from __future__ import annotations

import csv

import pytest
from lightning.fabric.loggers import CSVLogger, TensorBoardLogger

from nabla.core.errors import ConfigError
from nabla.engine.events import Run
from nabla.launch.callbacks.logging import MetricsLogger, metrics
from nabla.launch.launcher import TestTimeLoop


def test_one_row_per_solution_in_csv_and_tensorboard(latin_lm, latin_prompts, tmp_path):
    loggers = [
        CSVLogger(tmp_path, name="", version="", flush_logs_every_n_steps=1),
        TensorBoardLogger(tmp_path, name="", version="tensorboard"),
    ]
    loop = TestTimeLoop(
        "greedy", latin_lm, callbacks=[MetricsLogger()], loggers=loggers, accelerator="cpu"
    )
    solutions = loop.run(latin_prompts[:3])
    rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    assert len(rows) == 3
    assert {float(row["calls"]) for row in rows} == {float(s.cost.total.calls) for s in solutions}
    assert [int(row["step"]) for row in rows] == [0, 1, 2]
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_the_first_process_logs_what_all_have_solved(latin_lm, latin_prompts, tmp_path):
    solutions = TestTimeLoop("greedy", latin_lm, accelerator="cpu").run(latin_prompts[:3])
    logger = CSVLogger(tmp_path, name="", version="", flush_logs_every_n_steps=1)
    first, other = MetricsLogger(), MetricsLogger()
    first.on_run_start(Run(latin_lm.vocabulary, 2, True, (logger,)), latin_prompts[:3])
    other.on_run_start(Run(latin_lm.vocabulary, 2, False, ()), latin_prompts[:3])  # it has none
    first.on_solution(solutions[0])
    other.on_solution(solutions[1])
    first.on_run_end(Run(latin_lm.vocabulary, 2, True, (logger,)), solutions)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == [0, 1, 2]
    assert [float(row["flops"]) for row in rows] == [s.cost.total.flops for s in solutions]


def test_every_solution_has_the_same_numbers(latin_lm, latin_prompts):
    (solution,) = TestTimeLoop("greedy", latin_lm, accelerator="cpu").run(latin_prompts[:1])
    found = metrics(solution)
    assert all(isinstance(value, float) for value in found.values())
    assert found["reward"] != found["reward"]  # greedy does not score


def test_without_a_logger_it_says_so(latin_lm, latin_prompts):
    loop = TestTimeLoop("greedy", latin_lm, callbacks=[MetricsLogger()], accelerator="cpu")
    with pytest.raises(ConfigError, match="no logger"):
        loop.run(latin_prompts[:1])
