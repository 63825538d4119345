"""Monte Carlo labels: how often the shipped policy still succeeds behind each prefix of its own texts.

    python -m experiments.sandbox.success_labels --task latin --out runs/sandbox

Of each training problem the policy writes some responses, and goes on anew from some prefixes of them (SPEC
section 14, *can still succeed*; the labels of Math-Shepherd, arXiv 2312.08935). Every text is a sample of the
continuations of each of its prefixes from the one that it was drawn behind, so every token has a label: the
share of right answers among all texts that were drawn at or before it and begin alike. The engine draws them,
in batches, and counts what they cost.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from experiments.sandbox.common import RESPONSE_TOKENS, seeded
from nabla.core.errors import NablaError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.engine.edits import cut
from nabla.engine.engine import Engine
from nabla.engine.session import Session
from nabla.models.causal_lm import CausalLM
from nabla.problems.sandbox import TASKS, Family, model_path

#: Of each problem: responses, prefixes of each that are continued, continuations of each prefix.
RECIPES: dict[str, dict[str, int]] = {
    "latin": {"problems": 1200, "roots": 2, "prefixes": 3, "continuations": 2},
    "arithmetic": {"problems": 1200, "roots": 2, "prefixes": 3, "continuations": 2},
}
TEMPERATURE = 0.7


@dataclass(frozen=True)
class Drawn:
    """A text that the policy wrote.

    Args:
        tokens: of the response, end of turn included.
        start: number of leading tokens that were given.
        right: the verdict.
    """

    tokens: tuple[int, ...]
    start: int
    right: bool


@dataclass(frozen=True)
class Labelled:
    """A text with the share of right answers behind each prefix that it is a sample of.

    Args:
        prompt: of the problem.
        tokens: of the response, end of turn included.
        start: number of leading tokens; those before the last of them have no label here.
        labels: one for ``start`` leading tokens and each longer prefix ``[len(tokens) - start + 1]``.
    """

    prompt: str
    tokens: tuple[int, ...]
    start: int
    labels: tuple[float, ...]


def labelled(prompt: str, drawn: Sequence[Drawn]) -> list[Labelled]:
    """The labels of one problem's texts."""
    counts: dict[tuple[int, ...], list[int]] = {}
    for text in drawn:
        for end in range(text.start, len(text.tokens) + 1):
            count = counts.setdefault(text.tokens[:end], [0, 0])
            count[0] += text.right
            count[1] += 1
    found: dict[tuple[int, ...], Labelled] = {}
    for text in sorted(drawn, key=lambda text: text.start):  # a text that came up twice counts once
        ends = range(text.start, len(text.tokens) + 1)
        pairs = [counts[text.tokens[:end]] for end in ends]
        labels = tuple(right / of for right, of in pairs)
        found.setdefault(text.tokens, Labelled(prompt, text.tokens, text.start, labels))
    return list(found.values())


def solution_of(session: Session, text: Trajectory) -> Solution:
    """What the engine wants of a method; what is drawn here is of use for all that was written on the way."""
    return Solution(
        prompt=session.prompt,
        response=session.decode(text.tokens),
        tokens=tuple(text.tokens.tolist()),
        reward=text.reward,
        finished=text.finished,
        method="experiments.sandbox",
        cost=session.cost,
    )


def writer(
    task: Family, sampling: Sampling, recipe: dict[str, int], seed: int, found: dict[str, list[Labelled]]
) -> Callable[[Session], Coroutine[Any, Any, Solution]]:
    """A method that draws one problem's texts and leaves them in ``found``."""

    async def write(session: Session) -> Solution:
        prompt = session.prompt
        rng = seeded("prefixes", task.name, seed, prompt.id)
        roots = await session.rollout(sampling, recipe["roots"])
        heads: list[Trajectory] = []
        for root in roots:
            ends = range(1, len(root))
            for end in rng.sample(ends, min(recipe["prefixes"], len(ends))):
                heads += [cut(root, end)] * recipe["continuations"]
        grown = await session.extend(heads)
        starts = [0] * len(roots) + [len(head) for head in heads]
        drawn = []
        for text, start in zip([*roots, *grown], starts, strict=True):
            right = text.finished and task.check(prompt.text, session.decode(text.tokens))
            drawn.append(Drawn(tuple(text.tokens.tolist()), start, right))
        found[prompt.id] = labelled(prompt.text, drawn)
        return solution_of(session, roots[0])

    return write


def draw(
    family: str, recipe: dict[str, int], seed: int, policy: CausalLM | None = None
) -> tuple[list[Labelled], float]:
    """Labels of training problems, and the FLOPs that they cost. Raises NablaError where a problem fails."""
    task = TASKS[family]
    policy = policy or CausalLM.from_pretrained(str(model_path(f"{family}-policy")), device="cpu")
    sampling = Sampling(temperature=TEMPERATURE, max_new_tokens=RESPONSE_TOKENS[family])
    problems = task.problems("train", recipe["problems"], seed=7_000 + seed)
    found: dict[str, list[Labelled]] = {}
    method = writer(task, sampling, recipe, seed, found)
    flops = 0.0
    prompts = [Prompt.of(problem.prompt, id=problem.id) for problem in problems]
    for number, (_, solution) in enumerate(Engine(policy, seed=seed).run(method, prompts)):
        if isinstance(solution, NablaError):
            raise solution
        flops += solution.cost.total.flops
        if number % 400 == 399:
            print(f"{number + 1} problems, {sum(map(len, found.values()))} texts", flush=True)
    return [row for problem in problems for row in found[problem.id]], flops


def save(folder: Path, rows: Sequence[Labelled], flops: float) -> None:
    """Writes ``labels.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    known = {"flops": flops, "rows": [asdict(row) for row in rows]}
    (folder / "labels.json").write_text(json.dumps(known))


def load(folder: Path) -> tuple[list[Labelled], float]:
    """What :func:`save` wrote."""
    known = json.loads((folder / "labels.json").read_text())
    rows = [
        Labelled(row["prompt"], tuple(row["tokens"]), row["start"], tuple(row["labels"]))
        for row in known["rows"]
    ]
    return rows, known["flops"]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=sorted(RECIPES), required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/sandbox"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--problems", type=int)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    recipe = RECIPES[args.task]
    if args.problems is not None:
        recipe = recipe | {"problems": args.problems}
    rows, flops = draw(args.task, recipe, args.seed)
    save(args.out / f"{args.task}-success", rows, flops)
    mean = sum(row.labels[-1] for row in rows) / len(rows)
    print(f"{len(rows)} texts, {flops:.3g} FLOPs, {mean:.3f} right", flush=True)


if __name__ == "__main__":
    main()
