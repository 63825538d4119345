"""A Python function as reward: no gradient, for acceptance and ranking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nabla.core.errors import ConfigError
from nabla.core.trajectory import Score
from nabla.rewards.base import Response, Reward, rewards

if TYPE_CHECKING:
    from nabla.models.runner import Runner


@rewards.register("function")
class FunctionReward(Reward):
    """``function(prompt, response) -> float`` on texts; not differentiable, so acceptance only.

    Args:
        function: takes the last user turn and the decoded response; its unit is its own.
    """

    unit = "function value"

    def __init__(self, function: Callable[[str, str], float]) -> None:
        if not callable(function):
            raise ConfigError(
                "A function reward needs a callable (prompt: str, response: str) -> float",
                got=function,
            )
        self.function = function

    def score(self, responses: Sequence[Response], runner: Runner) -> list[Score]:
        values = []
        for response in responses:
            text = self.text(response)
            try:
                value = float(self.function(response.prompt.text, text))
            except Exception as error:
                raise ConfigError(
                    f"The reward function failed: {error!r}",
                    got=getattr(self.function, "__name__", self.function),
                    fix="It must take (prompt: str, response: str) and return a number.",
                ) from error
            values.append(Score(value))
        return values
