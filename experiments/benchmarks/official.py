"""Side by side with the authors' own code: gradient, refined row, seconds, memory.

    git clone https://github.com/VITA-Group/Nabla-Reasoner CHECKOUT
    python experiments/benchmarks/official.py CHECKOUT

Runs ``optimize.LatentTrainer`` of a checkout of https://github.com/VITA-Group/Nabla-Reasoner, imported from
its folder (nothing of it is in this repository), beside nabla's session on the same pair and response: the
gradient of the default objective at the response, and the refinement of its first free row (T = 20; on both
sides one gradient, and then Algorithm 4's cache). The reward is ``--rm``, or the language model's own body
with a head of random weights. Each side runs in processes of its own, one for each length.

One token is committed before: at the first of all nabla knows of ids that would merge with what the reward's
template writes before an answer, and does not refine towards them; the authors' code does.

The authors' code stands at the argmax of each row's logits, not at the token that the rollout drew. So that
both stand at one text, the first free token is the most likely one, and behind it the drawn token's logit is
raised over the others before their code starts; these rows do not move. Where rows are compared the learning
rate is constant; under "with own schedules" each side has its own cosine: theirs is
``max(0.1, (1 + cos(πt/T))/2)`` of the first rate, nabla's goes to a tenth of it with the last step.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib
import json
import math
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.engine.engine import Engine
from nabla.engine.session import Session
from nabla.models.causal_lm import CausalLM
from nabla.models.loading import freeze, load
from nabla.models.zoo.names import place
from nabla.objectives.base import trajectory_terms
from nabla.refinement.dto import DTO
from nabla.rewards.outcome import OutcomeReward
from nabla.schedulers.base import Step
from nabla.study.benchmark.bench import drive
from nabla.study.benchmark.memory import peak, resident, settled

#: The default objective, and the authors' default rate.
REWARD, LIKELIHOOD, RATE = 1.0, 1e-3, 0.01
PROMPT = "Tell me about the history of bridges, from the first ones to those of today."
#: Tokens of the response before the first free one.
COMMITTED = 1
#: What a checkout must have.
NEEDED = ("optimize.py", "templates.py", "utils.py")
COLUMNS = (
    "tokens", "prompt_tokens", "gradient_difference", "row_difference", "row_moved", "schedule_difference",
    "gradients", "official_gradient_s", "nabla_gradient_s", "official_refine_s", "nabla_refine_s",
    "official_position_s", "nabla_position_s", "official_mb", "nabla_mb",
)  # fmt: skip


def models(request: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """(language model, its tokenizer, reward model, its tokenizer), frozen, in float32."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    lm, words = load(AutoModelForCausalLM, request["lm"], role="language model", dtype="float32")
    if request["rm"] is not None:
        kind = AutoModelForSequenceClassification
        rm, marks = load(kind, request["rm"], role="reward model", dtype="float32")
    else:
        torch.manual_seed(0)  # of the head's weights
        folder = place(request["lm"])
        rm = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32)
        marks = words
    if rm.config.pad_token_id is None:
        rm.config.pad_token_id = marks.pad_token_id
    return freeze(lm), words, freeze(rm), marks


@torch.no_grad()
def write(request: dict[str, Any]) -> dict[str, Any]:
    """A committed token and a response as long as the longest: its first token is the most likely one, all
    others are drawn, and none is special. In the tokenizer's own split of the text, so that a reward that
    reads text sees the same ids."""
    lm, words, _, _ = models(request)
    opening = CausalLM(lm, words).encode(Prompt.of(request["prompt"]))
    special = torch.tensor(sorted({*words.all_special_ids, *range(len(words), lm.config.vocab_size)}))
    draws = torch.Generator().manual_seed(request["seed"])
    most = max(request["lengths"]) + 16
    past, given, ids = None, opening[None], list[int]()
    for step in range(most):
        out = lm(given, past_key_values=past, use_cache=True, logits_to_keep=1)
        past = out.past_key_values
        logits = out.logits[0, -1].index_fill(0, special, float("-inf"))
        token = (
            logits.argmax()
            if step == COMMITTED
            else torch.multinomial(logits.softmax(-1), 1, generator=draws)
        )
        ids.append(int(token))
        given = token.reshape(1, 1)
    split = words(words.decode(ids), add_special_tokens=False)["input_ids"]
    for length in request["lengths"]:
        part = split[: length + COMMITTED]
        again = words(words.decode(part), add_special_tokens=False)["input_ids"]
        if again != part or part[: COMMITTED + 1] != ids[: COMMITTED + 1]:
            raise SystemExit(f"Cut at {length} tokens the text is split otherwise: try another --seed")
    return {"tokens": split[: max(request["lengths"]) + COMMITTED]}


