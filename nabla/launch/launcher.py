"""The test-time loop: problems in, solutions out, on Lightning Fabric.

Fabric brings the device, the precision, the loggers and the processes; the engine brings the models.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from nabla.core.errors import ComponentError, ConfigError, NablaError, PromptError, require_threads
from nabla.core.files import warn
from nabla.core.prompt import Prompt, numbered, require_distinct
from nabla.core.solution import Interrupted, RunError, Solution, Stopped
from nabla.engine.engine import Engine, require_loaded
from nabla.engine.events import Callback, Events, Run
from nabla.launch.callbacks.base import callbacks as registry
from nabla.launch.group import dismiss, launch, together
from nabla.launch.threads import threads as torch_threads
from nabla.launch.threads import threads_for
from nabla.methods.base import Method, methods
from nabla.models.causal_lm import CausalLM
from nabla.models.loading import move
from nabla.models.vocabulary import Vocabulary
from nabla.rewards.base import Reward

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from lightning.fabric.loggers import Logger

log = logging.getLogger(__name__)

_PRECISIONS = {
    "64-true": torch.float64,
    "32-true": torch.float32,
    "bf16-true": torch.bfloat16,
    "16-true": torch.float16,
}


class TestTimeLoop:
    """Runs a method on problems.

    Args:
        method: a Method, a registered name, or a dict of a name and arguments.
        lm: the language model, or its vocabulary alone where the rollout is a server's.
        reward: the reward; None where neither objective nor acceptance needs one.
        seed: of the run; with a problem's id it decides every draw.
        accelerator: Fabric's (auto, cpu, cuda, ...).
        devices: Fabric's; problems are spread over processes, and the results do not depend on how many there
            are.
        strategy: Fabric's.
        num_nodes: number of machines.
        precision: of the models (``32-true``, ``bf16-true``, ``16-true``, ``64-true``); None keeps
            them as they were loaded. Optimised logits are never below float32.
        place: move the models to Fabric's device; False leaves them (``device_map`` models).
        threads: of torch on the CPU while it runs; None takes as many as pay
            (:func:`~nabla.launch.threads.threads_for`). Their number decides the last bits of rewards.
        loggers: Fabric loggers for the logging callback.
        callbacks: hear of everything that happens; instances, registered names or dicts.
        engine_arguments: further arguments of :class:`~nabla.engine.engine.Engine` (rollout, batch_size,
            live, reuse_prefixes, kept_gradients).
    """

    __test__ = False  # the name is no pytest class

    def __init__(
        self,
        method: Method | str | dict[str, Any],
        lm: CausalLM | Vocabulary,
        reward: Reward | None = None,
        *,
        seed: int = 0,
        accelerator: str = "auto",
        devices: int | str | list[int] = 1,
        strategy: str = "auto",
        num_nodes: int = 1,
        precision: str | None = None,
        place: bool = True,
        threads: int | None = None,
        loggers: Logger | list[Logger] | None = None,
        callbacks: Sequence[Callback | str | dict[str, Any]] = (),
        **engine_arguments: Any,
    ) -> None:
        require_precision(precision)
        require_listeners(callbacks, loggers)
        require_loaded(lm, reward)
        if threads is not None:
            require_threads(threads)
        self.method = methods.build(method)
        self.fabric = make_fabric(
            accelerator=accelerator,
            devices=devices,
            strategy=strategy,
            num_nodes=num_nodes,
            loggers=loggers,
        )
        if self.fabric.world_size > 1:
            launch(self.fabric)  # starts the other processes; each runs its share of the problems
        self.callbacks = tuple(registry.build(callback) for callback in callbacks)
        self._finished = _Finished()
        self.events = Events((self._finished, *self.callbacks))
        if place:
            place_models(lm, reward, self.fabric.device, precision)
        self.engine = Engine(lm, reward, seed=seed, events=self.events, **engine_arguments)
        self.threads = threads_for(self.engine.bodies) if threads is None else threads
        self.method.check(self.engine)
        unheard = {name: given for name, given in engine_arguments.items() if name != "budgets"}
        self._aside = partial(Engine, lm, reward, seed=seed, **unheard)
        #: What the method has learnt of the models before the last run, for people; None: nothing.
        self.learnt: str | None = None

    def run(
        self, prompts: Sequence[Prompt | str], *, among: Sequence[Prompt] | None = None
    ) -> list[Solution]:
        """Solutions in the order of the prompts.

        Texts get their place in the list as id; their draws follow from the texts. A failing problem does
        not stop the others.

        Args:
            prompts: to solve.
            among: all prompts of the run, where an earlier part of it has solved some: what a method learns
                before a run (:meth:`nabla.methods.base.Method.prepared`) it learns of these.

        Raises:
            PromptError: no prompts, or two of the same id.
            RunError: problems failed; it holds the solutions of all others.
            Interrupted: Ctrl-C or a signal; it holds what was finished.
            Stopped: likewise, where a callback failed.
        """
        problems = [Prompt.of(p, id=str(i)) for i, p in enumerate(prompts)]
        texts = iter(numbered([p for p, given in zip(problems, prompts, strict=True) if p is not given]))
        problems = [p if p is given else next(texts) for p, given in zip(problems, prompts, strict=True)]
        if not problems:
            raise PromptError("There is no prompt to answer", fix="Pass at least one prompt.")
        require_distinct(problems)
        mine = problems[self.fabric.global_rank :: self.fabric.world_size]
        found: dict[str, Solution] = {}
        self._finished.found = found  # before any other callback hears of a solution, and may fail
        failures: dict[str, NablaError] = {}
        self._begin(problems)
        whole = False
        try:
            self._meet()
            with torch_threads(self.threads):
                method = self.prepared(problems if among is None else among)
                self.learnt = method.learnt
                for prompt, outcome in self.engine.run(method.solve, mine):
                    if isinstance(outcome, NablaError):
                        failures[prompt.id] = outcome
            found, failures = self._gather(found), self._gather(failures)
            whole = not failures
        except KeyboardInterrupt as stop:
            dismiss()
            raise Interrupted([found[p.id] for p in mine if p.id in found], len(mine)) from stop
        except (Exception, SystemExit) as error:  # of a callback, or a component that ends the program
            if isinstance(error, NablaError) and not found:
                raise
            raise Stopped([found[p.id] for p in mine if p.id in found], len(mine), error) from error
        finally:
            self._end([found[p.id] for p in problems if p.id in found], len(problems), whole)
        solutions = [found[p.id] for p in problems if p.id in found]
        if failures:
            ordered = {p.id: failures[p.id] for p in problems if p.id in failures}
            raise RunError(solutions, ordered)
        return solutions

    def prepared(self, prompts: Sequence[Prompt]) -> Method:
        """The method as it solves these prompts, with what it learns of them before a run. No budget pays for
        that, and no callback hears of it (:meth:`nabla.methods.base.Method.prepared`)."""
        return prepared(self.method, self._aside, prompts)

    def _begin(self, problems: Sequence[Prompt]) -> None:
        try:
            self.events.on_run_start(self._about(), problems)
        except NablaError:
            raise
        except (Exception, SystemExit) as error:
            raise ComponentError.of(error, "A callback's on_run_start") from error

    def _end(self, solutions: list[Solution], total: int, whole: bool) -> None:
        """Raises Stopped with all solutions where a callback fails at the end of a run that went well; an
        error that the run ends with already is not replaced."""
        try:
            self.events.on_run_end(self._about(), solutions)
        except (Exception, SystemExit) as error:
            stopped = Stopped(solutions, total, error)
            if whole:
                raise stopped from error
            warn(f"A callback failed at the end, too: {stopped.what}")

    def _about(self) -> Run:
        fabric = self.fabric
        loggers = tuple(fabric.loggers)
        return Run(
            self.engine.vocabulary,
            fabric.world_size,
            fabric.is_global_zero,
            loggers,
            methods.name_of(self.method),
            self.engine.usage,
        )

    def _meet(self) -> None:
        """Waits until all processes have begun: what the first one makes, the others find."""
        if self.fabric.world_size > 1:
            with together():
                self.fabric.barrier()

    def _gather(self, own: dict[str, Any]) -> dict[str, Any]:
        """The union over all processes."""
        if self.fabric.world_size == 1:
            return own
        parts: list[Any] = [None] * self.fabric.world_size
        with together():
            torch.distributed.all_gather_object(parts, own)
        return {key: value for part in parts for key, value in part.items()}


def require_precision(precision: str | None) -> None:
    """Raises ConfigError for an unknown one."""
    if precision is not None and precision not in _PRECISIONS:
        raise ConfigError(
            "Unknown precision",
            got=precision,
            fix=f"Use {', '.join(_PRECISIONS)}; mixed precisions do not apply to frozen models.",
        )


def require_listeners(callbacks: Any, loggers: Any) -> None:
    """Raises ConfigError for callbacks that are no list, and for loggers that log nothing."""
    if not isinstance(callbacks, list | tuple):
        raise ConfigError("callbacks is a list", got=callbacks, fix="For example callbacks=['cost'].")
    for logger in loggers if isinstance(loggers, list | tuple) else [loggers]:
        if logger is not None and not callable(getattr(logger, "log_metrics", None)):
            raise ConfigError(
                "A logger is one of Lightning's (CSVLogger(...), TensorBoardLogger(...), ...)",
                got=logger,
                fix="On the command line it is a name: --logger csv.",
            )


def prepared(method: Method, aside: Callable[[], Engine], prompts: Sequence[Prompt]) -> Method:
    """The method as it solves these prompts; an engine of its own is made where it wants one."""
    if type(method).prepared is Method.prepared:
        return method
    return method.prepared(aside(), prompts)


class _Finished(Callback):
    """Keeps solutions as they are announced."""

    def __init__(self) -> None:
        self.found: dict[str, Solution] = {}

    def on_solution(self, solution: Solution) -> None:
        self.found[solution.prompt.id] = solution


def make_fabric(**arguments: Any) -> Fabric:
    """``Fabric(**arguments)``. Raises ConfigError where its devices are not there.

    Apple's MPS has no float64, in which norms are summed up: ``auto`` takes the CPU there.
    """
    from lightning.fabric import Fabric
    from lightning.fabric.accelerators import MPSAccelerator

    wanted = arguments.get("accelerator", "auto")
    apple = not torch.cuda.is_available() and MPSAccelerator.is_available()
    if wanted == "mps" or (wanted == "gpu" and apple):
        raise ConfigError(
            "Apple's MPS computes no float64, which nabla needs",
            got=f"accelerator={wanted!r}",
            fix="Use accelerator='cpu'.",
        )
    if wanted == "auto" and apple:
        log.warning("Apple's MPS computes no float64, which nabla needs: the CPU is used")
        arguments["accelerator"] = "cpu"
    try:
        return Fabric(**arguments)
    except Exception as error:  # of other packages that an accelerator needs, too
        raise ConfigError(
            f"The processes cannot run on these devices: {error}",
            got=f"accelerator={arguments.get('accelerator')!r}, devices={arguments.get('devices')!r}",
            fix="Take as many processes as there are devices, or accelerator='cpu'.",
        ) from error


def place_models(
    lm: CausalLM | Vocabulary, reward: Reward | None, device: torch.device, precision: str | None
) -> None:
    """Moves what is not spread over devices already; precision as asked."""
    holders = () if reward is None else reward.holders()
    for adapter, role in ((lm, "language model"), *((holder, "reward model") for holder in holders)):
        model = getattr(adapter, "model", None)
        if model is None or getattr(model, "hf_device_map", None):
            continue
        move(model, device, role=role, dtype=None if precision is None else _PRECISIONS[precision])
