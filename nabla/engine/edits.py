"""New trajectories from old ones: written by a rollout, a token replaced, a tail joined on."""

from __future__ import annotations

import torch
from torch import Tensor

from nabla.core.errors import ConfigError
from nabla.core.prompt import Prompt
from nabla.core.sampling import Sampling
from nabla.core.trajectory import States, Trajectory
from nabla.core.values import changed
from nabla.models.causal_lm import CausalLM
from nabla.models.vocabulary import Vocabulary
from nabla.rollouts.base import Continuation, Opening


def trajectory_of(part: Continuation, opening: Opening, prompt: Prompt) -> Trajectory:
    """What a rollout wrote behind its opening, as a response of its own."""
    return trajectory_from(part, prompt, opening.sampling, opening.key)


def trajectory_from(
    part: Continuation, prompt: Prompt, sampling: Sampling, key: int, committed: int = 0
) -> Trajectory:
    """A response that was written or read, as one that later continuations are drawn behind."""
    return Trajectory(
        prompt=prompt,
        tokens=part.tokens,
        finished=part.finished,
        log_probs=part.log_probs,
        sampling=sampling,
        states=part.states,
        noise_keys=torch.full_like(part.tokens, key) if part.keyed else None,
        committed=committed,
    )


def joined(head: Trajectory, tail: Trajectory) -> Trajectory:
    """The tail behind the head, not judged yet; what only one of both knows is not known of the whole."""
    states = noise_keys = None
    if head.states is not None and tail.states is not None:
        names = ("hidden", "entropy", "top1")
        states = States(*(_behind(getattr(head.states, n), getattr(tail.states, n)) for n in names))
    if head.noise_keys is not None and tail.noise_keys is not None:
        noise_keys = _behind(head.noise_keys, tail.noise_keys)
    return changed(
        head,
        tokens=_behind(head.tokens, tail.tokens),
        finished=tail.finished,
        log_probs=_behind(head.log_probs, tail.log_probs),
        states=states,
        noise_keys=noise_keys,
        score=None,
    )


def cut(trajectory: Trajectory, length: int) -> Trajectory:
    """The first ``length`` tokens of a response, none of them its end; not judged yet.

    Raises ConfigError for a length that the response does not have, or below its committed tokens.
    """
    if not trajectory.committed <= length <= len(trajectory):
        raise ConfigError(
            "A response is cut behind its committed tokens",
            got=length,
            fix=f"Choose a length from {trajectory.committed} to {len(trajectory)}.",
        )
    states = trajectory.states
    if states is not None:
        states = States(states.hidden[:length], states.entropy[:length], states.top1[:length])
    return changed(
        trajectory,
        tokens=trajectory.tokens[:length],
        finished=trajectory.finished and length == len(trajectory),
        log_probs=trajectory.log_probs[:length],
        states=states,
        noise_keys=None if trajectory.noise_keys is None else trajectory.noise_keys[:length],
        score=None,
    )


def _behind(one: Tensor, other: Tensor) -> Tensor:
    return torch.cat([one, other.to(one.device)])


@torch.no_grad()
def replaced(
    vocabulary: Vocabulary, lm: CausalLM | None, trajectory: Trajectory, position: int, token: int
) -> Trajectory:
    """``y_<position`` and ``token``; its log-probability follows from the row's known one, and is NaN where
    the row's state is not known.

    Raises ConfigError for a position outside the response or before its first uncommitted one.
    """
    if not trajectory.committed <= position < len(trajectory):
        raise ConfigError(
            "A fork replaces a token of the response that is not committed yet",
            got=position,
            fix=f"Choose a position from {trajectory.committed} to {len(trajectory) - 1}.",
        )
    end, states = position + 1, trajectory.states
    log_probs = trajectory.log_probs[:end].clone()
    old = int(trajectory.tokens[position])
    if token != old and lm is not None and states is not None:
        pair = torch.tensor([token, old])
        new_logit, old_logit = lm.head.logits(states.hidden[position], pair).tolist()
        log_probs[position] += new_logit - old_logit
    elif token != old:
        log_probs[position] = float("nan")
    if states is not None:
        states = States(states.hidden[:end], states.entropy[:end], states.top1[:end])
    tokens = trajectory.tokens[:end].clone()
    tokens[position] = token
    return changed(
        trajectory,
        tokens=tokens,
        finished=token in vocabulary.eos_ids,
        log_probs=log_probs,
        states=states,
        noise_keys=None if trajectory.noise_keys is None else trajectory.noise_keys[:end],
        score=None,
    )
