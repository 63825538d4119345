"""Searches: deterministic, within their space, and independent of what came when."""

from __future__ import annotations

from nabla.study.ablation.search import Search
from tests.study.ablation.small import small

SPACE = {
    "method.dto.steps": {"low": 1, "high": 9, "int": True},
    "method.dto.learning_rate": {"low": 1e-3, "high": 0.1, "log": True},
    "method.proposal": {"choice": ["sample", "argmax"]},
}


def played(sampler: str, *, trials: int = 10, seed: int = 0, value=lambda point: 0.5) -> list[list[dict]]:
    search = Search(small(factors=SPACE, sampler=sampler, trials=trials, seed=seed))
    batches = []
    for batch in search.batches():
        batches.append([dict(point.levels) for point in batch])
        search.tell([value(point) for point in batch])
    return batches


def test_a_grid_comes_whole_and_in_order():
    config = small()
    (batch,) = Search(config).batches()
    assert [point.label for point in batch] == [point.label for point in config.points()]


def test_random_points_follow_from_seed_and_number():
    (ten,) = played("random")
    assert ([ten], len(ten)) == (played("random"), 10)
    assert played("random", trials=4) == [ten[:4]]
    assert played("random", seed=1) != [ten]
    for levels in ten:
        assert levels["method.dto.steps"] in range(1, 10)
        assert 1e-3 <= levels["method.dto.learning_rate"] <= 0.1
        assert levels["method.proposal"] in ("sample", "argmax")


def test_tpe_learns_from_the_batches_before():
    def value(point):
        return float(point.levels["method.dto.steps"])

    batches = played("tpe", trials=42, value=value)
    assert [len(batch) for batch in batches] == [4] * 10 + [2]
    assert batches == played("tpe", trials=42, value=value)
    means = [
        sum(p["method.dto.steps"] for b in part for p in b) / 12 for part in (batches[:3], batches[7:10])
    ]
    assert means[1] > means[0] + 1


def test_points_hold_the_drawn_values():
    search = Search(small(factors=SPACE, sampler="random", trials=3))
    (batch,) = search.batches()
    for point in batch:
        dto = point.config.method("method", "squares")["dto"]
        assert dto["steps"] == point.levels["method.dto.steps"]
        assert type(dto["steps"]) is int
        assert dto["learning_rate"] == point.levels["method.dto.learning_rate"]
