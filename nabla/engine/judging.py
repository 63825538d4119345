"""Passes over given responses: the reward scores them, the language model reads them; their graphs stay where
a gradient may be asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from nabla.core.costs import Usage
from nabla.core.errors import ConfigError
from nabla.core.trajectory import Score, States
from nabla.engine.gradient.graphs import FreeText, Graphs, KeptStates, Place, backward_usage, groups
from nabla.engine.requests import ReadRequest, ScoreRequest
from nabla.models.activations import graph_bytes
from nabla.models.body import Chunk, Prefix
from nabla.models.causal_lm import CausalLM
from nabla.models.head import Head
from nabla.models.runner import Runner
from nabla.models.vocabulary import Vocabulary
from nabla.rewards.base import RelaxedResponse, Response, Reward
from nabla.rollouts.base import Continuation


def score(
    reward: Reward, runner: Runner, graphs: Graphs, requests: Sequence[ScoreRequest]
) -> list[Score]:
    """A score for each request.

    Args:
        reward: judges.
        runner: counts and batches.
        graphs: where those that may be asked for are kept.
        requests: for scores.
    """
    free = [
        len(r.response.tokens) - r.free if r.free is not None and graphs.on and reward.keeps_graphs else 0
        for r in requests
    ]
    found: dict[int, Score] = {}
    plain = [i for i, count in enumerate(free) if count == 0]
    if plain:
        responses = [requests[i].response for i in plain]
        scores = _checked(reward, responses, reward.score(responses, runner))
        found.update(zip(plain, scores, strict=True))
    differentiable = [i for i, count in enumerate(free) if count > 0]
    for group in groups([free[i] for i in differentiable], runner.split):
        rows = [differentiable[place] for place in group]
        scores = _with_graph(reward, runner, graphs, [requests[i] for i in rows])
        found.update(zip(rows, scores, strict=True))
    return [found[i] for i in range(len(requests))]


def _checked(reward: Reward, responses: Sequence[Response], scores: Any) -> list[Score]:
    """What a reward's ``score`` has returned. Raises ConfigError for anything but a Score for each response:
    a number, and steps with their places in the response."""
    name = type(reward).__name__
    found = list(scores) if isinstance(scores, Iterable) else [scores]
    if len(found) != len(responses):
        raise ConfigError(f"{name}.score must return a Score for each response", got=scores)
    for score, response in zip(found, responses, strict=True):
        number = isinstance(score, Score) and isinstance(score.value, Real)
        if not number or len(score.steps) != len(score.ends):
            raise ConfigError(
                f"{name}.score must return Score objects: Score(value), or Score(value, steps, ends) with an "
                "end for each step",
                got=score,
            )
        if any(not -1 <= end < len(response.tokens) for end in score.ends):
            raise ConfigError(
                f"{name}.score gives steps that end outside the response of {len(response.tokens)} tokens",
                got=score.ends,
            )
    return found


def _with_graph(
    reward: Reward, runner: Runner, graphs: Graphs, requests: Sequence[ScoreRequest]
) -> list[Score]:
    """By passes that share a graph; without it, if there is no room for it."""
    place = graphs.place()
    texts = [RelaxedResponse(request.response, request.free or 0) for request in requests]
    try:
        judged = reward.judged(texts, runner, place)
    except BaseException:
        place.close()
        raise
    known = [item.reward for item in judged if item.reward is not None]
    if place.open and len(known) == len(judged):
        rows = [
            FreeText(r.account, r.response.prompt, r.response.tokens, r.free or 0) for r in requests
        ]
        graphs.keep_rewards(rows, known, place)
    else:
        place.close()
        for request in requests:
            request.account.meter.count("graphs_refused")
    return [item.score for item in judged]


def read(
    lm: CausalLM,
    vocabulary: Vocabulary,
    runner: Runner,
    graphs: Graphs,
    requests: Sequence[ReadRequest],
) -> list[Continuation]:
    """What the language model knows of each response, as if it had written it.

    Args:
        lm: reads.
        vocabulary: its own.
        runner: counts and batches.
        graphs: where those that may be asked for are kept.
        requests: for states.
    """
    places = [_place(lm, graphs, request) for request in requests]
    try:
        found = _read(lm, runner, graphs, requests, places)
    except BaseException:
        for place in places:
            if place is not None:
                place.close()
        raise
    return [
        _continuation(lm.head, vocabulary, request, hidden)
        for request, hidden in zip(requests, found, strict=True)
    ]


@torch.no_grad()
def _read(
    lm: CausalLM,
    runner: Runner,
    graphs: Graphs,
    requests: Sequence[ReadRequest],
    places: Sequence[Place | None],
) -> list[Tensor]:
    """The states that predict each response's tokens. Where there is a place for a graph, a first pass runs
    up to the free part and a second one over it alone."""
    body, chunks = lm.body, []
    texts = [torch.cat([request.prompt, request.tokens]) for request in requests]
    for request, text, place in zip(requests, texts, places, strict=True):
        until = len(text) if place is None else len(request.prompt) + (request.free or 0)
        known = runner.known(body, request.prompt[:-1], request.account)
        chunks.append(Chunk(known, body.embed(text[len(known) : until])))
    outputs = runner.forward(body, chunks, [r.account for r in requests], keep=True)
    found = []
    for request, text, place, output in zip(requests, texts, places, outputs, strict=True):
        hidden, keys = output.hidden, output.keys
        if place is not None:
            start = request.free or 0
            leaf = body.embed(request.tokens[start:]).requires_grad_()
            chunk = Chunk(Prefix(text[: len(text) - len(leaf)], keys), leaf)
            with torch.enable_grad():
                (rest,) = runner.forward(body, [chunk], [request.account], keep=True)
            if place.open:
                free = FreeText(request.account, request.text, request.tokens, start)
                states = KeptStates(leaf, rest.hidden, backward_usage(body, chunk), start)
                graphs.keep_states(free, states, place)
            hidden, keys = torch.cat([hidden, rest.hidden.detach()]), rest.keys
        runner.store.put(request.account.problem, body, text, keys)
        # A view would keep the whole batch's states alive.
        found.append(hidden[-len(request.tokens) - 1 : -1].clone())
    return found


def _place(lm: CausalLM, graphs: Graphs, request: ReadRequest) -> Place | None:
    """Room for the graph of a response, if one is wanted and there is room."""
    count = 0 if request.free is None else len(request.tokens) - request.free
    if not graphs.on or count < 2 or not lm.body.reuse_prefix:
        return None
    place = graphs.place()
    if place(graph_bytes(lm.body, 1, count, len(request.prompt) + len(request.tokens) - count)):
        return place
    request.account.meter.count("graphs_refused")
    return None


@torch.no_grad()
def _continuation(
    head: Head, vocabulary: Vocabulary, request: ReadRequest, hidden: Tensor
) -> Continuation:
    tokens, account = request.tokens, request.account
    account.meter.add(account.phase, Usage(flops=head.flops(len(tokens))))
    rows = head.partition(hidden, moments=True)
    own = head.logits(hidden, tokens.unsqueeze(-1))[:, 0]
    log_probs = (own - rows.log_z).cpu()
    entropy = (rows.log_z - rows.mean).clamp_min(0).cpu()
    top1 = (rows.top - rows.log_z).exp().cpu()
    finished = int(tokens[-1]) in vocabulary.eos_ids
    return Continuation(tokens, finished, log_probs, States(hidden, entropy, top1))