class Clock:
    """Seconds of the processor, by name."""

    def __init__(self) -> None:
        self.samples: dict[str, list[float]] = {}

    def timed(self, name: str, work: Callable[[], Any]) -> Any:
        """What ``work`` returns."""
        begin = time.process_time()
        found = work()
        self.samples.setdefault(name, []).append(time.process_time() - begin)
        return found


def official(request: dict[str, Any]) -> dict[str, Any]:
    """The authors' side. Their modules have common names: nothing else is imported from their folder."""
    sys.path.insert(0, request["checkout"])
    optimize = importlib.import_module("optimize")
    lm, words, rm, marks = models(request)
    tokens = torch.tensor(request["tokens"])
    start = initial(request, lm, words, tokens)
    common = {
        "max_iters": request["steps"], "learning_rate": RATE, "reward_coeff": REWARD, "nll_coeff": LIKELIHOOD,
        "mixed_precision": torch.float32, "grad_caching": True, "update_postfix": False, "device": "cpu",
    }  # fmt: skip

    def trainer(ratio: float) -> Any:
        return optimize.LatentTrainer(lm, words, rm, marks, min_lr_ratio=ratio, **common)

    constant, clock, known = trainer(1.0), Clock(), tokens[None, :COMMITTED]
    settled()
    before = resident("VmRSS")
    for _ in range(request["repeats"]):
        gradient = clock.timed(
            "gradient", lambda: constant.compute_gradient_for_onehots(request["prompt"], known, start)[0]
        )
        refined = clock.timed("refine", lambda: constant.optimize(request["prompt"], known, start))
    memory = peak(False) - before
    rows = {"logits": refined["logits"][0, 0], "start": start[0, 0].clone()}
    rows["schedule"] = trainer(0.1).optimize(request["prompt"], known, start)["logits"][0, 0]
    torch.save({"gradient": gradient, **rows}, request["file"])
    samples = clock.samples
    # Its selector takes a gradient, and its refinement another one.
    samples["position"] = [a + b for a, b in zip(samples["gradient"], samples["refine"], strict=True)]
    return {"seconds": samples, "bytes": memory, "gradients": refined["num_grad_steps"]}


@torch.no_grad()
def initial(request: dict[str, Any], lm: Any, words: Any, tokens: Tensor) -> Tensor:
    """Logits ``[1, L, V]`` that the refinement starts from, see above."""
    opening, free = CausalLM(lm, words).encode(Prompt.of(request["prompt"])), tokens[COMMITTED:]
    out = lm(torch.cat([opening, tokens])[None], logits_to_keep=len(free) + 1)
    logits: Tensor = out.logits[:, :-1].clone()
    if int(logits[0, 0].argmax()) != int(free[0]):
        raise SystemExit("The first free token is not the most likely one")
    rows = torch.arange(1, len(free))
    logits[0, rows, free[1:]] = logits[0, 1:].amax(-1) + 1.0
    return logits


