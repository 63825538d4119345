"""What a reward model over transformers is asked at load: whether the engine can run it on embeddings."""

from __future__ import annotations

import logging

from jaxtyping import Int
from torch import Tensor

from nabla.core.errors import ModelError
from nabla.core.prompt import Message
from nabla.models.body import Body
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


def beyond_windows(body: Body, ids: Int[Tensor, " n"]) -> Int[Tensor, " m"]:
    """A text that is repeated until it is longer than the model's windows."""
    limit = body.context_length or 512
    windows = [getattr(body.config, key, None) or 0 for key in ("sliding_window", "attention_window")]
    window = max((w for w in windows if isinstance(w, int)), default=0)
    long = min(limit, max(len(ids), 12, min(window, 200) + 8))
    return ids.repeat(long // max(len(ids), 1) + 1)[:long]
