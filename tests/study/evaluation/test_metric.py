"""Evaluations measured by a reward or by a function of the user's, with gold answers and without."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import ttest_1samp

from nabla.core.errors import ConfigError, NumericalError
from nabla.core.trust import code_allowed
from nabla.engine.session import Session
from nabla.study.evaluation.fingerprint import fingerprint
from nabla.study.evaluation.journal import RECORDS, line, read
from nabla.study.evaluation.lines import reproducible
from nabla.study.evaluation.metric import Metric, function_of
from nabla.study.evaluation.report import write_report
from nabla.study.evaluation.results import Results
from nabla.study.evaluation.runner import ABOUT, Evaluation
from nabla.study.evaluation.statistics import (
    bootstrap_mean,
    common_means,
    compare_numbers,
    number_p,
    unbeaten,
)
from nabla.study.evaluation.summary import summarise
from nabla.study.evaluation.tables import comparison_table, console_tables, to_latex, to_markdown
from tests.study.evaluation.small import VALUES, small

LENGTH = f"{__name__}:length"
FEW = {"problems": 2, "seeds": [0], "budgets": {"calls": [50]}}


def length(prompt: str, response: str) -> float:
    """A metric: characters of the response as a share of the prompt's."""
    return len(response) / len(prompt)


def broken(prompt: str, response: str) -> float:
    raise ZeroDivisionError(prompt + response)


def nan(prompt: str, response: str) -> float:
    return float("nan") * len(prompt + response)


@pytest.fixture(scope="module")
def prompts():
    from nabla.problems.sandbox import TASKS

    return [p.prompt for p in TASKS["latin"].problems("test", 2, 0)]


def without_gold(folder: Path, prompts: list[str]) -> dict[str, object]:
    """The small evaluation's task as a file without answers."""
    path = folder / "squares.jsonl"
    path.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts), encoding="utf-8")
    return {"squares": {**VALUES["tasks"]["squares"], "task": {"name": "jsonl", "path": str(path)}}}


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "plain"
    Evaluation(small(**FEW), folder).run()
    return folder


@pytest.fixture(scope="module")
def by_reward(tmp_path_factory, prompts) -> Path:
    """Of problems without gold answers."""
    folder = tmp_path_factory.mktemp("results")
    tasks = without_gold(folder, prompts)
    Evaluation(small(**FEW, tasks=tasks, metric="reward"), folder / "r").run()
    return folder / "r"


# -- the usual metric is what it was -----------------------------------------------------------------


def test_the_usual_metric_leaves_no_trace(plain):
    config = small(**FEW, metric="answer")
    assert "metric" not in config.resolved()
    about = json.loads((plain / ABOUT).read_text(encoding="utf-8"))
    assert "metric" not in about["config"]
    same = fingerprint(small(**FEW), {})
    assert fingerprint(config, {}) == same
    assert all("metric" not in row for row in read(plain))
    _, summary = write_report(plain)
    assert "metric" not in summary
    assert "mean" not in summary["rows"][0]


def test_another_metric_is_another_evaluation(plain):
    with pytest.raises(ConfigError, match=r"another configuration; config\.metric"):
        Evaluation(small(**FEW, metric="reward"), plain).run()


# -- a reward ----------------------------------------------------------------------------------------


def test_every_answer_has_its_reward_whoever_scored_it(by_reward):
    """The greedy method scores nothing itself, and its records say so; the metric has a number all the
    same. Of the other method it is the run's own."""
    found = list(read(by_reward))
    for row in found:
        if row["method"] == "best":
            assert row["metric"] == row["reward"]
        else:
            assert row["reward"] is None
            assert (row["metric"] is None) == (row["response"] is None)
    numbers = [row["metric"] for row in found if row["method"] == "greedy" and row["kind"] == "run"]
    assert all(isinstance(number, float) for number in numbers)
    assert len(set(numbers)) == 2
    # Where both wrote the same text they have the same reward.
    told = {(row["problem"], row["response"]): row["metric"] for row in found if row["method"] == "best"}
    for row in found:
        if row["method"] == "greedy" and (row["problem"], row["response"]) in told:
            assert row["metric"] == pytest.approx(told[row["problem"], row["response"]], abs=1e-4)


