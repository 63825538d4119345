"""One run as a value: models, method and everything around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nabla.core.errors import ConfigError, located, require_positive, require_threads
from nabla.core.quiet import main_process
from nabla.launch.config.loggers import make_logger
from nabla.launch.config.reader import conform, join, make, settle
from nabla.launch.config.resolve import fill, resolve
from nabla.launch.config.slots import slots
from nabla.launch.config.written import require_written

if TYPE_CHECKING:
    from nabla.engine.events import Callback
    from nabla.launch.launcher import TestTimeLoop
    from nabla.methods.base import Method
    from nabla.models.causal_lm import CausalLM
    from nabla.rewards.base import Reward

#: Prefix of the embedded models' names in place of a path: ``sandbox:latin-policy``.
SANDBOX = "sandbox:"


@dataclass(frozen=True)
class RunConfig:
    """What a run consists of; the same names serve Python, YAML and the command line.

    Args:
        lm: language model: a path, a hub id, a name that ``nabla models`` lists, or sandbox:NAME for an
            embedded one.
        rm: reward model: likewise, or the name of a registered reward, or a dict such as {name: process,
            path: ...}; {name: likelihood} without a path is the language model's own likelihood. Without a
            reward only methods that need none run.
        lm_arguments: for loading the language model (dtype, device, device_map, adapter, revision,
            chat_template).
        rm_arguments: for loading the reward model.
        method: registered name, or a dict of a name and constructor arguments.
        system: system prompt; it reaches rollout, gradient and reward alike.
        seed: of the run; with a problem's id it decides every draw.
        accelerator: Lightning Fabric's (auto, cpu, cuda, ...).
        devices: number of devices, or a list of their indices.
        strategy: Lightning Fabric's.
        num_nodes: number of machines.
        precision: of the models: 32-true, bf16-true, 16-true or 64-true; null keeps what was loaded.
        place: move the models to Fabric's device; false leaves them where loading put them.
        threads: of torch on the CPU; null takes one for models below 20M weights, which a second one slows
            down beside other work, and torch's own number for larger ones.
        engine: arguments of nabla.engine.engine.Engine (rollout, batch_size, live, reuse_prefixes, ...).
        callbacks: names or dicts; null chooses a display that suits the command.
        loggers: csv, tensorboard, wandb: Fabric loggers that write to the run's folder.
    """

    lm: str | None = None
    rm: str | dict[str, Any] | None = None
    lm_arguments: dict[str, Any] = field(default_factory=dict)
    rm_arguments: dict[str, Any] = field(default_factory=dict)
    method: str | dict[str, Any] = "nabla-reasoner"
    system: str | None = None
    seed: int = 0
    accelerator: str = "auto"
    devices: int | str | list[int] = 1
    strategy: str = "auto"
    num_nodes: int = 1
    precision: str | None = None
    place: bool = True
    threads: int | None = None
    engine: dict[str, Any] = field(default_factory=dict)
    callbacks: list[str | dict[str, Any]] | None = None
    loggers: list[Literal["csv", "tensorboard", "wandb"]] = field(default_factory=list)

    def __post_init__(self) -> None:
        settle(self)
        object.__setattr__(self, "rm", named_reward(self.rm, "rm"))
        require_positive(num_nodes=self.num_nodes)
        if self.threads is not None:
            require_threads(self.threads)
        if isinstance(self.devices, int) and self.devices != -1:  # Lightning's: all that there are
            require_threads(self.devices, "devices")  # a process each

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> RunConfig:
        """From plain data. Raises ConfigError."""
        return make(cls, values, label="A run")

    def changed(self, method: str | Mapping[str, Any] | None) -> RunConfig:
        """With changes laid over the method, see :func:`nabla.launch.config.resolve.resolve`."""
        return replace(self, method=self._method(method)) if method else self

    def resolved(self) -> dict[str, Any]:
        """Plain data with every default written out. Raises ConfigError for anything that cannot work,
        as far as that shows without models."""
        from nabla.engine.engine import Engine

        with located("method"):
            self.build_method()
        omit = ("lm", "reward", "seed", "events")
        engine = fill(Engine, self.engine, label="engine", omit=omit, path="engine")
        with located("engine.rollout"):
            slots()["rollouts"].build(engine["rollout"])
        callbacks = self.callbacks and [
            resolve(slots()["callbacks"], spec, path=join("callbacks", place))
            for place, spec in enumerate(self.callbacks)
        ]
        for path in (*model_paths(self.rm), *model_paths(self.lm)):
            require_known(path)
        found = {**asdict(self), "method": self._method(), "engine": engine, "callbacks": callbacks}
        require_written(found)
        return found

    def _method(self, changes: str | Mapping[str, Any] | None = None) -> dict[str, Any]:
        return resolve(slots()["methods"], self.method, changes, "method")

    def build_method(self) -> Method:
        """The method."""
        method: Method = slots()["methods"].build(self._method())
        return method

    def build_callbacks(self) -> list[Callback]:
        """The callbacks that the configuration names."""
        return [slots()["callbacks"].build(spec) for spec in self.callbacks or ()]

    def build_loggers(self, folder: Path | None) -> list[Any]:
        """The loggers, which write to the folder; none in a process that is not the first, which logs for
        all. Raises ConfigError without a folder."""
        return [make_logger(name, folder) for name in self.loggers] if main_process() else []

    def load_models(self) -> tuple[CausalLM, Reward | None]:
        """(language model, reward). Raises ConfigError, ModelError or VocabularyError."""
        return self.load_lm(), self.load_reward()

    def load_lm(self) -> CausalLM:
        """The language model. Raises ConfigError or ModelError."""
        if self.lm is None:
            raise ConfigError(
                "There is no language model",
                fix="Pass --lm PATH_OR_ID (and --rm), or a configuration that names one.",
            )
        from nabla.models.causal_lm import CausalLM

        return CausalLM.from_pretrained(ready(self.lm), **self.lm_arguments)

    def load_reward(self) -> Reward | None:
        """The reward. Raises ConfigError or ModelError."""
        from nabla.rewards.loading import load_reward

        return load_reward(with_paths(self.rm, ready), **self.rm_arguments)

    def loop(
        self,
        lm: CausalLM,
        reward: Reward | None,
        *,
        callbacks: Sequence[Callback] = (),
        folder: Path | None = None,
    ) -> TestTimeLoop:
        """The loop; ``folder`` is where loggers write."""
        from nabla.launch.launcher import TestTimeLoop

        same = ("seed", "accelerator", "devices", "strategy", "num_nodes", "precision", "place", "threads")
        settings = {name: getattr(self, name) for name in same}
        settings["loggers"] = self.build_loggers(folder)
        return TestTimeLoop(self.build_method(), lm, reward, callbacks=callbacks, **settings, **self.engine)


def locate(path: str) -> str:
    """A path or hub id; ``sandbox:NAME`` becomes the embedded model's folder, a name that ``nabla models``
    lists the converted model's, made now if it is not there. Raises ConfigError or ModelError."""
    from nabla.models.zoo.names import place

    if not path.startswith(SANDBOX):
        return place(path)
    from nabla.problems.sandbox import model_path

    return str(model_path(path.removeprefix(SANDBOX)))


