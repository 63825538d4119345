"""A Python function as reward: no gradient, for acceptance and ranking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nabla.core.errors import ConfigError
from nabla.rewards.base import Response, Reward, rewards

if TYPE_CHECKING:
    from nabla.models.causal_lm import CausalLM
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
        self._lm: CausalLM | None = None

    def bind(self, lm: CausalLM) -> None:
        self._lm = lm

    def score(self, responses: Sequence[Response], runner: Runner) -> list[float]:
        if self._lm is None:
            raise ConfigError("The reward is not bound to a language model", fix="Call bind(lm).")
        values = []
        for response in responses:
            try:
                value = float(self.function(response.prompt.text, self._lm.decode(response.tokens)))
            except Exception as error:
                raise ConfigError(
                    f"The reward function failed: {error!r}",
                    got=getattr(self.function, "__name__", self.function),
                    fix="It must take (prompt: str, response: str) and return a number.",
                ) from error
            values.append(value)
        return values
