"""Numbers that cannot be: each is refused with its option before a model is loaded, and within a second."""

from __future__ import annotations

import itertools

import pytest

from nabla.cli import main
from nabla.launch.config.run import RunConfig

SUM = "28*6+68-71+94"
NO_COUNTS = (
    "nan", ".nan", "inf", ".inf", "-.inf", "true", "abc", "1.5", "1e18", "9" * 5000, "[]", "{}", "1e400"
)  # fmt: skip
COUNTS = (
    "num_nodes", "engine.batch_size", "engine.live", "engine.kept_prefixes", "engine.rows_ahead",
    "method.max_rollouts", "method.rounds", "method.dto.steps", "method.sampling.max_new_tokens",
)  # fmt: skip
FROM_NOTHING = ("engine.kept_gradients", "method.sampling.top_k", "method.proposal.top_k", "seed")
NUMBERS = ("method.dto.estimator.temperature", "method.sampling.temperature", "method.sampling.top_p",
           "method.proposal.temperature", "engine.split_padding")  # fmt: skip

ODD = [
    *itertools.product(COUNTS, ("0", "-1", *NO_COUNTS)),
    *itertools.product(FROM_NOTHING, NO_COUNTS),
    *((name, "-1") for name in FROM_NOTHING[:-1]),  # a seed may be negative
    *itertools.product(NUMBERS, ("nan", ".nan", "-.inf", "-1", "true", "abc", "null", "[1]", "1e400")),
    ("devices", "0"), ("devices", "-2"), ("devices", "abc"), ("devices", "[]"), ("devices", "nan"),
    ("accelerator", "abc"), ("strategy", "abc"), ("precision", "8-bit"), ("place", "2"),
    ("engine.budgets", "[1e9]"), ("engine.budgets", "abc"), ("loggers", "[smoke]"), ("callbacks", "[5]"),
    ("method.dto.learning_rate.start", ".inf"), ("method.dto.objective.weights.reward", ".nan"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_model(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def loads(self):
        raise AssertionError("a model is loaded")

    for name in ("load_models", "load_lm", "load_reward"):
        monkeypatch.setattr(RunConfig, name, loads)


def test_there_are_many():
    assert len(ODD) > 200


@pytest.mark.parametrize("name", dict(ODD))
def test_an_odd_number_is_refused_with_its_option(name, capsys, tmp_path):
    for value in (value for other, value in ODD if other == name):
        assert main(["solve", SUM, "--output", "none", f"--{name}", value]) == 2, value
        said = capsys.readouterr().err
        assert "bug" not in said
        assert "Traceback" not in said
        assert name.rpartition(".")[2] in said or f"--{name.rpartition('.')[0]}" in said, said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["compare", "--problems", "nan"],
        ["compare", "--problems", "-3", "--task", "latin"],
        ["demo", "--problems", "1.5"],
        ["diagnose", "--problems", "nan"],
        ["diagnose", "--swaps", "-1"],
        ["solve", "--task", "sandbox", "--problems", "0"],
        ["solve", "--task", "sandbox", "--offset", "-1"],
        ["bench", "--repeats", "0"],
        ["bench", "--threads", "inf"],
        ["bench", "--dense-repeats", "-1"],
        ["bench", "--prompt-tokens", "64"],
        ["bench", "--problems", "0"],
        ["bench", "--profile", "--output", "none"],
        ["bench", "--lm", "a", "--rm", "b", "--dense-repeats", "3"],
        ["demo", "--problems", "0"],
        ["theory", "--seeds", "1000000000000"],
        ["theory", "--seeds", "0"],
        ["theory", "--jobs", "0"],
        ["estimators", "--seed", "x"],
        ["evaluate", "nothing.yaml", "--workers", "nan"],
        ["ablate", "nothing.yaml", "--problems", "true"],
    ],
)
def test_the_other_commands_refuse_them_too(arguments, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "A bug" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["diagnose", "--task", "lattin"], "There is no such --task (got 'lattin'). Did you mean 'latin'?"),
        (["compare", "--task", "lattin"], "There is no such --task (got 'lattin'). Did you mean 'latin'?"),
        (["compare", "--task", "gsm8k"], "There is no language model"),
        (["diagnose", "--task", "latin", "--rewards", "{a: 1}"], "--rewards.a is a path"),
        (["diagnose", "--task", "latin", "--rewards", "{a: {name: x}}"], "--rewards.a cannot be used"),
        (["diagnose", "--task", "latin", "--process_bench", ""], "cannot be read"),
        (["demo", "--problems", "-1"], "--problems must be at least 1 (got -1)"),
        (["bench", "--problems", "3"], "--problems is of a pair of models"),
        (["bench", "--dense-repeats", "-1"], "--dense-repeats must be at least 0"),
        (["bench", "--profile", "--output", "none"], "needs a folder"),
        (["evaluate", "--report", " "], "--report has no name"),
        (["ablate", "--report", ""], "--report has no name"),
        (["evaluate", "--report", "x", "--problems", "0"], "Leave out --problems, or --report"),
        (["evaluate", "e.yaml", "--report=x", "--quick"], "Leave out --quick, e.yaml, or --report"),
        (["ablate", "a.yaml", "--report", "x"], "Leave out a.yaml, or --report"),
    ],
)
def test_what_is_wrong_is_said_in_the_words_of_the_command(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
