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


def card(info: ModelInfo, step: int, recipe: dict[str, Any]) -> str:
    """A model card with room for the figures that `gates.py` measures."""
    policy = info.role == "policy"
    script = "train_policy" if policy else "train_reward"
    loader = _LOADERS[info.role]
    data = _POLICY_DATA if policy else _REWARD_DATA.format(**recipe)
    trained, default = training_task(info.family), TASKS[info.family]
    return f"""---
license: apache-2.0
library_name: transformers
---

# {info.name}

{_ROLES[info.role]} {_QUALITY[info.quality]}

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
twentieth, seed 0, float32 on one CPU core.

    python -m experiments.sandbox.{script} --task {info.family}
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