def ours(request: dict[str, Any]) -> dict[str, Any]:
    """nabla's side: the response has been read and scored, as after a rollout, when the clock starts."""
    lm_model, words, rm_model, marks = models(request)
    lm = CausalLM(lm_model, words)
    reward = OutcomeReward(rm_model, marks)
    tokens, clock = torch.tensor(request["tokens"]), Clock()
    objective = {"name": "sum", "weights": {"reward": REWARD, "likelihood": LIKELIHOOD}}
    constant = DTO(objective=objective, steps=request["steps"], learning_rate=RATE)
    found: dict[str, Any] = {}
    engine = Engine(lm, reward)

    def run(work: Callable[[Session, Any], Any]) -> None:
        async def whole(session: Session) -> None:
            (trajectory,) = await session.read([tokens], Sampling(max_new_tokens=len(tokens)))
            (trajectory,) = await session.score([trajectory])
            begin = time.process_time()
            name, value = await work(session, trajectory.commit(COMMITTED))
            clock.samples.setdefault(name, []).append(time.process_time() - begin)
            found[name] = value

        drive(engine, [Prompt.of(request["prompt"])], whole)

    async def gradient(session: Session, trajectory: Any) -> Any:
        return "gradient", await session.gradient(trajectory, constant.objective)

    async def refine(session: Session, trajectory: Any) -> Any:
        return "refine", await constant.refine(trajectory, session)

    async def position(session: Session, trajectory: Any) -> Any:
        await session.gradient_norms(trajectory, constant.objective)
        return "position", await constant.refine(trajectory, session)

    settled()
    before = resident("VmRSS")
    run(position)  # what the norms need to know of the embedding table is made once for all responses
    clock.samples.clear()
    settled()
    for _ in range(request["repeats"]):
        for work in (gradient, refine, position):
            run(work)
    memory = peak(False) - before
    refined = found["refine"]
    rows = {"logits": refined.logits[0], "start": refined.reference.logits[0]}
    rows |= further(request, lm, reward, tokens, objective)
    torch.save(rows, request["file"])
    return {
        "seconds": clock.samples,
        "bytes": memory,
        "gradients": refined.recomputed,
        "prompt": len(lm.encode(Prompt.of(request["prompt"]))),
    }


def further(
    request: dict[str, Any], lm: CausalLM, reward: OutcomeReward, tokens: Tensor, objective: Any
) -> dict[str, Tensor]:
    """What is compared and not timed: the row by nabla's own schedule, and the whole gradient ``[L, V]``."""
    dto, rows = DTO(objective=objective, steps=request["steps"]), dict[str, Tensor]()

    async def work(session: Session) -> None:
        (trajectory,) = await session.read([tokens], Sampling(max_new_tokens=len(tokens)))
        trajectory = trajectory.commit(COMMITTED)
        rows["schedule"] = (await dto.refine(trajectory, session)).logits[0]
        gradient = await session.gradient(trajectory, dto.objective)
        total = gradient.total(trajectory_terms(dto.objective), Step())
        reference = session.reference(trajectory, slice(COMMITTED, len(tokens)))
        rows["gradient"] = session.gradient_rows(gradient, total, reference)

    drive(Engine(lm, reward), [Prompt.of(request["prompt"])], work)
    return rows


# -- the process that asks --------------------------------------------------------------------------------


