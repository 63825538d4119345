"""A Python function as reward: no gradient, for acceptance and ranking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nabla.core.deadline import Late, within
from nabla.core.errors import ConfigError, require_finite
from nabla.core.trajectory import Score
from nabla.rewards.base import Response, Reward, rewards

if TYPE_CHECKING:
    from nabla.models.runner import Runner

#: Seconds that a function may take for a response, unless it is told otherwise.
SECONDS = 300.0


@rewards.register("function")
class FunctionReward(Reward):
    """``function(prompt, response) -> float`` on texts; not differentiable, so acceptance only.

    Args:
        function: takes the last user turn and the decoded response; its unit is its own.
        seconds: it may take for one response; None: any time. One that takes longer is an error of the
            problem, and the run goes on.
    """

    unit = "function value"

    def __init__(self, function: Callable[[str, str], float], seconds: float | None = SECONDS) -> None:
        if not callable(function):
            raise ConfigError(
                "A function reward needs a callable (prompt: str, response: str) -> float",
                got=function,
            )
        self.function = function
        self.seconds = None if seconds is None else require_finite("seconds", seconds, minimum=1e-3)

    def score(self, responses: Sequence[Response], runner: Runner) -> list[Score]:
        return [Score(self._value(response.prompt.text, self.text(response))) for response in responses]

    def _value(self, prompt: str, text: str) -> float:
        more = "Give it more time (seconds=...; null: any), or mend what it loops over."
        return called(self.function, self.seconds, prompt, text, "reward", more)


def called(
    function: Callable[[str, str], float],
    seconds: float | None,
    prompt: str,
    response: str,
    what: str,
    more: str = "Mend what it loops over.",
) -> float:
    """A user's function of a prompt and a response.

    Args:
        function: returns a number.
        seconds: it may take; None: any time.
        prompt, response: as texts.
        what: the function is for, in messages.
        more: the way out where it takes too long.

    Raises ConfigError if it fails or takes too long.
    """
    name = getattr(function, "__name__", function)
    try:
        return float(within(seconds, function, prompt, response))
    except Late as error:
        took = f"The {what} function has not answered within {seconds:g} seconds"
        raise ConfigError(took, got=name, fix=more) from error
    except (Exception, SystemExit) as error:  # sys.exit in a function ends no run
        raise ConfigError(
            f"The {what} function failed: {error!r}",
            got=name,
            fix="It must take (prompt: str, response: str) and return a number.",
        ) from error
