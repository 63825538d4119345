"""Settings for the embedded models: what ``nabla solve "28*6+68-71+94"`` runs without a configuration.

``experiments/configs/sandbox_*.yaml`` say the same (a test compares them). ``nabla demo`` and
``nabla compare`` start from here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from nabla.launch.config.resolve import resolve
from nabla.launch.config.run import SANDBOX, RunConfig
from nabla.launch.config.slots import slots

#: A sandbox response has under 70 tokens; 96 leave room for one that does not end.
MAX_NEW_TOKENS = 96
_SAMPLING = {"temperature": 0.7, "max_new_tokens": MAX_NEW_TOKENS}


def _reasoner(learning_rate: float) -> dict[str, Any]:
    return {
        "name": "nabla-reasoner",
        "dto": {
            "learning_rate": {
                "name": "cosine",
                "start": learning_rate,
                "end": learning_rate / 10,
            },
            "objective": {"name": "sum", "weights": {"reward": 1.0, "likelihood": 0.001}},
        },
        "selector": "entropy",
        "proposal": {"name": "sample", "temperature": 0.5},
        "sampling": _SAMPLING,
        "max_rollouts": 8,
    }


#: Run configuration per task family.
SANDBOX_RUNS: dict[str, RunConfig] = {
    task: RunConfig(
        lm=f"sandbox:{task}-policy",
        rm=f"sandbox:{task}-reward",
        method=_reasoner(learning_rate=0.01),
    )
    for task in ("latin", "arithmetic")
}

#: Where a step of a family's texts ends: a row of the square, a line of the calculation.
BOUNDARIES: dict[str, dict[str, Any]] = {
    "latin": {"name": "token", "tokens": ["/"]},
    "arithmetic": {"name": "token", "tokens": [";", "#"]},
}


@dataclass(frozen=True)
class Demo:
    """What ``nabla demo`` solves of one family: the first ``problems`` test problems of ``seed``, each by
    several methods within ``flops``."""

    problems: int
    flops: float
    seed: int = 0


#: Sized so that the shipped models turn at least one wrong first answer right in either family.
DEMOS: dict[str, Demo] = {
    "latin": Demo(problems=6, flops=8e8),
    "arithmetic": Demo(problems=6, flops=6e8),
}


def demonstrated(family: str) -> tuple[RunConfig, dict[str, dict[str, Any]]]:
    """(what the demo runs: backtracking with the family's process reward; methods to stand beside it)."""
    process = {"name": "process", "path": f"sandbox:{family}-process-reward"}
    # Its gate would sample more texts than a demo solves.
    rest: dict[str, Any] = {"boundary": BOUNDARIES[family], "gate": {"texts": 0}}
    best = {"name": "backtrack", "sampling": _SAMPLING, **rest}
    base = replace(SANDBOX_RUNS[family], rm=process, method=best)
    revision = {key: value for key, value in _reasoner(0.01).items() if key not in ("name", "dto")}
    others = {
        "revision": {**revision, "name": "revision"},
        "best-of-n": {"name": "best-of-n", "n": 8, "sampling": _SAMPLING},
    }
    return base, others


def embedded(config: RunConfig, family: str) -> RunConfig:
    """The configuration with a family's embedded models and settings, where it names no language model."""
    if config.lm is not None:
        return config
    base = SANDBOX_RUNS[family]
    method = base.method if config.method == RunConfig.method else config.method
    return replace(config, lm=base.lm, rm=config.rm or base.rm, method=method)


def changed(config: RunConfig, changes: str | Mapping[str, Any] | None) -> RunConfig:
    """The configuration with changes to its method. With an embedded language model a method that goes step
    by step goes by the steps of the family's texts, unless the configuration or the changes say where one
    ends."""
    given = [part for part in (config.method, changes) if isinstance(part, Mapping)]
    found = config.changed(changes)
    families = [name for name in BOUNDARIES if str(config.lm).startswith(f"{SANDBOX}{name}-")]
    if not families or any("boundary" in part for part in given):
        return found
    stepwise = "boundary" in resolve(slots()["methods"], found.method, path="method")
    return found.changed({"boundary": BOUNDARIES[families[0]]}) if stepwise else found
