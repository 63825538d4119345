"""One error tree: every message says what was wrong, what was got and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nabla.costs import Cost
    from nabla.types import Solution

_UNSET: Any = object()


class NablaError(Exception):
    """Root of all errors that a user can cause and mend.

    Args:
        what: what was wrong, one sentence without a full stop.
        got: the offending value; its ``repr`` is shown, shortened to 200 characters.
        fix: what to do about it.
    """

    def __init__(self, what: str, *, got: object = _UNSET, fix: str | None = None) -> None:
        self.what, self.fix = what, fix
        #: What the failed problem had cost, where it failed during a run.
        self.cost: Cost | None = None
        self.got: str | None = None
        message = what
        if got is not _UNSET:
            shown = repr(got)
            self.got = shown if len(shown) <= 200 else shown[:197] + "..."
            message += f" (got {self.got})"
        if fix is not None:
            message += f". {fix}"
        super().__init__(message)


class ConfigError(NablaError):
    """A component, argument or combination of components that cannot work."""


class ModelError(NablaError):
    """A model, tokenizer or checkpoint that cannot be used."""


class VocabularyError(ModelError):
    """Language model and reward model do not agree on tokens (SPEC section 12)."""


class PromptError(NablaError):
    """A prompt that cannot be answered: empty, too long, malformed."""


class NumericalError(NablaError):
    """NaN or infinity where a finite number is needed."""


class ComponentError(NablaError):
    """A component raised something that is no NablaError: a bug in it, kept as ``__cause__``."""

    @classmethod
    def of(cls, error: Exception, where: str) -> ComponentError:
        """Wraps ``error``, which happened in ``where``."""
        wrapped = cls(
            f"{where} failed with {type(error).__name__}: {error}",
            fix="This is a bug in a component; the original error, with its traceback, is the cause.",
        )
        wrapped.__cause__ = error
        return wrapped


class RunError(NablaError):
    """Some problems of a run failed; the solutions of all others are kept.

    Attributes:
        solutions: what was finished, in the order of the problems.
        failures: problem id → its error.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.solutions, self.failures)

    def __init__(self, solutions: list[Solution], failures: dict[str, NablaError]) -> None:
        self.solutions, self.failures = solutions, failures
        first_id, first = next(iter(failures.items()))
        total = len(solutions) + len(failures)
        if total == 1:
            super().__init__(first.what, fix=first.fix)
            self.got = first.got
            self.args = first.args
        else:
            super().__init__(
                f"{len(failures)} of {total} problems failed; first, {first_id!r}: {first}",
                fix="The finished solutions are in the error's .solutions.",
            )


    @property
    def failed_cost(self) -> Cost:
        """What the failed problems cost, together."""
        from nabla.costs import Cost

        return Cost.sum(error.cost for error in self.failures.values() if error.cost is not None)


class Interrupted(NablaError):
    """The run was stopped by the user (Ctrl-C); finished solutions are in ``solutions``."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.solutions, self.total)

    def __init__(self, solutions: list[Solution], total: int) -> None:
        self.solutions, self.total = solutions, total
        super().__init__(
            f"Interrupted after {len(solutions)} of {total} problems",
            fix="The finished solutions are kept; run the remaining prompts again.",
        )
