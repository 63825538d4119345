"""Records of all methods of ``experiments/configs/sandbox.yaml`` on a few problems, without budgets.

``python -m tests.golden.record`` writes the files anew; do so only for a change of behaviour that is meant,
and say in the changelog what changed. A line is a solve: tokens, reward, revisions as [position, old token,
new token, old reward, new reward, accepted], model calls and FLOPs. ``passes.json`` counts, per method, how
often the models ran, with how many rows, and what the caches saved: joint requests that no longer meet in one
batch show there and nowhere else.
"""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from nabla.core.prompt import Prompt
from nabla.core.solution import Solution
from nabla.engine.initial_rows import RowCache
from nabla.models.body import Body
from nabla.models.head import Head
from nabla.models.prefixes import PrefixStore
from nabla.problems.tasks.base import tasks
from nabla.study.evaluation.config import EvaluationConfig
from nabla.study.evaluation.workshop import Workshop

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
FAMILIES = ("latin", "arithmetic")
PROBLEMS = 20


def config() -> EvaluationConfig:
    """Every method, both families, no budget."""
    path = ROOT / "experiments" / "configs" / "sandbox.yaml"
    return replace(EvaluationConfig.load(path), problems=PROBLEMS)


def workshop() -> Workshop:
    return Workshop(config(), torch.device("cpu"))


def solve(
    shop: Workshop, family: str, label: str, continuous: bool = False
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """One method's records, and what ran for them; rollouts in whole batches, which can be counted, or with
    rows that join."""
    setup = shop.config
    problems = tasks.build(setup.tasks[family].task).problems(PROBLEMS, offset=setup.offset)
    engine = shop.engine(family, label, seed=0)
    engine.workspace.budgets = ()
    engine.scheduler.continuous = continuous
    prompts = [Prompt.of(p.prompt, id=p.id) for p in problems]
    with counted() as counts:
        solved = engine.run(shop.method(family, label).solve, prompts)
        found = {prompt.id: solution for prompt, solution in solved}
    rows = []
    for prompt in prompts:
        solution = found[prompt.id]
        assert isinstance(solution, Solution), solution
        counts.update(solution.cost.counts)
        rows.append({"method": label, "problem": prompt.id, **record(solution)})
    return rows, dict(sorted(counts.items()))


def record(solution: Solution) -> dict[str, Any]:
    usage = solution.cost.total
    return {
        "tokens": list(solution.tokens),
        "reward": rounded(solution.reward),
        "revisions": [
            [r.position, r.old_token, r.new_token, rounded(r.old_reward), rounded(r.new_reward), r.accepted]
            for r in solution.revisions
        ],
        "calls": usage.calls,
        "flops": round(usage.flops),
    }


def rounded(reward: float | None) -> float | None:
    """Five digits: the last bits depend on the processor."""
    return None if reward is None else float(f"{reward:.5g}")


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Counts passes through bodies and heads, and hits of the caches of rows and prefixes."""
    counts: Counter[str] = Counter()

    def watch(owner: Any, name: str, note: Any) -> Any:
        original = getattr(owner, name)

        def watched(self: Any, *arguments: Any, **named: Any) -> Any:
            result = original(self, *arguments, **named)
            note(result, arguments)
            return result

        return mock.patch.object(owner, name, watched)

    def ran(result: Any, _: Any) -> None:
        counts["body passes"] += 1
        counts["body rows"] += len(result)

    def stepped(_: Any, arguments: Any) -> None:
        counts["decoding steps"] += 1
        counts["decoding rows"] += len(arguments[0])

    def headed(_: Any, __: Any) -> None:
        counts["head products"] += 1

    def hit(name: str) -> Any:
        def note(result: Any, _: Any) -> None:
            counts[f"{name} hits" if result is not None else f"{name} misses"] += 1

        return note

    def prefixed(result: Any, _: Any) -> None:
        counts["prefix tokens found"] += len(result)

    patches = [
        watch(Body, "run", ran),
        watch(Body, "step", stepped),
        watch(Head, "logits", headed),
        watch(RowCache, "block_of", hit("row block")),
        watch(RowCache, "table_of", hit("row table")),
        watch(PrefixStore, "get", prefixed),
    ]
    for patch in patches:
        patch.start()
    try:
        yield counts
    finally:
        for patch in patches:
            patch.stop()


def processor() -> str:
    """Its name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [x.partition(":")[2].strip() for x in lines if x.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # their number decides the last bits
    shop = workshop()
    passes: dict[str, Any] = {"processor": processor()}
    for family in FAMILIES:
        lines = []
        for label in shop.config.methods:
            rows, counts = solve(shop, family, label)
            lines += [json.dumps(row, separators=(",", ":")) for row in rows]
            passes[f"{family}/{label}"] = counts
        (FOLDER / f"{family}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (FOLDER / "passes.json").write_text(json.dumps(passes, indent=1) + "\n", encoding="utf-8")
    torch.set_num_threads(threads)


if __name__ == "__main__":
    main()
