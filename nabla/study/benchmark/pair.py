"""The benchmark of a pair of given models: their own figures beside transformers' own and beside the
floor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor

from nabla.core.costs import PHASES
from nabla.core.errors import ConfigError, NablaError, NumericalError
from nabla.core.prompt import Prompt
from nabla.engine.engine import Engine
from nabla.engine.session import Session
from nabla.methods.base import methods
from nabla.models.body import Body
from nabla.models.causal_lm import CausalLM
from nabla.rewards.base import Response, Reward
from nabla.rewards.outcome import OutcomeReward
from nabla.rewards.transformer import TransformerReward
from nabla.study.benchmark.bench import Stand, drive
from nabla.study.benchmark.measurement import Measurement
from nabla.study.benchmark.memory import peak, resident, settled
from nabla.study.benchmark.models import OBJECTIVES
from nabla.study.benchmark.settings import Setting, Shape
from nabla.study.benchmark.solves import Solves
from nabla.study.benchmark.targets import first_row, next_position, proposals
from nabla.study.benchmark.targets.first_row import fresh
from nabla.study.benchmark.targets.whole_solve import beside_generate, endless
from nabla.study.benchmark.timing import Interval, interleave, median, now, ratio

#: Samples of whole solves, which take long and are sums over many passes already.
REPEATS = 3
#: Rollouts of a solve, the first one included.
ROLLOUTS = 3


def pair_setting(
    name: str, lm: CausalLM, reward: Reward | None, *, prefix: int, response: int, problems: int
) -> Setting:
    """What a pair of that name is measured at: tokens of the prompt and of a response, problems together.

    Raises ConfigError for a reward without a gradient through one transformer.
    """
    if not isinstance(reward, TransformerReward):
        raise ConfigError(
            "The benchmark of a pair differentiates one reward model",
            got=None if reward is None else type(reward).__name__,
            fix="Pass --rm with the folder or hub id of an outcome or process reward model.",
        )
    dtype = str(lm.body.dtype).removeprefix("torch.")
    device = lm.body.device.type
    if device not in ("cpu", "cuda"):
        raise ConfigError("The benchmark runs on the CPU or on CUDA", got=device)
    return Setting(
        name,
        _shape(lm.body, lm.head.usable),
        _shape(reward.body, reward.rows),
        prefix=prefix,
        response=response,
        dtype=cast(Any, dtype),
        device=cast(Literal["cpu", "cuda"], device),
        given=True,
        problems=problems,
        rows=problems,
        new_tokens=response,
    )


def _shape(body: Body, vocab: int) -> Shape:
    config = body.config
    heads = int(getattr(config, "num_attention_heads", 1))
    return Shape(
        vocab,
        body.hidden_size,
        body.layers,
        heads,
        int(getattr(config, "num_key_value_heads", None) or heads),
        body.attention_width // heads,
        int(getattr(config, "intermediate_size", None) or 4 * body.hidden_size),
    )


def measure_pair(
    bench: Stand, keep: Callable[[list[Measurement]], None] = lambda _: None
) -> list[Measurement]:
    """Every figure of a pair; ``keep`` gets all of them so far after each part."""
    found: list[Measurement] = []
    parts: list[Callable[[Stand], list[Measurement]]] = [
        _against_floor,
        _against_plain_passes,
        _next_position,
        _rollouts,
        _solves,
        proposals.measure,
    ]
    for part in parts:
        found = sorted([*found, *part(bench)], key=lambda m: m.target)
        keep(found)
    return found


def _against_floor(bench: Stand) -> list[Measurement]:
    if not isinstance(bench.workbench.reward, OutcomeReward):
        why = "the floor is that of an outcome reward"
        return [Measurement(1, "refine / floor", None, "×", detail=why)]
    return [m for m in first_row.measure(bench) if not m.name.startswith("dense")]


def _next_position(bench: Stand) -> list[Measurement]:
    if not isinstance(bench.workbench.reward, OutcomeReward):
        why = "the floor is that of an outcome reward"
        return [Measurement(2, "refine the next position / floor", None, "×", detail=why)]
    return next_position.measure(bench)


# -- a gradient beside plain passes -----------------------------------------------------------------------


def _against_plain_passes(bench: Stand) -> list[Measurement]:
    """The gradient of the default objective at a response that has been read and scored, beside one forward
    and backward pass of both models over prompt and response, all logits included, as transformers runs
    them."""
    workbench = bench.workbench
    bench.tell("a gradient beside plain passes")
    dto, prompt = workbench.dto(), workbench.prompt()
    plain = _Plain(workbench.lm, workbench.reward, prompt, workbench.text(0))
    times: dict[str, list[float]] = {"gradient": [], "plain": []}

    async def work(session: Session) -> None:
        for turn in range(bench.repeats + 1):
            trajectory = await fresh(session, bench, turn)
            begin = now()
            await session.gradient(trajectory, dto.objective)
            ours = now() - begin
            begin = now()
            plain.run()
            if turn:
                times["gradient"].append(ours)
                times["plain"].append(now() - begin)

    drive(workbench.engine(), [prompt], work)
    for name, samples in times.items():
        bench.keep(f"{name} beside the other", samples)
    ours, other = median(times["gradient"]).value, median(times["plain"]).value
    return [
        Measurement(
            1,
            "plain passes of transformers / gradient",
            ratio(times["plain"], times["gradient"]),
            "×",
            detail=f"{1e3 * other:.1f} ms beside {1e3 * ours:.1f} ms: forward and backward over "
            f"{bench.setting.prefix} and {bench.setting.response} tokens",
            parts={"plain": other, "gradient": ours},
        )
    ]


@dataclass(eq=False)
class _Plain:
    """The objective as a loss on embeddings, by the models' own forward passes, with no cache."""

    lm: CausalLM
    reward: TransformerReward
    prompt: Prompt
    tokens: Tensor

    def run(self) -> None:
        weights = OBJECTIVES["likelihood"]["weights"]
        lm, body = self.lm, self.lm.body
        before = lm.encode(self.prompt)
        leaf = body.embed(self.tokens)[None].requires_grad_()
        with torch.enable_grad():
            whole = torch.cat([body.embed(before)[None], leaf], 1)
            logits = lm.model(inputs_embeds=whole, use_cache=False).logits[0, len(before) - 1 : -1].float()
            loss = torch.nn.functional.cross_entropy(logits, self.tokens.to(logits.device), reduction="sum")
            (weights["likelihood"] * loss).backward()
        layout = self.reward.layout(Response(self.prompt, self.tokens, _account()))
        judge = self.reward.body
        answer = judge.embed(layout.answer)[None].requires_grad_()
        with torch.enable_grad():
            ends = judge.embed(layout.before)[None], judge.embed(layout.after)[None]
            whole = torch.cat([ends[0], answer, ends[1]], 1)
            hidden = judge.module(inputs_embeds=whole, use_cache=False).last_hidden_state[0]
            (-weights["reward"] * self.reward._reward(hidden, layout)).backward()


