"""An evaluation as a value: tasks with their models, labelled methods, budgets, seeds."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from nabla.core.budget import UNITS, Budget
from nabla.core.errors import (
    ConfigError,
    located,
    require_finite,
    require_one_of,
    require_positive,
    require_threads,
)
from nabla.core.trust import require_trusted
from nabla.launch.config.reader import conform, load, make, settle
from nabla.launch.config.resolve import fill, resolve
from nabla.launch.config.run import locate, named_reward
from nabla.launch.config.slots import slots
from nabla.launch.config.written import require_written
from nabla.launch.fingerprint import parts
from nabla.models.checkpoint import require_checkpoint
from nabla.study.evaluation.metric import ANSWER, REWARD, Metric, function_of

#: Label of the method where an evaluation has one alone, as the points of an ablation.
METHOD = "method"
#: Keys of a method's mapping that the evaluation reads itself.
OPTIONS = ("rm", "tasks")


@dataclass(frozen=True)
class TaskSetup:
    """A task and the models that answer it.

    Args:
        task: component of nabla.tasks: a name, or a dict of a name and arguments.
        lm: language model: a path, a hub id, or ``sandbox:NAME``.
        rewards: reward models by a name of your own; methods use the first unless they say otherwise.
        lm_arguments, rm_arguments: for loading.
        system: system prompt.
        shared: arguments for every method that has one of that name (a step boundary, say) and does not
            set it itself.
    """

    task: str | dict[str, Any]
    lm: str
    rewards: dict[str, str | dict[str, Any]] = field(default_factory=dict)
    lm_arguments: dict[str, Any] = field(default_factory=dict)
    rm_arguments: dict[str, Any] = field(default_factory=dict)
    system: str | None = None
    shared: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        named = {name: named_reward(spec, f"rewards.{name}") for name, spec in self.rewards.items()}
        object.__setattr__(self, "rewards", named)

    def paths(self) -> dict[str, tuple[str, Mapping[str, Any]]]:
        """What it is → (path or hub id as written, arguments for loading), of all its models."""
        found: dict[str, tuple[str, Mapping[str, Any]]] = {"lm": (self.lm, self.lm_arguments)}
        for name, spec in self.rewards.items():
            for index, (path, arguments) in enumerate(parts(spec, self.rm_arguments)):
                found[f"{name}.{index}"] = (path, arguments)
        return found


@dataclass(frozen=True)
class EvaluationConfig:
    """Every method on every task, with every seed, under every budget.

    Args:
        tasks: label → setup.
        methods: label → a name, or a dict of a name and arguments; ``rm`` in it is the name of the task's
            reward to use, or null for none, and ``tasks`` a list of task labels to restrict it to.
        budgets: unit (calls, tokens, flops, seconds) → ascending values. A run goes on until the largest
            value of every counted unit is spent and is read off at all others. Seconds steer a run only
            where no other unit does: what the clock decides cannot be reproduced.
        seeds: of the runs.
        problems: of each task, so many behind the first ``offset``; null takes all that are left.
        offset: skips those on which settings were chosen.
        reference: label of the method that the others are compared with; null: the last one.
        shared: arguments for every method that has one of that name; a task's own come before these.
        shard: problems solved together. Batches, and with them the last bits of every number, depend on
            this, and never on how many processes there are.
        threads: of torch in each process on the CPU.
        accelerator: Lightning Fabric's.
        precision: of the models, see RunConfig.
        engine: further arguments of nabla.engine.engine.Engine.
        quick: values of this class's arguments that ``--quick`` puts in place of the others.
        metric: what answers are measured by: ``answer`` (right or wrong by the task's grader), ``reward``
            (the number that the task's first reward gives, scored at no method's cost where a run has not
            done so), or ``package.module:function``, called with (prompt, response). Problems without gold
            answers need one of the latter two.
    """

    tasks: dict[str, TaskSetup]
    methods: dict[str, str | dict[str, Any]]
    budgets: dict[str, list[float]]
    seeds: list[int] = field(default_factory=lambda: [0])
    problems: int | None = None
    offset: int = 0
    reference: str | None = None
    shared: dict[str, Any] = field(default_factory=dict)
    shard: int = 64
    threads: int = 1
    accelerator: str = "auto"
    precision: str | None = None
    engine: dict[str, Any] = field(default_factory=dict)
    quick: dict[str, Any] = field(default_factory=dict)
    metric: str = ANSWER

    #: What may not be empty.
    NEEDS: ClassVar[tuple[str, ...]] = ("tasks", "methods", "budgets", "seeds")

    def __post_init__(self) -> None:
        settle(self)
        for name in self.NEEDS:
            if not getattr(self, name):
                raise ConfigError(f"An evaluation needs {name}", got=getattr(self, name))
        problems = 1 if self.problems is None else self.problems
        require_positive(shard=self.shard, problems=problems)
        require_threads(self.threads)
        require_finite("offset", self.offset, minimum=0)
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigError("A seed is given twice", got=self.seeds)
        Metric(self.metric)
        if self.reference is not None:
            what = "reference is no method of this evaluation"
            require_one_of(self.reference, self.methods, what, "Methods")
        _budgets(self.budgets)

    @classmethod
    def of(cls, values: Mapping[str, Any], label: str = "An evaluation") -> EvaluationConfig:
        """From plain data. Raises ConfigError for unknown keys and for values of another kind."""
        made = {"tasks": {}, "methods": {}, "budgets": {}, **values}
        if isinstance(made["budgets"], Mapping):  # a single value is a ladder of one
            ladders = made["budgets"].items()
            made["budgets"] = {unit: v if isinstance(v, list | tuple) else [v] for unit, v in ladders}
        return make(cls, made, label=label)

    @classmethod
    def load(cls, path: str | Path) -> EvaluationConfig:
        """From a YAML file. Raises ConfigError."""
        return cls.of(load(path, "evaluation"))

    def quickened(self) -> EvaluationConfig:
        """With the values of ``quick``. Raises ConfigError if there are none."""
        if not self.quick:
            raise ConfigError("This evaluation has no quick form", fix="Add 'quick: {problems: 16}' to it.")
        return type(self).of({**vars(self), **self.quick}, "quick")

    def only(self, methods: Sequence[str]) -> EvaluationConfig:
        """With some of the methods: labels of this configuration, or registered names."""
        chosen: dict[str, str | dict[str, Any]] = {}
        for label in methods:
            if label not in self.methods:
                slots()["methods"][label]  # an unknown name lists the known ones
            chosen[label] = self.methods.get(label, label)
        reference = self.reference if self.reference in chosen else None
        return replace(self, methods=chosen, reference=reference)

    def on(self, tasks: Sequence[str]) -> EvaluationConfig:
        """On some of the tasks alone; a method that runs on none of them is left out.

        Raises ConfigError for an unknown one.
        """
        for label in tasks:
            require_one_of(label, self.tasks, "There is no such task in this evaluation", "Tasks")
        methods: dict[str, str | dict[str, Any]] = {}
        for label, spec in self.methods.items():
            left = [task for task in tasks if self.runs(label, task)]
            if left and isinstance(spec, dict) and "tasks" in spec:
                spec = {**spec, "tasks": left}
            if left:
                methods[label] = spec
        reference = self.reference if self.reference in methods else None
        chosen = {label: self.tasks[label] for label in tasks}
        return replace(self, tasks=chosen, methods=methods, reference=reference)

    # -- parts -------------------------------------------------------------------------------------

    @property
    def ladder(self) -> list[tuple[str, float]]:
        """(unit, value) of every record of a run."""
        return [(unit, value) for unit in UNITS for value in self.budgets.get(unit, ())]

    @property
    def driving(self) -> tuple[Budget, ...]:
        """The budgets that a run is steered by."""
        counted = {u: v for u, v in self.budgets.items() if u != "seconds"}
        return _budgets(counted or self.budgets)

    def runs(self, method: str, task: str) -> bool:
        """Whether a method is run on a task."""
        wanted = self.spec(method).get("tasks", list(self.tasks))
        tasks: list[str] = conform(list[str], wanted, f"{place(method)}.tasks")
        for name in tasks:
            require_one_of(name, self.tasks, f"Method {method!r} is to run on an unknown task", "Tasks")
        return task in tasks

    def reward_name(self, method: str, task: str) -> str | None:
        """Which of the task's rewards a method uses. Raises ConfigError for an unknown one."""
        rewards = self.tasks[task].rewards
        named = self.spec(method).get("rm", next(iter(rewards), None))
        chosen: str | None = conform(str | None, named, f"{place(method)}.rm")
        if chosen is not None:
            what = f"Method {method!r} wants a reward that task {task!r} has not"
            require_one_of(chosen, rewards, what, "Rewards")
        return chosen

    def judge_name(self, task: str) -> str:
        """The reward that answers to a task are measured by. Raises ConfigError where there is none."""
        for name in self.tasks[task].rewards:
            return name
        raise ConfigError(
            "The metric is a reward, and the task has none",
            got=f"metric: {self.metric}",
            fix="Give the task its reward, or choose another metric.",
        ).at(f"tasks.{task}.rewards")

    def method(self, method: str, task: str) -> dict[str, Any]:
        """A method's resolved spec on a task. Raises ConfigError for unknown names and arguments."""
        shared = {**self.shared, **self.tasks[task].shared}
        return resolve(slots()["methods"], self.over(shared, method), path=place(method))

    def over(self, shared: Mapping[str, Any], method: str) -> dict[str, Any]:
        """What a method says of itself, laid over those of the shared arguments that it has.

        Raises ConfigError for an unknown method.
        """
        spec = {key: value for key, value in self.spec(method).items() if key not in OPTIONS}
        with located(place(method)):
            if "name" in spec:  # without one, or with none, the resolver says so
                conform(str, spec["name"], f"{place(method)}.name")
            known = inspect.signature(slots()["methods"][spec["name"]]).parameters if "name" in spec else {}
        return {**{name: value for name, value in shared.items() if name in known}, **spec}

    def spec(self, label: str) -> dict[str, Any]:
        """A method as a mapping, options of this evaluation among its arguments."""
        spec = self.methods[label]
        return {"name": spec} if isinstance(spec, str) else spec

    def resolved(self) -> dict[str, Any]:
        """Plain data with every default written out. Raises ConfigError or ModelError for anything that
        cannot work, as far as that shows without loading a model."""
        from nabla.engine.engine import Engine, require_settings
        from nabla.launch.launcher import require_precision
        from nabla.launch.readiness import require_parts

        given = ("lm", "reward", "seed", "events", "budgets", "live")
        for name in given:
            if name in self.engine:
                raise ConfigError("The evaluation itself sets this argument of the engine", got=name)
        engine = fill(Engine, self.engine, label="engine", omit=given, path="engine")
        require_precision(self.precision)
        function_of(self.metric)
        if self.metric == REWARD:
            for label in self.tasks:
                self.judge_name(label)
        with located("engine"):
            require_settings(**{k: v for k, v in engine.items() if k != "rollout"})
        tasks = {}
        for label, setup in self.tasks.items():
            task = resolve(slots()["tasks"], setup.task, path=f"tasks.{label}.task")
            require_trusted(vars(setup), f"tasks.{label}")
            for name, (path, arguments) in setup.paths().items():
                role = "language model" if name == "lm" else "reward model"
                require_checkpoint(locate(path), arguments, role=role, writes=name == "lm")
            tasks[label] = {**asdict(setup), "task": task}
        methods: dict[str, dict[str, Any]] = {label: {} for label in self.methods}
        for label, per_task in methods.items():
            for name in filter(partial(self.runs, label), self.tasks):
                spec, rm = self.method(label, name), self.reward_name(label, name)
                with located(place(label)):
                    method = slots()["methods"].build(spec)
                    require_parts(method, None if rm is None else self.tasks[name].rewards[rm])
                per_task[name] = {**spec, "rm": rm}
        # Records of the usual metric are what they were before there were others.
        left_out = ("quick", "metric") if self.metric == ANSWER else ("quick",)
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}
        found = {**rest, "tasks": tasks, "methods": methods, "engine": engine}
        require_written(found)
        return found


def place(method: str) -> str:
    """Key path of a method of that label."""
    return METHOD if method == METHOD else f"methods.{method}"


def unreached(config: Mapping[str, Any]) -> list[str]:
    """What a reader should know of a resolved evaluation: one line for each shared argument that methods
    lack, with their labels. Such a method goes by its own settings."""
    lacking: dict[str, list[str]] = {}
    for label, per_task in config["methods"].items():
        for task, spec in per_task.items():
            for name in {**config.get("shared", {}), **config["tasks"][task].get("shared", {})}:
                if name not in spec and label not in lacking.setdefault(name, []):
                    lacking[name].append(label)
    return [
        f"shared.{name} does not reach {', '.join(labels)}: no such argument; their own settings hold"
        for name, labels in lacking.items()
        if labels
    ]


def _budgets(ladders: Mapping[str, Sequence[float]]) -> tuple[Budget, ...]:
    return tuple(Budget(unit, tuple(values)) for unit, values in ladders.items())
