"""Process reward models: one score per token or step, aggregated to a response's reward."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nabla.core.errors import ConfigError, ModelError
from nabla.core.prompt import Message
from nabla.core.trajectory import Score
from nabla.models.chat import ChatFormat
from nabla.models.head import Head
from nabla.models.precision import exact_scores, work_dtype
from nabla.rewards.base import Response, rewards
from nabla.rewards.marks import CAUSAL, MARKS, SEPARATORS, Format
from nabla.rewards.reading import Layout
from nabla.rewards.transformer import TransformerReward
from nabla.rewards.turns import arranged, sign_ids, turns

AGGREGATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": torch.sum,
    "mean": torch.mean,
    "min": torch.min,
    "last": lambda steps: steps[-1],
}


@rewards.register("process")
class ProcessReward(TransformerReward):
    """A reward of each prefix of an answer, aggregated over its steps (SPEC sections 1 and 16; ``sum`` is the
    paper's appendix B.2).

    Formats:

    - ``classifier``: ``AutoModelForTokenClassification``, read at the last token of each step.
    - ``trl``: the same as TRL's ``PRMTrainer`` trains it: the marker's ids behind each step, read at the last
      of them; labels 0 wrong and 1 right.
    - ``qwen-prm``: Qwen2.5-Math-PRM (arXiv 2501.07301): a decoder with a two-layer head, read at the marker
      ``<extra_0>`` behind each step.
    - ``math-shepherd``: a causal language model (arXiv 2312.08935), read at the marker ки behind each
      step: the logit of ``+`` against that of ``-``.
    - ``rlhflow``: a causal language model (arXiv 2405.07863) that reads each step as a turn of the user (the
      first behind the question and a blank) and replies ``+`` or ``-``, read where it is about to reply. The
      template's own ids are read; an answer's first token has no reward gradient, as it makes its id with
      the blank before it.

    Where a format has markers or turns, a token of a separator has no reward gradient: another one in its
    place would be another number of steps.

    Where a model gives a probability of right against wrong, the score is its log-odds: the difference of
    both logits.

    Args:
        aggregation: ``sum``, ``mean``, ``min`` or ``last`` over the steps.
        step_separators: a step ends where one of these ends, and at the answer's end; None: the format's
            own; empty, for ``classifier``: every token is a step.
        label: for ``classifier``: which of the head's labels is the reward; None: the only one, or the
            log-odds of the second against the first of two (wrong, right).
        format: how the model was trained.
        marker: another text than the format's own behind each step.
        signs: of ``math-shepherd`` and ``rlhflow``: the tokens that say right and wrong.

    Raises ConfigError or ModelError.
    """

    auto = "AutoModelForTokenClassification"
    reads_whole_response = True

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        aggregation: Literal["sum", "mean", "min", "last"] = "min",
        step_separators: Sequence[str] | None = None,
        label: int | None = None,
        format: Format = "classifier",
        marker: str | None = None,
        signs: tuple[str, str] = ("+", "-"),
        **arguments: Any,
    ) -> None:
        if aggregation not in AGGREGATIONS:
            raise ConfigError("Unknown aggregation", got=aggregation, fix=f"Use {', '.join(AGGREGATIONS)}.")
        if format not in get_args(Format):
            known = ", ".join(get_args(Format))
            raise ConfigError("Unknown format of a process reward", got=format, fix=f"Use {known}.")
        self.aggregation, self.format, self.label = aggregation, format, label
        self.marks = MARKS.get(format)
        self.marker = self.marks.marker if self.marks is not None and marker is None else marker
        if self.marks is None and marker is not None:
            raise ConfigError("Only formats with markers have a marker", got=marker)
        own = SEPARATORS.get(format, ()) if self.marks is None else self.marks.separators
        self.step_separators = own if step_separators is None else tuple(step_separators)
        if format != "classifier" and not self.step_separators:
            raise ConfigError(f"The format {format!r} needs step_separators")
        self.signs = tuple(signs)
        self._signs: Tensor | None = None
        if format == "math-shepherd":
            self._signs = self._sign_ids(tokenizer, signs)
        elif format == "rlhflow":
            chat = ChatFormat(tokenizer, arguments.get("chat_template"), role="reward model")
            self._signs = sign_ids(chat, signs)
        else:
            self._check_labels(int(getattr(model.config, "num_labels", 1)))
        super().__init__(model, tokenizer, **arguments)
        if format == "qwen-prm":
            ids = self._encode(str(self.marker))
            if len(ids) != 1:
                raise ModelError(
                    "The marker is not one token of the reward model's tokenizer",
                    got=self.marker,
                    fix="Use the tokenizer of Qwen2.5-Math-PRM, or say marker=...",
                )

    def _check_labels(self, labels: int) -> None:
        if self.label is not None and not 0 <= self.label < labels:
            raise ModelError(f"The process reward model has {labels} labels", got=self.label)
        if self.label is None and labels > 2:
            raise ModelError(
                f"The process reward model has {labels} labels",
                fix="Say which one is the reward: label=0, label=1, ...",
            )
        if self.format in ("trl", "qwen-prm") and (labels != 2 or self.label is not None):
            raise ModelError(
                f"The format {self.format!r} has two labels, wrong and right, and reads their log-odds",
                got=labels if self.label is None else f"label={self.label}",
            )

    @staticmethod
    def _sign_ids(tokenizer: Any, signs: tuple[str, str]) -> Int[Tensor, " 2"]:
        """(wrong, right): the last token of each sign behind a blank, as the published models are read."""
        right, wrong = (tokenizer(f" {s}", add_special_tokens=False)["input_ids"][-1] for s in signs)
        if right == wrong:
            raise ModelError("The reward model's tokenizer does not tell right from wrong", got=signs)
        return torch.tensor([wrong, right])

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        path: str,
        *,
        aggregation: Literal["sum", "mean", "min", "last"] = "min",
        step_separators: Sequence[str] | None = None,
        label: int | None = None,
        format: Format = "classifier",
        marker: str | None = None,
        signs: tuple[str, str] = ("+", "-"),
        **arguments: Any,
    ) -> ProcessReward:
        """As :meth:`TransformerReward.from_pretrained`, with this class's own arguments."""
        auto = None
        if format in CAUSAL:
            from transformers import AutoModelForCausalLM as auto  # type: ignore[no-redef]
        elif format == "qwen-prm":
            auto, arguments = two_layer_classifier(), {"num_labels": 2, **arguments}
        found = super().from_pretrained(
            path,
            settings={
                "aggregation": aggregation,
                "step_separators": step_separators,
                "label": label,
                "format": format,
                "marker": marker,
                "signs": signs,
            },
            auto=auto,
            **arguments,
        )
        assert isinstance(found, ProcessReward)
        return found

    def _head(self) -> Any:
        if self._signs is None:
            return super()._head()
        output = self.model.get_output_embeddings()
        return None if output is None else Head(output, self.model.config, int(output.weight.shape[0]))

    def _expected(self, ids: Int[Tensor, " n"]) -> Tensor:
        scores: Tensor = self.model(input_ids=ids[None].to(self.body.device)).logits[0]
        return scores if self._signs is None else scores[:, self._signs.to(scores.device)]

    def _read(self, hidden: Float[Tensor, "n hidden"]) -> Tensor:
        if self._signs is not None:
            logits: Tensor = self.head.logits(hidden.to(work_dtype(hidden.dtype)), self._signs)
            return logits
        return exact_scores(self.head, hidden)

    # -- steps -----------------------------------------------------------------------------------

    def _ends(self, pieces: Sequence[str]) -> list[tuple[int, int, int]]:
        """Of an answer in pieces: the last piece of each step and the characters of its separator; for the
        last step, which ends with the answer, there may be none."""
        text = "".join(pieces)
        owner = [i for i, piece in enumerate(pieces) for _ in piece]
        found: list[tuple[int, int, int]] = []
        at = 0
        while True:
            hits = [(text.find(s, at), -len(s), s) for s in self.step_separators if text.find(s, at) >= 0]
            if not hits:
                break
            begin, _, separator = min(hits)
            at = begin + len(separator)
            if found and found[-1][0] == owner[at - 1]:  # one token ends several steps at once
                found[-1] = (owner[at - 1], found[-1][1], at)
            else:
                found.append((owner[at - 1], begin, at))
        if pieces and (not found or found[-1][0] != len(pieces) - 1):
            found.append((len(pieces) - 1, len(text), len(text)))
        return found

    def _pieces(self, ids: Sequence[int]) -> list[str]:
        """Text of each of this model's tokens within a text; none where it has no such token."""
        (anchor,) = self.tokenizer("0", add_special_tokens=False)["input_ids"][-1:] or [0]
        start = len(self.tokenizer.decode([anchor]))
        return [self.tokenizer.decode([anchor, t])[start:] if t >= 0 else "" for t in ids]

    def _rows(self, layout: Layout) -> list[int]:
        """Response tokens that end a step."""
        if layout.reads is not None:
            return list(layout.ends)
        if not self.step_separators:
            return list(range(layout.visible))
        return [end for end, _, _ in self._ends(self._pieces(layout.own.tolist()))]

    def steps(self, layout: Layout) -> Int[Tensor, " steps"]:
        """Positions in the layout's ``answer`` at which a step's score is read; -1: the token before it, if
        there is one."""
        if layout.reads is not None:
            return layout.reads
        rows = self._rows(layout)
        # A token without an id of its own: the last one before it that has one.
        places = torch.cummax(layout.places, 0).values if layout.visible else layout.places
        places = places.clamp_min(-min(len(layout.before), 1))
        return places[torch.tensor(rows, dtype=torch.long)]

    def _whole(
        self, render: Callable[[str], str], text: str, tokens: Int[Tensor, " n"]
    ) -> tuple[list[int], list[list[int]] | None, tuple[int, ...]]:
        if self.marks is None:
            return super()._whole(render, text, tokens)
        spans = self._spans(tokens)
        pieces = [text[begin:end] for begin, end in spans]
        found = self._ends(pieces)
        steps, at = [], 0
        for _, begin, end in found or [(-1, len(text), len(text))]:
            steps.append((text[at:begin], text[begin:end]))
            at = end
        ends = tuple(end for end, _, _ in found)
        if self.marks.parts:
            return self._in_parts(render, text, steps, ends)
        marked, places = "", []
        for step, separator in steps:
            marked += step
            places.append((len(marked), len(marked) + len(str(self.marker))))
            marked += str(self.marker) + (separator if self.marks.keep else "")
        rendered = render(marked)
        if rendered.count(marked) != 1:
            raise ModelError(
                "The reward model's template rewrites the answer: its steps cannot be marked",
                got=text[:80],
                fix="Use answer='raw', or a chat_template that keeps the answer as it is.",
            )
        begin = rendered.index(marked)
        whole, offsets = self._placed(rendered)
        marks = []
        for first, last in places:
            marks.append([i for i, (a, b) in enumerate(offsets) if a < begin + last and b > begin + first])
        return whole, marks, ends

    def _arranged(
        self, messages: tuple[Message, ...], tokens: Int[Tensor, " n"], closing: list[int]
    ) -> Layout:
        if self.format != "rlhflow":
            return super()._arranged(messages, tokens, closing)
        text, spans = self._written(tokens.tolist()), self._spans(tokens)
        found = self._ends([text[begin:end] for begin, end in spans])
        at = 0
        steps, begins, ends = [], [], []
        for last, begin, end in found:
            step = text[at:begin]
            if step.strip():  # white space alone is no step
                steps.append(step.strip())
                begins.append(at + len(step) - len(step.lstrip()))
                ends.append(last)
            at = end
        if not steps:
            steps, begins = [""], [0]
        # A step is the content of a user's turn: the names of control tokens in it are text, as there.
        hidden = [m.content for m in self.chat.hide([Message("user", step) for step in steps])]
        begins = [b if a == step else -1 for b, a, step in zip(begins, hidden, steps, strict=True)]
        conversation = turns(self.chat, messages, hidden, self.signs[0])
        whole, offsets = self._placed(conversation.rendered)
        own = self._map(tokens).tolist()
        return arranged(conversation, whole, offsets, own, spans, begins, tuple(ends))

    def _placed(self, rendered: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of a rendering, and the characters of each; none for one that is written before it."""
        ids, offsets = self.chat.offsets(rendered)
        whole = self._encode(rendered)
        more = len(whole) - len(ids)  # with or without a beginning-of-sequence token
        return whole, [(0, 0)] * more + offsets if more >= 0 else offsets[-more:]

    def _in_parts(
        self, render: Callable[[str], str], text: str, steps: list[tuple[str, str]], ends: tuple[int, ...]
    ) -> tuple[list[int], list[list[int]], tuple[int, ...]]:
        """Prompt, steps and markers encoded one by one."""
        rendered = render("")
        whole = self._encode(rendered[: len(rendered) - len(self._back(render))])
        marker = self.chat.encode(str(self.marker)).tolist()
        marks = []
        for step, _ in steps:
            whole += [*self.chat.encode(step).tolist(), *marker]
            marks.append(list(range(len(whole) - len(marker), len(whole))))
        return whole, marks, ends

    def _structural(self, text: str, tokens: Int[Tensor, " n"]) -> list[int]:
        if self.marks is None:
            return []
        spans = self._spans(tokens)
        found = self._ends([text[begin:end] for begin, end in spans])
        return [
            i
            for i, (begin, end) in enumerate(spans)
            if any(begin < last and end > first for _, first, last in found)
        ]

    def _behind(self, after: list[int]) -> list[int]:
        return [] if self.marks is not None and self.marks.parts else after

    @staticmethod
    def _back(render: Callable[[str], str]) -> str:
        """What a template writes behind an answer."""
        mark = "\u2063"
        return render(mark).rsplit(mark, 1)[-1]

    def _reward(self, hidden: Float[Tensor, "n hidden"], layout: Layout) -> Float[Tensor, ""]:
        return AGGREGATIONS[self.aggregation](self._steps(hidden, layout))

    def _judge(self, hidden: Float[Tensor, "n hidden"], layout: Layout) -> Score:
        steps, ends = self._steps(hidden, layout), tuple(self._rows(layout))
        value = float(AGGREGATIONS[self.aggregation](steps))
        return Score(value, tuple(steps.tolist()), ends) if ends else Score(value)  # no token ends a step

    def _steps(self, hidden: Float[Tensor, "n hidden"], layout: Layout) -> Float[Tensor, " steps"]:
        """The score of each step."""
        steps = self.steps(layout)
        if len(steps) == 0:  # an empty answer: the score of the question's last token
            steps = torch.tensor([-1])
        first = len(hidden) - len(layout.after) - len(layout.answer)
        index = steps + first
        return self.token_rewards(hidden[index.to(hidden.device)])

    @property
    def reads_every_token(self) -> bool:
        return not self.step_separators

    @property
    def read_flops(self) -> float:
        if self._signs is None:
            return super().read_flops
        return 2.0 * 2 * int(self.model.get_output_embeddings().weight.shape[1])

    def token_places(self, layout: Layout) -> list[tuple[int, int]]:
        rows = self._rows(layout)
        return list(zip(rows, self.steps(layout).tolist(), strict=True)) if rows else []

    def token_rewards(self, hidden: Float[Tensor, "n hidden"]) -> Float[Tensor, " n"]:
        scores = self._read(hidden)
        if self.label is None and scores.shape[-1] == 2:
            return scores[:, 1] - scores[:, 0]
        return scores[:, self.label or 0]

    def together(self, values: Sequence[float], response: Response | None = None) -> float | None:
        steps = [value for value in values if not math.isnan(value)]
        exact = torch.tensor(steps, dtype=torch.float64)
        return float(AGGREGATIONS[self.aggregation](exact)) if steps else None


def two_layer_classifier() -> Any:
    """Qwen2.5-Math-PRM's class without its remote code: a Qwen2 decoder with linear, ReLU, linear."""
    from transformers import Qwen2ForTokenClassification

    class Qwen2ForProcessReward(Qwen2ForTokenClassification):
        """With a head of two layers."""

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            width = config.hidden_size
            self.score = nn.Sequential(
                nn.Linear(width, width), nn.ReLU(), nn.Linear(width, config.num_labels)
            )
            self.post_init()

    return Qwen2ForProcessReward
