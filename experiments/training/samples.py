"""A policy's own samples, drawn by nabla's engine, every token labelled: what rewards learn from.

    python -m experiments.training.samples --policy smollm2-chain-sum --problems 196 --each 4 \
        --out runs/training/samples.jsonl

Labels are mechanical: there is one right way to write an answer (``task.right_so_far``). Goes on where it was
broken off, with the same policy and the same draws.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.training import task, words
from experiments.training.task import batches, right_so_far
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.engine.engine import Engine
from nabla.engine.session import Session
from nabla.models.causal_lm import CausalLM
from nabla.problems.tasks.base import Problem

#: Tasks with one right way to write an answer: modules with the same four names.
TASKS = {"chain_sum": task, "leg_counting": words}
#: Problems between two looks at the file.
PART = 32


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--task", choices=TASKS, default="chain_sum")
    parser.add_argument("--policy", default="smollm2-chain-sum")
    parser.add_argument("--problems", type=int, default=196)
    parser.add_argument("--each", type=int, default=4, help="samples of a problem")
    parser.add_argument("--first", type=int, default=200_000, help="seed of the first training problem")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--split", choices=("train", "test"), default="train")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    asked = TASKS[options.task]
    if options.split == "train":
        problems = asked.training(options.problems, options.first)
    else:
        problems = asked.build("test", seed=options.first, size=options.problems).problems()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    how = {name: getattr(options, name) for name in ("policy", "each", "temperature", "seed")}
    done = known(options.out, how)
    missing = [p for p in problems if p.id not in done]
    if not missing:
        print(f"{options.out} is finished")
        return
    lm = CausalLM.from_pretrained(options.policy, dtype="float32")
    sampling = Sampling(temperature=options.temperature, max_new_tokens=asked.MOST_TOKENS)
    began = time.process_time()
    for part in batches(missing, PART):
        found = draw(lm, asked, part, sampling, options.each, options.seed)
        with options.out.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({**row, "drawn": how}) + "\n" for row in found)
        print(f"{part[-1].id}: {time.process_time() - began:.0f} CPU s", flush=True)


def known(path: Path, how: Mapping[str, Any]) -> set[str]:
    """Problems whose samples a file has. Ends the program where they were drawn otherwise than is asked for,
    as a file is one pool; rows of earlier files do not say how."""
    rows = read(path) if path.exists() else []
    for row in rows:
        if row.get("drawn", how) != how:
            raise SystemExit(f"{path} was drawn with {row['drawn']}, not with {how}; choose another --out")
    return {row["problem"] for row in rows}


def draw(
    lm: CausalLM, asked: Any, problems: Sequence[Problem], sampling: Sampling, each: int, seed: int
) -> Iterator[dict[str, Any]]:
    """``each`` samples of every problem, with the label of each token, one row a problem."""
    pools: dict[str, list[Any]] = {}

    async def solve(session: Session) -> Solution:
        pools[session.prompt.id] = await session.rollout(sampling, n=each)
        return Solution(session.prompt, "", (), None, True, "samples", session.cost)

    prompts = [Prompt.of(p.prompt, id=p.id) for p in problems]
    for _, outcome in Engine(lm, seed=seed, batch_size=128).run(solve, prompts):
        if not isinstance(outcome, Solution):
            raise outcome
    ends = set(lm.eos_ids)
    for problem in problems:
        gold, samples = asked.written(problem), []
        for trajectory in pools[problem.id]:
            tokens = trajectory.tokens.tolist()
            pieces = ["" if t in ends else lm.tokenizer.decode([t]) for t in tokens]
            samples.append({"tokens": tokens, "text": "".join(pieces), "finished": trajectory.finished,
                            "right": right_so_far(gold, pieces),
                            "log_probs": trajectory.log_probs.tolist()})  # fmt: skip
        yield {"problem": problem.id, "prompt": problem.prompt, "question": problem.metadata["question"],
               "gold": problem.gold, "samples": samples}  # fmt: skip


def read(*paths: Path) -> list[dict[str, Any]]:
    """Rows of files; a torn last line is cut off."""
    found = []
    for path in paths:
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            path.write_bytes(whole)
        found += [json.loads(line) for line in whole.decode().splitlines()]
    return found


def size(paths: Sequence[Path]) -> dict[str, int]:
    """How much there is in files of samples."""
    rows = read(*paths)
    return {"problems": len(rows), "samples": sum(len(row["samples"]) for row in rows)}


def right(sample: dict[str, Any]) -> bool:
    """Whether a whole answer is right."""
    return bool(sample["finished"] and sample["right"] and sample["right"][-1])


if __name__ == "__main__":
    main()
