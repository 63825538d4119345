"""Responses written by a server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx2 as httpx
import torch

from nabla.core.costs import Usage
from nabla.core.errors import NablaError, ServerError, require_positive
from nabla.rollouts.base import Continuation, Opening, Resources, Rollout


class ServedRollout(Rollout):
    """Any server of ``POST /v1/completions`` that takes a prompt of token ids and returns ids (vLLM's
    ``return_token_ids``); ids never go through text, so that what is scored is what was drawn.

    The log-probabilities must be those at temperature 1 (vLLM's ``raw_logprobs``, its default); a server that
    sends none leaves them NaN. Start vLLM with ``--generation-config vllm``, or it adds the model's own
    defaults (a repetition penalty, say) to these settings.

    Args:
        url: of the server, up to and with ``/v1``.
        model: its name there.
        parameters: of that model, for FLOPs (2 a token written); 0 leaves them out.
        timeout: seconds for one response.
        connections: requests at a time.
    """

    remote = True

    def __init__(
        self, url: str, model: str, parameters: float = 0, timeout: float = 600, connections: int = 64
    ) -> None:
        require_positive(connections=connections)
        self.url, self.model, self.parameters = url, model, parameters
        self.timeout, self.connections = timeout, connections

    def connect(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=self.connections)
        patience = httpx.Timeout(self.timeout, pool=None)  # waiting for a free connection is no failure
        return httpx.AsyncClient(base_url=self.url, timeout=patience, limits=limits)

    async def generate(
        self, openings: Sequence[Opening], resources: Resources
    ) -> list[Continuation | NablaError]:
        return list(await asyncio.gather(*(self._write(opening, resources) for opening in openings)))

    async def _write(self, opening: Opening, resources: Resources) -> Continuation | NablaError:
        vocabulary, given, drawn = resources.vocabulary, opening.response, opening.sampling
        body = {
            "model": self.model,
            "prompt": [*opening.prompt.tolist(), *given.tolist()],
            "max_tokens": vocabulary.room(len(opening.prompt), drawn.max_new_tokens) - len(given),
            "temperature": drawn.temperature,
            "top_p": drawn.top_p,
            "top_k": drawn.top_k or -1,  # -1: all
            "seed": opening.key % 2**31,
            "stop_token_ids": list(vocabulary.eos_ids),
            "logprobs": 1,
            "return_token_ids": True,
        }
        try:
            reply = await resources.connection.post("/completions", json=body)
            (choice,) = reply.raise_for_status().json()["choices"]
            tokens = torch.tensor(choice["token_ids"], dtype=torch.long)
            known = (choice.get("logprobs") or {}).get("token_logprobs") or [float("nan")] * len(tokens)
            log_probs = torch.tensor(known, dtype=torch.float32)
            if len(log_probs) != len(tokens):
                raise ValueError(f"{len(log_probs)} log-probabilities of {len(tokens)} tokens")
        except (httpx.HTTPError, KeyError, TypeError, ValueError, RuntimeError) as error:
            return ServerError(f"{self.url} gave no response: {error!r}", got=opening.account.problem)
        written = Usage(decode_steps=len(tokens), tokens=len(tokens), flops=2 * self.parameters * len(tokens))
        opening.account.add(written)
        finished = not set(vocabulary.eos_ids).isdisjoint(tokens[-1:].tolist())
        return Continuation(tokens, finished, log_probs, keyed=False)
