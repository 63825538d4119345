"""Each speed-up switched off in turn: what it is worth, in time and memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from nabla.engine.session import Session
from nabla.study.benchmark.bench import Stand, drive
from nabla.study.benchmark.memory import memory_over_models
from nabla.study.benchmark.solves import FAMILIES, Sandbox
from nabla.study.benchmark.targets.first_row import fresh
from nabla.study.benchmark.timing import Interval, median, now, ratio

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Switch:
    """How one speed-up is turned off, or on if it is off by itself.

    Args:
        what: it does, in a few words.
        engine: arguments of :class:`~nabla.engine.engine.Engine`.
        dto: arguments of :class:`~nabla.refinement.dto.DTO`.
        scenarios: where it matters: ``refine`` (one position of a new text), ``next`` (the next position of
            the same text), ``solve`` (the sandbox's problems).
        default: whether the speed-up is on by itself; if not, ``engine`` and ``dto`` turn it on.
        common: arguments of the engine with and without it.
    """

    what: str
    engine: dict[str, Any] = field(default_factory=dict)
    dto: dict[str, Any] = field(default_factory=dict)
    scenarios: tuple[str, ...] = ("refine",)
    default: bool = True
    common: dict[str, Any] = field(default_factory=dict)


#: Name → switch. A new speed-up needs one entry here.
SWITCHES: dict[str, Switch] = {
    "prefix caches": Switch(
        "keys and values of prompts and kept texts are reused",
        engine={"reuse_prefixes": False},
        scenarios=("refine", "solve"),
    ),
    "kept gradients": Switch(
        "a text's gradient serves its later positions",
        engine={"kept_gradients": 0},
        scenarios=("next", "solve"),
    ),
    "rows ahead": Switch(
        "logits and gradient rows of the next positions share a product",
        engine={"rows_ahead": 1},
        scenarios=("refine", "next"),
    ),
    "closed form": Switch(
        "the backward rule as a formula on columns, no one-hot rows, no autograd",
        dto={"closed_form": False},
        scenarios=("refine", "next", "solve"),
    ),
    "fused optimizer": Switch(
        "one kernel per optimiser step",
        dto={"optimizer_arguments": {"fused": False}},
        scenarios=("next", "solve"),
    ),
    "activations kept": Switch(
        "layers are not run again on the way back (their memory is the price)",
        engine={"checkpoint_activations": True},
        scenarios=("refine",),
    ),
    "batches of like lengths": Switch(
        "a batch is cut where that saves padding",
        engine={"split_padding": float("inf")},
        scenarios=("solve",),
    ),
    "problems together": Switch(
        "requests of live problems share batches", engine={"live": 1}, scenarios=("solve",)
    ),
    "fullest first": Switch(
        "what most problems wait for runs first, rollouts last; 16 at a time, so that they are out of step",
        engine={"fullest_first": False},
        scenarios=("solve",),
        common={"live": 16},
    ),
    "rows that join": Switch(
        "a rollout joins those that are written when another one has ended; 16 problems, 8 rows at a time",
        engine={"continuous": False},
        scenarios=("solve",),
        common={"live": 16, "rollout": {"name": "huggingface", "batch_size": 8}},
    ),
    "padded batches": Switch(
        "rewards and gradients of several texts run together",
        engine={"batch_size": 1},
        scenarios=("solve",),
    ),
    "kept graphs": Switch(
        "the pass that scores a text keeps its graph for the gradient, off by default",
        engine={"keep_graph": True},
        scenarios=("solve",),
        default=False,
    ),
    "compiled layers": Switch(
        "feed-forward parts and norms through torch.compile, off by default",
        engine={"compile_layers": True},
        scenarios=("refine", "solve"),
        default=False,
    ),
}


@dataclass(frozen=True)
class Speedup:
    """One speed-up in one scenario: seconds with and without it, and bytes where they were measured."""

    name: str
    scenario: str
    what: str
    on: float
    off: float
    factor: float
    low: float
    high: float
    bytes_on: float | None = None
    bytes_off: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def ablate(bench: Stand) -> list[Speedup]:
    """All switches, each beside the full speed in turns."""
    return [
        _ablate(bench, name, switch, scenario)
        for name, switch in SWITCHES.items()
        for scenario in switch.scenarios
    ]


def _ablate(bench: Stand, name: str, switch: Switch, scenario: str) -> Speedup:
    bench.tell(f"without {name} ({scenario})")
    on: list[float] = []
    off: list[float] = []
    setting, plain = bench.setting, Switch("")
    faster, slower = (plain, switch) if switch.default else (switch, plain)
    sandbox = Sandbox(FAMILIES[0], setting.problems, setting.device) if scenario == "solve" else None
    for turn in range(bench.repeats + 1):
        for times, changed in ((on, faster), (off, slower)):
            if sandbox is not None:
                spent = sandbox.solve(changed.dto, **{**switch.common, **changed.engine}).seconds
            else:
                spent = _refine(bench, changed, after_another=scenario == "next", seed=turn)
            if turn:
                times.append(spent)
    factor = ratio(off, on)
    memory: dict[str, float] = {}
    if scenario == "refine":
        for key, changed in (("bytes_on", faster), ("bytes_off", slower)):
            memory[key] = memory_over_models(
                setting, "first row", threads=bench.threads, engine=changed.engine, dto=changed.dto
            )["peak"]
    return Speedup(
        name,
        scenario,
        switch.what,
        median(on).value,
        median(off).value,
        *(factor.value, factor.low, factor.high),
        **memory,
    )


def _refine(bench: Stand, changed: Switch, *, after_another: bool, seed: int) -> float:
    """Seconds of one refinement of a fresh text, or of the position after one."""
    workbench = bench.workbench
    dto, engine = workbench.dto(**changed.dto), workbench.engine(**changed.engine)
    spent: list[float] = []

    async def work(session: Session) -> None:
        trajectory = await fresh(session, bench, seed)
        safe = workbench.safe(trajectory.hidden).nonzero()[:, 0].tolist()
        if after_another:
            await dto.refine(trajectory, session, safe)
            trajectory = trajectory.commit(safe[1])
        begin = now()
        await dto.refine(trajectory, session, safe)
        spent.append(now() - begin)

    drive(engine, [workbench.prompt()], work)
    return spent[0]


def ablation_table(found: Sequence[Speedup]) -> Table:
    """One row per switch and scenario."""
    from rich import box
    from rich.table import Table

    table = Table(
        title="Each speed-up's own contribution: time and memory without it",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("without", ratio=1)
    table.add_column("scenario")
    for name in ("with, s", "without, s", "slower", "with, MB", "without, MB"):
        table.add_column(name, justify="right", no_wrap=True)
    for a in found:
        interval = Interval(a.factor, a.low, a.high)
        table.add_row(
            f"{a.name} ({a.what})",
            a.scenario,
            f"{a.on:.3g}",
            f"{a.off:.3g}",
            f"{interval.value:.3g}× [{interval.low:.3g}, {interval.high:.3g}]",
            "" if a.bytes_on is None else f"{a.bytes_on / 1e6:.0f}",
            "" if a.bytes_off is None else f"{a.bytes_off / 1e6:.0f}",
        )
    return table
