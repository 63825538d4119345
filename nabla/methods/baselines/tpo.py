"""Test-time preference optimisation, in words instead of gradients: TPO (arXiv 2501.12895)."""

from __future__ import annotations

from dataclasses import replace
from string import Formatter
from typing import TYPE_CHECKING, Any

from nabla.core.errors import ConfigError, PromptError, require_positive
from nabla.core.prompt import Message, Prompt
from nabla.core.registry import construct
from nabla.core.sampling import Sampling
from nabla.core.solution import Solution
from nabla.core.trajectory import Trajectory
from nabla.methods.base import Method, methods
from nabla.models.causal_lm import require_lm
from nabla.models.templates import PLAIN
from nabla.rewards.base import require_reward

if TYPE_CHECKING:
    from nabla.engine.engine import Engine
    from nabla.engine.session import Session

CRITIQUE = (
    "Two answers to the same question follow. A judge prefers the first one.\n\n"
    "Question:\n{question}\n\nPreferred answer:\n{chosen}\n\nOther answer:\n{rejected}\n\n"
    "Say what makes the preferred answer better, what is wrong or weak in either of them, and how the "
    "preferred answer should be changed to become better still. Do not write a new answer."
)
REVISION = (
    "A question, an answer to it and a criticism of that answer follow.\n\n"
    "Question:\n{question}\n\nAnswer:\n{chosen}\n\nCriticism:\n{critique}\n\n"
    "Write an improved answer to the question that takes the criticism into account. Write the answer alone, "
    "in full, without any remark about the criticism."
)


@methods.register("tpo")
class TPO(Method):
    """Samples, a critique of the best against the worst, revisions given the critique, and again.

    The reward chooses best and worst of all responses so far, the language model itself does the rest in
    text. Revisions are written under another prompt; they are read again, and scored, as answers to the
    problem's own. The paper splits the critique into a textual loss and a textual gradient; here one request
    asks for both.

    Args:
        n: responses at the start.
        revisions: per iteration.
        iterations: of critique and revision; under budgets as many as these allow.
        critique_prompt: request with the fields ``{question}``, ``{chosen}`` and ``{rejected}``.
        revision_prompt: request with the fields ``{question}``, ``{chosen}`` and ``{critique}``.
        sampling: of responses and critiques.
    """

    def __init__(
        self,
        n: int = 4,
        revisions: int = 2,
        iterations: int = 2,
        critique_prompt: str = CRITIQUE,
        revision_prompt: str = REVISION,
        sampling: Sampling | dict[str, Any] | None = None,
    ) -> None:
        require_positive(n=n, revisions=revisions, iterations=iterations)
        self.n, self.revisions, self.iterations = n, revisions, iterations
        self.critique_prompt = _template(
            "critique_prompt", critique_prompt, {"question", "chosen", "rejected"}
        )
        self.revision_prompt = _template(
            "revision_prompt", revision_prompt, {"question", "chosen", "critique"}
        )
        self.sampling = construct(Sampling, sampling)

    def check(self, engine: Engine) -> None:
        """Raises ConfigError unless there is a reward and the language model can be asked at all."""
        require_reward(engine.reward, "TPO compares responses by reward")
        require_lm(engine.lm, "TPO reads its revisions again as answers to the problem's own prompt")
        vocabulary = engine.vocabulary
        advice = "TPO needs a model that follows instructions; the sandbox models only know their own tasks."
        if vocabulary.chat.template == PLAIN:
            raise ConfigError("TPO asks in a conversation, and this model only continues text", fix=advice)
        for name, template in (
            ("critique_prompt", self.critique_prompt),
            ("revision_prompt", self.revision_prompt),
        ):
            text = "".join(literal for literal, *_ in Formatter().parse(template))
            try:
                length = len(vocabulary.encode(Prompt.of(text, id=name)))
            except PromptError as error:
                raise ConfigError(
                    f"{name} cannot be asked: {error.what}", got=template, fix=advice
                ) from error
            # Two texts of the model's own stand in each request, and one is to be written.
            needed = length + 3 * self.sampling.max_new_tokens
            if vocabulary.context_length is not None and needed > vocabulary.context_length:
                raise ConfigError(
                    f"{name}, two texts in it and one behind it may take {needed} tokens",
                    got=vocabulary.context_length,
                    fix=f"Lower max_new_tokens or shorten the prompt. {advice}",
                )

    async def solve(self, session: Session) -> Solution:
        texts = await session.score(await session.rollout(self.sampling, n=self.n))
        best, worst = max(texts, key=_reward), min(texts, key=_reward)
        session.report(best)
        iterations, written = 0, len(texts)
        while session.proceed(iterations < self.iterations):
            texts = await self._revise(session, best, worst)
            best = max([best, *texts], key=_reward)  # the first among equals
            worst = min([worst, *texts], key=_reward)
            session.report(best)
            iterations, written = iterations + 1, written + len(texts)
        return self.solution(session, best.commit(len(best)), candidates=written)

    async def _revise(self, session: Session, best: Trajectory, worst: Trajectory) -> list[Trajectory]:
        """Scored revisions of the best response, as answers to the problem's own prompt; none where the
        critique has exceeded the budget."""
        fields = {"question": session.prompt.text, "chosen": session.decode(best.tokens)}
        request = _ask(
            session.prompt, self.critique_prompt.format(**fields, rejected=session.decode(worst.tokens))
        )
        (critique,) = await session.rollout(self.sampling, prompt=request)
        if session.spent:
            return []
        request = _ask(
            session.prompt, self.revision_prompt.format(**fields, critique=session.decode(critique.tokens))
        )
        revised = await session.rollout(self.sampling, n=self.revisions, prompt=request)
        return await session.score(
            await session.read([t.tokens for t in revised], self.sampling, phase="rollout")
        )


def _reward(trajectory: Trajectory) -> float:
    assert trajectory.reward is not None  # scored
    return trajectory.reward


def _ask(prompt: Prompt, text: str) -> Prompt:
    """The conversation with its last turn replaced by a request."""
    return replace(prompt, messages=(*prompt.messages[:-1], Message("user", text)))


def _template(name: str, template: str, fields: set[str]) -> str:
    """The template, if it has these fields and no others. Raises ConfigError."""
    try:
        found = {field for _, field, *_ in Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise ConfigError(f"{name} is no template: {error}", got=template) from error
    if found != fields:
        raise ConfigError(
            f"{name} has other fields than it should",
            got=sorted(found),
            fix=f"Write each of {', '.join('{' + f + '}' for f in sorted(fields))}; double other braces.",
        )
    return template
