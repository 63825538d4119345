"""The same problem twice: for nabla's engine and for the dense reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nabla.core.prompt import Prompt
from nabla.core.trajectory import Trajectory
from nabla.engine.engine import Engine
from nabla.models.causal_lm import CausalLM
from nabla.objectives.base import Objective
from nabla.objectives.likelihood import Likelihood
from nabla.objectives.weighted_sum import WeightedSum
from nabla.rewards.base import Reward
from nabla.rewards.ensemble import EnsembleReward
from nabla.rewards.outcome import OutcomeReward
from nabla.rewards.process import ProcessReward
from tests import tiny
from tests.dense import Dense, DenseLM, DenseRM, Weights

QUESTION = "1+2="
#: Ends as the template does.
FINISHED = "sum 3;\n2+1=3" + tiny.END
UNFINISHED = "sum 3; 2+1=3"
AFTER = {tiny.CHATML: tiny.END + "\n", tiny.OTHER_END: tiny.PAD + "\n", tiny.NO_END: ""}


@dataclass
class Case:
    """A language model, a reward and a prompt, with their dense counterparts."""

    lm: CausalLM
    reward: Reward | None
    engine: Engine
    prompt: Prompt
    dense: Dense

    @property
    def tolerance(self) -> float:
        """Relative; Gemma 2's attention works in float32 whatever the weights are."""
        names = [type(m).__name__ for m in (self.lm.model, *(rm.model for rm in self.dense.rms))]
        return 1e-6 if any(name.startswith("Gemma2") for name in names) else 1e-9

    def close(self, value: Tensor, expected: Tensor, tolerance: float = 0.0) -> None:
        """Equal to the tolerance of the models."""
        close(value, expected, max(tolerance, self.tolerance))

    def trajectory(self, text: str | Tensor, committed: int = 0) -> Trajectory:
        return tiny.trajectory(self.lm, self.prompt, text, committed=committed)

    def run(self, method: Any) -> Any:
        return tiny.drive(self.engine, self.prompt, method)

    def objective(self, **weights: Any) -> Objective:
        """nabla's objective; the dense one is set to the same."""
        self.dense.weights = Weights(**weights)
        detach = weights.pop("detach_context", False)
        if "reverse_kl" in weights:
            weights["reverse-kl"] = weights.pop("reverse_kl")
        parts = {"likelihood": Likelihood(detach)} if "likelihood" in weights else {}
        return WeightedSum(weights, parts)


@dataclass
class RewardSpec:
    """A reward model of a case.

    Args:
        permute: seed of the order of its vocabulary.
        missing: tokens it does not know.
        aggregation: makes it a process model.
        separators: single characters that end its steps.
    """

    arch: str = "qwen2"
    permute: int | None = None
    missing: Sequence[str] = ()
    padded: int = 0
    template: str = tiny.CHATML
    aggregation: str | None = None
    separators: Sequence[str] = ()
    label: int = 0
    labels: int = 1
    seed: int = 7
    weight: float = 1.0
    reuse_prefix: bool = True


#: A plain outcome model over the language model's own tokens.
OUTCOME = RewardSpec()


def case(
    arch: str = "qwen2",
    rewards: RewardSpec | Sequence[RewardSpec] | None = OUTCOME,
    *,
    system: str | None = None,
    padded: int = 0,
    eos: Sequence[str] = (tiny.END,),
    reuse_prefix: bool = True,
    seed: int = 0,
    question: str = QUESTION,
    **engine: Any,
) -> Case:
    """Builds both sides."""
    tok = tiny.tokenizer()
    model = tiny.lm_model(arch, tok, padded=padded, eos=eos, seed=seed)
    lm = CausalLM(model, tok, reuse_prefix=reuse_prefix)
    prompt = Prompt.of(question, id="case", system=system)
    messages = [{"role": m.role, "content": m.content} for m in prompt.messages]
    specs = [rewards] if isinstance(rewards, RewardSpec) else list(rewards or ())
    members, dense_members, blocked = [], [], torch.zeros(len(tiny.TOKENS), dtype=torch.bool)
    for spec in specs:
        own = tiny.tokenizer(permute=spec.permute, missing=spec.missing, template=spec.template)
        index = torch.tensor([own.get_vocab().get(t, -1) for t in tiny.TOKENS])
        arguments: dict[str, Any] = {"minimum_coverage": 0.7, "reuse_prefix": spec.reuse_prefix}
        if spec.aggregation is None:
            rm = tiny.outcome_model(spec.arch, own, padded=spec.padded, seed=spec.seed)
            members.append(OutcomeReward(rm, own, **arguments))
        else:
            rm = tiny.process_model(spec.arch, own, padded=spec.padded, seed=spec.seed, labels=spec.labels)
            arguments |= {"aggregation": spec.aggregation, "step_separators": spec.separators}
            members.append(ProcessReward(rm, own, label=spec.label, **arguments))
        blocked |= torch.tensor([t in spec.missing and t not in eos for t in tiny.TOKENS])
        dense_members.append(
            DenseRM(
                model=rm,
                before=tiny.ids(
                    own,
                    own.apply_chat_template(messages, tokenize=False, add_generation_prompt=True),
                ),
                after=tiny.ids(own, AFTER[spec.template]),
                index=index,
                eos=lm.eos_ids,
                aggregation=spec.aggregation,
                ends=[own.get_vocab()[s] for s in spec.separators] or None,
                label=spec.label,
                weight=spec.weight,
            )
        )
    reward: Reward | None = None
    if len(members) == 1 and specs[0].weight == 1.0:
        reward = members[0]
    elif members:
        reward = EnsembleReward(members, [spec.weight for spec in specs])
    built = Engine(lm, reward, **engine)
    question_ids = tiny.ids(
        tok, tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    )
    dense = Dense(
        DenseLM(model, question_ids, len(tiny.TOKENS), blocked if bool(blocked.any()) else None),
        dense_members,
    )
    return Case(built.lm, built.reward, built, prompt, dense)


def close(value: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    """Equal to ``tolerance`` relative to the largest number."""
    assert value.shape == expected.shape
    assert torch.equal(value.isinf(), expected.isinf())
    value, expected = value.masked_fill(value.isinf(), 0.0), expected.masked_fill(expected.isinf(), 0.0)
    error = (value - expected).abs().max() / expected.abs().max().clamp_min(1e-12)
    assert float(error) <= tolerance, f"relative error {float(error):.2e}"
