"""Summaries, tables and plots of records whose statistics are known."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import struct

import numpy as np
import pytest
from markdown_it import MarkdownIt
from matplotlib.figure import Figure
from rich.console import Console
from scipy.stats import ttest_1samp

from nabla.core.costs import Cost, Usage
from nabla.core.errors import ConfigError, NumericalError
from nabla.core.prompt import Prompt
from nabla.core.solution import Checkpoint, Revision, Solution
from nabla.study.evaluation.journal import RECORDS, line
from nabla.study.evaluation.lines import prepared, rows
from nabla.study.evaluation.plots import _plain_ticks, write_plots
from nabla.study.evaluation.report import write_report
from nabla.study.evaluation.results import COSTS, Results
from nabla.study.evaluation.summary import require_met, summarise
from nabla.study.evaluation.tables import (
    SPENT,
    before,
    comparison_table,
    console_tables,
    to_latex,
    to_markdown,
)

LADDER = [("calls", 5.0), ("calls", 30.0), ("flops", 100.0)]
PROBLEMS, SEEDS = 40, [0, 1]
#: method → problems that it solves under each seed.
RIGHT = {"weak_1": 10, "weak & co": 12, "∇ strong": 35}


def solution(right: bool, calls: int, *, revised: bool) -> Solution:
    usage = Usage(decode_steps=calls, tokens=2 * calls, flops=3.0 * calls, seconds=calls / 100)
    text = "yes" if right else "no"
    revisions = (
        Revision(0, 1, 2, 0.0, 1.0, True, "no", text),
        Revision(1, 1, 2, 1.0, 0.0, False, text, "no"),
    )
    return Solution(
        Prompt.of("q", id="p"), text, (1, 2), 1.0, True, "m", Cost({"rollout": usage}),
        revisions=revisions if revised else (), checkpoints=(Checkpoint(usage, (1, 2), text, 1.0, True),),
    )  # fmt: skip


def write(folder, *, calls=10, incomplete=False):
    folder.mkdir(exist_ok=True)
    config = {
        "tasks": {"t_1": {}},
        "methods": {method: {} for method in RIGHT},
        "seeds": SEEDS,
        "budgets": {"calls": [5.0, 30.0], "flops": [100.0]},
        "reference": "∇ strong",
    }
    (folder / "evaluation.json").write_text(json.dumps({"config": config}))
    with (folder / RECORDS).open("wb") as file:
        for method, count in RIGHT.items():
            for seed in SEEDS:
                for number in range(PROBLEMS):
                    if incomplete and (method, seed, number) == ("weak & co", 1, 39):
                        continue
                    labels = {"task": "t_1", "method": method, "seed": seed, "problem": str(number)}
                    outcome = solution(number < count, calls, revised=method == "∇ strong")
                    if (method, number) == ("weak_1", 39):
                        outcome = NumericalError("broken")
                    for row in rows(labels, outcome, {"yes": True, "no": False}, LADDER):
                        file.write(line(row))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("results") / "r")


@pytest.fixture(scope="module")
def summary(folder):
    """Of a report that is written although nobody has an answer within 5 calls."""
    results, found = write_report(folder)
    with pytest.raises(ConfigError, match=r"Within 5 calls.*cheapest first answer took 10 calls"):
        require_met(results)
    return found


def test_accuracies_costs_and_marks(summary):
    found = {(r["method"], r["unit"], r["value"]): r for r in summary["rows"]}
    strong = found["∇ strong", "calls", 30.0]
    assert strong["accuracy"] == 35 / 40
    assert strong["low"] < 35 / 40 < strong["high"]
    assert strong["calls"] == 10
    assert strong["pass_at_k"] == {"1": 35 / 40, "2": 35 / 40}
    assert strong["best_of_k"] == pytest.approx({"1": 35 / 40, "2": 35 / 40})
    assert strong["best"]
    assert [key[0] for key, row in found.items() if row["best"]] == ["∇ strong"] * 2
    assert strong["exhausted"] == 0.0
    early = found["∇ strong", "calls", 5.0]
    assert (early["accuracy"], early["answered"], early["calls"]) == (0.0, 0.0, None)
    assert found["weak_1", "calls", 30.0]["failed"] == 2


def test_the_critical_path_is_told_where_every_answer_has_one(tmp_path):
    """Journals of earlier versions have none: a mean over the others would look like all of them."""
    records = write(tmp_path / "r") / RECORDS
    found = {row["method"]: row for row in summarise(Results.load(tmp_path / "r"))["rows"] if row["answered"]}
    assert {method: row["critical_steps"] for method, row in found.items()} == dict.fromkeys(RIGHT, 10)
    kept = [json.loads(each) for each in records.read_text().splitlines()]
    for row in kept:
        if row["method"] == "weak & co" or (row["method"], row["seed"]) == ("weak_1", 0):
            for cost in (row["cost"], row.get("first"), *row.get("phases", {}).values()):
                (cost or {}).pop("critical_steps", None)
    records.write_bytes(b"".join(map(line, kept)))
    found = {row["method"]: row for row in summarise(Results.load(tmp_path / "r"))["rows"] if row["answered"]}
    assert [found[method]["critical_steps"] for method in RIGHT] == [None, None, 10]
    assert found["weak_1"]["calls"] == 10


def test_rewards_are_means_over_problems_with_intervals():
    from nabla.study.evaluation.results import Cell
    from nabla.study.evaluation.summary import _row

    nothing = np.zeros((2, 5), dtype=bool)
    cost = {unit: np.full((2, 5), np.nan) for unit in COSTS}
    reward = np.array([[1.0, 2.0, 3.0, np.nan, np.nan], [3.0, 2.0, np.nan, np.nan, 7.0]])
    row = _row(Cell(nothing, nothing, nothing, nothing, cost, reward), 5)
    assert row["reward"] == (2 + 2 + 3 + 7) / 4  # seeds within a problem first, a problem without a score not
    assert 2.0 <= row["reward_low"] < row["reward"] < row["reward_high"] <= 7.0
    row = _row(Cell(nothing, nothing, nothing, nothing, cost, np.full((2, 5), np.nan)), 5)
    assert (row["reward"], row["reward_low"], row["reward_high"]) == (None, None, None)
    assert row["best_of_k"] is None


def test_a_run_that_failed_has_a_partial_score_of_nothing(tmp_path):
    """It has no text to score, and stays in the denominator, as it does for the accuracy."""
    records = write(tmp_path / "r") / RECORDS
    kept = [json.loads(each) for each in records.read_text().splitlines()]
    found = [row if row["error"] else {**row, "score": 1.0 if row["response"] else None} for row in kept]
    records.write_bytes(b"".join(map(line, found)))
    cells = {(r["method"], r["value"]): r for r in summarise(Results.load(tmp_path / "r"))["rows"]}
    assert cells["∇ strong", 30.0]["score"] == 1.0
    assert cells["weak_1", 30.0]["failed"] == 2
    assert cells["weak_1", 30.0]["score"] == pytest.approx(39 / 40)
    assert cells["weak_1", 5.0]["score"] == 0.0
    records.write_bytes(b"".join(map(line, kept)))
    assert not any("score" in row for row in summarise(Results.load(tmp_path / "r"))["rows"])


def test_comparisons_are_with_the_reference(summary):
    found = summary["comparisons"]
    assert len(found) == 2 * len(LADDER)
    row = next(r for r in found if r["method"] == "weak_1" and r["value"] == 30.0)
    assert row["difference"] == pytest.approx(25 / 40)
    assert (row["first_only"], row["second_only"]) == (25, 0)
    assert row["p_mcnemar"] == pytest.approx(2 * 0.5**25)
    gains = np.repeat([1.0, 0.0], [25, 15])
    assert row["p"] == pytest.approx(ttest_1samp(gains, 0).pvalue)
    assert row["p"] <= row["p_holm"] <= 2 * row["p"]
    assert row["low"] <= 25 / 40 <= row["high"]


def test_another_reference_can_be_asked_for(summary, tmp_path):
    folder = write(tmp_path / "r")
    _, found = write_report(folder, "weak_1")
    turned = next(r for r in found["comparisons"] if r["method"] == "∇ strong" and r["value"] == 30.0)
    row = next(r for r in summary["comparisons"] if r["method"] == "weak_1" and r["value"] == 30.0)
    assert (turned["reference"], turned["difference"]) == ("weak_1", -row["difference"])
    with pytest.raises(ConfigError, match=r"no finished method.*weak_1, "):
        write_report(folder, "nobody")


def test_proposals_are_counted_by_reward_and_checker(summary):
    run = next(r for r in summary["runs"] if r["method"] == "∇ strong")
    assert (run["proposals"], run["accepted"]) == (160, 80)
    assert run["rejection"][0] == 0.5
    assert run["effects"]["wrong_to_right"] == 70
    assert run["effects"]["wrong_to_wrong"] == 10
    assert run["phases"]["rollout"]["calls"] == 10


def test_what_a_method_spent_before_is_told_below_the_tables(summary, tmp_path):
    assert before(summary) == []
    records = write(tmp_path / "r") / RECORDS
    kept = [json.loads(each) for each in records.read_text().splitlines()]
    told = [prepared([row], 8e9)[0] if row["method"] == "weak_1" else row for row in kept]
    records.write_bytes(b"".join(map(line, told)))
    _, found = write_report(tmp_path / "r")
    assert [run.get("prepared_flops") for run in found["runs"] if run["method"] == "weak_1"] == [8e9]
    (note,) = before(found)
    assert note == "weak_1 on t_1: 8e+09 FLOPs once before the run, in no budget (2e+08 per problem)."
    assert note in (tmp_path / "r" / "tables.md").read_text()
    assert any(note in getattr(shown, "plain", "") for shown in console_tables(found))


def test_what_a_shared_argument_does_not_reach_is_told(tmp_path, summary):
    assert "unreached" not in summary
    path = write(tmp_path / "r") / "evaluation.json"
    about = json.loads(path.read_text())
    about["config"]["shared"] = {"sampling": {"top_k": 1}}
    about["config"]["methods"]["weak_1"] = {"t_1": {"name": "greedy", "rm": None}}
    path.write_text(json.dumps(about))
    _, found = write_report(tmp_path / "r")
    (note,) = found["unreached"]
    assert note.startswith("shared.sampling does not reach weak_1: ")
    assert note in (tmp_path / "r" / "tables.md").read_text()


def test_methods_that_are_not_finished_are_left_out(tmp_path):
    results = Results.load(write(tmp_path / "r", incomplete=True))
    assert results.methods_of("t_1") == ["weak_1", "∇ strong"]


def test_all_files_parse(folder, summary):
    assert json.loads((folder / "summary.json").read_text()) == json.loads(json.dumps(summary))
    table = list(csv.DictReader(io.StringIO((folder / "results.csv").read_text())))
    assert len(table) == len(RIGHT) * len(LADDER)
    assert {row["reward"] for row in table} == {"", "1.0"}  # no answer within five calls
    assert {float(row["accuracy"]) for row in table} == {r["accuracy"] for r in summary["rows"]}
    compared = list(csv.DictReader(io.StringIO((folder / "comparisons.csv").read_text())))
    assert [row["method"] for row in compared] == [r["method"] for r in summary["comparisons"]]
    names = {path.name for path in folder.glob("*.png")}
    units = {f"accuracy_{unit}.png" for unit in ("calls", "tokens", "flops", "seconds")}
    assert names == units | {
        *("accuracy_all.png", "best_of_k.png", "phases.png", "rejection.png", "reward_hacking.png"),
        "positions.png",
    }
    for path in folder.glob("*.png"):
        data = path.read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        assert min(struct.unpack(">II", data[16:24])) > 200


@pytest.mark.parametrize(("budgets", "named"), [([2e11], ["200 G"]), ([1e9, 4e9], ["1 G", "4 G"])])
def test_an_axis_of_budgets_names_them_and_is_no_wider_than_they_are(budgets, named):
    figure = Figure()
    axis = figure.subplots()
    axis.plot(budgets, [0.5] * len(budgets), "o")
    axis.set_xscale("log")
    _plain_ticks(axis, budgets)
    figure.draw_without_rendering()
    assert [label.get_text() for label in axis.get_xticklabels(which="both") if label.get_text()] == named
    low, high = axis.get_xlim()
    assert high / low < 6


def test_without_accepted_proposals_there_is_no_figure_of_them(tmp_path):
    results = Results.load(write(tmp_path / "r"))
    for run in results.runs.values():
        for proposal in run.proposals:
            proposal[3] = False
    names = {path.stem for path in write_plots(results, summarise(results), tmp_path)}
    assert "rejection" in names
    assert "reward_hacking" not in names


def test_budgets_that_somebody_meets(tmp_path):
    require_met(Results.load(write(tmp_path / "r", calls=3)))


def test_if_everything_failed_there_is_no_cheapest_answer(folder):
    results = Results.load(folder)
    for run in results.runs.values():
        run.first["calls"][:] = float("nan")
    with pytest.raises(ConfigError, match="Every run failed"):
        require_met(results)


def test_markdown_is_a_table_of_equal_width(summary):
    text = to_markdown(summary)
    blocks = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 4  # accuracies in two units, costs, comparisons
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in block.splitlines()}) == 1
    assert r"**<87.5\* [74, 95]**" in text
    shown = MarkdownIt("commonmark").enable("table").render(text)
    assert shown.count("<strong>&lt;87.5* [74, 95]</strong>") == 2  # a bare star would end the bold
    assert text.count("**") == 4  # the strong one, under the two budgets that anybody meets


def test_what_whole_runs_cost_stands_beside(summary):
    """Calls, the longest chain of them, and the throughput: the inverse of the share of the batches."""
    runs = [{**run, "critical_steps": 3.0, "seconds": 0.25} for run in summary["runs"]]
    runs[0] |= {"seconds": None, "critical_steps": None}
    told = {**summary, "runs": runs}
    lines = [line for line in to_markdown(told).splitlines() if "|" in line]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    start = rows.index(list(SPENT)) + 2
    found = {row[0]: row[1:] for row in rows[start : start + len(runs)]}
    assert list(found) == [run["method"].replace("|", r"\|") for run in runs]
    assert [row[1::3] + row[-1:] for row in found.values()] == [
        ["-", "-", "-"], *[["3", "0.25", "4"] for _ in runs[1:]]]  # fmt: skip
    for run, row in zip(runs, found.values(), strict=True):
        assert float(row[0]) == round(run["calls"])
        assert float(row[3]) == pytest.approx(run["flops"], rel=1e-2)
    out = io.StringIO()
    for table in console_tables(told):
        Console(file=out, width=110).print(table)
    assert "problems/s" in out.getvalue()


def test_latex_is_balanced_and_escaped(summary):
    text = to_latex(summary)
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 2
    plain = re.sub(r"\\.", "", text)
    assert plain.count("{") == plain.count("}")
    assert r"weak \& co" in text
    assert r"weak\_1" in text
    assert r"\textbf{87.5}" in text
    for row in [row for row in text.splitlines() if row.endswith(r"\\")]:
        assert len(re.findall(r"(?<!\\)&", row)) in (1, 2)


def test_console_tables_mark_the_best(summary):
    out = io.StringIO()
    console = Console(file=out, width=110)
    for table in [*console_tables(summary), comparison_table(summary)]:
        console.print(table)
    text = out.getvalue()
    assert "87.5* [74, 95]" in text
    assert "accuracy in % by budget in FLOPs, 40 problems, 2 seeds" in text
    assert "+62.5*" in text


def test_a_draw_has_no_best(tmp_path, monkeypatch):
    monkeypatch.setitem(RIGHT, "weak & co", 34)
    summary = summarise(Results.load(write(tmp_path / "r")))
    assert not any(row["best"] for row in summary["rows"])
    assert r"\textbf" not in to_latex(summary)


def test_folders_without_results(tmp_path):
    folder = write(tmp_path / "r")
    with pytest.raises(ConfigError, match="no results"):
        Results.load(tmp_path)
    (folder / RECORDS).write_bytes(b"")
    with pytest.raises(ConfigError, match="No method has been run"):
        Results.load(folder)
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "evaluation.json").write_text("{}")
    with pytest.raises(ConfigError, match="damaged"):
        Results.load(folder)


@pytest.mark.parametrize(
    ("answered", "exhausted", "expected"),
    [(0.0, 1.0, "-"), (0.4, 1.0, "~10.0 [5, 20]"), (0.6, 1.0, "10.0 [5, 20]"), (0.4, 0.2, "<10.0 [5, 20]")],
)
def test_cells_say_where_few_runs_had_an_answer(summary, answered, exhausted, expected):
    changes = {"answered": answered, "exhausted": exhausted, "best": False}
    changes |= {"accuracy": 0.1, "low": 0.05, "high": 0.2}
    rows = [{**row, **changes} for row in summary["rows"]]
    cells = [c.strip() for c in to_markdown({**summary, "rows": rows}).split("|")]
    assert expected in cells
    assert ("$\\sim$10.0" in to_latex({**summary, "rows": rows})) == expected.startswith("~")


def test_the_pool_of_all_seeds_gives_curves(tmp_path, monkeypatch):
    """Best-of-k and pass@k of each method at the largest budget, for every k up to the number of seeds."""
    from matplotlib.axes import Axes

    drawn, real = [], Axes.plot

    def plot(self, xs, ys, *args, **kwargs):
        drawn.append((list(xs), list(ys), kwargs.get("linestyle")))
        return real(self, xs, ys, *args, **kwargs)

    monkeypatch.setattr(Axes, "plot", plot)
    _, summary = write_report(write(tmp_path / "r"))
    assert (tmp_path / "r" / "best_of_k.png").is_file()
    for row in summary["rows"]:
        if (row["unit"], row["value"]) != ("calls", 30.0):
            continue
        for name, look in (("best_of_k", "-"), ("pass_at_k", ":")):
            assert ([1, 2], [100 * v for v in row[name].values()], look) in drawn


@pytest.mark.parametrize("name", [RECORDS, "journal-0.jsonl", "evaluation.json"])
def test_a_folder_in_place_of_a_file_is_an_error_that_names_the_results(tmp_path, name):
    folder = write(tmp_path / "r")
    if name.startswith("journal"):
        (folder / RECORDS).unlink()
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    with pytest.raises(ConfigError, match=r"cannot be read|no results of an evaluation"):
        Results.load(folder)
    with pytest.raises(ConfigError, match=r"cannot be read: File name too long"):
        Results.load(tmp_path / ("x" * 300))
