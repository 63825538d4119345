"""Which of two answers is kept."""

from __future__ import annotations

import pytest

from nabla.methods.pools import better
from tests.cases import FINISHED, case


@pytest.mark.parametrize(
    ("held", "new", "kept"),
    [
        (1.0, 2.0, "new"),
        (2.0, 1.0, "held"),
        (1.0, 1.0, "held"),
        (None, 1.0, "new"),
        (1.0, None, "new"),
        (None, None, "new"),
    ],
)
def test_the_better_of_two(held, new, kept):
    text = case().trajectory(FINISHED)
    pair = {
        name: text if reward is None else text.with_reward(reward)
        for name, reward in (("held", held), ("new", new))
    }
    if pair["held"] is pair["new"]:
        pair["new"] = text.commit()
    assert better(pair["held"], pair["new"]) is pair[kept]
    assert better(None, pair["new"]) is pair["new"]
