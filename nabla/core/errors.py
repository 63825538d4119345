"""One error tree: every message says what was wrong, what was got and what to do about it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any

_UNSET: Any = object()


class NablaError(Exception):
    """Root of all errors that a user can cause and mend.

    Args:
        what: what was wrong, one sentence without a full stop.
        got: the offending value; its ``repr`` is shown, shortened to 200 characters.
        fix: what to do about it.
        path: dotted key path of the entry that is to blame; the message begins with it.
    """

    def __init__(
        self, what: str, *, got: object = _UNSET, fix: str | None = None, path: str | None = None
    ) -> None:
        self.what, self.fix = what, fix
        self.path = path or None
        #: What the failed problem had cost (a :class:`~nabla.core.costs.Cost`), where it failed during a run.
        self.cost: Any = None
        #: The answers (:class:`~nabla.core.solution.Checkpoint`) that it had handed in by then.
        self.checkpoints: tuple[Any, ...] = ()
        self.got: str | None = None
        message = what
        if got is not _UNSET:
            shown = _shown(got)
            self.got = shown if len(shown) <= 200 else shown[:197] + "..."
            message += f" (got {self.got})"
        if fix is not None:
            message += f". {fix}"
        super().__init__(message)

    def at(self, path: str) -> NablaError:
        """This error with the place of its cause in front, unless it says its place already."""
        if path and self.path is None:
            self.path, self.args = path, (f"{path}: {self}",)
        return self


def _shown(value: object) -> str:
    """``repr``, which fails for whole numbers of thousands of digits, and wherever a user's class fails."""
    try:
        return repr(value)
    except Exception as error:
        return f"a {type(value).__name__} that cannot be shown: {error}"


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


class ServerError(NablaError):
    """A server that does not answer, or not as it should."""


class StorageError(NablaError):
    """A file that cannot be written: a full disk, a folder that has gone."""


class ComponentError(NablaError):
    """A component raised something that is no NablaError: a bug in it, kept as ``__cause__``."""

    @classmethod
    def of(cls, error: BaseException, where: str) -> ComponentError:
        """Wraps ``error``, which happened in ``where``."""
        wrapped = cls(
            f"{where} failed with {type(error).__name__}: {error}",
            fix="This is a bug in a component; the original error, with its traceback, is the cause.",
        )
        wrapped.__cause__ = error
        return wrapped


@contextmanager
def located(path: str) -> Iterator[None]:
    """A ConfigError from within says at which key path it happened."""
    try:
        yield
    except ConfigError as error:
        error.at(path)
        raise


def nearest(name: object, known: Iterable[str], rest: str = "") -> str:
    """``Did you mean ...?`` for a misspelt name, with what follows it; nothing where none is near."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f"Did you mean {near[0] + rest!r}? " if near else ""


def require_one_of(value: object, known: Iterable[str], what: str, noun: str = "Known") -> None:
    """Raises ConfigError, with the nearest known name and all of them, if ``value`` is none of these.

    Args:
        value: a name.
        known: the names that there are.
        what: what is wrong otherwise, the beginning of the message.
        noun: what the known names are, in the plural.
    """
    known = list(known)
    if value not in known:
        fix = f"{nearest(value, known)}{noun}: {', '.join(known) or 'none'}."
        raise ConfigError(what, got=value, fix=fix)


def require_finite(name: str, value: Any, *, minimum: float | None = None) -> float:
    """``value`` as a float; raises ConfigError if it is none, NaN, infinite or under ``minimum``."""
    try:
        if isinstance(value, bool | str):
            raise TypeError("no number by itself")
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{name} must be a number", got=value) from error
    if not math.isfinite(number):
        raise ConfigError(f"{name} must be finite", got=value)
    if minimum is not None and number < minimum:
        raise ConfigError(f"{name} must be at least {minimum}", got=value)
    return number


def require_whole(name: str, value: Any) -> int:
    """``value`` as an int; raises ConfigError if it is no whole number (true and 2.0 are none)."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ConfigError(f"{name} must be a whole number", got=value)
    return int(value)


def require_count(
    name: str, value: Any, *, minimum: int = 0, maximum: int | None = None, note: str = ""
) -> int:
    """``value`` as an int; raises ConfigError if it is no whole number (true and 2.0 are none), under
    ``minimum`` or over ``maximum``.

    Args:
        name: of the argument, for the message.
        value: of the argument.
        minimum: the smallest that is allowed.
        maximum: the largest; None for no bound.
        note: what a special value means, for the message.
    """
    count = require_whole(name, value)
    if count < minimum:
        raise ConfigError(f"{name} must be at least {minimum}{note}", got=value)
    if maximum is not None and count > maximum:
        raise ConfigError(f"{name} must be at most {maximum:,}", got=value)
    return count


def require_positive(**values: Any) -> None:
    """Raises ConfigError for a count that is no whole number or below 1."""
    for name, value in values.items():
        require_count(name, value, minimum=1)


#: Of torch in one process, at the most.
THREADS = 1024


def require_threads(value: Any, name: str = "threads") -> int:
    """``value`` as a number of threads; raises ConfigError for none, and for more than any machine runs: the
    system would refuse them in the middle of a run."""
    return require_count(name, value, minimum=1, maximum=THREADS)


#: Responses that a problem may ask for at once.
TOGETHER = 100_000


def require_together(count: int) -> int:
    """``count``; raises ConfigError where it is more than a machine holds: the list of requests alone would
    take its memory."""
    if count > TOGETHER:
        raise ConfigError(
            f"A problem may ask for {TOGETHER:,} responses at once", got=count, fix="Lower n, or the width."
        )
    return count


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of this machine or of a device."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in said or "can't allocate memory" in said)
    )
