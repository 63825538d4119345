"""Lines in the order of the prompts, whatever the order they come in."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nabla.cli.recorder import InOrder, Recorder
from nabla.core.errors import NumericalError
from nabla.core.prompt import Prompt
from nabla.launch.folder import RunFolder
from nabla.launch.launcher import TestTimeLoop


@given(st.permutations(range(6)), st.sets(st.integers(0, 5)), st.integers(0, 6))
def test_each_line_is_out_as_soon_as_those_before_it_are(arrival, failed, until):
    out: list[str] = []
    order = InOrder([str(i) for i in range(6)], out.append)
    there: set[int] = set()
    for number in arrival[:until]:
        order.add(str(number), None if number in failed else f"line {number}")
        there.add(number)
        ready = next(i for i in range(7) if i not in there)
        assert out == [f"line {i}" for i in range(ready) if i not in failed]
    order.close()
    assert out == [f"line {i}" for i in range(6) if i in there and i not in failed]
    order.close()
    assert len(out) == len(there - failed)


def test_failures_of_other_processes_are_recorded_once(tmp_path):
    found: list[tuple[str, dict]] = []

    class Rows:
        def append(self, name, row):
            found.append((name, row))

    recorder = Recorder(Rows())
    recorder.on_exception(Prompt.of("x", id="own"), NumericalError("NaN"))
    recorder.complete([], {"own": NumericalError("NaN"), "other": NumericalError("inf")})
    assert [(name, row["id"], row["message"]) for name, row in found] == [
        ("failures.jsonl", "own", "NaN"),
        ("failures.jsonl", "other", "inf"),
    ]


def test_a_solution_that_a_signal_broke_off_is_stored_once_and_shown(
    tmp_path, monkeypatch, latin_lm, latin_prompts
):
    (solution,) = TestTimeLoop("greedy", latin_lm, accelerator="cpu").run(latin_prompts[:1])
    folder = RunFolder(tmp_path / "out", {}, arguments=[])
    out: list[str] = []
    recorder = Recorder(folder, emit=InOrder([solution.prompt.id], out.append))

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        recorder.on_solution(solution)
    monkeypatch.undo()
    recorder.complete([solution], {})
    folder.finish("interrupted")
    recorder.complete([solution], {})
    (line,) = out
    assert (tmp_path / "out" / "solutions.jsonl").read_text() == line + "\n"