def child(side: str, request: dict[str, Any]) -> dict[str, Any]:
    """What one side measures, in a process of its own. Raises SystemExit with the last line of its error."""
    command = [sys.executable, __file__, "--side", side, json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{side}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compared(request: dict[str, Any], tokens: list[int]) -> dict[str, Any]:
    """One row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        asked = {
            side: {**request, "tokens": tokens, "file": f"{folder}/{side}.pt"}
            for side in ("official", "nabla")
        }
        told = {side: child(side, asked[side]) for side in asked}
        theirs, own = (torch.load(asked[side]["file"], weights_only=True) for side in asked)
    if told["official"]["gradients"] != told["nabla"]["gradients"]:
        raise SystemExit(f"The sides took {[t['gradients'] for t in told.values()]} gradients")
    kept = own["logits"] > -math.inf  # ids that nabla never writes have no logit
    row = {
        "tokens": len(tokens) - COMMITTED,
        "prompt_tokens": told["nabla"]["prompt"],
        "gradient_difference": relative(own["gradient"], theirs["gradient"]),
        "row_difference": apart(moved(own, "logits")[kept], moved(theirs, "logits")[kept]),
        "row_moved": float(moved(theirs, "logits")[kept].abs().max()),
        "schedule_difference": apart(moved(own, "schedule")[kept], moved(theirs, "schedule")[kept]),
        "gradients": told["nabla"]["gradients"],
    }
    for name in ("gradient", "refine", "position"):
        for side in told:
            row[f"{side}_{name}_s"] = round(median(told[side]["seconds"][name]), 4)
    return row | {f"{side}_mb": round(told[side]["bytes"] / 1e6, 1) for side in told}


def moved(rows: dict[str, Tensor], name: str) -> Tensor:
    """By how much refinement changed a row; where it started, two forward passes differ by their rounding."""
    return rows[name] - rows["start"]


def relative(a: Tensor, b: Tensor) -> float:
    """Largest difference over the largest number."""
    return float((a - b).abs().max() / b.abs().max())


def apart(a: Tensor, b: Tensor) -> float:
    """Largest difference."""
    return float((a - b).abs().max())


def told(rows: list[dict[str, Any]]) -> str:
    """The table for people."""
    lines = [
        "| tokens | gradient differs by | refined row differs by (of) | with own schedules | gradient, s "
        "| refinement, s | selector and refinement, s | memory, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        pairs = [
            f"{row[f'official_{what}']:.3g} / {row[f'nabla_{what}']:.3g} "
            f"(× {row[f'official_{what}'] / row[f'nabla_{what}']:.1f})"
            for what in ("gradient_s", "refine_s", "position_s", "mb")
        ]
        lines.append(
            f"| {row['tokens']} | {row['gradient_difference']:.1e} | {row['row_difference']:.1e} "
            f"({row['row_moved']:.2f}) | {row['schedule_difference']:.1e} | {' | '.join(pairs)} |"
        )
    return "\n".join(lines)


SIDES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "write": write, "official": official, "nabla": ours
}  # fmt: skip


def lacking(checkout: Path | None) -> str | None:
    """Why there is nothing to compare with; None if there is."""
    if checkout is None:
        return "no folder with a checkout of VITA-Group/Nabla-Reasoner was given"
    missing = [name for name in NEEDED if not (checkout / name).is_file()]
    return f"{checkout} lacks {', '.join(missing)} of VITA-Group/Nabla-Reasoner" if missing else None


def lengths(text: str) -> list[int]:
    """``48,192`` → numbers."""
    return [int(part) for part in text.split(",")]


def main(arguments: list[str] | None = None) -> None:
    """Measures, prints, and writes ``--out``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkout", type=Path, nargs="?")
    parser.add_argument("--lm", default="smollm2", help="a name or a folder")
    parser.add_argument("--rm", default=None, help="an outcome reward; the LM's body and a drawn head")
    parser.add_argument("--lengths", type=lengths, default=[48, 192, 512])
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the response")
    parser.add_argument("--out", type=Path, default=None, help="a CSV file")
    parser.add_argument("--side", nargs=2, default=None, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if given.side is not None:
        warnings.simplefilter("ignore")
        side, text = given.side
        print("\n" + json.dumps(SIDES[side](json.loads(text))))
        return
    if (why := lacking(given.checkout)) is not None:
        print(f"skipped: {why}")
        return
    request = {k: v for k, v in vars(given).items() if k not in ("out", "side")}
    request["checkout"] = str(given.checkout.resolve())
    digest = hashlib.sha256((given.checkout / NEEDED[0]).read_bytes()).hexdigest()[:12]
    print(f"{NEEDED[0]} {digest}, torch {torch.__version__}, one thread, CPU seconds", flush=True)
    text, rows = child("write", request)["tokens"], list[dict[str, Any]]()
    for length in given.lengths:
        rows.append(compared(request, text[: length + COMMITTED]))
        print(told(rows[-1:]).splitlines()[-1], flush=True)
        if given.out is not None:
            with given.out.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows(rows)
    print(told(rows))


if __name__ == "__main__":
    main()
