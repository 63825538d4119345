"""Laws of step boundaries."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from nabla.models.vocabulary import Vocabulary
from nabla.rollouts.boundaries.base import Boundary, boundaries
from nabla.testing.laws import MAX_EXAMPLES, Kit, require, untouched_global_noise
from nabla.testing.optional import st
from nabla.testing.tiny import char_tokenizer

#: What the texts of the laws are made of: words, numbers, and the usual ends of steps.
CHARACTERS = "ab1;.\n "


@dataclass(frozen=True, eq=False)
class BoundaryBench:
    """A boundary, a vocabulary whose texts it cuts, and another one with other ids for the same texts."""

    boundary: Boundary
    vocabulary: Vocabulary
    other: Vocabulary

    @classmethod
    def of(cls, boundary: Boundary, vocabulary: Vocabulary | None = None) -> BoundaryBench:
        if vocabulary is None:
            vocabulary = Vocabulary(char_tokenizer(CHARACTERS))
        return cls(boundary, vocabulary, Vocabulary(char_tokenizer(CHARACTERS[::-1])))

    def text(self, draws: Sequence[int]) -> list[int]:
        """Ids that do not end the response."""
        usable = [i for i in range(self.vocabulary.usable) if i not in self.vocabulary.eos_ids]
        special = set(self.vocabulary.tokenizer.all_special_ids)
        usable = [i for i in usable if i not in special] or usable
        return [usable[draw % len(usable)] for draw in draws]

    def ends(self, tokens: list[int]) -> list[int]:
        return self.boundary.split(tokens, self.vocabulary)


kit: Kit[Boundary] = Kit(boundaries, "a boundary", "check_boundary", prepare=BoundaryBench.of)

_texts = st.lists(st.integers(0, 6), min_size=1, max_size=12)


def check_boundary(
    boundary: object,
    vocabulary: Vocabulary | None = None,
    *,
    laws: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    max_examples: int = MAX_EXAMPLES,
    seed: int = 0,
) -> None:
    """Checks every law of boundaries.

    Args:
        boundary: an instance, or a class that needs no arguments.
        vocabulary: of the texts that are cut; None: a tiny one of letters, digits, ".", ";", a blank and a
            line break, one token each.
        laws: these and the rest as in :func:`nabla.testing.check_estimator`.

    Raises ContractError at the first law that is broken.
    """
    kit.check(
        boundary,
        laws=laws,
        skip=skip,
        max_examples=max_examples,
        seed=seed,
        prepare=lambda component: BoundaryBench.of(component, vocabulary),
    )


@kit.law(first=_texts, last=_texts)
def it_keeps_no_state(on: BoundaryBench, first: list[int], last: list[int]) -> None:
    """Where steps end does not depend on what was cut before, by the ids of whichever vocabulary."""
    used, fresh = copy.deepcopy(on.boundary), copy.deepcopy(on.boundary)
    ids = range(on.other.usable)
    with untouched_global_noise():
        used.split([ids[draw % len(ids)] for draw in first], on.other)
        found = used.split(on.text(last), on.vocabulary)
    expected = fresh.split(on.text(last), on.vocabulary)
    require(found == expected, f"steps end at {found} after another text, at {expected} alone")


@kit.law(text=_texts)
def a_step_is_closed_or_open(on: BoundaryBench, text: list[int]) -> None:
    """``closed`` gives a bool for any tokens, at least one."""
    found: Any = on.boundary.closed(on.text(text), on.vocabulary)
    require(isinstance(found, bool), f"closed gave {found!r}, a {type(found).__name__}")


@kit.law(text=_texts)
def steps_end_where_they_are_closed(on: BoundaryBench, text: list[int]) -> None:
    """``split`` ends a step at the first token that closes it; the last step may be open; all steps together
    are the response."""
    tokens = on.text(text)
    ends, expected, begin = on.ends(tokens), [], 0
    for end in range(1, len(tokens) + 1):
        if end == len(tokens) or on.boundary.closed(tokens[begin:end], on.vocabulary):
            expected.append(end)
            begin = end
    require(ends == expected, f"steps end at {ends}, the tokens close them at {expected}")


@kit.law(text=_texts)
def the_first_step_is_the_first_of_all(on: BoundaryBench, text: list[int]) -> None:
    """``first`` is the first of the ends that ``split`` gives: a rollout stops where a reader would cut."""
    tokens = on.text(text)
    found, expected = on.boundary.first(tokens, on.vocabulary), on.ends(tokens)[0]
    require(found == expected, f"the first step has {found} tokens, split says {expected}")
