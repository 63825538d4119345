"""Target 7: how the cost of a refinement grows with response length, vocabulary, steps and batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nabla.engine.session import Session
from nabla.study.benchmark.bench import Stand, drive
from nabla.study.benchmark.floor import Floor
from nabla.study.benchmark.measurement import Measurement
from nabla.study.benchmark.models import Workbench
from nabla.study.benchmark.settings import Setting
from nabla.study.benchmark.timing import Interval, median, now

#: Samples per point.
REPEATS = 3
#: Slopes on log-log axes that count as linear (attention bends the end up) and as flat.
LINEAR, FLAT = 1.2, 0.25
#: Quantiles of Student's t at 97.5 % with 1, 2, ... degrees of freedom: a sweep has a handful of points.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306)
#: Middle point of the sweeps on a CPU: small, so that a sweep takes a minute.
BASE_LENGTH, BASE_VOCABULARY = 256, 16_384


def measure(bench: Stand) -> list[Measurement]:
    """Fitted slopes; every point goes into ``growth.csv``."""
    base = _base(bench.setting)
    results = []
    for axis, values in bench.setting.growth:
        times: dict[str, list[float]] = {}
        for value in values:
            bench.tell(f"{axis} {value}")
            for series, seconds in _point(bench, base, axis, value).items():
                times.setdefault(series, []).append(seconds)
                bench.growth.append({"axis": axis, "value": value, "series": series, "seconds": seconds})
        results += _judge(axis, values, times)
    return results


def _base(setting: Setting) -> Setting:
    if setting.device == "cuda" or setting.name == "small":
        return setting
    shapes = {name: replace(getattr(setting, name), vocab=BASE_VOCABULARY) for name in ("lm", "rm")}
    return replace(setting, prefix=64, response=BASE_LENGTH, **shapes)


def _point(bench: Stand, base: Setting, axis: str, value: int) -> dict[str, float]:
    """Seconds per refinement (and of the floor) at one value of one axis."""
    setting, batch = base, 1
    if axis == "length":
        setting = replace(base, response=value)
    elif axis == "vocabulary":
        setting = replace(base, lm=replace(base.lm, vocab=value), rm=replace(base.rm, vocab=value))
    elif axis == "steps":
        setting = replace(base, steps=value)
    else:
        batch = value
    workbench = Workbench(setting)
    found: dict[str, float] = {}
    for objective in ("likelihood", "reward"):
        times, floors = _times(workbench, objective, batch, min(bench.repeats, REPEATS))
        label = "with likelihood" if objective == "likelihood" else "without likelihood"
        found[f"refine {label}"] = median(times).value / batch
        found[f"floor {label}"] = median(floors).value
    return found


def _times(workbench: Workbench, objective: str, batch: int, repeats: int) -> tuple[list[float], list[float]]:
    engine, dto = workbench.engine(), workbench.dto(objective)
    prompt = workbench.prompt()
    prompts = [replace(prompt, id=f"{prompt.id}-{i}") for i in range(batch)]
    floor = Floor(
        workbench.lm, workbench.reward, prompt, workbench.text(0), likelihood=objective == "likelihood"
    )
    begin = [0.0]
    done: list[int] = []
    times: list[float] = []

    async def work(session: Session) -> None:
        own = prompts.index(session.prompt)
        for turn in range(repeats + 1):
            (trajectory,) = await session.read([workbench.text(100 * own + turn)], workbench.sampling)
            (trajectory,) = await session.score([trajectory])
            if not done:  # the first of the batch starts the clock, the last stops it
                begin[0] = now()
            done.append(own)
            await dto.refine(trajectory, session)
            done.append(own)
            if len(done) == 2 * batch:
                if turn:
                    times.append(now() - begin[0])
                done.clear()

    drive(engine, prompts, work)
    floors = [sum(floor.parts().values()) for _ in range(repeats + 1)][1:]
    return times, floors


def _judge(axis: str, values: Sequence[int], times: dict[str, list[float]]) -> list[Measurement]:
    with_likelihood, without = times["refine with likelihood"], times["refine without likelihood"]
    if axis == "length":
        return [_slope("refine with likelihood, in response length", values, with_likelihood, LINEAR)]
    if axis == "vocabulary":
        return [
            _slope("refine without likelihood, in vocabulary", values, without, FLAT),
            _slope("refine with likelihood, in vocabulary", values, with_likelihood, None),
            _slope("floor with likelihood, in vocabulary", values, times["floor with likelihood"], None),
        ]
    if axis == "steps":
        return [_slope("refine with likelihood, in steps", values, with_likelihood, FLAT)]
    return [_slope("refine with likelihood per problem, in batch", values, with_likelihood, FLAT)]


def _slope(name: str, values: Sequence[int], seconds: Sequence[float], goal: float | None) -> Measurement:
    """Exponent of a power law, least squares on log-log axes, with its 95 % interval (Student's t)."""
    x, y = np.log(np.asarray(values, float)), np.log(np.asarray(seconds, float))
    slope, start = np.polyfit(x, y, 1)
    free = max(len(x) - 2, 1)
    error = float(np.sqrt(((y - start - slope * x) ** 2).sum() / free / ((x - x.mean()) ** 2).sum()))
    half = STUDENT[min(free, len(STUDENT)) - 1] * error
    shown = ", ".join(f"{v}: {1e3 * s:.1f}" for v, s in zip(values, seconds, strict=True))
    return Measurement(
        7,
        f"slope of {name}",
        Interval(float(slope), float(slope - half), float(slope + half)),
        "",
        goal,
        detail=f"milliseconds {shown}",
        parts={str(v): s for v, s in zip(values, seconds, strict=True)},
    )
