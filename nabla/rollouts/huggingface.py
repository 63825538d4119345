"""Batched decoding of a transformers model in this process."""

from __future__ import annotations

from collections.abc import Sequence

from nabla.core.errors import NablaError, require_positive
from nabla.models.causal_lm import require_lm
from nabla.rollouts.base import Continuation, Opening, Resources, Rollout, Writer, rollouts
from nabla.rollouts.decoder import Decoder

#: Steps after which a call of a writer comes back at the latest.
BURST = 64


@rollouts.register("huggingface")
class HuggingFaceRollout(Rollout):
    """Decodes rows of different prompts together, with key/value cache and per-row Gumbel noise. A row joins
    when another one has ended.

    Args:
        batch_size: rows decoded together at the most.
    """

    def __init__(self, batch_size: int = 64) -> None:
        require_positive(batch_size=batch_size)
        self.batch_size = batch_size

    async def generate(
        self, openings: Sequence[Opening], resources: Resources
    ) -> list[Continuation | NablaError]:
        decoder = self._decoder(resources, joins=False)
        numbers = decoder.submit(openings)
        found: dict[int, Continuation | NablaError] = {}
        while decoder.busy:
            found |= decoder.advance(BURST, len(openings))
        return [found[number] for number in numbers]

    def writer(self, resources: Resources) -> Writer | None:
        """None where a subclass, or somebody who set it on the instance, has a ``generate`` of its own."""
        own = type(self).generate is HuggingFaceRollout.generate and "generate" not in vars(self)
        return self._decoder(resources) if own else None

    def _decoder(self, resources: Resources, joins: bool = True) -> Writer:
        lm = require_lm(resources.lm, "The rollout 'huggingface' decodes in this process")
        return Decoder(lm, resources.runner, self.batch_size, resources.rollout_bytes, joins=joins)