def ready(path: str) -> str:
    """As :func:`locate`; a GGUF file is converted once, too, and read from the cache."""
    from nabla.models.zoo.names import prepare

    return locate(path) if path.startswith(SANDBOX) else prepare(path)


def require_known(path: str) -> None:
    """Raises ConfigError or ModelError for a name of an embedded model that there is none of, and for a name
    whose package is missing; nothing is converted."""
    from nabla.models.zoo.names import require_at_hand

    if path.startswith(SANDBOX):
        locate(path)
    else:
        require_at_hand(path)


def named_reward(spec: Any, path: str) -> Any:
    """See :func:`nabla.rewards.loading.registered`; a slash or colon is never asked about, so that most
    commands need not import the rewards. Raises ConfigError."""
    if spec is None or (isinstance(spec, str) and any(mark in spec for mark in "/:.")):
        return spec
    from nabla.rewards.loading import registered

    return registered(spec, path)


def with_paths(spec: Any, change: Callable[[str], Any]) -> Any:
    """A model's specification, with every path and hub id in it changed."""
    if not isinstance(spec, Mapping):
        return change(spec) if isinstance(spec, str) else spec
    found = dict(spec)
    if "path" in spec:
        found["path"] = change(str(spec["path"]))
    if "members" in spec:
        members = conform(list[str | dict[str, Any]], spec["members"], "members")
        found["members"] = [with_paths(member, change) for member in members]
    if "reward" in spec:
        found["reward"] = with_paths(spec["reward"], change)
    return found


def model_paths(spec: Any) -> list[str]:
    """Paths and hub ids of a model's specification, as written."""
    return [path for path, _ in placed(spec)]


def placed(spec: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """(path or hub id as written, what the specification says beside it) of every model in one."""
    if not isinstance(spec, Mapping):
        return [(spec, {})] if isinstance(spec, str) else []
    found: list[tuple[str, Mapping[str, Any]]] = []
    if "path" in spec:
        found.append((str(spec["path"]), spec))
    if "members" in spec:
        for member in conform(list[str | dict[str, Any]], spec["members"], "members"):
            found += placed(member)
    return found + placed(spec.get("reward"))
