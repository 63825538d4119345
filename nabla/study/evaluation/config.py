"""An evaluation as a value: tasks with their models, labelled methods, budgets, seeds."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from nabla.core.budget import UNITS, Budget
from nabla.core.errors import ConfigError, ModelError, located, require_finite, require_positive
from nabla.core.trust import require_trusted
from nabla.launch.config.reader import conform, load, make, settle
from nabla.launch.config.resolve import fill, resolve
from nabla.launch.config.run import locate, model_paths
from nabla.launch.config.slots import slots
from nabla.models.checkpoint import require_writer
from nabla.models.loading import WHERE

#: Label of the method where an evaluation has one alone, as the points of an ablation.
METHOD = "method"


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

    def paths(self) -> dict[str, tuple[str, Mapping[str, Any]]]:
        """What it is → (path or hub id as written, arguments for loading), of all its models."""
        found: dict[str, tuple[str, Mapping[str, Any]]] = {"lm": (self.lm, self.lm_arguments)}
        for name, spec in self.rewards.items():
            for index, path in enumerate(model_paths(spec)):
                found[f"{name}.{index}"] = (path, self.rm_arguments)
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
        quick: values of this class's arguments that ``--quick`` puts in place of the above.
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

    def __post_init__(self) -> None:
        settle(self)
        for name in ("tasks", "methods", "budgets", "seeds"):
            if not getattr(self, name):
                raise ConfigError(f"An evaluation needs {name}", got=getattr(self, name))
        problems = 1 if self.problems is None else self.problems
        require_positive(shard=self.shard, threads=self.threads, problems=problems)
        require_finite("offset", self.offset, minimum=0)
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigError("A seed is given twice", got=self.seeds)
        if self.reference is not None and self.reference not in self.methods:
            raise ConfigError(
                "reference is no method of this evaluation",
                got=self.reference,
                fix=f"Methods: {', '.join(self.methods)}.",
            )
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
        return task in self._options(method)[1]

    def reward_name(self, method: str, task: str) -> str | None:
        """Which of the task's rewards a method uses. Raises ConfigError for an unknown one."""
        rewards = self.tasks[task].rewards
        spec = self.methods[method]
        chosen = next(iter(rewards), None)
        if isinstance(spec, Mapping) and "rm" in spec:
            chosen = conform(str | None, spec["rm"], f"{place(method)}.rm")
        if chosen is not None and chosen not in rewards:
            raise ConfigError(
                f"Method {method!r} wants a reward that task {task!r} has not",
                got=chosen,
                fix=f"Rewards: {', '.join(rewards) or 'none'}.",
            )
        return chosen

    def method(self, method: str, task: str) -> dict[str, Any]:
        """A method's resolved spec on a task. Raises ConfigError for unknown names and arguments."""
        registry = slots()["methods"]
        spec, _ = self._options(method)
        with located(place(method)):
            known = inspect.signature(registry[spec["name"]]).parameters if "name" in spec else {}
        shared = {**self.shared, **self.tasks[task].shared}
        given = {name: value for name, value in shared.items() if name in known}
        return resolve(registry, {**given, **spec}, path=place(method))

    def _options(self, label: str) -> tuple[dict[str, Any], list[str]]:
        spec = self.methods[label]
        spec = {"name": spec} if isinstance(spec, str) else spec
        tasks = conform(list[str], spec.get("tasks", list(self.tasks)), f"{place(label)}.tasks")
        for task in tasks:
            if task not in self.tasks:
                raise ConfigError(
                    f"Method {label!r} is to run on an unknown task",
                    got=task,
                    fix=f"Tasks: {', '.join(self.tasks)}.",
                )
        return {k: v for k, v in spec.items() if k not in ("rm", "tasks")}, tasks

    def resolved(self) -> dict[str, Any]:
        """Plain data with every default written out. Raises ConfigError or ModelError for anything that
        cannot work, as far as that shows without loading a model."""
        from nabla.engine.engine import Engine, require_settings
        from nabla.launch.launcher import require_precision
        from nabla.launch.readiness import require_parts

        omit = ("lm", "reward", "seed", "events", "budgets", "live")
        for name in omit:
            if name in self.engine:
                raise ConfigError("The evaluation itself sets this argument of the engine", got=name)
        engine = fill(Engine, self.engine, label="engine", omit=omit, path="engine")
        require_precision(self.precision)
        with located("engine"):
            require_settings(**{k: v for k, v in engine.items() if k != "rollout"})
        tasks = {}
        for label, setup in self.tasks.items():
            task = resolve(slots()["tasks"], setup.task, path=f"tasks.{label}.task")
            require_trusted(vars(setup), f"tasks.{label}")
            for name, (path, arguments) in setup.paths().items():
                _require(path, arguments, writes=name == "lm")
            tasks[label] = {**asdict(setup), "task": task}
        methods = {}
        for label in self.methods:
            per_task = {}
            for task_label in self.tasks:
                if self.runs(label, task_label):
                    spec = self.method(label, task_label)
                    rm = self.reward_name(label, task_label)
                    rewards = self.tasks[task_label].rewards
                    with located(place(label)):
                        method = slots()["methods"].build(spec)
                        require_parts(method, None if rm is None else rewards[rm])
                    per_task[task_label] = {**spec, "rm": rm}
            methods[label] = per_task
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "quick"}
        return {**rest, "tasks": tasks, "methods": methods, "engine": engine}


def place(method: str) -> str:
    """Key path of a method of that label."""
    return METHOD if method == METHOD else f"methods.{method}"


def _budgets(ladders: Mapping[str, Sequence[float]]) -> tuple[Budget, ...]:
    return tuple(Budget(unit, tuple(values)) for unit, values in ladders.items())


def _require(path: str, arguments: Mapping[str, Any], *, writes: bool) -> None:
    """Raises ModelError for a model that is not there, or writes no text where it is to, by its small
    configuration file alone."""
    from transformers import AutoConfig

    if Path(path).suffix == ".gguf" and Path(path).is_file():
        return  # its configuration is in the weights' file
    # Without trust_remote_code transformers would ask on the terminal.
    where = {"trust_remote_code": False, **{k: v for k, v in arguments.items() if k in WHERE}}
    try:
        config = AutoConfig.from_pretrained(locate(path), **where)
    except (OSError, ValueError, RecursionError, TypeError) as error:
        raise ModelError(
            f"There is no such model: {' '.join(str(error).split())}",
            got=path,
            fix="Check the path or hub id; embedded models are written sandbox:NAME.",
        ) from error
    if writes:
        require_writer(config, path)
