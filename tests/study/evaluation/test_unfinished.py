"""A unit's finished problems on disk: whole or not there, and gone when the unit is whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nabla.core.errors import ConfigError
from nabla.core.solution import Solution
from nabla.study.evaluation.journal import journals, read
from nabla.study.evaluation.lines import reproducible
from nabla.study.evaluation.runner import Evaluation
from nabla.study.evaluation.unfinished import FOLDER, Unfinished, forget, sweep
from tests.study.evaluation.small import VALUES, small

KEY = ("t", "m", 0, 3)
#: Of a unit that is not whole with any of these tests' problems.
SIZE = 9


def rows(problem: str) -> list[dict]:
    return [{"problem": problem, "kind": kind, "x": 0.1 + 0.2} for kind in ("run", "answer")]


def written(folder, *problems: str, index: int = 7) -> bytes:
    with Unfinished(folder, index, KEY, SIZE) as kept:
        for problem in problems:
            kept.add(problem, rows(problem))
    return (folder / FOLDER / f"journal-{index}.jsonl").read_bytes()


@given(cut=st.integers(0, 600))
def test_what_a_kill_cut_is_dropped_and_the_rest_is_there(cut, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cut")
    whole = written(folder, "a", "ß", "c")
    path = folder / FOLDER / "journal-7.jsonl"
    path.write_bytes(whole[:cut])
    with Unfinished(folder, 7, KEY, SIZE) as kept:
        found = dict(kept.rows)
        assert list(found) == ["a", "ß", "c"][: len(found)]
        assert all(value == rows(name) for name, value in found.items())
        assert len(found) >= (cut >= len(whole)) * 3
        for name in ["a", "ß", "c"][len(found) :]:
            kept.add(name, rows(name))
    assert path.read_bytes() == whole


def test_only_what_is_finished_is_swept(tmp_path):
    for index in (1, 2, 3):
        written(tmp_path, "a", index=index)
    forget(tmp_path, 3)
    forget(tmp_path, 4)  # never begun
    sweep(tmp_path, [2, 9])
    assert [path.name for path in journals(tmp_path / FOLDER)] == ["journal-2.jsonl"]
    sweep(tmp_path, [])
    assert not (tmp_path / FOLDER).exists()
    sweep(tmp_path, [])


def test_a_line_that_somebody_changed_is_named(tmp_path):
    path = tmp_path / FOLDER / "journal-7.jsonl"
    for line in (b'{"problem":', b"[" * 100_000, b"5"):
        whole = written(tmp_path, "a")
        path.write_bytes(whole.replace(whole.partition(b"\n")[0], line, 1))
        with pytest.raises(ConfigError, match=r"A line of journal-7\.jsonl is no record.*Remove that file"):
            Unfinished(tmp_path, 7, KEY, SIZE)
        path.unlink()


def test_two_processes_do_not_share_a_unit(tmp_path):
    with Unfinished(tmp_path, 7, KEY, SIZE) as kept:
        kept.add("a", rows("a"))
        with pytest.raises(ConfigError, match="Another process"):
            Unfinished(tmp_path, 7, KEY, SIZE)


def test_the_last_problem_of_a_unit_is_left_to_the_units_own_records(tmp_path):
    with Unfinished(tmp_path, 7, KEY, 2) as kept:
        kept.add("a", rows("a"))
        before = (tmp_path / FOLDER / "journal-7.jsonl").read_bytes()
        kept.add("b", rows("b"))
        assert (tmp_path / FOLDER / "journal-7.jsonl").read_bytes() == before
        assert kept.rows["b"] == rows("b")
    with Unfinished(tmp_path, 8, KEY, 1) as kept:
        kept.add("a", rows("a"))
    assert len(journals(tmp_path / FOLDER)) == 1


def test_a_unit_that_goes_on_solves_its_missing_problems_alone(tmp_path, monkeypatch):
    """Killed after the third of four problems of one unit, in any order: only the fourth is solved again."""
    config = small(methods={"best": VALUES["methods"]["best"]}, seeds=[0], shard=4)
    Evaluation(config, tmp_path / "unbroken").run()
    solved, real = [], Evaluation._records

    def records(self, unit, problem, outcome):
        assert isinstance(outcome, Solution)
        if len(solved) == 3:
            solved.append(None)
            raise MemoryError
        solved.append(problem.id)
        return real(self, unit, problem, outcome)

    monkeypatch.setattr(Evaluation, "_records", records)
    with pytest.raises(MemoryError):
        Evaluation(config, tmp_path / "r").run()
    assert len(journals(tmp_path / "r" / FOLDER)) == 1
    Evaluation(config, tmp_path / "r").run()
    assert len(solved) == 5
    assert len({name for name in solved if name}) == 4
    assert not (tmp_path / "r" / FOLDER).exists()
    found, expected = (
        [reproducible(row) for row in read(tmp_path / name)] for name in ("r", "unbroken")
    )
    for row, other in zip(found, expected, strict=True):
        assert row.pop("reward") == pytest.approx(other.pop("reward"), rel=1e-5)  # in another batch
        assert row == other
