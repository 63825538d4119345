"""The texts of one problem in a trace: each has a number; a token that texts share is written down once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from nabla.core.text import pieces
from nabla.core.trajectory import Trajectory
from nabla.models.vocabulary import Vocabulary

#: Tokens before a piece that are decoded with it, so that blanks between words come out right.
CONTEXT = 8


def number(value: float, digits: int = 4) -> float | None:
    """A number with so many digits; None where there is none."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def numbers(values: Tensor | Sequence[float] | None) -> list[float | None]:
    """The same of many; empty where there are none."""
    if values is None:
        return []
    return [number(x) for x in (values.tolist() if isinstance(values, Tensor) else values)]


@dataclass
class _Text:
    """What is known of a text that was written down."""

    nodes: tuple[int, ...]
    log_probs: bool
    states: bool
    scored: bool = False


@dataclass
class Texts:
    """The texts of one problem.

    Args:
        vocabulary: decodes ids.
        prompt: text of the problem; texts that answer another prompt say which.
    """

    vocabulary: Vocabulary
    prompt: str
    #: (node, token) → node behind it: the texts as a tree. A root for each prompt.
    _next: dict[tuple[int, int], int] = field(default_factory=dict)
    _roots: dict[str, int] = field(default_factory=dict)
    #: Node → number of the text that it was written down with.
    _owner: list[int] = field(default_factory=list)
    _valued: set[int] = field(default_factory=set)
    _ends: dict[int, int] = field(default_factory=dict)
    _texts: list[_Text] = field(default_factory=list)

    def add(self, trajectory: Trajectory) -> tuple[int, dict[str, Any] | None]:
        """Number of a text, and what is to be written down of it: None where all of that is known."""
        tokens = trajectory.tokens.tolist()
        asked = trajectory.prompt.text
        if asked not in self._roots:
            self._roots[asked] = self._node(len(self._texts))
        path = [self._roots[asked]]
        for token in tokens:
            found = self._next.get((path[-1], token))
            if found is None:
                break
            path.append(found)
        shared = len(path) - 1
        own = self._ends.get(path[-1]) if shared == len(tokens) else None
        knows = self._knows(trajectory)
        if own is None:
            own = len(self._texts)
            for token in tokens[shared:]:
                self._next[path[-1], token] = node = self._node(own)
                path.append(node)
            self._ends[path[-1]] = own
            self._texts.append(_Text(tuple(path[1:]), *knows))
        else:
            text = self._texts[own]
            if (text.log_probs, text.states) >= knows:
                return own, None
            text.log_probs, text.states = knows
            shared = 0  # more is known of the same tokens
        like = self._owner[path[shared]] if shared else None
        return own, self._line(trajectory, tokens, shared, like)

    def values(self, trajectory: Trajectory) -> tuple[int, dict[str, Any] | None]:
        """Number of a judged text that was added, and what is to be written down: the values of tokens that
        have none yet."""
        own, _ = self.add(trajectory)
        text, score = self._texts[own], trajectory.score
        if score is None:
            return own, None
        pairs = [
            (end, number(step))
            for step, end in zip(score.steps, score.ends, strict=True)
            if text.nodes[end] not in self._valued
        ]
        if text.scored and not pairs:
            return own, None
        text.scored = True
        self._valued.update(text.nodes[end] for end, _ in pairs)
        ends, steps = [end for end, _ in pairs], [step for _, step in pairs]
        return own, {"reward": number(score.value), "ends": ends, "values": steps}

    def _node(self, owner: int) -> int:
        self._owner.append(owner)
        return len(self._owner) - 1

    @staticmethod
    def _knows(trajectory: Trajectory) -> tuple[bool, bool]:
        known = bool(len(trajectory.log_probs)) and not bool(trajectory.log_probs.isnan().all())
        return known, trajectory.states is not None

    def _line(
        self, trajectory: Trajectory, tokens: list[int], shared: int, like: int | None
    ) -> dict[str, Any]:
        line: dict[str, Any] = {"finished": trajectory.finished}
        if trajectory.prompt.text != self.prompt:
            line["asked"] = trajectory.prompt.text
        if like is not None:
            line |= {"like": like, "shared": shared}
        states = trajectory.states
        return line | {
            "ids": tokens[shared:],
            "pieces": self._pieces(tokens, shared),
            "log_probs": numbers(trajectory.log_probs[shared:]),
            "entropy": [] if states is None else numbers(states.entropy[shared:]),
            "top1": [] if states is None else numbers(states.top1[shared:]),
        }

    def _pieces(self, tokens: list[int], shared: int) -> list[str]:
        words = self.vocabulary
        begin = shared
        # Behind half a character a piece is not known without what stands before it.
        while begin and words.decode(tokens[max(0, begin - CONTEXT) : begin]).endswith("\ufffd"):
            begin -= 1
        lead = [*words.lead, *tokens[:begin]][-CONTEXT:]
        found = pieces(words.tokenizer, tokens[begin:], lead, words.eos_ids)
        return found[shared - begin :]
