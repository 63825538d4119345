"""Damaged runs at every command that reads them: no traceback, no hang, no file changed, no part left.

``make fuzz`` prints how often each command drew, or refused.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.stored import RUNS
from tests.fuzz.test_fuzz import NASTY, TRIES, as_text, attempt, contents, damaged, fuzzed, mutated

#: Of each kind of run a twentieth of the command lines: ten in CI, a hundred by ``make fuzz``.
often = settings(fuzzed, max_examples=max(TRIES // 20, 1))
#: Of so many tries one lays its figures out and renders them, which takes seconds; the others end there.
DRAWN = 20
CELLS = ["", "nan", "inf", "-1", "1e400", "x", "True", '"', "0", "9" * 5000, "9" * 140_000]
ENDED: Counter[tuple[str, int]] = Counter()


@pytest.fixture(scope="module", autouse=True)
def figures() -> Any:
    """What ``make fuzz`` (with -s) tells in the end."""
    yield
    print(f"\ndamaged runs: {sum(ENDED.values())}, by command and status {dict(ENDED)}")


def unrendered(patch: pytest.MonkeyPatch) -> None:
    """Figures are made, and end up as files, but nothing is laid out."""
    from matplotlib.figure import Figure

    patch.setattr(Figure, "savefig", lambda self, where, **_: where.write(b"a figure of nabla"))
    patch.setattr(Figure, "draw_without_rendering", lambda self: None)


def changed(draw: Any, name: str, data: bytes) -> bytes:
    """A stored file with one value changed, or with its bytes damaged."""
    if name.endswith(".json"):
        return as_text(draw, mutated(draw, json.loads(data)))
    rows = data.split(b"\n")[:-1]
    place = draw(st.integers(0, len(rows) - 1))
    if name.endswith(".csv"):
        cells = rows[place].split(b",")
        cells[draw(st.integers(0, len(cells) - 1))] = draw(st.sampled_from([*CELLS, *NASTY])).encode(
            "utf-8", "surrogatepass"
        )
        rows[place] = b",".join(cells)
        return damaged(draw, b"\n".join(rows) + b"\n")
    rows[place] = as_text(draw, mutated(draw, json.loads(rows[place])))
    if not draw(st.integers(0, 5)):
        rows.insert(draw(st.integers(0, len(rows))), rows[place])
    return b"\n".join(rows) + b"\n"


@pytest.mark.parametrize("kind", RUNS)
def test_damaged_runs(kind, tmp_path, monkeypatch) -> None:
    make, doors = RUNS[kind]
    monkeypatch.chdir(tmp_path)
    make(Path("whole"))
    whole = contents(Path("whole"))

    @often
    @given(st.data())
    def check(data: Any) -> None:
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree("whole", "run")
        name = data.draw(st.sampled_from(sorted(whole)))
        Path("run", name).write_bytes(changed(data.draw, name, whole[name]))
        before = contents(Path("run"))
        door = data.draw(st.sampled_from(doors))
        with pytest.MonkeyPatch.context() as patch:
            if data.draw(st.integers(1, DRAWN)) < DRAWN:
                unrendered(patch)
            ENDED[door.partition(" ")[0], attempt(door.split())] += 1
        after = contents(tmp_path)
        assert {n: after.get(f"run/{n}") for n in before} == before, door
        assert not [n for n in after if n.endswith(".partial")], door
        shutil.rmtree("out", ignore_errors=True)
        Path("page.html").unlink(missing_ok=True)

    check()


@pytest.mark.parametrize("kind", RUNS)
def test_whole_runs_are_read(kind, tmp_path, monkeypatch) -> None:
    make, doors = RUNS[kind]
    monkeypatch.chdir(tmp_path)
    make(Path("run"))
    unrendered(monkeypatch)
    for door in doors:
        assert attempt(door.split()) == 0, door
    assert os.listdir(tmp_path) != ["run"]
