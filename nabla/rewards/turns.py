"""Process rewards that read an answer as a conversation: each step is a turn of the user, answered by one
token that says right or wrong (RLHFlow, arXiv 2405.07863)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from jaxtyping import Int
from torch import Tensor

from nabla.core.errors import ModelError
from nabla.core.prompt import Message
from nabla.models.chat import ChatFormat
from nabla.rewards.reading import Layout

_MARK = "\u2063turn{}\u2063"


def sign_ids(chat: ChatFormat, signs: tuple[str, str]) -> Int[Tensor, " 2"]:
    """(wrong, right): the ids that a template makes of the replies. Raises ModelError unless each is one."""
    right, wrong = (chat.encode(chat.finished((Message("user", "a"),), sign)).tolist() for sign in signs)
    places = [i for i, (a, b) in enumerate(zip(right, wrong, strict=False)) if a != b]
    if len(right) != len(wrong) or len(places) != 1:
        raise ModelError(
            "The reward model's template does not write each sign as one token of its own",
            got=signs,
            fix="Use the signs that the model was trained with: signs=('+', '-').",
        )
    return torch.tensor([wrong[places[0]], right[places[0]]])


@dataclass(frozen=True)
class Turns:
    """A conversation of steps.

    Args:
        rendered: by the template.
        steps: characters of each step in it.
        replies: characters of each reply.
    """

    rendered: str
    steps: tuple[tuple[int, int], ...]
    replies: tuple[tuple[int, int], ...]


def turns(chat: ChatFormat, messages: Sequence[Message], steps: Sequence[str], reply: str) -> Turns:
    """Each step as a turn of the user, the first one behind the question and a blank.

    Args:
        chat: of the reward model.
        messages: the prompt, names of control tokens hidden.
        steps: of the answer, without white space around them.
        reply: to each of them.

    Raises ModelError where the template does not write every turn once and as it is.
    """

    def conversation(contents: Sequence[str], replies: Sequence[str]) -> str:
        asked = messages[-1].role == "user"
        first = f"{messages[-1].content} {contents[0]}" if asked else contents[0]
        written = [*messages[: -1 if asked else None], Message("user", first)]
        for content, answer in zip(contents[1:], replies, strict=False):
            written += [Message("assistant", answer), Message("user", content)]
        return chat.finished(written, replies[-1])

    count = len(steps)
    marks = [_MARK.format(i) for i in range(2 * count)]
    marked = conversation(marks[:count], marks[count:])
    rendered, spans, at = "", [], 0
    order = chain.from_iterable(zip(range(count), range(count, 2 * count), strict=True))
    for i in order:
        begin = marked.find(marks[i], at)
        rendered += marked[at:begin]
        content = steps[i] if i < count else reply
        spans.append((len(rendered), len(rendered) + len(content)))
        rendered += content
        at = begin + len(marks[i]) if begin >= 0 else at
    rendered += marked[at:]
    once = all(marked.count(mark) == 1 for mark in marks)
    if not once or rendered != conversation(steps, [reply] * count):
        raise ModelError(
            "The reward model's chat template does not write a conversation of several turns as it is",
            fix="Pass a chat_template that writes each turn once and unchanged.",
        )
    return Turns(rendered, tuple(spans[0::2]), tuple(spans[1::2]))


def arranged(
    found: Turns,
    whole: Sequence[int],
    offsets: Sequence[tuple[int, int]],
    own: Sequence[int],
    spans: Sequence[tuple[int, int]],
    begins: Sequence[int],
    ends: tuple[int, ...],
) -> Layout:
    """An answer's tokens in such a conversation. What is read is the template's ids; a token stands for the
    one that ends where it ends, if it is the same.

    Args:
        found: the conversation.
        whole: its ids.
        offsets: characters of each of them in the rendering.
        own: the answer's tokens in this model's ids, -1 where it has none.
        spans: characters of each of them in the answer.
        begins: of each step, where its text begins in the answer; -1 where it is written in another way.
        ends: the response token that ends each step.
    """
    closes = {end: j for j, (begin, end) in enumerate(offsets) if end > begin}
    places = [-1] * len(own)
    for number, ((begin, end), start) in enumerate(zip(found.steps, begins, strict=True)):
        for i, (first, last) in enumerate(spans):
            inside = first >= start and last <= start + end - begin and last > first
            # The very first one makes its id with the blank behind the question: no other could replace it.
            if not inside or start < 0 or (number == 0 and first == start):
                continue
            j = closes.get(begin + last - start, -1)
            if j >= 0 and whole[j] == own[i]:
                places[i] = j
    reads = []
    for begin, end in found.replies:
        reads.append(next(j for j, (a, b) in enumerate(offsets) if a < end and b > begin) - 1)
    front = min([place for place in places if place >= 0] + reads)
    back = reads[-1] + 1
    return Layout(
        torch.tensor(whole[:front], dtype=torch.long),
        torch.tensor(whole[front:back], dtype=torch.long),
        torch.tensor(whole[back:], dtype=torch.long),
        len(own),
        torch.tensor(list(own), dtype=torch.long),
        torch.tensor([p - front if p >= 0 else -1 for p in places], dtype=torch.long),
        reads=torch.tensor(reads, dtype=torch.long) - front,
        ends=ends,
    )
