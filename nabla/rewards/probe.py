"""What a reward model over transformers is asked at load: whether the engine can run it on embeddings."""

from __future__ import annotations

import logging

import torch
from jaxtyping import Int
from torch import Tensor

from nabla.core.errors import ModelError
from nabla.core.prompt import Message
from nabla.models.body import EMPTY, Body, Chunk
from nabla.models.chat import ChatFormat

log = logging.getLogger(__name__)

#: Read at load, as a conversation with its answer.
QUESTION, ANSWER = "1+2=", "3"


def compare_renderings(chat: ChatFormat, messages: tuple[Message, ...]) -> None:
    """What a template does to a question and before an answer: a missing question is an error, another
    beginning of the answer is said."""
    before, _ = chat.surroundings(messages)
    if QUESTION not in before:
        raise ModelError(
            "The reward model's chat template does not write the question",
            got=before[-80:],
            fix="Pass a chat_template that writes what the user says.",
        )
    prompt = chat.generation(messages)
    if not before.startswith(prompt) or before != prompt:
        log.warning(
            "The reward model's template begins an answer of a finished conversation in another way (%r) "
            "than one that is to be written (%r): answers are read as in a finished conversation",
            before[-40:],
            prompt[-40:],
        )


@torch.no_grad()
def require_causal(body: Body, ids: Int[Tensor, " n"], name: str) -> None:
    """A state may not depend on what comes behind it, nor on a row's neighbours: beyond windows, too.

    Raises ModelError for models with bidirectional attention, and for those that do not take embeddings.
    """
    limit = body.context_length or 512
    windows = [getattr(body.config, key, None) or 0 for key in ("sliding_window", "attention_window")]
    window = max((w for w in windows if isinstance(w, int)), default=0)
    long = min(limit, max(len(ids), 12, min(window, 200) + 8))
    tokens = ids.repeat(long // max(len(ids), 1) + 1)[:long]
    try:
        embedded = body.embed(tokens)
        changed = embedded.clone()
        changed[-1] = -changed[-1] + embedded[0]
        (whole,) = body.run([Chunk(EMPTY, embedded)])
        (other,) = body.run([Chunk(EMPTY, changed)])
        half = embedded[: max(1, long // 2)]
        together = body.run([Chunk(EMPTY, half), Chunk(EMPTY, embedded)])
        (alone,) = body.run([Chunk(EMPTY, half)])
    except (IndexError, TypeError, ValueError, RuntimeError, AttributeError, KeyError) as error:
        raise ModelError(
            f"{name} cannot be run on embeddings as a causal decoder: {error!r}",
            fix="Encoders (BERT, RoBERTa, ELECTRA, ...) are not supported: use a decoder reward model.",
        ) from error
    # Some models work in float32 whatever their weights are.
    tolerance = {torch.float64: 1e-5, torch.float32: 1e-3}.get(embedded.dtype, 5e-2)
    pairs = ((other.hidden[:-1], whole.hidden[:-1]), (together[0].hidden, alone.hidden))
    for found, expected in pairs:
        size = expected.double().norm().clamp_min(1e-12)
        if float((found.double() - expected.double()).norm() / size) > tolerance:
            raise ModelError(
                f"{name} is not causal: its states depend on the tokens behind them",
                fix="Encoders and models with bidirectional attention are not supported: use a decoder.",
            )
