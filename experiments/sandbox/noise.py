"""Scales of the reward `noisy` for a given AUC of good tokens against first wrong ones.

    python -m experiments.sandbox.noise --task latin

The policy's samples of training problems, judged by the engine; the scale is that of independent normal
errors (`nabla.rewards.noisy.calibrated`), and the AUC is measured with the wrapper itself, whose errors are
the same within a step and may last along a text.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import torch

from experiments.sandbox.common import RESPONSE_TOKENS, Codec
from experiments.sandbox.metrics import auc, first_wrong
from experiments.sandbox.success_labels import solution_of
from nabla.core.errors import NablaError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.engine.engine import Engine
from nabla.engine.session import Session
from nabla.models.causal_lm import CausalLM
from nabla.problems.sandbox import TASKS, model_path
from nabla.rewards.base import Reward
from nabla.rewards.noisy import NoisyReward, calibrated
from nabla.rewards.process import ProcessReward

#: What ends a step of each family: a row of the square, a line of the calculation.
STEPS = {"latin": ("/",), "arithmetic": (";", "#")}
LEVELS = (0.95, 0.85, 0.75)
PERSISTENCE = (0.0, 0.9)


def judged(family: str, reward: Reward, count: int, samples: int, seed: int) -> list[Trajectory]:
    """The policy's responses with the reward's values. Raises NablaError where a problem fails."""
    policy = CausalLM.from_pretrained(str(model_path(f"{family}-policy")), device="cpu")
    sampling = Sampling(temperature=0.7, max_new_tokens=RESPONSE_TOKENS[family])
    found: list[Trajectory] = []

    async def judge(session: Session) -> Solution:
        texts = await session.judge(await session.rollout(sampling, samples))
        found.extend(texts)
        return solution_of(session, texts[0])

    problems = TASKS[family].problems("train", count, seed=9_000 + seed)
    prompts = [Prompt.of(problem.prompt, id=problem.id) for problem in problems]
    for _, outcome in Engine(policy, reward, seed=seed).run(judge, prompts):
        if isinstance(outcome, NablaError):
            raise outcome
    return [text for text in found if text.finished]


def split(family: str, texts: Sequence[Trajectory]) -> tuple[list[float], list[float]]:
    """Values of the tokens before the first wrong one, and of first wrong ones, ends of turn left out."""
    codec, task = Codec(), TASKS[family]
    values, fine = [], []
    for text in texts:
        score, response = text.score, codec.text(text.tokens.tolist())
        assert score is not None
        values.append(score.by_token(len(text))[: len(response)])
        fine.append(task.progress(text.prompt.text, response))
    return first_wrong(values, fine)


def measure(family: str, count: int, samples: int, seed: int) -> list[dict[str, Any]]:
    """A row for each AUC asked for and persistence: the scale, and the AUC that was found."""
    path = str(model_path(f"{family}-process-reward"))
    reward = ProcessReward.from_pretrained(path, step_separators=(), device="cpu")
    good, bad = split(family, judged(family, reward, count, samples, seed))
    rows: list[dict[str, Any]] = []
    clean = auc([*good, *bad], [True] * len(good) + [False] * len(bad))
    print(json.dumps({"family": family, "auc without errors": round(clean, 3)}), flush=True)
    for level in (level for level in LEVELS if level < clean):
        scale = round(calibrated(good, bad, level), 2)
        for persistence in PERSISTENCE:
            noisy = NoisyReward(reward, scale, persistence=persistence, steps=STEPS[family], seed=seed)
            one, other = split(family, judged(family, noisy, count, samples, seed))
            found = auc([*one, *other], [True] * len(one) + [False] * len(other))
            rows.append({"asked": level, "scale": scale, "persistence": persistence, "auc": round(found, 3)})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=sorted(TASKS), required=True)
    parser.add_argument("--problems", type=int, default=400)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    measure(args.task, args.problems, args.samples, args.seed)


if __name__ == "__main__":
    main()
