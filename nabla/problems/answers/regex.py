"""An answer found by a regular expression."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nabla.core.errors import ConfigError
from nabla.problems.answers.base import Answers, answers


@answers.register("regex")
@dataclass(frozen=True)
class RegexAnswers(Answers):
    """The last match of a pattern, stripped; equal answers are the same string.

    Args:
        pattern: a regular expression, e.g. ``"#([0-9]+)"``; the pattern is the caller's own, so its
            running time is too.
        group: number or name of the group that is the answer; 0 is the entire match. None: group 1
            where the pattern has a group, else 0.
        ignore_case: for the search and for the comparison.

    Raises ConfigError for a pattern that does not compile and for a group that it does not have.
    """

    pattern: str
    group: int | str | None = None
    ignore_case: bool = False

    def __post_init__(self) -> None:
        try:
            compiled = re.compile(self.pattern)
        except re.error as error:
            raise ConfigError(f"The pattern is no regular expression: {error}", got=self.pattern) from error
        known = [*range(compiled.groups + 1), *compiled.groupindex]
        if self.group is not None and self.group not in known:
            raise ConfigError(
                "The pattern has no such group",
                got=self.group,
                fix=f"Its groups are {', '.join(map(str, known))}.",
            )

    def extract(self, response: str) -> str | None:
        compiled = re.compile(self.pattern, re.IGNORECASE if self.ignore_case else 0)  # cached by re
        group = min(compiled.groups, 1) if self.group is None else self.group
        found: str | None = None
        for match in compiled.finditer(response):
            found = match[group] or found
        return (found or "").strip() or None

    def equal(self, left: str, right: str) -> bool:
        return left.casefold() == right.casefold() if self.ignore_case else left == right