def test_a_metric_changes_nothing_else_in_the_records(plain, tmp_path):
    """Verdicts and rewards are there as ever, and no budget paid for the scores."""
    Evaluation(small(**FEW, metric="reward"), tmp_path / "r").run()
    found = [reproducible(row) for row in read(tmp_path / "r")]
    assert any(row["metric"] is not None for row in found if row["method"] == "greedy")
    assert [{k: v for k, v in row.items() if k != "metric"} for row in found] == [
        reproducible(row) for row in read(plain)
    ]
    _, summary = write_report(tmp_path / "r")
    accuracies = [row["accuracy"] for row in summary["rows"]]
    assert accuracies == [row["accuracy"] for row in write_report(plain)[1]["rows"]]
    _, as_before = write_report(tmp_path / "r", metric="answer")
    for new, old in zip(as_before["rows"], write_report(plain)[1]["rows"], strict=True):
        assert {**new, "seconds": None} == {**old, "seconds": None}


def test_the_greedy_answers_number_is_the_rewards_own(by_reward, tmp_path, prompts):
    """Scored by the reward that a method would use."""
    sampling = {"temperature": 0.0, "max_new_tokens": 48}
    methods = {"scored": {"name": "best-of-n", "n": 1, "sampling": sampling}}
    tasks = without_gold(tmp_path, prompts)
    config = small(**FEW, tasks=tasks, metric="reward", methods=methods)
    Evaluation(config, tmp_path / "r").run()
    own = {row["problem"]: row for row in read(tmp_path / "r") if row["kind"] == "run"}
    greedy = {r["problem"]: r for r in read(by_reward) if (r["method"], r["kind"]) == ("greedy", "run")}
    for name, row in greedy.items():
        assert row["response"] == own[name]["response"]
        assert row["metric"] == pytest.approx(own[name]["reward"], abs=1e-4)


def test_a_method_with_another_reward_is_measured_by_the_first(tmp_path, prompts):
    methods = {"process": {"name": "best-of-n", "n": 2, "rm": "process"}}
    tasks = without_gold(tmp_path, prompts)
    Evaluation(small(**FEW, tasks=tasks, metric="reward", methods=methods), tmp_path / "r").run()
    rows = [row for row in read(tmp_path / "r") if row["response"] is not None]
    assert rows
    assert all(row["metric"] is not None and row["metric"] != row["reward"] for row in rows)


def test_an_answer_that_the_reward_cannot_score_has_no_number(tmp_path, monkeypatch, caplog):
    """The run goes on, says so, and its tables show nothing where nothing was measured."""

    async def score(self, trajectories, *, keep_graph=False):
        raise NumericalError("The text is too long for the reward")

    monkeypatch.setattr(Session, "score", score)
    methods = {name: {"name": "greedy", "max_new_tokens": 48} for name in ("one", "two")}
    Evaluation(small(**FEW, metric="reward", methods=methods), tmp_path / "r").run()
    assert all(row["metric"] is None and row["error"] is None for row in read(tmp_path / "r"))
    assert "no reward for the answers of one" in caplog.text
    assert "too long for the reward" in caplog.text
    _, summary = write_report(tmp_path / "r")
    assert {(row["mean"], row["measured"], row["answered"]) for row in summary["rows"]} == {(None, 0.0, 1.0)}
    assert summary["comparisons"] == []
    assert "| one | - |" in (tmp_path / "r" / "tables.md").read_text()


def test_no_right_and_wrong_without_gold_answers(by_reward):
    assert {row["correct"] for row in read(by_reward)} == {None}
    results, summary = write_report(by_reward)
    assert results.ungraded == {"squares"}
    assert {row["accuracy"] for row in summary["rows"]} == {None}
    assert {row["pass_at_k"] for row in summary["rows"]} == {None}
    table = list(csv.DictReader(io.StringIO((by_reward / "results.csv").read_text())))
    assert {row["accuracy"] for row in table} == {""}
    for row, shown in zip(summary["rows"], table, strict=True):
        assert float(shown["mean"]) == row["mean"]
        assert row["low"] <= row["mean"] <= row["high"]
    assert (by_reward / "reward_calls.png").is_file()
    with pytest.raises(ConfigError, match="no right and wrong"):
        write_report(by_reward, metric="answer")


