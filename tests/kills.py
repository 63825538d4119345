"""Kills runs and lets them go on: ``python -m tests.kills [DOOR ...] --kills 50 --problems 200``.

For each door (evaluate, ablate, solve) a process with everything loaded solves the problems once unbroken.
Then it forks a child per attempt at the same in another folder, and ends each by SIGKILL: from outside after
a random time, or in the middle of a write, when a random part of the bytes has reached the file. A run that
finishes all the same is set apart, and the next attempt begins a new one. When enough were killed, the last
may finish. What a child had on disk must be there after its kill; in the end there must be exactly the
unbroken run's records: equal but for times, and for rewards' last bits where a problem met others in its
batches.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from nabla.cli import main as command
from nabla.launch.config.run import RunConfig
from nabla.launch.folder import RunFolder, status
from nabla.problems.sandbox import TASKS
from nabla.study.ablation.results import DESIGN
from nabla.study.ablation.runner import POINTS, Ablation
from nabla.study.evaluation import journal
from nabla.study.evaluation.lines import reproducible
from nabla.study.evaluation.runner import Evaluation
from nabla.study.evaluation.unfinished import FOLDER
from tests.study.ablation.small import small as small_ablation
from tests.study.ablation.small import values
from tests.study.evaluation.small import small as small_evaluation

#: Problems solved together.
LIVE = 8
_METHOD = {"name": "nabla-reasoner", "dto": {"steps": 2}, "max_rollouts": 3}
_SAMPLING = {"temperature": 0.7, "max_new_tokens": 48}
#: Largest relative difference of rewards that other batches may make, in float32.
LAST_BITS = 1e-4


class Door:
    """One way into nabla, with ``problems`` problems."""

    def __init__(self, problems: int, folder: Path) -> None:
        self.problems = problems

    def run(self, folder: Path) -> None:
        raise NotImplementedError

    def finished(self, folder: Path) -> bool:
        raise NotImplementedError

    def records(self, folder: Path) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
        """(key, record without times) of everything on disk, of unfinished runs too."""
        raise NotImplementedError


def _evaluated(folder: Path) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    whole = list(_read(folder))
    yield from whole
    # A kill may come when a unit is whole and what was kept of it is not away yet: the unit counts then.
    known = {key for key, _ in whole}
    if (folder / FOLDER).exists():
        yield from (row for row in _read(folder / FOLDER) if row[0] not in known)


def _read(folder: Path) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    for row in journal.read(folder):
        found = reproducible(row)
        if found is not None:
            yield tuple(found.get(k) for k in ("method", "seed", "problem", "unit", "value")), found


class Evaluate(Door):
    def __init__(self, problems: int, folder: Path) -> None:
        method = {**_METHOD, "sampling": _SAMPLING}
        self.config = small_evaluation(
            methods={"nabla": method, "best": {"name": "best-of-n", "n": 2}},
            budgets={"calls": [50]}, seeds=[0], problems=problems, shard=LIVE,
        )  # fmt: skip

    def run(self, folder: Path) -> None:
        Evaluation(self.config, folder).run()

    def finished(self, folder: Path) -> bool:
        return (folder / journal.RECORDS).exists() and not (folder / FOLDER).exists()

    def records(self, folder: Path) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
        return _evaluated(folder)


class Ablate(Door):
    def __init__(self, problems: int, folder: Path) -> None:
        base = {
            **values()["base"],
            "method": {**_METHOD, "sampling": _SAMPLING}, "problems": problems, "shard": LIVE,
        }  # fmt: skip
        self.config = small_ablation(base=base, factors={"method.max_rollouts": [2, 3]})

    def run(self, folder: Path) -> None:
        Ablation(self.config, folder).run()

    def finished(self, folder: Path) -> bool:
        path = folder / DESIGN
        return path.exists() and len(json.loads(path.read_text())["points"]) == self.config.size

    def records(self, folder: Path) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
        points = folder / POINTS
        for point in sorted(points.iterdir()) if points.exists() else ():
            for key, row in _evaluated(point):
                yield (point.name, *key), row


class Solve(Door):
    def __init__(self, problems: int, folder: Path) -> None:
        self.file = folder / "prompts.jsonl"
        drawn = TASKS["arithmetic"].problems("test", problems, 0)
        lines = [json.dumps({"id": p.id, "prompt": p.prompt}) + "\n" for p in drawn]
        self.file.write_text("".join(lines), encoding="utf-8")

    def run(self, folder: Path) -> None:
        method = ["--method", "best-of-n", "--method.n", "2", "--engine.live", str(LIVE)]
        options = ["--prompts", str(self.file), "--json", "--output", str(folder), "--accelerator", "cpu"]
        said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        with redirect_stdout(said), redirect_stderr(said):
            code = command(["solve", *options, *method])
        if code:
            said.seek(0)
            raise RuntimeError(said.read())

    def finished(self, folder: Path) -> bool:
        return status(folder) == "finished"

    def records(self, folder: Path) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
        path = folder / "solutions.jsonl"
        data = path.read_bytes() if path.exists() else b""
        for line in data[: data.rfind(b"\n") + 1].splitlines():
            row = json.loads(line)
            total = row.pop("cost")["total"]
            counted = {key: value for key, value in total.items() if key not in ("seconds", "peak_bytes")}
            yield (row["id"],), {**row, "cost": counted}


DOORS = {"evaluate": Evaluate, "ablate": Ablate, "solve": Solve}


def load_once() -> None:
    """Every model is loaded in this process, for its children too."""
    for name in ("load_lm", "load_reward"):
        real, kept = getattr(RunConfig, name), {}

        def load(self: RunConfig, real: Any = real, kept: dict[str, Any] = kept) -> Any:
            key = repr((self.lm, self.rm))
            if key not in kept:
                kept[key] = real(self)
            return kept[key]

        setattr(RunConfig, name, load)


def attempt(door: Door, folder: Path, log: Path, tear: random.Random | None) -> None:
    """The child: runs, says what it has on disk, or kills itself within one of its first writes."""
    countdown = tear.randrange(2 * LIVE) if tear else -1
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    real, append, keep = os.write, RunFolder.append, journal.Journal.append

    def write(where: int, data: bytes) -> int:
        nonlocal countdown
        countdown -= 1
        if tear is not None and countdown < 0 and data.startswith(b"{"):
            real(where, data[: tear.randrange(len(data) + 1)])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(where, data)

    def kept(self: Any, key: Any, rows: Any) -> None:
        keep(self, key, rows)
        if len(key) == 5:  # a problem, no unit
            real(descriptor, (json.dumps(key[-1]) + "\n").encode())

    def appended(self: Any, name: str, row: Any) -> None:
        if countdown >= 0:  # a text file hides its writes from os.write
            path, text = self.path / name, json.dumps(row, ensure_ascii=False) + "\n"
            there = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            write(there, text.encode())
            os.close(there)
        else:
            append(self, name, row)
        real(descriptor, (json.dumps(row["id"]) + "\n").encode())

    os.write = write
    journal.Journal.append = kept  # type: ignore[method-assign]
    RunFolder.append = appended  # type: ignore[method-assign]
    code = 1
    try:
        door.run(folder)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def keys(door: Door, folder: Path) -> set[str]:
    """Ids of the problems on disk, as a child tells them."""
    return {str(row.get("problem", row.get("id"))) for _, row in door.records(folder)}


def torment(name: str, kills: int, problems: int, seed: int, root: Path) -> str:
    """Kills one door's runs; raises AssertionError unless their records are those of an unbroken one."""
    chance = random.Random(seed)
    door = DOORS[name](problems, root)
    door.run(root / "warm")
    begin = time.perf_counter()
    door.run(root / "unbroken")
    usual = time.perf_counter() - begin
    expected = dict(door.records(root / "unbroken"))
    done = torn = finished = 0
    worst, before = 0.0, Counter[Any]()
    while done < kills or before or not finished:
        folder, log = root / f"killed-{finished}", root / f"log-{finished}"
        tear = random.Random(chance.random()) if done < kills and chance.random() < 0.5 else None
        child = os.fork()
        if child == 0:
            attempt(door, folder, log, tear)
        if tear is None and done < kills:
            time.sleep(chance.uniform(0, min(usual, max(0.5, 3 * usual / kills))))
            os.kill(child, signal.SIGKILL)
        _, ended = os.waitpid(child, 0)
        found = Counter(key for key, _ in door.records(folder))
        assert max(found.values(), default=1) == 1, "a record is there twice"
        assert not before - found, "a record was there before, and is lost"
        told = [json.loads(line) for line in (log.read_text().splitlines() if log.exists() else ())]
        assert {str(key) for key in told} <= keys(door, folder), "a child had it on disk, and it is lost"
        before = found
        if os.WIFSIGNALED(ended):
            done, torn = done + 1, torn + (tear is not None)
            continue
        assert os.WEXITSTATUS(ended) == 0, "an attempt failed"
        assert door.finished(folder)
        worst = max(worst, _compared(dict(door.records(folder)), expected))
        finished, before = finished + 1, Counter()
    return (
        f"{name}: {done} kills, {torn} of them in a write, over {problems} problems; {finished} runs ended "
        f"with the {len(expected)} records of the unbroken one, none lost, none double; rewards differ "
        f"by at most {worst:.1e} of their size"
    )


