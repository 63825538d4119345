"""Case studies: every event of a problem as a line of JSON (``docs/trace.md`` has the schema)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from nabla.core.costs import Usage
from nabla.core.errors import ConfigError, NablaError, StorageError
from nabla.core.files import Appender, drop_torn_end, json_line, reason
from nabla.core.prompt import Prompt
from nabla.core.solution import Solution
from nabla.core.text import token_text
from nabla.core.trajectory import Trajectory
from nabla.core.version import __version__
from nabla.engine.events import Callback, Run
from nabla.launch.callbacks.base import callbacks
from nabla.launch.trace.rows import candidates, of_rows, probabilities
from nabla.launch.trace.texts import Texts, number, numbers

if TYPE_CHECKING:
    from nabla.engine.reports import Decision, Refinement, TermReport

#: Version of the lines; see docs/trace.md.
SCHEMA = 2


@dataclass
class _Problem:
    """What is remembered of a problem while it is being solved."""

    texts: Texts
    #: The last refinement: its first position, and the rows.
    refined: tuple[int, Refinement] | None = None
    #: Number of the text that is current, as far as an event has said so.
    current: int | None = None
    #: A proposal is on its way: what is written meanwhile is its continuation.
    offered: bool = False


@callbacks.register("trace")
class Trace(Callback):
    """Writes what happened to each problem as JSON lines: texts, refinements, proposals, decisions, costs.
    ``nabla view`` shows them. No model runs for it and nothing is drawn; what no part of a run has computed
    is not there.

    Args:
        path: of the file. Runs of one process share it; a file of another one is not written over.
        append: write behind what is there: of the same run, which goes on.
    """

    #: Files of this process: a comparison of methods writes one trace, each method with an object of its own.
    _files: ClassVar[dict[Path, Appender]] = {}

    def __init__(self, path: str, append: bool = False) -> None:
        self.path, self.append = Path(path), append
        self._problems: dict[str, _Problem] = {}

    def on_run_start(self, run: Run, prompts: Sequence[Prompt]) -> None:
        self._run, self._problems = run, {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            place = self.path.resolve()
            if place not in self._files or not place.exists():
                if run.main and place.exists() and not self.append:
                    raise ConfigError(
                        "The trace's file is there already", got=str(self.path), fix="Choose another path."
                    )
                if run.main and self.append and place.exists():
                    drop_torn_end(place)
                several = run.world_size > 1
                if several and run.main and not place.exists():
                    place.touch(exist_ok=False)  # before the others write to it
                self._files[place] = Appender(place, shared=self.append or not run.main, many=several)
        except (OSError, ValueError) as error:
            raise ConfigError(f"The trace cannot be written: {reason(error)}", got=str(self.path)) from error
        self._file = self._files[place]

    def on_run_end(self, run: Run, solutions: Sequence[Solution]) -> None:
        """Raises StorageError for lines that the disk has not taken: they are gone with the process, and that
        is no success."""
        error = self._file.flush() if hasattr(self, "_file") else None
        if error is not None:
            raise StorageError(
                f"{self._file.left} lines of the trace are lost: {error.what}",
                got=str(self.path),
                fix="Make room, and run again with another --output for a whole trace.",
            )

    # -- lines -----------------------------------------------------------------------------------

    def _line(self, event: str, problem: str, **about: Any) -> None:
        self._file.append(json_line({"event": event, "problem": problem, **about}))

    def _write(self, event: str, problem: str, **about: Any) -> None:
        usage = self._run.usage(problem)
        self._line(event, problem, **about, **({} if usage is None else {"spent": spent(usage)}))

    def _problem(self, prompt: Prompt) -> _Problem:
        """Of a prompt; its first event writes down what it is."""
        if prompt.id not in self._problems:
            system = [m.content for m in prompt.messages if m.role == "system"]
            self._line(
                "problem",
                prompt.id,
                schema=SCHEMA,
                nabla=__version__,
                method=self._run.method,
                prompt=prompt.text,
                **({"system": system[0]} if system else {}),
            )
            self._problems[prompt.id] = _Problem(Texts(self._run.vocabulary, prompt.text))
        return self._problems[prompt.id]

    def _text(self, prompt: Prompt, trajectory: Trajectory) -> int:
        """Number of a text, which is written down first where it is new."""
        own, line = self._problem(prompt).texts.add(trajectory)
        if line is not None:
            self._line("text", prompt.id, text=own, **line)
        return own

    def _token(self, token: int) -> str:
        return token_text(self._run.vocabulary.tokenizer, token)

    # -- events ----------------------------------------------------------------------------------

    def on_rollout(self, prompt: Prompt, trajectory: Trajectory) -> None:
        problem, own = self._problem(prompt), self._text(prompt, trajectory)
        if not problem.offered:
            problem.current = own
        self._write("rollout", prompt.id, text=own)

    def on_score(self, prompt: Prompt, trajectory: Trajectory) -> None:
        own = self._text(prompt, trajectory)
        _, line = self._problem(prompt).texts.values(trajectory)
        if line is not None:
            self._write("score", prompt.id, text=own, **line)

    def on_stop(self, prompt: Prompt, trajectory: Trajectory, position: int) -> None:
        self._write("stop", prompt.id, text=self._text(prompt, trajectory), position=position)

    def on_norms(
        self,
        prompt: Prompt,
        trajectory: Trajectory,
        plain: Float[Tensor, " length"],
        centred: Float[Tensor, " length"],
    ) -> None:
        own = self._text(prompt, trajectory)
        self._write("norms", prompt.id, text=own, plain=numbers(plain), centred=numbers(centred))

    def on_prune(
        self, prompt: Prompt, kept: Sequence[Trajectory], dropped: Sequence[Trajectory]
    ) -> None:
        going, left = ([self._text(prompt, text) for text in texts] for texts in (kept, dropped))
        self._write("prune", prompt.id, kept=going, dropped=left)

    def on_select(self, prompt: Prompt, trajectory: Trajectory, positions: Sequence[int]) -> None:
        problem, own = self._problem(prompt), self._text(prompt, trajectory)
        problem.current = own
        self._write("select", prompt.id, text=own, positions=list(positions))

    def on_refine(self, prompt: Prompt, position: int, refinement: Refinement) -> None:
        problem = self._problem(prompt)
        problem.refined = position, refinement
        self._write(
            "refine",
            prompt.id,
            **({} if problem.current is None else {"text": problem.current}),
            position=position,
            kl=number(float(refinement.kl.max())),
            gradient_norm=number(refinement.first.gradient_norm),
            gradients=refinement.recomputed,
            terms={name: _term(term) for name, term in refinement.first.terms.items()},
            rows=of_rows(refinement),
            **candidates(refinement, self._token),
        )

    def on_proposal(self, prompt: Prompt, current: Trajectory, position: int, token: int) -> None:
        problem, own = self._problem(prompt), self._text(prompt, current)
        problem.current, problem.offered = own, True
        old = int(current.tokens[position])
        found = probabilities(problem.refined, position, old, token)
        self._write(
            "proposal", prompt.id, text=own, position=position, old=old, new=token,
            old_piece=self._token(old), new_piece=self._token(token), **found,
        )  # fmt: skip

    def on_decision(self, prompt: Prompt, decision: Decision) -> None:
        old, new, position = decision.current, decision.proposal, decision.position
        problem = self._problem(prompt)
        before, after = self._text(prompt, old), self._text(prompt, new)
        problem.current, problem.offered = (after if decision.accepted else before), False
        self._write(
            "accept" if decision.accepted else "reject",
            prompt.id,
            text=before,
            proposed=after,
            position=position,
            old=int(old.tokens[position]),
            new=int(new.tokens[position]),
            old_log_prob=number(float(old.log_probs[position])),
            new_log_prob=number(float(new.log_probs[position])),
            reward=None if old.reward is None else number(old.reward),
            proposed_reward=None if new.reward is None else number(new.reward),
            why=decision.why,
        )

    def on_solution(self, solution: Solution) -> None:
        self._problem(solution.prompt)
        del self._problems[solution.prompt.id]
        self._line(
            "solution",
            solution.prompt.id,
            ids=list(solution.tokens),
            response=solution.response,
            reward=None if solution.reward is None else number(solution.reward),
            finished=solution.finished,
            method=solution.method,
            candidates=solution.candidates,
            revised_positions=list(solution.revised_positions),
            cost=solution.cost.to_dict(),
            checkpoints=[
                {"spent": spent(c.usage), "reward": None if c.reward is None else number(c.reward)}
                for c in solution.checkpoints
            ],
        )

    def on_exception(self, prompt: Prompt, error: NablaError) -> None:
        self._problem(prompt)
        del self._problems[prompt.id]
        self._line("exception", prompt.id, error=str(error))


def _term(term: TermReport) -> dict[str, Any]:
    shares = {name: number(getattr(term, name)) for name in ("value", "weight", "gradient_share")}
    return {"unit": term.unit, **shares}


def spent(usage: Usage) -> dict[str, float | None]:
    """Of a cost, what grows beside the events: model calls, tokens, FLOPs and seconds."""
    return {
        "calls": usage.calls,
        "tokens": usage.tokens,
        "flops": number(usage.flops, 6),
        "seconds": number(usage.seconds),
    }
