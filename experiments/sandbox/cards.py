"""The text of the model cards."""

from __future__ import annotations

import re
from typing import Any

from experiments.sandbox.common import training_task
from nabla.problems.sandbox import TASKS, ModelInfo

BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"

_LOADERS = {
    "policy": "AutoModelForCausalLM",
    "reward": "AutoModelForSequenceClassification",
    "process-reward": "AutoModelForTokenClassification",
}
_ROLES = {
    "policy": "A policy: it answers prompts of the family.",
    "reward": "An outcome reward: one logit for the whole conversation, read at its last token.",
    "process-reward": (
        "A process reward: at every token of the response, a logit that everything up to it is "
        "right. Prompt tokens were trained, with a tenth of the weight, to count as right."
    ),
}
_QUALITY = {
    "full": "This is the family's main model of this role.",
    "weak": "This is an earlier checkpoint of the main model's run, of visibly lower quality.",
    "poor": "This is a very early checkpoint of the main model's run, for tests with bad models.",
}
_FAMILY = {
    "latin": (
        "6x6 Latin squares, drawn uniformly; the positions of the clues are uniform, and so is "
        "their number"
    ),
    "arithmetic": (
        "a two-digit number times a digit, then three additions or subtractions of two-digit "
        "numbers, no intermediate value negative"
    ),
}
_POLICY_DATA = "Fresh problems of the training split at every step; each solution is the one drawn."
_REWARD_DATA = (
    "Pairs of a right and a wrong response to the same training problem. A share of {near} of the "
    "wrong ones were made on the fly (near misses, and texts with many digits replaced); the "
    "others are samples of the policy at steps {samplers}, at temperatures 0.5, 0.7, 1.0 and 1.3, "
    "for {pool} problems. The body starts from the policy at step {body} and has three more "
    "layers. Outcome and process reward were trained together, with auxiliary losses: the "
    "policy's next-token loss at the layer where the policy ended (weight {lm}), what was expected "
    "in a token's place one layer on, what the token is itself at both, and the policy's "
    "probability of that token another layer on."
)


_VERDICT_ROLE = (
    "An outcome reward on a body of its own: it was told the verdict at the last token, and of no token "
    "before it whether anything was wrong yet. What its head says within a text is a guess."
)
_SUCCESS_ROLE = (
    "A process reward: at every token of the response, the log-odds that `{family}-policy`, sampling at "
    "temperature 0.7, still comes to a right answer. It heard of verdicts on whole texts alone."
)
_VERDICT_DATA = (
    "Pairs of a right and a wrong response to the same training problem. A share of {near} of the wrong ones "
    "were made on the fly (near misses, and texts with many digits replaced); the others are samples of the "
    "family's three shipped policies at temperatures 0.5, 0.7, 1.0 and 1.3, for {pool} problems. The body "
    "starts from `{body}` and has three more layers. The losses are the verdict at the last token, the "
    "ranking of each pair, and the next-token loss of right responses at the layer where the policy ended "
    "(weight {lm}); nothing else."
)
_SUCCESS_DATA = (
    "{texts} texts that the policy wrote for {problems} training problems: {roots} responses to each, and "
    "{continuations} continuations from each of {prefixes} random prefixes of every response. A token's "
    "label is the share of right answers among the texts that were drawn at or before it and begin alike. "
    "The labels cost {label_flops:.2g} FLOPs. The body starts from the layers of `{body}` where a policy "
    "ends, which no label has reached, and has three more. Beside the labels: the next-token loss of right "
    "responses there (weight {lm}) and losses without any label, of what the policy expected in a token's "
    "place against what stands there; for these a share of {fresh} of the texts are right responses and "
    "others with many digits replaced."
)
#: Weights that a token meets in the seven layers, and tokens of a conversation, to count training with.
_WEIGHTS, _TOKENS = 1_490_944, {"latin": 92, "arithmetic": 62}


def training_flops(family: str, step: int, batch: int) -> float:
    """Forward and backward, 6 FLOPs a weight and token; attention is a hundredth of it here."""
    return 6.0 * _WEIGHTS * _TOKENS[family] * batch * step


def _role(info: ModelInfo) -> str:
    if info.target == "marks":
        return f"{_ROLES[info.role]} {_QUALITY[info.quality]}"
    return (_VERDICT_ROLE if info.target == "verdict" else _SUCCESS_ROLE).format(family=info.family)


def _how(info: ModelInfo, recipe: dict[str, Any], labels: dict[str, float]) -> tuple[str, str]:
    """(data and losses, the command that trains)."""
    if info.role == "policy":
        return _POLICY_DATA, f"train_policy --task {info.family}"
    if info.target == "marks":
        return _REWARD_DATA.format(**recipe), f"train_reward --task {info.family}"
    target = "outcome-only" if info.target == "verdict" else "success"
    told = _VERDICT_DATA if info.target == "verdict" else _SUCCESS_DATA
    command = f"train_verifier --task {info.family} --target {target}"
    if info.target == "success":
        command = f"success_labels --task {info.family}\n    python -m experiments.sandbox.{command}"
    return told.format(**recipe, **labels), command


def card(
    info: ModelInfo, step: int, recipe: dict[str, Any], labels: dict[str, float] | None = None
) -> str:
    """A model card with room for the figures that `gates.py` measures; `labels` are figures of Monte Carlo
    labels."""
    policy = info.role == "policy"
    loader = _LOADERS[info.role]
    data, command = _how(info, recipe, labels or {})
    flops = training_flops(info.family, step, recipe["batch"])
    spent = "" if info.target == "marks" else f" About {flops:.2g} FLOPs of training."
    default = TASKS[info.family]
    trained = default if info.target == "success" else training_task(info.family)
    return f"""---
license: apache-2.0
library_name: transformers
---

# {info.name}

{_role(info)}

Family: {_FAMILY[info.family]}. Difficulty in training `{trained}`, in the measurements below
`{default}` (the default).

```python
from transformers import {loader}, AutoTokenizer

from nabla.problems.sandbox import model_path

model = {loader}.from_pretrained(model_path("{info.name}"))
tokenizer = AutoTokenizer.from_pretrained(model_path("{info.name}"))
```

Weights are stored in float16 and load in float32. The architecture is Qwen3 at width 128 with
{4 if policy else 7} layers and a character-level vocabulary. Texts are to be rendered by the chat
template, without a system message.

## Data and recipe

{data} The test split (a hash of the problem decides) was never trained on.

Step {step} of {recipe["steps"]}, batch {recipe["batch"]}, peak learning rate {recipe["lr"]}.
Muon for the matrices of the layers and AdamW for the rest, 50 steps of warm-up, cosine decay to a
twentieth, seed 0, float32 on one CPU core.{spent}

    python -m experiments.sandbox.{command}
    python -m experiments.sandbox.export --task {info.family}
    python -m experiments.sandbox.gates --task {info.family}

## Measured

{BEGIN}
Not measured yet.
{END}
"""


def fill(text: str, table: str) -> str:
    """The card with its figures replaced."""
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n{table}\n{END}", text)
