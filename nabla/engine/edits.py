"""New trajectories from old ones: written by a rollout, a token replaced, a tail joined on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from nabla.core.prompt import Prompt
from nabla.core.trajectory import Trajectory
from nabla.models.causal_lm import CausalLM
from nabla.rollouts.base import Continuation, Opening


def trajectory_of(part: Continuation, opening: Opening, prompt: Prompt) -> Trajectory:
    """What a rollout wrote behind its opening, as a response of its own."""
    return Trajectory(
        prompt=prompt,
        tokens=part.tokens,
        finished=part.finished,
        hidden=part.hidden,
        log_probs=part.log_probs,
        entropy=part.entropy,
        top1=part.top1,
        noise_keys=torch.full_like(part.tokens, opening.key),
        sampling=opening.sampling,
    )


def joined(head: Trajectory, tail: Trajectory) -> Trajectory:
    """The tail behind the head."""
    names = ("tokens", "hidden", "log_probs", "entropy", "top1", "noise_keys")
    merged: dict[str, Any] = {
        name: torch.cat([getattr(head, name), getattr(tail, name).to(getattr(head, name).device)])
        for name in names
    }
    return replace(head, finished=tail.finished, **merged)


@torch.no_grad()
def replaced(lm: CausalLM, trajectory: Trajectory, position: int, token: int) -> Trajectory:
    """``y_<position`` and ``token``; its log-probability follows from the row's known one."""
    end = position + 1
    log_probs = trajectory.log_probs[:end].clone()
    old = int(trajectory.tokens[position])
    if token != old:
        pair = torch.tensor([token, old])
        new_logit, old_logit = lm.head.logits(trajectory.hidden[position], pair).tolist()
        log_probs[position] += new_logit - old_logit
    tokens = trajectory.tokens[:end].clone()
    tokens[position] = token
    return replace(
        trajectory,
        tokens=tokens,
        finished=token in lm.vocabulary.eos_ids,
        hidden=trajectory.hidden[:end],
        log_probs=log_probs,
        entropy=trajectory.entropy[:end],
        top1=trajectory.top1[:end],
        noise_keys=trajectory.noise_keys[:end],
        reward=None,
    )