def test_a_run_that_was_cut_goes_on_with_its_numbers(by_reward, tmp_path, prompts, monkeypatch):
    folder = tmp_path / "cut"
    shutil.copytree(by_reward, folder)
    rows = list(read(folder))
    (folder / RECORDS).unlink()
    config = small(**FEW, metric="reward")
    keep = [row for row in rows if row["method"] == "greedy"]
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    task = about["config"]["tasks"]["squares"]["task"]
    tasks = {"squares": {**VALUES["tasks"]["squares"], "task": task}}
    config = small(**FEW, metric="reward", tasks=tasks)
    key = ["squares", "greedy", 0, 0]
    data = b"".join(line(row) for row in keep) + line({"unit": key, "lines": len(keep)})
    (folder / "journal-0.jsonl").write_bytes(data)
    Evaluation(config, folder).run()
    assert [reproducible(row) for row in read(folder)] == [reproducible(row) for row in rows]


def test_a_task_without_gold_answers_needs_a_metric_that_needs_none(tmp_path, prompts, monkeypatch):
    from nabla.launch.config.run import RunConfig

    monkeypatch.setattr(RunConfig, "load_lm", lambda self: pytest.fail(f"{self} was loaded"))
    tasks = without_gold(tmp_path, prompts)
    with pytest.raises(ConfigError, match=r"no gold answers.*--metric.*reward") as caught:
        Evaluation(small(**FEW, tasks=tasks), tmp_path / "r")
    assert "tasks.squares.task" in str(caught.value)
    assert not (tmp_path / "r").exists()


def test_a_reward_metric_needs_a_reward(tmp_path):
    tasks = {"squares": {**VALUES["tasks"]["squares"], "rewards": {}}}
    methods = {"greedy": {"name": "greedy", "rm": None}}
    with pytest.raises(ConfigError, match=r"tasks\.squares\.rewards.*metric is a reward"):
        Evaluation(small(**FEW, tasks=tasks, methods=methods, metric="reward"), tmp_path)


def test_old_records_are_read_by_their_rewards(plain, tmp_path):
    """Only where every answer has one, of one reward."""
    with pytest.raises(ConfigError, match="not the same one"):  # greedy has none
        Results.load(plain, "reward")
    folder = tmp_path / "r"
    methods = {"one": {"name": "best-of-n", "n": 1}, "two": {"name": "best-of-n", "n": 2}}
    methods = {k: {**v, "sampling": {"temperature": 0.7, "max_new_tokens": 48}} for k, v in methods.items()}
    Evaluation(small(**FEW, methods=methods), folder).run()
    results, summary = write_report(folder, metric="reward")
    assert results.metric == Metric("reward")
    for row in summary["rows"]:
        assert (row["mean"], row["low"], row["high"]) == (
            row["reward"], row["reward_low"], row["reward_high"],
        )  # fmt: skip
        assert row["accuracy"] is not None
    with pytest.raises(ConfigError, match="not measured by that metric"):
        Results.load(folder, LENGTH)


# -- a function --------------------------------------------------------------------------------------


def test_a_function_measures_every_answer(tmp_path, prompts):
    config = small(**FEW, tasks=without_gold(tmp_path, prompts), metric=LENGTH)
    Evaluation(config, tmp_path / "r").run()
    for row in read(tmp_path / "r"):
        expected = None if row["response"] is None else length(prompts[int(row["problem"])], row["response"])
        assert row["metric"] == expected
    results, summary = write_report(tmp_path / "r")
    assert results.metric.axis == "length"
    assert summary["metric"] == LENGTH
    assert (tmp_path / "r" / "length_calls.png").is_file()


