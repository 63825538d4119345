"""The table in ``docs/models.md`` lists the families of the suite and what is expected of each."""

from __future__ import annotations

import re

from tests.families.__main__ import DOCUMENT
from tests.families.language import LANGUAGE
from tests.families.rewards import OUTCOME, PROCESS
from tests.families.shapes import FORMATS, SHAPES
from tests.families.table import BEGIN, END, Row, decade, listed, put, table

EXPECTED = {
    **{("language", f.name): f.refused for f in LANGUAGE},
    **{("outcome", f.name): f.refused for f in OUTCOME},
    **{("process", f.name): f.refused for f in PROCESS},
    **{("shape", s.label): s.refused for s in SHAPES},
    **{("format", f.label): None for f in FORMATS},
}


def test_the_document_lists_the_families_of_the_suite() -> None:
    found = listed(DOCUMENT.read_text())
    assert found.keys() == EXPECTED.keys(), "run make families"
    for key, refused in EXPECTED.items():
        if refused is None:
            assert found[key] == "exact", key
        else:
            assert found[key].startswith("refused: "), key
            assert re.search(refused, found[key]), key


def test_a_table_is_read_as_it_was_written() -> None:
    rows = [Row("language", "A (b)", 3e-15, True), Row("shape", "a|b", why="does | not")]
    rows.append(Row("format", "c", 1e-9))
    document = put(f"before\n{BEGIN}\nold\n{END}\nafter\n", table(rows))
    assert document.startswith("before\n")
    assert document.endswith(f"{END}\nafter\n")
    assert "old" not in document
    assert listed(document) == {
        ("language", "A (b)"): "exact", ("shape", "a|b"): "refused: does | not", ("format", "c"): "exact",
    }  # fmt: skip
    assert put(document, table(rows)) == document


def test_deviations_are_rounded_up() -> None:
    assert [decade(x) for x in (0.0, 3e-15, 2e-13, 1e-9)] == ["1e-14", "1e-14", "1e-12", "1e-9"]
