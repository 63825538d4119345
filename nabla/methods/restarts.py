"""What methods that start again keep: the better of two answers."""

from __future__ import annotations

from nabla.types import Trajectory


def better(held: Trajectory | None, new: Trajectory) -> Trajectory:
    """The response of the higher reward, the earlier among equals; where one has none, the later."""
    if held is None or held.reward is None or new.reward is None or new.reward > held.reward:
        return new
    return held
