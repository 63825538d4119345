"""Target 5: a whole solve is rollouts, and rollouts are as fast as transformers' own generate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from nabla.core.costs import PHASES
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.engine.engine import Engine
from nabla.engine.session import Session
from nabla.models.causal_lm import CausalLM
from nabla.rewards.outcome import OutcomeReward
from nabla.study.benchmark.bench import Stand, drive
from nabla.study.benchmark.floor import Floor
from nabla.study.benchmark.measurement import Measurement
from nabla.study.benchmark.solves import FAMILIES, Sandbox
from nabla.study.benchmark.timing import interleave, median, ratio

SHARE_GOAL = 0.10
GENERATE_GOAL = 1.1
#: Samples of solves one after another, which take long and are sums over many problems already.
REPEATS = 3
#: Rows of the sandbox model decoded together.
SANDBOX_ROWS = 64


def measure(bench: Stand) -> list[Measurement]:
    """Shares of both families; rollouts of a sandbox model and of the setting's."""
    results = []
    for family in FAMILIES:
        sandbox = Sandbox(family, bench.setting.problems, bench.setting.device)
        for live in (1, bench.setting.problems):
            bench.tell(f"solve {family}, {live} at a time")
            results.append(shares(bench, sandbox, live))
        bench.tell(f"gradients of {family} at their floor")
        results.append(_floor(bench, sandbox))
    rows = min(SANDBOX_ROWS, bench.setting.problems)
    sandbox = Sandbox(FAMILIES[0], rows, bench.setting.device)
    bench.tell("rollouts beside generate (sandbox)")
    results.append(beside_generate(bench, "sandbox model", sandbox.lm, sandbox.prompts))
    workbench = bench.workbench
    bench.tell("rollouts beside generate (setting)")
    prompts = [workbench.prompt(seed) for seed in range(bench.setting.rows)]
    results.append(beside_generate(bench, f"setting {bench.setting.name}", workbench.lm, prompts))
    return results


def shares(bench: Stand, sandbox: Sandbox, live: int) -> Measurement:
    sandbox.solve(live=live)  # warm up
    others: list[float] = []
    walls: list[float] = []
    shares: dict[str, list[float]] = {phase: [] for phase in (*PHASES, "unaccounted")}
    for _ in range(min(bench.repeats, REPEATS) if live == 1 else bench.repeats):
        solves = sandbox.solve(live=live)
        phases = {phase: usage.seconds for phase, usage in solves.cost.phases.items()}
        phases["unaccounted"] = max(solves.seconds - sum(phases.values()), 0.0)
        for phase, values in shares.items():
            values.append(phases.get(phase, 0.0) / solves.seconds)
        # Whatever neither writes nor scores a response is the method's own.
        others.append(solves.seconds - phases.get("rollout", 0.0) - phases.get("reward", 0.0))
        walls.append(solves.seconds)
    bench.keep(f"solve {sandbox.family}, {live} at a time", walls)
    parts = {phase: median(values).value for phase, values in shares.items()}
    return Measurement(
        5,
        f"share of {sandbox.family} solves outside rollouts and rewards, {live} at a time",
        ratio(others, walls),
        "",
        SHARE_GOAL,
        detail=f"{len(sandbox.prompts)} problems in {median(walls).value:.2f} s: "
        + ", ".join(f"{phase} {100 * share:.1f} %" for phase, share in parts.items()),
        parts={"wall": median(walls).value, **parts},
    )


def _floor(bench: Stand, sandbox: Sandbox) -> Measurement:
    """What the share could be at the least, one problem at a time: each gradient at its floor, and nothing
    for choosing positions, refining rows and keeping accounts."""
    assert isinstance(sandbox.reward, OutcomeReward)
    reward = sandbox.reward.bind(sandbox.lm.vocabulary)
    tasks = sandbox.differentiated()
    floors = [
        Floor(sandbox.lm, reward, task.trajectory.prompt, task.tokens, start=task.start)
        for task in tasks
        if len(task.tokens) > task.start + 1  # a last token alone costs next to nothing
    ]
    for floor in floors:  # warm up
        floor.parts()
    least: list[float] = []
    walls: list[float] = []
    for _ in range(min(bench.repeats, REPEATS)):
        spent = sum(sum(floor.parts().values()) for floor in floors)
        phases = sandbox.solve(live=1).cost.phases
        least.append(spent)
        walls.append(spent + phases["rollout"].seconds + phases["reward"].seconds)
    bench.keep(f"gradients of {sandbox.family} at their floor", least)
    return Measurement(
        5,
        f"the same of {sandbox.family}, 1 at a time, gradients at their floor and no bookkeeping",
        ratio(least, walls),
        "",
        detail=f"{len(tasks)} gradients of {len(sandbox.prompts)} problems: {median(least).value:.2f} s; "
        f"with rollouts and rewards {median(walls).value:.2f} s",
        parts={"gradients": float(len(tasks)), "floor": median(least).value, "wall": median(walls).value},
    )


@contextmanager
def endless(lm: CausalLM) -> Iterator[None]:
    """Nothing ends a response but its length: both sides then run equally many decoding steps."""
    ends, lm.vocabulary.eos_ids = lm.eos_ids, ()
    try:
        yield
    finally:
        lm.vocabulary.eos_ids = ends


def beside_generate(bench: Stand, name: str, lm: CausalLM, prompts: Sequence[Prompt]) -> Measurement:
    sampling = Sampling(temperature=0.7, max_new_tokens=bench.setting.new_tokens)
    rows = [lm.encode(prompt) for prompt in prompts]
    longest = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, longest - len(row) :], mask[i, longest - len(row) :] = row, 1
    ids, mask = ids.to(lm.body.device), mask.to(lm.body.device)
    engine = Engine(lm)

    async def write(session: Session) -> int:
        (trajectory,) = await session.rollout(sampling)
        return len(trajectory)

    def ours() -> None:
        assert drive(engine, prompts, write) == [sampling.max_new_tokens] * len(prompts)

    def theirs() -> None:
        _transformers(lm, ids, mask, sampling)

    with endless(lm):
        found = interleave({"ours": ours, "theirs": theirs}, bench.repeats)
    bench.keep(f"rollouts, {name}", found["ours"])
    bench.keep(f"generate, {name}", found["theirs"])
    each = sampling.max_new_tokens
    tokens = len(prompts) * each
    mine, other = median(found["ours"]).value, median(found["theirs"]).value
    return Measurement(
        5,
        f"rollouts / generate, {name}",
        ratio(found["ours"], found["theirs"]),
        "×",
        GENERATE_GOAL,
        detail=f"{len(prompts)} rows of {each} tokens: {1e6 * mine / tokens:.0f} µs per token "
        f"(statistics of every token included), generate {1e6 * other / tokens:.0f} µs",
        parts={"rollouts": mine, "generate": other, "tokens": float(tokens)},
    )


@torch.no_grad()
def _transformers(lm: CausalLM, ids: Tensor, mask: Tensor, sampling: Sampling) -> None:
    lm.model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=True,
        temperature=sampling.temperature,
        top_k=0,
        top_p=1.0,
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=None,
        pad_token_id=0,
    )