def _compared(found: dict[Any, Any], expected: dict[Any, Any]) -> float:
    """The largest relative difference of rewards. Raises AssertionError for any other difference."""
    assert found.keys() == expected.keys()
    return max(_apart(found[key], expected[key], "") for key in found)


def _apart(a: Any, b: Any, where: str) -> float:
    if isinstance(a, dict) and isinstance(b, dict):
        assert a.keys() == b.keys(), where
        return max((_apart(a[key], b[key], f"{where}.{key}") for key in a), default=0.0)
    if isinstance(a, list) and isinstance(b, list):
        assert len(a) == len(b), where
        return max((_apart(x, y, where) for x, y in zip(a, b, strict=True)), default=0.0)
    judged = "reward" in where or "revisions" in where
    if a != b and judged and isinstance(a, float) and isinstance(b, float):
        apart = abs(a - b) / max(1.0, abs(b))
        assert apart < LAST_BITS, (where, a, b)
        return apart
    assert a == b, (where, a, b)
    return 0.0


def main(arguments: list[str]) -> int:
    """Prints a line per door."""
    parser = argparse.ArgumentParser()
    parser.add_argument("doors", nargs="*", default=list(DOORS))
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    load_once()
    for name in options.doors:
        with tempfile.TemporaryDirectory() as folder:
            print(torment(name, options.kills, options.problems, options.seed, Path(folder)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
