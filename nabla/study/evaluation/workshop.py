"""Models, loaded once each, and engines made of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from nabla.core.prompt import Prompt
from nabla.core.quiet import main_process
from nabla.engine.engine import Engine
from nabla.engine.events import Events
from nabla.launch.config.run import RunConfig
from nabla.launch.launcher import place_models, prepared
from nabla.methods.base import Method, methods
from nabla.study.evaluation.config import EvaluationConfig
from nabla.study.evaluation.metric import REWARD

if TYPE_CHECKING:
    import torch

    from nabla.models.causal_lm import CausalLM
    from nabla.rewards.base import Reward


class Workshop:
    """The loaded models of all tasks; tasks with the same model share it.

    Args:
        config: of the evaluation.
        device: where the models go.

    Raises ConfigError, ModelError or VocabularyError for whatever no unit could run with: every method is
    checked on every task here.
    """

    def __init__(self, config: EvaluationConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self._lms: dict[str, CausalLM] = {}
        self._rewards: dict[str, Reward | None] = {}
        self._methods: dict[tuple[str, str], Method] = {}
        self._ready: dict[tuple[str, str], Method] = {}
        for task in config.tasks:
            for label in config.methods:
                if config.runs(label, task):
                    method = methods.build(config.method(label, task))
                    method.check(self.engine(task, label, seed=0))
                    self._methods[task, label] = method
            if config.metric == REWARD:
                self.judge(task)  # what it lacks shows now

    def method(self, task: str, label: str) -> Method:
        """A method with its settings for a task."""
        return self._methods[task, label]

    def ready(self, task: str, label: str, prompts: Sequence[Prompt]) -> Method:
        """The same with what it learns of the models before these prompts, all of the evaluation: once, with
        one seed for the runs of all seeds, and so alike in every process."""
        if (task, label) not in self._ready:
            config = self.config
            models = self._models(task, config.reward_name(label, task))
            aside = partial(Engine, *models, live=config.shard, **config.engine)
            found = self._ready[task, label] = prepared(self.method(task, label), aside, prompts)
            if found.learnt is not None and main_process():
                print(f"{task} {label}: {found.learnt}", file=sys.stderr)
        return self._ready[task, label]

    def engine(self, task: str, label: str, *, seed: int, events: Events | None = None) -> Engine:
        """A fresh engine: what one unit leaves in caches does not reach the next."""
        config = self.config
        lm, reward = self._models(task, config.reward_name(label, task))
        return Engine(
            lm, reward, seed=seed, live=config.shard, budgets=config.driving, events=events, **config.engine
        )

    def judge(self, task: str) -> Engine:
        """A fresh engine with the reward that answers to a task are measured by."""
        lm, reward = self._models(task, self.config.judge_name(task))
        return Engine(lm, reward, **self.config.engine)

    def _models(self, task: str, rm: str | None) -> tuple[CausalLM, Reward | None]:
        """A task's language model with one of its rewards, by name."""
        setup = self.config.tasks[task]
        reward = None if rm is None else setup.rewards[rm]
        return self._load(RunConfig(setup.lm, reward, setup.lm_arguments, setup.rm_arguments))

    def _load(self, run: RunConfig) -> tuple[CausalLM, Reward | None]:
        """Each language model once, and each reward once for each language model: it is bound to it."""
        lm_key = json.dumps([run.lm, run.lm_arguments], default=str)
        if lm_key not in self._lms:
            self._lms[lm_key] = run.load_lm()
        lm = self._lms[lm_key]
        key = lm_key + json.dumps([run.rm, run.rm_arguments], default=str)
        if key not in self._rewards:
            self._rewards[key] = run.load_reward()
            place_models(lm, self._rewards[key], self.device, self.config.precision)
        return lm, self._rewards[key]
