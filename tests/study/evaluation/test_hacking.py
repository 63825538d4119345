"""Reward against correctness: equal parts of a method's accepted proposals, and again from what is kept."""

from __future__ import annotations

import pytest

from nabla.study.evaluation.hacking import HACKING, PARTS, hacking
from nabla.study.evaluation.results import Results
from nabla.study.evaluation.stored import HACKED, TABLE, read_results
from nabla.study.evaluation.summary import summarise
from nabla.study.evaluation.tables import columns, to_csv
from tests.study.evaluation.test_report import PROBLEMS, RIGHT, SEEDS, write


def test_parts_are_equal_and_miss_nothing(tmp_path):
    rows = hacking(Results.load(write(tmp_path / "r")))
    assert {row["method"] for row in rows} == {"∇ strong"}  # the others propose nothing
    assert [row["proposals"] for row in rows] == [PROBLEMS * len(SEEDS) // PARTS] * PARTS
    right = sum(row["proposals"] * row["right"] for row in rows)
    assert right == pytest.approx(RIGHT["∇ strong"] * len(SEEDS))
    assert all(row["low"] <= row["right"] <= row["high"] for row in rows)
    assert {row["reward"] for row in rows} == {1.0}


def test_what_is_stored_is_read_back(tmp_path):
    summary = summarise(Results.load(write(tmp_path / "r")))
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "evaluation.json").write_text((tmp_path / "r" / "evaluation.json").read_text())
    (kept / TABLE).write_text(to_csv(summary["rows"], columns(summary)[0]))
    assert read_results(kept)[1]["hacking"] == []
    (kept / HACKED).write_text(to_csv(summary["hacking"], HACKING))
    assert read_results(kept)[1]["hacking"] == [pytest.approx(row) for row in summary["hacking"]]


def test_a_name_of_several_lines_is_one_cell(tmp_path):
    """The writer quotes it; U+2028 and a line feed end no row of it."""
    summary = summarise(Results.load(write(tmp_path / "r")))
    named = [{**row, "method": f"a\u2028b\n{row['method']}"} for row in summary["rows"]]
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "evaluation.json").write_text((tmp_path / "r" / "evaluation.json").read_text())
    (kept / TABLE).write_text(to_csv(named, columns(summary)[0]), encoding="utf-8")
    assert [row["method"] for row in read_results(kept)[1]["rows"]] == [row["method"] for row in named]
