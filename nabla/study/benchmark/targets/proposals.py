"""Target 8: a gradient in scored proposals, with the graph of scoring and without, and what the graph
weighs."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from nabla.core.sampling import Sampling
from nabla.core.trajectory import Trajectory
from nabla.engine.engine import Engine
from nabla.engine.session import Session
from nabla.models.ledger import ByteBudget
from nabla.objectives.base import Objective, objectives
from nabla.study.benchmark.bench import Stand, drive
from nabla.study.benchmark.measurement import Measurement
from nabla.study.benchmark.models import OBJECTIVES
from nabla.study.benchmark.targets.whole_solve import endless
from nabla.study.benchmark.timing import Interval, median, now, ratio

#: Of a gradient through the kept graph: through the reward alone, and of the whole objective; for pairs whose
#: head is small beside the layers.
GOALS = {"reward": 0.8, "likelihood": 1.7}
LABELS = {"reward": "without likelihood", "likelihood": "with likelihood"}


@dataclass
class _Spent:
    """Of each turn: seconds and FLOPs of a proposal with its score, and of a gradient at it."""

    proposal: list[float] = field(default_factory=list)
    gradient: list[float] = field(default_factory=list)
    proposal_flops: list[float] = field(default_factory=list)
    gradient_flops: list[float] = field(default_factory=list)


def measure(bench: Stand) -> list[Measurement]:
    """Both objectives, the two ways in turns; then the bytes of one graph."""
    found = [m for objective in ("reward", "likelihood") for m in _measure(bench, objective)]
    return [*found, _weight(bench)]


def _measure(bench: Stand, name: str) -> list[Measurement]:
    bench.tell(f"gradients in proposals ({name})")
    objective = objectives.build(OBJECTIVES[name])
    ways = {"kept graph": True, "no graph": False}
    spent = {way: _Spent() for way in ways}
    with endless(bench.workbench.lm):
        engines = {way: bench.workbench.engine(keep_graph=keep) for way, keep in ways.items()}
        for turn in range(bench.repeats + 1):
            for way, engine in engines.items():
                note = spent[way] if turn else _Spent()  # the first to warm up
                _turn(bench, engine, objective, turn, note)
    return [m for way in ways for m in _rows(bench, name, way, spent[way])]


def _rows(bench: Stand, name: str, way: str, spent: _Spent) -> list[Measurement]:
    label = f"gradient {LABELS[name]} / scored proposal, {way}"
    bench.keep(f"proposal beside gradient {LABELS[name]}, {way}", spent.proposal)
    bench.keep(f"gradient {LABELS[name]}, {way}", spent.gradient)
    times = median(spent.gradient).value, median(spent.proposal).value
    flops = median(spent.gradient_flops).value, median(spent.proposal_flops).value
    goal = GOALS[name] if way == "kept graph" and bench.setting.given else None
    return [
        Measurement(
            8,
            f"{label}, FLOPs",
            ratio(spent.gradient_flops, spent.proposal_flops),
            "×",
            goal,
            detail=f"{flops[0] / 1e9:.3g} GFLOP beside {flops[1] / 1e9:.3g}",
            parts={"gradient": flops[0], "proposal": flops[1]},
        ),
        Measurement(
            8,
            f"{label}, seconds",
            ratio(spent.gradient, spent.proposal),
            "×",
            goal,
            detail=f"{1e3 * times[0]:.1f} ms beside {1e3 * times[1]:.1f} ms, one problem alone",
            parts={"gradient": times[0], "proposal": times[1]},
        ),
    ]


def _turn(bench: Stand, engine: Engine, objective: Objective, turn: int, spent: _Spent) -> None:
    """Another token at a quarter of a response, what follows written anew and scored; its gradient."""

    async def work(session: Session) -> None:
        first = await _first(session, bench)
        place = len(first) // 4
        token = (int(first.tokens[place]) + 1) % bench.workbench.lm.head.usable
        begin, before = now(), session.cost.total.flops
        (proposal,) = await session.fork(first.commit(place), [(place, token)])
        (proposal,) = await session.score([proposal], keep_graph=True)
        spent.proposal.append(now() - begin)
        spent.proposal_flops.append(session.cost.total.flops - before)
        begin, before = now(), session.cost.total.flops
        await session.gradient(proposal, objective)
        spent.gradient.append(now() - begin)
        spent.gradient_flops.append(session.cost.total.flops - before)

    drive(engine, [bench.workbench.prompt(turn)], work)


async def _first(session: Session, bench: Stand) -> Trajectory:
    sampling = Sampling(temperature=1.0, max_new_tokens=bench.setting.new_tokens)
    (first,) = await session.score(await session.rollout(sampling))
    return first


def _weight(bench: Stand) -> Measurement:
    """Bytes that torch keeps for a response's graph, beside the estimate that the budget is charged with."""
    bench.tell("memory of a kept graph")
    kept: dict[int, int] = {}
    bodies = bench.workbench.reward.bodies()
    weights = {p.untyped_storage().data_ptr() for body in bodies for p in body.module.parameters()}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    async def work(session: Session) -> tuple[int, int]:
        (text,) = await session.rollout(
            Sampling(temperature=1.0, max_new_tokens=bench.setting.new_tokens)
        )
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            await session.score([text], keep_graph=True)
        return len(text), session.workspace.graphs.budget.used

    with endless(bench.workbench.lm):
        engine = bench.workbench.engine(keep_graph=True)
        engine.workspace.graphs.budget = ByteBudget()  # of its own, without the prefixes
        ((tokens, estimate),) = drive(engine, [bench.workbench.prompt()], work)
    total = sum(kept.values())
    each = total / tokens / 1e6
    return Measurement(
        8,
        "memory of a kept graph of the reward, MB per token",
        Interval(each, each, each),
        "MB",
        detail=f"{tokens} tokens: {total / 1e6:.1f} MB, estimated before {estimate / 1e6:.1f} MB",
        parts={"kept": float(total), "estimate": float(estimate), "tokens": float(tokens)},
    )
