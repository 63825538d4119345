"""A conversation as a reward model reads it: the ids of the whole rendering, and where the answer's own
tokens stand in them (SPEC section 16)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Layout:
    """A response as the reward model reads it, in its own ids.

    Args:
        before: what comes before the first id that the answer has a part in.
        answer: ids that the answer has a part in, and what the template writes between them.
        after: what comes behind the last of them.
        visible: number of response tokens that are read; a final end-of-sequence token is read only
            where the template writes that very token behind the answer.
        own: the response tokens by themselves in this model's ids, -1 where it has none ``[visible]``.
        places: where each of them stands in ``answer``; -1: it stands for no id of its own, as the
            template drops it or it has merged with its neighbours ``[visible]``.
        seam: the first response token stands for the id that it makes with the template's text before it.
        family: of the first token at the template's seam (:class:`~nabla.rewards.seam.Seam`); -1: none.
        reads: where steps are read in ``answer``, for rewards with markers of their own; None elsewhere.
        ends: the response token that ends each of these steps.
    """

    before: Int[Tensor, " before"]
    answer: Int[Tensor, " n"]
    after: Int[Tensor, " after"]
    visible: int
    own: Int[Tensor, " visible"]
    places: Int[Tensor, " visible"]
    seam: bool = False
    family: int = -1
    reads: Int[Tensor, " steps"] | None = None
    ends: tuple[int, ...] = ()

    @cached_property
    def tokens(self) -> Int[Tensor, " n"]:
        """Everything."""
        return torch.cat([self.before, self.answer, self.after])

    @property
    def first_read(self) -> int:
        """First token whose hidden state a per-token reward reads: the answer's first, or the
        question's last where the answer is empty, or its first token has no id of its own: a step that
        ends there is read before it."""
        nothing = self.visible == 0 or bool((self.places < 0).all())
        earlier = nothing or (self.reads is None and int(self.places[0]) < 0)
        return max(len(self.before) - (1 if earlier else 0), 0)


def regular(before: Tensor, own: Tensor, after: Tensor) -> Layout:
    """The three parts as they are."""
    return Layout(before, own, after, len(own), own, torch.arange(len(own)))


@dataclass(frozen=True, eq=False)
class FreeTokens:
    """What is free of a response.

    Args:
        tokens: that are read.
        pairs: free response tokens that are read, and where.
        first: of ``tokens`` that is run behind a prefix.
    """

    tokens: Int[Tensor, " n"]
    pairs: list[tuple[int, int]]
    first: int


def free_tokens(layout: Layout, tokens: Int[Tensor, " n"], start: int, whole: bool) -> FreeTokens:
    """The free tokens of a response from position ``start`` on.

    Args:
        layout: of the response.
        tokens: of the layout that are read.
        start: first free position.
        whole: every step is read: the frozen part of the answer is run again with the rest.
    """
    before, behind = len(layout.before), len(tokens) - len(layout.before)
    pairs = [
        (i, before + place)
        for i, place in enumerate(layout.places.tolist())
        if i >= start and 0 <= place < behind
    ]
    first = layout.first_read if whole else min([at for _, at in pairs] + [len(tokens) - 1])
    return FreeTokens(tokens, pairs, first)


class _Draft:
    """The ids of an answer as they are put together, from its own and from those of the rendering.

    Args:
        own: ids of the answer's tokens.
        region: ids of the rendering between the template's parts.
    """

    def __init__(self, own: Sequence[int], region: Sequence[int]) -> None:
        self._own, self._region = own, region
        self.answer: list[int] = []
        #: Where each own token stands in ``answer``; -1: nowhere.
        self.places = [-1] * len(own)
        #: Where each id of the region went.
        self.moved: dict[int, int] = {}

    def keep(self, first: int, last: int, begin: int, end: int) -> None:
        """Own tokens, in the place of ids of the region."""
        for i in range(first, last):
            self.places[i] = len(self.answer)
            self.answer.append(self._own[i])
        for j in range(begin, end):
            self.moved[j] = len(self.answer) - min(end - j, max(last - first, 1))

    def take(self, begin: int, end: int) -> None:
        """Ids of the region."""
        for j in range(begin, end):
            self.moved[j] = len(self.answer)
            self.answer.append(self._region[j])


def arrange(
    own: Sequence[int],
    before: Sequence[int],
    after: Sequence[int],
    whole: Sequence[int],
    piece: Callable[[int, int], str],
    fixed: Collection[int] = (),
) -> tuple[Layout, dict[int, int]]:
    """Finds an answer's tokens in the ids of a whole rendering; also where each id of the whole between the
    template's parts went in the layout's ``answer``.

    The whole rendering's ids are what is read. An answer may be cut in another way than its text would be
    (``1 2`` for ``12``): where both are the same text its own ids are kept.

    Args:
        own: ids of the answer's tokens, -1 where the model has none.
        before, after: of the template by itself.
        whole: of the rendering with the answer in it.
        piece: text of a token, from its place in ``own`` (or -1) and its id.
        fixed: places in ``whole`` of markers, which are no text of the answer.
    """
    head = _common(before, whole)
    tail = _common(after[::-1], whole[head:][::-1])
    region = list(whole[head : len(whole) - tail])
    if not fixed and region == list(own) and head == len(before) and tail == len(after):
        return regular(_ids(before), _ids(own), _ids(after)), {head + j: j for j in range(len(own))}
    pieces_own = [piece(i, t) for i, t in enumerate(own)]
    pieces = ["\0" if head + j in fixed else piece(-1, t) for j, t in enumerate(region)]
    known = all(t >= 0 for t in own)
    drafted = _Draft(own, region)
    keep, take, places = drafted.keep, drafted.take, drafted.places
    whole_template = head == len(before) and tail == len(after)
    if known and whole_template and "".join(pieces_own) == "".join(pieces):
        keep(0, len(own), 0, len(region))
    elif known and own and region and "".join(pieces_own[1:]) == "".join(pieces[1:]):
        places[0] = 0  # the first token makes another id with what is before it
        take(0, 1)
        keep(1, len(own), 1, len(region))
    else:
        matcher = SequenceMatcher(None, list(own), region, autojunk=False)
        for tag, i0, i1, j0, j1 in matcher.get_opcodes():
            same = "".join(pieces_own[i0:i1]) == "".join(pieces[j0:j1])
            if tag == "equal" or (tag == "replace" and same and min(own[i0:i1]) >= 0):
                keep(i0, i1, j0, j1)
            elif (
                tag == "replace"
                and i0 == 0
                and (split := j1 - i1) >= j0
                and pieces_own[1:i1] == pieces[split + 1 : j1]
            ):
                take(j0, split + 1)
                places[0] = len(drafted.answer) - 1
                keep(1, i1, split + 1, j1)
            else:
                take(j0, j1)
    before, answer, after = whole[:head], drafted.answer, whole[len(whole) - tail :]
    layout = Layout(_ids(before), _ids(answer), _ids(after), len(own), _ids(own), _ids(places))
    return layout, {head + j: k for j, k in drafted.moved.items()}


def carried(
    render: Callable[[str], str], text: str, spans: Sequence[tuple[int, int]], rows: Sequence[int]
) -> set[int]:
    """Rows whose characters the template carries over as they are: with others in their place its
    rendering has these there, and is the same everywhere else. (An end-of-thinking mark is not one: other
    text in its place would be arranged in another way.)

    Args:
        render: a conversation with an answer.
        text: the answer.
        spans: characters of each of its tokens.
        rows: tokens to ask for, ascending.
    """
    reference = render(text)

    def kept(first: int, last: int) -> bool:
        begin, end = spans[first][0], spans[last][1]
        old, new = text[begin:end], "\ue000"
        other = render(text[:begin] + new + text[end:])
        same_before = _common(reference, other)
        same_behind = _common(reference[same_before:][::-1], other[same_before:][::-1])
        return (
            len(reference) - len(other) == len(old) - len(new)
            and len(reference) - same_before - same_behind <= len(old)
            and new in other
        )

    found: set[int] = set()
    todo = [list(rows)] if rows else []
    while todo:
        part = todo.pop()
        connected = part[-1] - part[0] == len(part) - 1
        if connected and kept(part[0], part[-1]):
            found.update(part)
        elif len(part) > 1:
            half = len(part) // 2
            todo += [part[:half], part[half:]]
    return found


def _common(left: Sequence[object], right: Sequence[object]) -> int:
    """Length of the common beginning."""
    count = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        count += 1
    return count


def _ids(values: Sequence[int]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.long)
