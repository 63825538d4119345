"""A trace as a run would write it, with texts that nobody would wish for."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nabla.launch.callbacks.trace import SCHEMA

EVIL = "</script><script>window.harmed=1</script><img src=x onerror='window.harmed=1'>"
WORDS = ("the", " sum", " of", " 12", " and", " 7", " is", " 19", ",", " so", "\n", " x", " =", " ½")


TERM = {"unit": "logits", "value": 1.0, "weight": 2.0, "gradient_share": 0.7}
PARTS = {"delta_prefix": [3.0], "delta_postfix": [1.0], "delta_reward": [0.4]}


def usage(calls: int) -> dict[str, float]:
    """A cost that grows with the calls."""
    return {"calls": calls, "tokens": 3 * calls, "flops": 1e9 * calls, "seconds": 0.01 * calls}


class Made:
    """Lines of a trace.

    Args:
        seed: of the numbers.
        words: that texts are made of.
    """

    def __init__(self, seed: int = 0, words: Sequence[str] = WORDS) -> None:
        self.lines: list[dict[str, Any]] = []
        self.random = random.Random(seed)
        self.calls = 0
        self.words = words

    def _line(self, event: str, problem: str, **about: Any) -> None:
        self.lines.append({"event": event, "problem": problem, **about})

    def spent(self) -> dict[str, float]:
        self.calls += self.random.randint(3, 40)
        return usage(self.calls)

    def text(self, problem: str, number: int, ids: list[int], pieces: list[str], **like: int) -> None:
        draw = self.random
        self._line(
            "text", problem, text=number, finished=True, ids=ids, pieces=pieces, **like,
            log_probs=[round(-draw.expovariate(2), 3) for _ in ids],
            entropy=[round(draw.expovariate(2), 3) for _ in ids],
            top1=[round(draw.random(), 3) for _ in ids],
        )  # fmt: skip

    def problem(self, name: str, length: int = 30, proposals: int = 6, answer: str = "") -> None:
        """A solve with so many proposals, every second one accepted."""
        draw, self.calls = self.random, 0
        self._line(
            "problem", name, schema=SCHEMA, nabla="0", method="nabla-reasoner",
            prompt=f"How much is {name}? {answer}",
        )  # fmt: skip
        pieces = [draw.choice(self.words) for _ in range(length - 1)] + [answer or "."]
        ids = [draw.randint(0, 50_000) for _ in range(length)]
        self.text(name, 0, ids, pieces)
        self._line("rollout", name, text=0, spent=self.spent())
        ends = list(range(4, length, 5))
        values = [round(draw.gauss(0, 2), 3) for _ in ends]
        self._line("score", name, text=0, reward=0.5, ends=ends, values=values, spent=self.spent())
        self._line("select", name, text=0, positions=[1, 5], spent=self.spent())
        current, reward = 0, 0.5
        for number in range(1, proposals + 1):
            position = number * (length - 2) // (proposals + 1)
            new = 60_000 + number
            self._line(
                "refine", name, text=current, position=position, kl=0.01 * number, gradient_norm=2.0 / number,
                gradients=1, terms={"reward": TERM},
                candidates=[[ids[position], pieces[position], 0.6, 0.4], [new, " new", 0.1, 0.35]],
                rows={"kl": [0.01 * number], **PARTS},
                spent=self.spent(),
            )  # fmt: skip
            self._line(
                "proposal", name, text=current, position=position, old=ids[position], new=new,
                spent=self.spent(), old_piece=pieces[position], new_piece=" new", before=[0.6, 0.1],
                after=[0.4, 0.35],
            )  # fmt: skip
            tail = [draw.randint(0, 50_000) for _ in range(length - position - 1)]
            words = [draw.choice(self.words) for _ in tail]
            if words:
                words[-1] = answer or "!"
            self.text(name, number, [new, *tail], [" new", *words], like=current, shared=position)
            self._line("rollout", name, text=number, spent=self.spent())
            accepted = number % 2 == 0
            offered = reward + (0.3 if accepted else -0.4)
            self._line("score", name, text=number, reward=offered, ends=[], values=[], spent=self.spent())
            if number == 3:
                self._line("stop", name, text=number, position=position + 1, spent=self.spent())
            self._line(
                "accept" if accepted else "reject", name, text=current, proposed=number, position=position,
                old=ids[position], new=new, old_log_prob=-0.5, new_log_prob=-2.3, reward=reward,
                proposed_reward=offered, why=f"strict: reward {reward:.4g} → {offered:.4g}",
                spent=self.spent(),
            )  # fmt: skip
            if accepted:
                ids, pieces = [*ids[:position], new, *tail], [*pieces[:position], " new", *words]
                current, reward = number, offered
        whole = usage(self.calls)
        self._line(
            "solution", name, ids=ids, response="".join(pieces), reward=reward, finished=True,
            method="nabla-reasoner", candidates=proposals + 1, revised_positions=[5],
            cost={"phases": {"rollout": whole}, "total": whole, "counts": {}}, checkpoints=[],
        )  # fmt: skip

    def search(self, name: str) -> None:
        """A search over steps: three draws of a first one, of which two are the same text, and an end."""
        about = {"schema": SCHEMA, "nabla": "0", "method": "beam-search", "prompt": name}
        self._line("problem", name, **about)
        begun, ends = ([1, 2], [" a", " b"]), ([1, 3], [" a", " c"])
        self.text(name, 0, *begun)
        self.text(name, 1, *ends)
        for text in (0, 1, 0):
            self._line("rollout", name, text=text, spent=self.spent())
        for text in (0, 1):
            self._line("score", name, text=text, reward=1.0 - text, ends=[], values=[], spent=self.spent())
        self._line("prune", name, kept=[0], dropped=[1], spent=self.spent())
        self.text(name, 2, [4], [" d"], like=0, shared=2)
        self._line("rollout", name, text=2, spent=self.spent())
        self._line("score", name, text=2, reward=2.0, ends=[], values=[], spent=self.spent())
        self._line("prune", name, kept=[], dropped=[], spent=self.spent())
        self._line(
            "solution", name, ids=[1, 2, 4], response=" a b d", reward=2.0, finished=True,
            method="beam-search", candidates=1, revised_positions=[],
            cost={"total": usage(self.calls)}, checkpoints=[],
        )  # fmt: skip

    def write(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        return path


def folder(path: Path, seed: int = 0) -> Path:
    """A run's folder: its trace, and solutions with verdicts."""
    made = Made(seed)
    for number, answer in enumerate(("", EVIL, "42", "")):
        made.problem(f"p{number}", answer=answer)
    made.write(path / "trace.jsonl")
    rows = [
        {"id": line["problem"], "correct": line["problem"] != f"p{seed}", "answer": "42"}
        for line in made.lines
        if line["event"] == "solution"
    ]
    (path / "solutions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
