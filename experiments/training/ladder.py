"""The policy and the whole ladder of verifiers, one after the other, into the package, with their cards.

    python -m experiments.training.ladder

Goes on where it was broken off: what is finished is not done again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.training import export, measure, outcome, process, samples, sft

POLICY = "smollm2-chain-sum"
#: Trainings of verifiers → how what comes of them is read.
READING = {
    "judge": "{name: likelihood, path: smollm2-chain-sum-judge}",
    "process": "{name: process, path: smollm2-chain-sum-process, step_separators: []}",
    "process-strong": "{name: process, path: smollm2-chain-sum-process-strong, step_separators: []}",
    "outcome": "smollm2-chain-sum-outcome",
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/training"))
    parser.add_argument("--examples", type=int, default=608, help="of the policy")
    parser.add_argument("--steps", type=int, default=120, help="of the policy")
    parser.add_argument("--more", type=int, default=320, help="examples of the judge")
    parser.add_argument("--problems", type=int, default=196, help="whose samples the rewards learn from")
    parser.add_argument("--others", type=int, default=64, help="problems of each of the other samples")
    parser.add_argument("--tested", type=int, default=100, help="test problems whose samples are judged")
    options = parser.parse_args(arguments)
    policy(options)
    verifiers(options)


def policy(options: argparse.Namespace) -> None:
    """Stopped early, so that there is something left to find."""
    out: Path = options.out
    steps = ["--steps", str(options.steps), "--examples", str(options.examples)]
    sft.main([*steps, "--out", str(out / "policy")])
    shipped("policy", options, [])
    test = drawn(out / "test.jsonl", options.tested, 8, 0, "--split", "test")
    figures(out / "policy.json", ["policy", "--samples", test])
    figures(out / "own.json", ["verifier", "--samples", test])
    shipped("policy", options, [out / "policy.json", out / "own.json"])


def verifiers(options: argparse.Namespace) -> None:
    """The judge; a weak process reward and one of whole answers from the policy's own samples; a strong one,
    on the judge's body, from those and from less likely samples of both."""
    out: Path = options.out
    judge, cheap = f"{POLICY}-judge", ["--dtype", "bfloat16"]
    more = ["--base", POLICY, "--rank", "8", "--first", "100000", "--examples", str(options.more)]
    sft.main([*more, *cheap, "--out", str(out / "judge")])
    shipped("judge", options, [])
    own = drawn(out / "samples.jsonl", options.problems, 4, 200_000)
    hot = drawn(out / "hot.jsonl", options.others, 3, 300_000, "--temperature", "1.4")
    others = ["--policy", judge, "--temperature", "1.5"]
    judges = drawn(out / "judge-hot.jsonl", options.others, 3, 400_000, *others)
    process.main(["--samples", own, *cheap, "--out", str(out / "process")])
    outcome.main(["--samples", own, *cheap, "--out", str(out / "outcome")])
    strong = ["--base", judge, "--corruptions", "2", "--behind", "2", "--samples", own, hot, judges]
    process.main([*strong, *cheap, "--out", str(out / "process-strong")])
    for role, spec in READING.items():
        shipped(role, options, [])
        test = str(out / "test.jsonl")
        figures(out / f"{role}.json", ["verifier", "--samples", test, "--rm", spec])
        shipped(role, options, [out / f"{role}.json"])


def drawn(path: Path, problems: int, each: int, first: int, *arguments: str) -> str:
    """Samples, drawn unless that was done; their file."""
    many = ["--problems", str(problems), "--each", str(each), "--first", str(first)]
    samples.main([*many, *arguments, "--out", str(path)])
    return str(path)


def shipped(role: str, options: argparse.Namespace, measured: list[Path]) -> None:
    """Into the package; without figures only where it is not there."""
    place = export.PLACE / (POLICY if role == "policy" else f"{POLICY}-{role}")
    if measured or not place.exists():
        export.export(options.out / role, place, measured)


def figures(path: Path, arguments: list[str]) -> None:
    """Measures, unless that was done."""
    if not path.exists():
        measure.main([*arguments, "--out", str(path)])


if __name__ == "__main__":
    main()
