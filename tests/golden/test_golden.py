"""All methods write what they wrote before, spend what they spent, and still meet in the same batches.

Equal to the last bit where the processor is the one that the records were made on. Another one rounds
differently, and a draw in a thousand may fall differently: there a few solves may differ, and no more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.golden import record

#: Share of solves that may differ on another processor.
ELSEWHERE = 0.02
LABELS = tuple(record.config().methods)
PASSES = json.loads((record.FOLDER / "passes.json").read_text(encoding="utf-8"))
SAME = PASSES["processor"] == record.processor()


@pytest.fixture(scope="module")
def shop() -> Iterator[record.Workshop]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield record.workshop()
    torch.set_num_threads(threads)


def recorded(family: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for line in (record.FOLDER / f"{family}.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found.setdefault(row["method"], []).append(row)
    return found


def close(row: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Rewards to four digits (they were rounded to five), the rest exactly."""

    def plain(value: dict[str, Any]) -> tuple[Any, ...]:
        revisions = [(*r[:3], r[5]) for r in value["revisions"]]
        return value["problem"], value["tokens"], revisions, value["calls"], value["flops"]

    def rewards(value: dict[str, Any]) -> list[float | None]:
        return [value["reward"], *(x for r in value["revisions"] for x in r[3:5])]

    return plain(row) == plain(expected) and all(
        a == b or (a is not None and b is not None and abs(a - b) <= 1e-4 * max(1.0, abs(b)))
        for a, b in zip(rewards(row), rewards(expected), strict=True)
    )


@pytest.mark.parametrize("family", record.FAMILIES)
def test_every_method_is_recorded(family: str) -> None:
    found = recorded(family)
    assert tuple(found) == LABELS
    assert all(len(rows) == record.PROBLEMS for rows in found.values())


@pytest.mark.parametrize("family", record.FAMILIES)
@pytest.mark.parametrize("label", LABELS)
def test_a_method_gives_what_it_gave(shop: record.Workshop, family: str, label: str) -> None:
    rows, counts = record.solve(shop, family, label)
    expected = recorded(family)[label]
    differing = [b for a, b in zip(rows, expected, strict=True) if not close(a, b)]
    if SAME:
        assert not differing, f"{len(differing)} of {len(rows)}, first: {differing[0]['problem']}"
        assert counts == PASSES[f"{family}/{label}"]
    else:
        assert len(differing) <= max(1, ELSEWHERE * len(rows))


@pytest.mark.parametrize("family", record.FAMILIES)
@pytest.mark.parametrize("label", ["nabla", "best-of-n", "beam-search", "coordinate-search"])
def test_rows_that_join_change_nothing(shop: record.Workshop, family: str, label: str) -> None:
    """Continuous decoding (the default) meets in other batches, and gives and costs the same."""
    rows, _ = record.solve(shop, family, label, continuous=True)
    expected = recorded(family)[label]
    differing = [b for a, b in zip(rows, expected, strict=True) if not close(a, b)]
    assert len(differing) <= (0 if SAME else max(1, ELSEWHERE * len(rows)))
