"""What a reward says at each token, once per prefix of a problem's texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from jaxtyping import Int
from torch import Tensor

from nabla.core.costs import Account
from nabla.core.prompt import Prompt
from nabla.core.trajectory import Score, Trajectory
from nabla.engine.completion import Text, with_scores
from nabla.engine.requests import JudgeRequest, Wait
from nabla.rewards.base import Reading, Response, Reward


@dataclass
class _Node:
    """Behind a prefix: the values of the tokens that have come next, where texts went on behind them, and
    where they were the last."""

    values: dict[int, float] = field(default_factory=dict)
    last: dict[int, float] = field(default_factory=dict)
    next: dict[int, _Node] = field(default_factory=dict)


class Judgements:
    """Values of one problem's texts. Texts that begin alike share those of their common prefix; the last
    token's only if the reward says so (``reads_every_token``): the step that ends with a text may be another
    one where the text goes on."""

    def __init__(self) -> None:
        self._roots: dict[Prompt, _Node] = {}

    def known(self, prompt: Prompt, tokens: Int[Tensor, " length"]) -> list[float]:
        """Values of the leading tokens that are known."""
        node, found = self._roots.get(prompt), []
        for behind, token in zip(reversed(range(len(tokens))), tokens.tolist(), strict=True):
            known = {} if node is None else (node.values if behind else node.last)
            if node is None or token not in known:
                break
            found.append(known[token])
            node = node.next.get(token)
        return found

    def keep(
        self, prompt: Prompt, tokens: Int[Tensor, " length"], values: Sequence[float], every: bool
    ) -> None:
        """Values of all tokens of a text; a value that is known already stays as it is.

        Args:
            prompt: what the text answers.
            tokens: of the text.
            values: one for each.
            every: each is its prefix's, whatever follows.
        """
        node = self._roots.setdefault(prompt, _Node())
        for behind, (token, value) in zip(
            reversed(range(len(tokens))), zip(tokens.tolist(), values, strict=True), strict=True
        ):
            if behind or every:
                value = node.values.setdefault(token, value)
            if not behind or every:
                node.last.setdefault(token, value)
            node = node.next.setdefault(token, _Node())

    def agreed(self, trajectory: Trajectory, reward: Reward | None, account: Account) -> Score:
        """The score of a text, by the values that are known of its prefixes where it is a function of them.

        The same prefix read in two batches differs in its last bits: texts that share their worst step would
        not tie, and which of them wins would depend on what else was asked for.
        """
        score = trajectory.score
        assert score is not None
        if reward is None or not reward.has_values or not score.steps or min(score.ends) < 0:
            return score
        prompt, tokens = trajectory.prompt, trajectory.tokens
        values, response = score.by_token(len(tokens)), Response(prompt, tokens, account)
        if reward.together(values, response) is None:
            return score
        self.keep(prompt, tokens, values, reward.reads_every_token)
        values = self.known(prompt, tokens)
        total = reward.together(values, response)
        assert total is not None
        return Score(total, tuple(values[end] for end in score.ends), score.ends)


async def _read(
    trajectories: Sequence[Trajectory], judgements: Judgements, reward: Reward, account: Account
) -> None:
    """Asks for the values that are not known yet, all in one batch."""
    requests: dict[tuple[Prompt, tuple[int, ...]], JudgeRequest] = {}
    every = reward.reads_every_token
    for trajectory, own in zip(trajectories, account.branches(len(trajectories)), strict=True):
        prompt, tokens = trajectory.prompt, trajectory.tokens
        known = len(judgements.known(prompt, tokens))
        if known == len(tokens):
            continue
        if not reward.has_values:
            judgements.keep(prompt, tokens, [math.nan] * len(tokens), True)
            continue
        response = Response(prompt, tokens, own)
        free = reward.of_policy(trajectory.log_probs.tolist(), response)
        if free is not None and not any(map(math.isnan, free)):
            judgements.keep(prompt, tokens, free, every)
            continue
        reading = Reading(response, known)
        requests.setdefault((prompt, tuple(tokens.tolist())), JudgeRequest(own, reading))
    found: list[list[float]] = await Wait(list(requests.values())) if requests else []
    for request, new in zip(requests.values(), found, strict=True):
        response = request.reading.response
        before = judgements.known(response.prompt, response.tokens)[: request.reading.known]
        judgements.keep(response.prompt, response.tokens, [*before, *new], every)


async def with_values(
    trajectories: Sequence[Trajectory],
    judgements: Judgements,
    scores: dict[Text, Score],
    reward: Reward,
    ended: Callable[[Trajectory], bool],
    account: Account,
) -> list[Trajectory]:
    """The trajectories with their values; see :meth:`nabla.engine.session.Session.judge`.

    Args:
        trajectories: finished or not.
        judgements: of the problem; they grow.
        scores: the first score of each finished text, which stays its score; they grow.
        reward: of the run.
        ended: whether a response is at its end.
        account: who pays.
    """
    await _read(trajectories, judgements, reward, account)
    # An outcome reward is no function of its values: it reads what the template writes behind an answer.
    values = [judgements.known(t.prompt, t.tokens) for t in trajectories]
    totals = [
        reward.together(row, Response(t.prompt, t.tokens, account))
        for row, t in zip(values, trajectories, strict=True)
    ]
    outcomes = [i for i, t in enumerate(trajectories) if totals[i] is None and ended(t)]
    unscored = [replace(trajectories[i], score=None) for i in outcomes]
    for i, scored in zip(outcomes, await with_scores(unscored, scores, reward, account), strict=True):
        totals[i] = scored.reward
    judged = []
    for trajectory, row, total in zip(trajectories, values, totals, strict=True):
        ends = tuple(i for i, value in enumerate(row) if not math.isnan(value))
        steps = tuple(row[i] for i in ends)
        if total is None:
            total = steps[-1] if steps else math.nan
        elif ended(trajectory):
            text = (trajectory.prompt, tuple(trajectory.tokens.tolist()))
            total = scores.setdefault(text, Score(total, steps, ends)).value
        judged.append(trajectory.with_score(Score(total, steps, ends)))
    return judged
