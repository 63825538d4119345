"""What is asked for: a sentence about something, in forms that leave its sentiment open or push it down.

    python -m experiments.sentiment.openings          # writes prompts.jsonl, the test prompts

Training prompts are about other things than test prompts.
"""

from __future__ import annotations

import json
from pathlib import Path

FILE = Path(__file__).parent / "prompts.jsonl"
TEST = (
    "the hotel by the station", "the new phone", "the film last night", "the pizza place on the corner",
    "the night train", "the history museum", "the running shoes", "the concert in the park",
)  # fmt: skip
TRAIN = (
    "the old bicycle", "the cooking course", "the ferry to the island", "the novel from the library",
    "the coffee machine", "the tennis lesson", "the zoo", "the garden chairs", "the weather app",
    "the dentist in town", "the flea market", "the language school", "the bus tour", "the winter coat",
    "the science podcast", "the bakery next door", "the theatre play", "the vacuum cleaner",
    "the football match", "the camping site",
)  # fmt: skip
FORMS = (
    "Write a one-sentence review of {}.",
    "Write one sentence from a diary about {}.",
    "In one sentence, tell a friend what went wrong with {}.",
    "In one sentence, say what {} was like on a rainy day.",
    "In one sentence, compare {} with the one before it.",
)


def prompts(subjects: tuple[str, ...]) -> list[dict[str, str]]:
    """Every form of every subject; forms change fastest."""
    return [
        {"id": f"{subject.removeprefix('the ').replace(' ', '-')}-{number}", "prompt": form.format(subject)}
        for subject in subjects
        for number, form in enumerate(FORMS)
    ]


def main() -> None:
    FILE.write_text("".join(json.dumps(row) + "\n" for row in prompts(TEST)), encoding="utf-8")


if __name__ == "__main__":
    main()
