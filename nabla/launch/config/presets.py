"""Settings for the embedded models: what ``nabla solve "28*6+68-71+94"`` runs without a configuration.

``experiments/configs/sandbox_*.yaml`` say the same (a test compares them). ``nabla demo`` and
``nabla compare`` start from here too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from nabla.launch.config.run import RunConfig

#: A sandbox response has under 70 tokens; 96 leave room for one that does not end.
MAX_NEW_TOKENS = 96


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
        "sampling": {"temperature": 0.7, "max_new_tokens": MAX_NEW_TOKENS},
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


@dataclass(frozen=True)
class Demo:
    """What ``nabla demo`` solves of one family: the first ``problems`` test problems of ``seed``."""

    problems: int
    seed: int = 0
    max_rollouts: int = 8


#: Sized so that the shipped models turn at least one wrong first answer right in either family.
DEMOS: dict[str, Demo] = {
    "latin": Demo(problems=12),
    "arithmetic": Demo(problems=12),
}


def embedded(config: RunConfig, family: str) -> RunConfig:
    """The configuration with a family's embedded models and settings, where it names no language model."""
    if config.lm is not None:
        return config
    base = SANDBOX_RUNS[family]
    method = base.method if config.method == RunConfig.method else config.method
    return replace(config, lm=base.lm, rm=config.rm or base.rm, method=method)