def test_a_function_runs_only_where_code_may(tmp_path):
    with code_allowed(False), pytest.raises(ConfigError, match=r"metric.*--allow-code"):
        Evaluation(small(**FEW, metric=LENGTH), tmp_path / "r")
    with code_allowed(False):
        Evaluation(small(**FEW, metric="reward"), tmp_path / "r")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rewards", "There is no such metric"),
        ("module:", "There is no such metric"),
        ("no.such.module:f", "metric function cannot be imported"),
        (f"{__name__}:LENGTH", "is no function"),
    ],
)
def test_a_metric_that_is_none_is_refused_at_once(name, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        Evaluation(small(**FEW, metric=name), tmp_path / "r")


@pytest.mark.parametrize(("name", "message"), [("broken", "ZeroDivisionError"), ("nan", "metric function")])
def test_a_function_that_fails_says_so(name, message):
    function = function_of(f"{__name__}:{name}")
    with pytest.raises(ConfigError, match=message):
        function("p", "r")


# -- statistics --------------------------------------------------------------------------------------


def test_numbers_are_compared_where_both_have_one():
    nothing = np.nan
    one = np.array([[1.0, 2.0, nothing, 4.0], [3.0, 2.0, nothing, nothing]])
    two = np.array([[0.0, 1.0, 5.0, nothing], [0.0, 1.0, 5.0, nothing]])
    assert [list(part) for part in common_means(one, two)] == [[2.0, 2.0], [0.0, 1.0]]
    found = compare_numbers(one, two)
    assert found.difference == pytest.approx(1.5)
    assert (found.first_only, found.second_only, found.p_mcnemar) == (2, 0, None)
    assert found.p == pytest.approx(ttest_1samp([2.0, 1.0], 0).pvalue) == number_p(one, two)
    assert compare_numbers(one[:, 2:3], two[:, 2:3]) is None
    assert number_p(one[:, 2:3], two[:, 2:3]) == 1.0


def test_the_best_of_numbers_is_the_one_that_beats_all():
    noise = np.random.default_rng(0)
    hard = noise.normal(size=(1, 40))
    values = [hard + gain + noise.normal(0, 0.2, (1, 40)) for gain in (0.0, 1.0, 0.1)]
    assert unbeaten(values, test=number_p) == 1
    assert unbeaten([values[0], values[0]], test=number_p) is None
    mean, low, high = bootstrap_mean(values[0][0])
    assert low < mean == values[0].mean() < high


def test_tables_show_numbers_in_their_own_unit(tmp_path):
    """Of made-up records: 40 problems, two methods of which the second is higher by about 0.5."""
    noise = np.random.default_rng(1)
    config = {"tasks": {"t": {}}, "methods": {"low": {}, "high": {}}, "metric": "reward"}
    about = {"config": {**config, "seeds": [0, 1], "budgets": {"calls": [9]}}}
    (tmp_path / ABOUT).write_text(json.dumps(about))
    with (tmp_path / RECORDS).open("wb") as file:
        for problem in range(40):
            for method, gain in (("low", 0.0), ("high", 0.5)):
                for seed in (0, 1):
                    empty = method == "low" and problem == 0
                    number = None if empty else -2.0 + 0.05 * problem + gain + noise.normal(0, 0.1)
                    common = {
                        "task": "t", "method": method, "seed": seed, "problem": str(problem),
                        "correct": None, "reward": None, "metric": number, "error": None,
                    }  # fmt: skip
                    usage = {"calls": 5, "tokens": 5, "flops": 5.0}
                    run = {
                        "kind": "run", "length": 5, "cost": usage, "first": usage, "phases": {},
                        "revisions": [],
                        "timing": {"seconds": 1.0, "first_seconds": 1.0, "peak_bytes": 0, "phases": {}},
                    }  # fmt: skip
                    answer = {
                        "kind": "answer", "unit": "calls", "value": 9, "exhausted": True,
                        "cost": None if empty else usage, "timing": {"seconds": None if empty else 1.0},
                    }  # fmt: skip
                    for row in (run, answer):
                        file.write(line({**common, **row}))
    results, summary = write_report(tmp_path)
    low, high = summary["rows"]
    values = results.cells["t", "high", "calls", 9.0].value.mean(0)
    assert high["mean"] == pytest.approx(values.mean())
    assert (high["low"], high["high"]) == bootstrap_mean(values)[1:]
    assert (low["measured"], low["answered"], high["measured"]) == (39 / 40, 39 / 40, 1.0)
    assert (low["best"], high["best"]) == (False, True)
    (compared,) = summary["comparisons"]
    assert compared["pairs"] == 39
    assert compared["difference"] == pytest.approx(0.5, abs=0.06)
    assert compared["p_holm"] < 1e-6
    texts = [to_markdown(summary), to_latex(summary)]
    console = Console(width=120, record=True, file=io.StringIO())
    for shown in [*console_tables(summary), comparison_table(summary)]:
        console.print(shown)
    texts.append(console.export_text())
    for text in texts:
        assert "mean reward by budget in calls" in text
        assert f"{high['mean']:.3g}" in text
        assert "ccuracy" not in text
        assert f"{100 * high['mean']:.1f}" not in text
    header = (tmp_path / "comparisons.csv").read_text().splitlines()[0]
    assert "pairs" in header
    assert "p_mcnemar" not in header
    assert summarise(results)["rows"] == summary["rows"]
