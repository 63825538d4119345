"""What the answers of an evaluation are measured by: right or wrong, a reward, or the user's function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nabla.core.errors import ConfigError, require_finite
from nabla.core.trust import require_trusted
from nabla.rewards.function import SECONDS, called
from nabla.rewards.loading import load_function

#: Right or wrong by the task's own grader.
ANSWER = "answer"
#: The number that a task's first reward gives to the answer.
REWARD = "reward"


@dataclass(frozen=True)
class Metric:
    """How a metric is written in tables and figures.

    Args:
        name: ``answer``, ``reward`` or ``package.module:function``.

    Raises ConfigError for another name.
    """

    name: str = ANSWER

    def __post_init__(self) -> None:
        module, colon, function = self.name.partition(":")
        if self.name not in (ANSWER, REWARD) and not (colon and module and function.isidentifier()):
            raise ConfigError(
                "There is no such metric",
                got=self.name,
                fix=f"Use {ANSWER}, {REWARD}, or package.module:function of your own.",
            ).at("metric")

    @property
    def rate(self) -> bool:
        """Whether it is a share of right answers; else each answer has a number, in a unit of its own."""
        return self.name == ANSWER

    @property
    def key(self) -> str:
        """Of the mean in a summary's rows."""
        return "accuracy" if self.rate else "mean"

    @property
    def noun(self) -> str:
        """For titles and axes."""
        return "accuracy" if self.rate else self.name.rpartition(":")[2]

    @property
    def axis(self) -> str:
        """The noun with its unit."""
        return "accuracy, %" if self.rate else self.noun

    @property
    def difference(self) -> str:
        """What differences are in."""
        return "points of accuracy" if self.rate else f"differences of {self.noun}"

    @property
    def scale(self) -> float:
        """Shares are shown in percent."""
        return 100.0 if self.rate else 1.0

    def text(self, value: float) -> str:
        """A mean."""
        return f"{100 * value:.1f}" if self.rate else f"{value:.3g}"

    def bound(self, value: float) -> str:
        """An end of its interval, where there is little room."""
        return f"{100 * value:.0f}" if self.rate else f"{value:.3g}"

    def signed(self, value: float) -> str:
        """A difference."""
        return f"{100 * value:+.1f}" if self.rate else f"{value:+.3g}"


def function_of(name: str) -> Callable[[str, str], float] | None:
    """The metric ``(prompt, response) -> float`` of that name; None for one that is no function. Raises
    ConfigError if it cannot be imported, is not callable, or may not run."""
    if ":" not in name:
        return None
    require_trusted({"metric": name})
    function = load_function(name, "metric")
    if not callable(function):
        raise ConfigError("The metric is no function (prompt: str, response: str) -> float", got=name)

    def measured(prompt: str, response: str) -> float:
        value = called(function, SECONDS, prompt, response, "metric")
        return require_finite("The value of the metric function", value)

    return measured
