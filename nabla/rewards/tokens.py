"""What a transformers reward says at each token of an answer that need not be finished."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from nabla.core.costs import Usage
from nabla.models.body import Chunk
from nabla.rewards.base import Reading

if TYPE_CHECKING:
    from nabla.models.runner import Runner
    from nabla.rewards.transformer import TransformerReward


@torch.no_grad()
def token_values(
    reward: TransformerReward, texts: Sequence[Reading], runner: Runner
) -> list[list[float]]:
    """See :meth:`nabla.rewards.base.Reward.values`. Read within the answer: what the template writes behind
    it is not run. A token that has no id of its own in the reward's reading has no value."""
    found = [[math.nan] * (len(text.response.tokens) - text.known) for text in texts]
    # Of each text: tokens that are read, and where they stand in the reward's ids.
    reads, chunks, rows = [], [], []
    for text in texts:
        layout = reward.layout(text.response)
        first = len(layout.before)
        own = [(i, first + at) for i, at in reward.token_places(layout) if i >= text.known and at >= 0]
        reads.append(own)
        rows.append(layout.tokens[: own[-1][1] + 1] if own else layout.tokens[:0])
    todo = [i for i, own in enumerate(reads) if own]
    accounts = [texts[i].response.account for i in todo]
    for i, account in zip(todo, accounts, strict=True):
        known = runner.store.get(account.problem, reward.body, rows[i][: reads[i][0][1]])
        chunks.append(Chunk(known, reward.body.embed(rows[i][len(known) :])))
    outputs = runner.forward(reward.body, chunks, accounts, keep=True)
    for i, account, chunk, output in zip(todo, accounts, chunks, outputs, strict=True):
        runner.store.put(account.problem, reward.body, rows[i], output.keys)
        at = torch.tensor([place - len(chunk.prefix) for _, place in reads[i]])
        hidden = output.hidden[at.to(output.hidden.device)]
        values = reward.token_rewards(hidden).tolist()
        labels = int(getattr(reward.model.config, "num_labels", 1))
        account.meter.add(account.phase, Usage(flops=2.0 * hidden.numel() * labels))
        for (token, _), value in zip(reads[i], values, strict=True):
            found[i][token - texts[i].known] = value
    return found
