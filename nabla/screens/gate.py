"""The gate: whether values tell where a text goes wrong, and whether texts may be stopped, asked of sampled
texts without a label (SPEC section 14)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from nabla.core.change_point import ChangePoint
from nabla.core.errors import ConfigError, require_count, require_finite, require_positive
from nabla.core.files import expanded, parse_json, read_text, reading
from nabla.screens.base import Screen
from nabla.screens.fitting import cross_entropy, fit
from nabla.screens.posterior import Posterior
from nabla.screens.sampled import Sampled, chosen, variance_within, verdicts

#: Share of the wrong texts that the change point must tell before their last step, less that of right ones
#: (Youden's J), for values to say where a mistake is.
TOLD = 0.5

#: Share of the verdicts' variance that must lie between the texts of a prompt: a reward that calls all texts
#: of a prompt alike tells prompts apart, and a search by it goes where it knows nothing.
WITHIN = 0.5

#: Scale of a change point that values do not move.
_NOTHING = 1e-6


@dataclass(frozen=True)
class Calibration:
    """What a gate has found; plain numbers, which a file can keep.

    Args:
        opened: texts may be stopped.
        aimed: values say where a text goes wrong; if not, nothing is searched by them.
        loss: cross-entropy of P(none) against the reward's own verdict, nats; of a blind one it would be
            the verdicts' entropy.
        kept: share of the texts that best-of-n would choose, and the reward calls right, which the screen
            writes to their end.
        caught: share of the texts that the reward calls wrong which the change point tells before their last
            step.
        alarms: the same share of those that the reward calls right.
        within: share of the verdicts' variance that lies between texts of one prompt.
        written: share of the tokens that the screen lets be written.
        texts, prompts, right: sampled texts, the prompts they answer, and those that the reward calls right.
        centre, scale, hazard, surprise: of the change point that fits best.
        flops: what it cost, once.
    """

    opened: bool
    aimed: bool
    loss: float
    kept: float
    caught: float
    alarms: float
    within: float
    written: float
    texts: int
    prompts: int
    right: int
    centre: float
    scale: float
    hazard: float
    surprise: float
    flops: float = 0.0

    @property
    def change_point(self) -> ChangePoint:
        """With the fitted weights."""
        return ChangePoint(self.centre, self.scale, self.hazard, self.surprise)

    @property
    def told(self) -> str:
        """In one line, for people."""
        verdict = "no text is stopped" + ("" if self.aimed else ", values do not say where")
        verdict = "texts are stopped early" if self.opened else verdict
        return (
            f"gate: {verdict} (loss {self.loss:.2f} of {entropy(self.right / self.texts):.2f} nats, "
            f"{self.kept:.0%} of the best texts kept, "
            f"{self.caught:.0%} of the wrong ones and {self.alarms:.0%} of the right ones seen early, "
            f"{self.written:.0%} of tokens written, {self.within:.0%} of verdicts within prompts; "
            f"{self.right} of {self.texts} texts right; centre {self.centre:.2f}, scale {self.scale:.2g}, "
            f"hazard {self.hazard:.3g}, surprise {self.surprise:.2f}; {self.flops:.3g} FLOPs once)"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """Raises ConfigError for anything but all of its numbers."""
        names = {field.name for field in fields(cls)}
        flags = (values.get("opened"), values.get("aimed"))
        if set(values) != names or not all(isinstance(flag, bool) for flag in flags):
            raise ConfigError("No calibration of a gate", got=sorted(values), fix=f"It has {sorted(names)}.")
        found = cls(**values)
        _ = found.change_point  # its numbers are checked there
        return found

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """From a JSON file. Raises ConfigError."""
        text = read_text(expanded(path), "calibration")
        with reading("The calibration", got=path, fix="Let 'nabla diagnose' write it again."):
            values = parse_json(text)
        if not isinstance(values, dict):
            raise ConfigError("No calibration of a gate", got=values)
        return cls.from_dict(values)


@dataclass(frozen=True)
class Gate:
    """Samples texts before a run, fits the change point to the reward's own verdicts on them, and allows
    stopping where that pays.

    Values say where a text goes wrong (``aimed``) if P(none) tells the verdict (cross-entropy below a share
    ``level`` of the verdicts' entropy: the cross-entropy of who knows their base rate alone), if the change
    point tells the texts that the reward calls wrong before their last step, and not the right ones
    (:data:`TOLD`), and if verdicts differ between the texts of a prompt (:data:`WITHIN`).
    Stopping is allowed if, besides, of the right texts that best-of-n chooses the screen, had it read them,
    would have stopped a share ``lost`` at most. Weights that tell the verdict as they are stay so. Where all
    texts have one verdict nothing is learnt. Where values do not say where, the weights are those of the
    surprise alone (outcome rewards, SPEC section 14).

    Args:
        texts: sampled, over all prompts together; 0: nobody is asked, and texts are stopped.
        prompts: the first so many of a run answer for it; with fewer than ``least`` there is no gate.
        least: prompts.
        level: share of the verdicts' entropy that may be left (1 less McFadden's R²). Chosen on the sandbox.
        lost: share of the best texts that may be stopped.
        file: a calibration that was stored: nothing is sampled.
    """

    texts: int = 160
    prompts: int = 20
    least: int = 8
    level: float = 1 / 3
    lost: float = 0.1
    file: str | None = None

    def __post_init__(self) -> None:
        require_count("texts", self.texts)
        require_positive(prompts=self.prompts, least=self.least)
        require_finite("level", self.level, minimum=0.0)
        if not 0 <= require_finite("lost", self.lost) < 1:
            raise ConfigError("lost must be at least 0 and below 1", got=self.lost)

    def judge(self, screen: Screen, texts: Sequence[Sampled], flops: float = 0.0) -> Calibration:
        """What the texts say of a screen.

        Args:
            screen: the one to be allowed, with its settings before the fit.
            texts: sampled.
            flops: what they cost.
        """
        right = sum(verdicts(texts))
        informed = 0 < right < len(texts)
        point: ChangePoint = getattr(screen, "change_point", ChangePoint())
        loss, limit = cross_entropy(point, texts), self.level * entropy(right / len(texts))
        if informed and loss >= limit:
            point = fit(texts)
            loss = cross_entropy(point, texts)
        ready, told_by = screen.fitted(texts, point), Posterior().fitted(texts, point)
        halts = [_written(told_by, text) for text in texts]
        caught, alarms = _seen(halts, texts)
        if not _alike(ready, told_by):
            halts = [_written(ready, text) for text in texts]
        written = dict(zip(map(id, texts), halts, strict=True))
        within = variance_within(texts)
        told = informed and loss < limit
        aimed = told and caught - alarms >= TOLD and within >= WITHIN
        if informed and not aimed:
            blank = [replace(text, values=(0.0,) * len(text.values)) for text in texts]
            point = replace(point, scale=_NOTHING, surprise=fit(blank).surprise)
        best = chosen(texts)
        whole = sum(written[id(text)] == len(text.values) for text in best)
        kept = whole / len(best) if best else 0.0
        share = sum(written.values()) / sum(len(text.values) for text in texts)
        opened = aimed and kept >= 1 - self.lost
        prompts = len({text.prompt for text in texts})
        weights = asdict(point)
        counts = len(texts), prompts, right
        measured = loss, kept, caught, alarms, within, share
        return Calibration(opened, aimed, *measured, *counts, **weights, flops=flops)


def entropy(share: float) -> float:
    """Of a verdict that a share of the texts has, nats: the cross-entropy where nothing else is known."""
    return -sum(p * math.log(p) for p in (share, 1 - share) if p > 0)


def _alike(one: Screen, other: Screen) -> bool:
    """Of one class, with the same settings: they stop the same texts."""
    return type(one) is type(other) and vars(one) == vars(other)


def _seen(halts: Sequence[int], texts: Sequence[Sampled]) -> tuple[float, float]:
    """Shares of the texts that were stopped before their last step: of those that the reward calls wrong,
    and of the right ones; 0 of none."""
    early: dict[bool, list[bool]] = {False: [], True: []}
    for halt, text, right in zip(halts, texts, verdicts(texts), strict=True):
        early[right].append(halt < len(text.values))
    caught, alarms = (sum(found) / len(found) if found else 0.0 for found in early.values())
    return caught, alarms


def _written(screen: Screen, text: Sampled) -> int:
    """Tokens of a text that are written under a screen: up to the end of the step where it stops."""
    for end in text.ends[:-1]:
        if screen.stop(text.values[:end], None, text.log_probs[:end]) is not None:
            return end
    return len(text.values)
