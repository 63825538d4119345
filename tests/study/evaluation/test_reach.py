"""A budget that nobody can meet is told while the first problems are in flight."""

from __future__ import annotations

import json
import logging

import pytest

from nabla.study.evaluation import reach
from nabla.study.evaluation.runner import Evaluation
from tests.study.evaluation.small import small

BUDGETS = {"calls": [3, 50, 100]}


def evaluated(folder, caplog, **changes):
    """What is said, each with the number of problems that were finished then."""
    said = []

    class Now(logging.Handler):
        def emit(self, record):
            done = sum(
                b'"unit":' in line
                for path in (folder / "unfinished").glob("journal-*.jsonl")
                for line in path.read_bytes().splitlines()
            )
            said.append((record.getMessage(), done))

    handler = Now()
    log = logging.getLogger("nabla.study.evaluation.reach")
    log.addHandler(handler)
    try:
        Evaluation(small(**changes), folder).run()
    finally:
        log.removeHandler(handler)
    return said


def test_it_is_said_once_and_before_a_problem_is_done(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(reach, "EVERY", 0.0)
    said = evaluated(tmp_path / "r", caplog, budgets=BUDGETS)
    texts = [text for text, _ in said]
    assert len(texts) == 2  # two methods; two seeds of two shards each
    assert all("within 3 calls" in text and "--budget" in text for text in texts)
    assert {text.split(" calls ")[1].split(" had ")[0] for text in texts} == {"greedy", "best"}
    assert all("its first 2 problems" in text for text in texts)
    assert [done for _, done in said] == [0, 0]
    records = [json.loads(line) for line in (tmp_path / "r" / "records.jsonl").read_text().splitlines()]
    within = [r for r in records if r["kind"] == "answer" and r["value"] == 3]
    assert within
    assert not any(r["response"] for r in within)


def test_a_budget_that_one_problem_meets_is_not_mentioned(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(reach, "EVERY", 0.0)
    methods = {"greedy": {"name": "greedy", "rm": None}}
    assert evaluated(tmp_path / "r", caplog, seeds=[0], methods=methods) == []


@pytest.mark.parametrize("value", [50, 100])
def test_what_has_been_said_is_not_said_again(value, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(reach, "EVERY", 0.0)
    changed = {"budgets": {"calls": [3, value]}, "shard": 1, "seeds": [0], "methods": {"greedy": "greedy"}}
    assert len(evaluated(tmp_path / "r", caplog, **changed)) == 1
