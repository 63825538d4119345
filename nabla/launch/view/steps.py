"""Events → the steps of a time line: drafts, refined positions, proposals with what became of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from nabla.launch.view.lines import Line
from nabla.launch.view.texts import Nodes

Step = dict[str, Any]
#: What is known of a refined row: in the page's order.
REFINED = ("gradient_norm", "kl", "delta_prefix", "delta_postfix", "delta_reward")
UNITS = ("calls", "tokens", "flops", "seconds")


class Steps:
    """Goes over the lines of one problem.

    Args:
        nodes: they grow.
    """

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.steps: list[Step] = []
        #: Token before a refined position → REFINED.
        self.refined: dict[int, list[float | None]] = {}
        #: Number of a text → ``‖∂L/∂y_i‖``, centred.
        self.norms: dict[int, Sequence[float | None]] = {}
        self._open: list[Step] = []
        self._current = 0

    def take(self, line: Line) -> None:
        """One line. Raises LookupError, TypeError and ValueError for a damaged one."""
        hear = getattr(self, f"_{line['event']}", None)
        if hear is not None:
            hear(line)

    def _text(self, line: Line) -> None:
        self.nodes.add(line)

    def _rollout(self, line: Line) -> None:
        text = int(line["text"])
        if self._open:
            self._belongs(text)
            return
        self._current = text
        same = next((step for step in self._drafts() if step["text"] == text), None)
        if same is not None:  # drawn once more
            same["times"] = same.get("times", 1) + 1
            same["spent"] = _spent(line)
            return
        last = next(self._drafts(), None)
        if last is not None and self.nodes.extends(text, last["text"]):
            last["text"] = text  # the same one, written further
            last["spent"] = _spent(line)
            for name in ("stop", "reward", "times"):
                last.pop(name, None)
            last |= self._judged(text)
            return
        self._step("draft", line, text=text, **self._judged(text))

    def _judged(self, text: int) -> Step:
        """The reward of a text that came before and is judged once: no line tells it again."""
        return {"reward": self.nodes.rewards[text]} if text in self.nodes.rewards else {}

    def _drafts(self) -> Iterator[Step]:
        """The texts that were written last, of which nothing has been decided; the latest one first."""
        for step in reversed(self.steps):
            if step["kind"] != "draft" or "outcome" in step:
                return
            yield step

    def _belongs(self, text: int) -> None:
        """A text that was written for an open proposal."""
        for step in self._open:
            if self._continues(text, step["text"], step["position"], step["new"]):
                step["proposed"] = text

    def _continues(self, text: int, old: int, position: int, new: int) -> bool:
        """Whether a text is another one with a new token at a position, and what follows."""
        nodes, ids = self.nodes.texts, self.nodes.ids[text]
        same = nodes[text][:position] == nodes[old][:position]
        return same and position < len(ids) and bool(ids[position] == new)

    def _score(self, line: Line) -> None:
        self.nodes.judge(line)
        for step in self._drafts():
            if step["text"] == line["text"]:
                step["reward"], step["spent"] = line["reward"], _spent(line)

    def _prune(self, line: Line) -> None:
        """Of the texts that were written last: from which a search goes on."""
        outcomes = {int(text): name for name in ("kept", "dropped") for text in line[name]}
        for step in list(self._drafts()):
            step["outcome"] = outcomes.get(step["text"], "complete")

    def _stop(self, line: Line) -> None:
        text, position = int(line["text"]), int(line["position"])
        for step in reversed(self.steps):
            if text in (step.get("proposed"), step["text"] if step["kind"] == "draft" else None):
                step["stop"] = position
                return

    def _select(self, line: Line) -> None:
        self._current = int(line["text"])
        if self.steps:
            self.steps[-1]["selected"] = line["positions"]

    def _norms(self, line: Line) -> None:
        self.norms[int(line["text"])] = line["centred"]

    def _refine(self, line: Line) -> None:
        text, position, rows = int(line.get("text", self._current)), int(line["position"]), line["rows"]
        for place in range(len(rows["kl"])):
            values = {name: row[place] for name, row in rows.items()}
            if not place:
                values["gradient_norm"] = line["gradient_norm"]
            key = self.nodes.before(text, position + place)
            self.refined[key] = [values.get(name) for name in REFINED]
        known = {name: line[name] for name in ("candidates", "terms", "gradients", "kl", "gradient_norm")}
        self._step("refine", line, text=text, position=position, **known)

    def _proposal(self, line: Line) -> None:
        text, position = int(line["text"]), int(line["position"])
        self._current = text
        written = self._written_before(text, position, int(line["new"]))
        last = self.steps[-1] if self.steps else None
        if last is None or (last["kind"], last["position"]) != ("refine", position):
            last = self._step("proposal", line, text=text, position=position)
        names = ("old", "new", "old_piece", "new_piece", "before", "after")
        last |= {"kind": "proposal", "text": text, **{n: line[n] for n in names if n in line}}
        if written is not None:
            last["proposed"] = written
        self._open.append(last)

    def _written_before(self, text: int, position: int, new: int) -> int | None:
        """The draft that turns out to be the continuation of a proposal, which is taken out of the steps."""
        last = self.steps[-1] if self.steps else None
        if last is None or last["kind"] != "draft" or last["text"] == text:
            return None
        if not self._continues(last["text"], text, position, new):
            return None
        found: int = self.steps.pop()["text"]
        return found

    def _accept(self, line: Line) -> None:
        self._decide(line, "accepted")

    def _reject(self, line: Line) -> None:
        self._decide(line, "rejected")

    def _decide(self, line: Line, outcome: str) -> None:
        mine = (int(line["position"]), int(line["new"]))
        step = next((s for s in self._open if (s["position"], s["new"]) == mine), None)
        if step is None:
            step = self._step("proposal", line, text=int(line["text"]), position=mine[0])
            step |= {"old": line["old"], "new": line["new"]}
        for other in self._open:
            other["outcome"] = "passed over"  # of several that were written, another one was better
        names = ("reward", "proposed_reward", "old_log_prob", "new_log_prob", "proposed", "why")
        step |= {"outcome": outcome, "spent": _spent(line), **{name: line[name] for name in names}}
        self._open = []
        self._current = int(line["proposed"] if outcome == "accepted" else line["text"])

    def _step(self, kind: str, line: Line, **about: Any) -> Step:
        self.steps.append({"kind": kind, "position": None, "spent": _spent(line), **about})
        return self.steps[-1]


def _spent(line: Line) -> list[float | None] | None:
    spent = line.get("spent")
    return None if spent is None else [spent.get(unit) for unit in UNITS]
