"""The engine: the one place that touches models, counts cost, keeps caches and seeds requests.

A method is sequential code for one problem that awaits a :class:`Session`. The engine advances all live
problems until each is done or waits, then runs what most of them wait for in padded batches (rollouts last,
where rows join when others end), in the order of the problems. The same requests always meet in the same
batches, and a row's randomness depends on (run seed, problem, request number) alone.
Rollouts that are written elsewhere (by a server) are awaited on an event loop in a thread of its own, while
this one goes on; there is no other thread.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any, Literal

from nabla.core.budget import Budget
from nabla.core.costs import Usage
from nabla.core.errors import ConfigError, NablaError, require_count, require_whole
from nabla.core.prompt import Prompt
from nabla.core.solution import Solution
from nabla.engine.events import Events
from nabla.engine.scheduler import AllKinds, FullestFirst, Scheduler
from nabla.engine.session import Session
from nabla.engine.workspace import Workspace
from nabla.models.body import Body
from nabla.models.causal_lm import CausalLM, require_lm
from nabla.models.ledger import ByteBudget, default_limit
from nabla.models.prefixes import PrefixStore
from nabla.models.runner import Runner
from nabla.models.vocabulary import Vocabulary
from nabla.rewards.base import Reward
from nabla.rollouts.base import Rollout, rollouts


class Engine:
    """Runs methods on problems.

    Args:
        lm: the language model, or its vocabulary alone where the rollout is a server's: then everything works
            that only writes and scores.
        reward: the reward, bound to the language model's tokens here; None for likelihood-only runs.
        rollout: how the language model is decoded.
        seed: of the run.
        batch_size: rows per padded batch of rewards and gradients.
        live: problems in flight at a time.
        reuse_prefixes: keep keys and values between requests; False recomputes (for measurements).
        kept_gradients: gradients remembered per problem (0 recomputes, values of texts too).
        kept_prefixes: sequences whose keys and values are kept per problem and model.
        prefix_bytes: that these may take, of all problems together; the least recently used give way and are
            run again when they are needed. "auto": an eighth of each of the models' GPUs, a quarter of the
            machine's memory on the CPU, 11 GB a device at most.
        budgets: what a problem may cost; methods run until all are spent.
        split_padding: tokens of padding that cost as much as one more pass: batches are cut where both cost
            least (infinity: never).
        checkpoint_activations: in passes with a gradient, keep the layers' inputs only and run them again
            on the way back: one more forward pass, a fraction of the memory.
        compile_layers: run the feed-forward parts and norms of all layers through ``torch.compile``: tens of
            seconds once per process, then faster or slower by the batch (experiments/benchmarks/README.md).
        rows_ahead: rows of logits and gradient formed at once for positions that come next (1: none).
        fullest_first: serve the kind of request that most problems wait for, rollouts when there is nothing
            else, so that problems that are out of step meet again; otherwise all that wait, kind by kind.
        continuous: a rollout joins those that are being written when another one has ended; False writes each
            batch to its end (the same results).
        rollout_bytes: of keys and values of the rollouts that are written together, at the most; "auto": a
            quarter of what is free on the device. Rows beyond it wait.
        keep_graph: the pass that scores a text (or reads one that a server wrote) keeps its graph where a
            method says that the text's gradient may be asked for, as long as there is room: that gradient is
            a backward pass then, for 1 to 1.5 MB per token and 100M weights in float32 (of prefix_bytes).
            Worth it for models whose passes take long; small ones gain more from large batches.
        events: callbacks that hear of everything.
    """

    def __init__(
        self,
        lm: CausalLM | Vocabulary,
        reward: Reward | None = None,
        *,
        rollout: Rollout | str | dict[str, Any] = "huggingface",
        seed: int = 0,
        batch_size: int = 64,
        live: int = 64,
        reuse_prefixes: bool = True,
        kept_gradients: int = 4,
        kept_prefixes: int = 3,
        prefix_bytes: int | Literal["auto"] = "auto",
        budgets: Sequence[Budget] = (),
        split_padding: float = 128.0,
        checkpoint_activations: bool = False,
        compile_layers: bool = False,
        rows_ahead: int = 12,
        fullest_first: bool = True,
        continuous: bool = True,
        rollout_bytes: int | Literal["auto"] = "auto",
        keep_graph: bool = False,
        events: Events | None = None,
    ) -> None:
        require_settings(
            seed=seed, batch_size=batch_size, live=live, kept_prefixes=kept_prefixes, rows_ahead=rows_ahead,
            kept_gradients=kept_gradients, split_padding=split_padding, budgets=budgets,
            prefix_bytes=prefix_bytes, rollout_bytes=rollout_bytes,
        )  # fmt: skip
        require_loaded(lm, reward)
        # Views of the engine's own: the mask of tokens, the reward's binding, checkpointing and compiling are
        # this engine's settings, and the models may serve another one at the same time.
        self.lm = None if isinstance(lm, Vocabulary) else lm.view()
        self.vocabulary = lm if isinstance(lm, Vocabulary) else lm.vocabulary
        rollout = rollouts.build(rollout)
        if not rollout.remote:
            require_lm(self.lm, f"The rollout {rollouts.name_of(rollout)!r} writes in this process")
        reward, self.bodies = self._bound(reward)
        for body in self.bodies:
            body.checkpoint = checkpoint_activations
            body.compile(compile_layers)
        store = PrefixStore(kept_prefixes if reuse_prefixes else 0, _budget(prefix_bytes, self.bodies))
        self.reward, self.seed, self.live = reward, seed, live
        self.workspace = Workspace(
            self.vocabulary,
            self.lm,
            reward,
            rollout,
            Runner(batch_size, store, split_padding),
            seed=seed,
            budgets=budgets,
            kept_gradients=kept_gradients,
            rows_ahead=rows_ahead,
            rollout_bytes=None if rollout_bytes == "auto" else rollout_bytes,
            keep_graph=keep_graph,
            events=events,
        )
        policy = FullestFirst() if fullest_first else AllKinds()
        self.scheduler = Scheduler(self.workspace, policy, live, continuous)

    def _bound(self, reward: Reward | None) -> tuple[Reward | None, list[Body]]:
        """The reward for this engine's language model, which may not write what it cannot read; and the
        bodies of both."""
        bodies = [] if self.lm is None else [self.lm.body]
        if reward is not None:
            reward = reward.written_by(self.lm).bind(self.vocabulary)
            bodies += reward.bodies()
            if reward.unreadable is not None and self.lm is not None:
                self.lm.head.block(reward.unreadable)
        return reward, bodies

    def run(
        self,
        method: Callable[[Session], Coroutine[Any, Any, Solution]],
        prompts: Iterable[Prompt],
    ) -> Iterator[tuple[Prompt, Solution | NablaError]]:
        """(prompt, solution or its error), as problems finish; up to ``live`` problems at a time.

        A failing problem does not touch the others. Closing the iterator stops the run.
        """
        return self.scheduler.run(method, prompts)

    def usage(self, problem: str) -> Usage | None:
        """What a problem has used so far, by its id; None for one that is not being solved."""
        meter = self.scheduler.meters.get(problem)
        return None if meter is None else meter.snapshot().total


def require_loaded(lm: Any, reward: Any) -> None:
    """Raises ConfigError for paths, functions and the like in place of models."""
    if not isinstance(lm, CausalLM | Vocabulary):
        raise ConfigError(
            "The language model is a CausalLM, or a Vocabulary where it runs elsewhere",
            got=lm,
            fix="Load it: CausalLM.from_pretrained(path).",
        )
    if reward is not None and not isinstance(reward, Reward):
        raise ConfigError(
            "The reward is a Reward", got=reward, fix="Make one: nabla.rewards.loading.load_reward(...)."
        )


def require_settings(**settings: Any) -> None:
    """Raises ConfigError for an engine's numbers that cannot be; those not given are not looked at."""
    require_whole("seed", settings.get("seed", 0))
    for name in ("batch_size", "live", "kept_prefixes", "rows_ahead"):
        if name in settings:
            require_count(name, settings[name], minimum=1)
    if "kept_gradients" in settings:
        require_count("kept_gradients", settings["kept_gradients"])
    padding = settings.get("split_padding", 0.0)
    if not (isinstance(padding, int | float) and padding >= 0):
        raise ConfigError("split_padding must be a number of tokens, 0 or more", got=padding)
    require_bytes(settings.get("prefix_bytes", "auto"))
    rollout_bytes = settings.get("rollout_bytes", "auto")
    if rollout_bytes != "auto":
        require_count("rollout_bytes", rollout_bytes, minimum=1)
    for budget in settings.get("budgets", ()):
        if not isinstance(budget, Budget):
            raise ConfigError(
                "budgets are nabla.core.budget.Budget objects",
                got=budget,
                fix="In a configuration they belong to an evaluation: nabla evaluate --budget flops=1e9.",
            )


def require_bytes(limit: int | Literal["auto"]) -> None:
    """Raises ConfigError for anything but a number of bytes and "auto"."""
    if limit != "auto" and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
        raise ConfigError(
            'prefix_bytes must be a whole number of bytes, or "auto"',
            got=limit,
            fix="0 keeps nothing and runs every prefix again; 2000000000 keeps two gigabytes.",
        )


def _budget(limit: int | Literal["auto"], bodies: Sequence[Body]) -> ByteBudget:
    """Of what is kept between requests."""
    if limit == "auto":
        return ByteBudget(default_limit({p.device for body in bodies for p in body.module.parameters()}))
    return ByteBudget(limit)