def _account() -> Any:
    from nabla.core.costs import Account, CostMeter

    return Account("plain", CostMeter(), "gradient")


# -- rollouts and whole solves ----------------------------------------------------------------------------


def _rollouts(bench: Stand) -> list[Measurement]:
    workbench, found = bench.workbench, []
    for rows in dict.fromkeys((1, bench.setting.rows)):
        bench.tell(f"rollouts beside generate, {rows} rows")
        prompts = [workbench.prompt(seed) for seed in range(rows)]
        found.append(beside_generate(bench, f"{rows} at a time", workbench.lm, prompts))
    return found


def _solves(bench: Stand) -> list[Measurement]:
    """∇-Reasoner with a few rollouts on random prompts: together and one after another, shares, memory."""
    workbench, count = bench.workbench, bench.setting.problems
    prompts = [workbench.prompt(seed) for seed in range(count)]
    cuda = bench.setting.device == "cuda"
    settled()
    models = torch.cuda.memory_allocated() if cuda else resident("VmRSS")
    bench.tell(f"{count} problems, together and one after another")
    cases: dict[str, list[Solves]] = {"together": [], "alone": []}

    def run(name: str, live: int) -> None:
        cases[name].append(_solve(bench, prompts, live))

    with endless(workbench.lm):
        _solve(bench, prompts, count)
        more = max(peak(cuda) - models, 1) / 1e6
        times = interleave(
            {"together": lambda: run("together", count), "alone": lambda: run("alone", 1)},
            min(bench.repeats, REPEATS),
        )
    if cases["together"][-1].answers != cases["alone"][-1].answers:
        raise NumericalError(
            "Answers depend on what else runs", fix="A batch's rounding has moved a draw: try float32."
        )
    bench.keep("problems together", times["together"])
    bench.keep("problems one after another", times["alone"])
    both = median(times["together"]).value, median(times["alone"]).value
    rows = [
        Measurement(
            6,
            f"throughput together / in turn: {count} problems",
            ratio(times["alone"], times["together"]),
            "×",
            detail=f"{both[0]:.2f} s together, {both[1]:.2f} s one after another; same answers",
            parts={"together": both[0], "in turn": both[1]},
        ),
        *(_shares(name, cases[name], times[name]) for name in cases),
    ]
    detail = f"over {models / 1e6:.0f} MB with the models loaded, {count} problems together"
    rows.append(
        Measurement(4, "peak memory of solves", Interval(more, more, more), "MB", detail=detail)
    )
    return rows


def _shares(name: str, solves: list[Solves], walls: list[float]) -> Measurement:
    """Of the phases, in solves that were timed (the first one warmed up)."""
    shares: dict[str, list[float]] = {phase: [] for phase in PHASES}
    for solve, wall in zip(solves[1:], walls, strict=True):
        for phase in PHASES:
            usage = solve.cost.phases.get(phase)
            shares[phase].append(0.0 if usage is None else usage.seconds / wall)
    parts = {phase: median(values).value for phase, values in shares.items()}
    rollouts = [1 - a - b for a, b in zip(shares["rollout"], shares["reward"], strict=True)]
    return Measurement(
        5,
        f"share of solves outside rollouts and rewards, {name}",
        median(rollouts),
        "",
        detail=", ".join(f"{phase} {100 * share:.1f} %" for phase, share in parts.items()),
        parts={"wall": median(walls).value, **parts},
    )


def _solve(bench: Stand, prompts: list[Prompt], live: int) -> Solves:
    workbench = bench.workbench
    method = methods.build(
        {
            "name": "nabla-reasoner",
            "max_rollouts": ROLLOUTS,
            "selector": "all",
            "sampling": {"temperature": 1.0, "max_new_tokens": bench.setting.new_tokens},
            "dto": {"objective": OBJECTIVES["likelihood"], "steps": bench.setting.steps},
        }
    )
    engine = Engine(workbench.lm, workbench.reward, live=live)
    begin, found = now(), {}
    for prompt, outcome in engine.run(method.solve, prompts):
        if isinstance(outcome, NablaError):
            raise outcome
        found[prompt.id] = outcome
    solutions = tuple(found[prompt.id] for prompt in prompts)
    return Solves(solutions, now() - begin, engine.workspace.runner.occupancy)
