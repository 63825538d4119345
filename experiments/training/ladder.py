"""The policy and the whole ladder of verifiers, one after the other, into the package, with their cards.

    python -m experiments.training.ladder

Goes on where it was broken off: what is finished is not done again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.training import export, measure, outcome, process, samples, sft

POLICY = "smollm2-chain-sum"
#: How the verifiers are read.
READING = {
    "judge": "{name: likelihood, path: smollm2-chain-sum-judge}",
    "process": "{name: process, path: smollm2-chain-sum-process, step_separators: []}",
    "outcome": "smollm2-chain-sum-outcome",
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/training"))
    parser.add_argument("--examples", type=int, default=608, help="of the policy")
    parser.add_argument("--steps", type=int, default=120, help="of the policy")
    parser.add_argument("--more", type=int, default=320, help="examples of the judge")
    parser.add_argument("--problems", type=int, default=64, help="whose samples the rewards learn from")
    options = parser.parse_args(arguments)
    out: Path = options.out
    drawn, tested = str(out / "samples.jsonl"), str(out / "test.jsonl")

    # Stopped early, so that there is something left to find.
    steps = ["--steps", str(options.steps), "--examples", str(options.examples)]
    sft.main([*steps, "--out", str(out / "policy")])
    if not (export.PLACE / POLICY).exists():
        export.export(out / "policy", export.PLACE / POLICY, [])
    test = ["--split", "test", "--first", "0", "--problems", "48", "--each", "8"]
    samples.main([*test, "--out", tested])
    figures(out / "policy.json", ["policy", "--samples", tested])
    export.export(out / "policy", export.PLACE / POLICY, [out / "policy.json"])
    figures(out / "own.json", ["verifier", "--samples", tested])

    more = ["--base", POLICY, "--rank", "8", "--first", "100000", "--examples", str(options.more)]
    sft.main([*more, "--out", str(out / "judge")])
    samples.main(["--problems", str(options.problems), "--out", drawn])
    process.main(["--samples", drawn, "--out", str(out / "process")])
    outcome.main(["--samples", drawn, "--out", str(out / "outcome")])
    for role, spec in READING.items():
        place = export.PLACE / f"{POLICY}-{role}"
        if not place.exists():
            export.export(out / role, place, [])
        figures(out / f"{role}.json", ["verifier", "--samples", tested, "--rm", spec])
        export.export(out / role, place, [out / f"{role}.json"])


def figures(path: Path, arguments: list[str]) -> None:
    """Measures, unless that was done."""
    if not path.exists():
        measure.main([*arguments, "--out", str(path)])


if __name__ == "__main__":
    main()
