"""Where a method gains: its difference from another by thirds of the problems.

    python experiments/strata.py runs/sandbox-evaluation --methods "nabla long steps" --against revision

Problems are put in thirds by the policy's mean entropy along its greedy response, and by that response's
length. Accuracies are those under the largest budget of a unit; intervals are paired bootstraps.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from nabla.core.errors import ConfigError, NablaError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.engine.engine import Engine
from nabla.engine.session import Session
from nabla.launch.config.run import RunConfig
from nabla.methods.baselines.greedy import Greedy
from nabla.problems.tasks.base import tasks
from nabla.study.evaluation.results import ABOUT, Results
from nabla.study.evaluation.statistics import Array, bootstrap_difference


def properties(config: dict[str, Any], task: str, ids: list[str]) -> dict[str, Array]:
    """Entropy (nats per token) and length (tokens) of the policy's greedy response to each problem."""
    setup = config["tasks"][task]
    drawn = tasks.build(setup["task"]).problems(config["problems"], offset=config["offset"])
    prompts = {p.id: Prompt.of(p.prompt, id=p.id, system=setup["system"]) for p in drawn}
    found: dict[str, tuple[float, int]] = {}

    class Noting(Greedy):
        async def solve(self, session: Session) -> Solution:
            (trajectory,) = await session.rollout(self.sampling)
            found[session.prompt.id] = float(trajectory.entropy.mean()), len(trajectory)
            return self.solution(session, trajectory.commit(len(trajectory)))

    lm = RunConfig(setup["lm"], None, setup["lm_arguments"]).load_lm()
    shared = {**config["shared"], **setup["shared"]}
    method = Noting(Sampling(**shared.get("sampling", {})).max_new_tokens)
    for _, outcome in Engine(lm).run(method.solve, [prompts[i] for i in ids]):
        if isinstance(outcome, NablaError):
            raise outcome
    entropy, length = zip(*(found[i] for i in ids), strict=True)
    return {"entropy": np.array(entropy), "length": np.array(length)}


def thirds(values: Array) -> list[tuple[str, Array]]:
    """(range, mask) of the low, middle and high third; equal values stay together, no third is empty."""
    low, high = np.quantile(values, [1 / 3, 2 / 3])
    masks = (values <= low, (values > low) & (values <= high), values > high)
    return [(f"{values[m].min():.3g} to {values[m].max():.3g}", m) for m in masks if m.any()]


def main(arguments: list[str] | None = None) -> int:
    """Prints one Markdown table per task."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--methods", required=True, help="Labels, with commas between them.")
    parser.add_argument("--against", required=True)
    parser.add_argument("--unit", default="flops", help="Of the budget: calls, tokens, flops or seconds.")
    given = parser.parse_args(arguments)
    results = Results.load(given.folder)
    config = json.loads((given.folder / ABOUT).read_text())["config"]
    budgets = [pair for pair in results.ladder if pair[0] == given.unit]
    if not budgets:
        units = ", ".join(dict.fromkeys(unit for unit, _ in results.ladder))
        raise ConfigError("The results have no budget in this unit", got=given.unit, fix=f"Use {units}.")
    unit, value = max(budgets)
    methods = given.methods.split(",")
    for task in results.tasks:  # before any model is loaded
        for label in (*methods, given.against):
            if (task, label, unit, value) not in results.cells:
                known = ", ".join(results.methods_of(task))
                raise ConfigError("No such method in the results", got=label, fix=f"There are {known}.")
    for task, ids in results.tasks.items():
        print(f"\n{task}, within {value:.3g} {unit}, against {given.against}\n")
        print("| by | third | problems | method | accuracy, % | against, % | difference | 95 % |")
        print("|---|---|---|---|---|---|---|---|")
        means = {m: results.cells[task, m, unit, value].correct.mean(0) for m in (*methods, given.against)}
        for name, values in properties(config, task, ids).items():
            for span, mask in thirds(values):
                for method in methods:
                    one, two = means[method][mask], means[given.against][mask]
                    low, high = bootstrap_difference(one, two)
                    print(
                        f"| {name} | {span} | {mask.sum()} | {method} | {100 * one.mean():.1f} "
                        f"| {100 * two.mean():.1f} | {100 * (one.mean() - two.mean()):+.1f} "
                        f"| {100 * low:+.1f} to {100 * high:+.1f} |"
                    )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NablaError as error:
        sys.exit(f"strata: error: {error}")
