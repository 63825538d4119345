"""Random command lines and random files: no traceback, no hang, no user's file changed.

Each try builds a folder with some files of a user's, runs one command in this process with the heavy parts
cut off (a model that would load ends the try: everything up to there is what is fuzzed), and looks at what is
left. ``NABLA_FUZZ`` sets the number of command lines, of which each reader gets a quarter; ``make fuzz`` sets
2,000.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from nabla.cli import main
from nabla.cli.commands import COMMANDS
from nabla.cli.parsing import load_config
from nabla.cli.prompts import read_file
from nabla.core.errors import NablaError
from nabla.launch.config.run import RunConfig
from nabla.problems.tasks.rows import read_jsonl
from nabla.study.ablation.config import AblationConfig
from nabla.study.ablation.results import Study
from nabla.study.evaluation.config import EvaluationConfig
from nabla.study.evaluation.journal import journals, read, recover, units
from nabla.study.evaluation.results import Results

TRIES = int(os.environ.get("NABLA_FUZZ", "200"))
#: Seconds that a try may take, on a machine that is busy with something else.
SECONDS = 60
SUM = "28*6+68-71+94"

fuzzed = settings(
    max_examples=TRIES,
    deadline=None,
    derandomize=TRIES == 200,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
read_often = settings(fuzzed, max_examples=max(TRIES // 4, 1))

#: Texts and bytes that have broken readers before.
NASTY = [
    "", " ", "\0", "nan", ".nan", "inf", "-.inf", "1e400", "-1", "0", "true", "null", "~", "9" * 5000,
    "[" * 5000, "{" * 300 + "}" * 300, "[" * 3000 + "]" * 3000, "a: &a [*a]", "<<: 5", "é", "∇", "\ud800",
    "\u2028", "\x85", "\x1b[31m", "--", "-h", "-5+3", "a=b", "=", ".", "..", "/", "%s%n", "{problem}",
    "${HOME}", "~/x", "sandbox:", "sandbox:x", "x" * 5000, "!!python/object:os.system", "'", '"', "\\", "*",
    "&a", "|", ">", "- 1", "#", "{name: 5}", "[1, nan]", "none", "runs", "[csv]", "'\\ud800'", "a/b/c",
    "/dev/full", "pipe.yaml", "function", "os:getcwd", "trace", "ensemble", "jsonl", "regex", "(", "[a-z",
]  # fmt: skip
WORDS = st.one_of(st.sampled_from(NASTY), st.text(max_size=20), st.integers().map(str), st.floats().map(str))
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(NASTY), st.text(max_size=12)
)


def leaves(tree: dict[str, Any], before: str = "") -> list[str]:
    """Dotted names of a configuration's entries, inner ones too."""
    found = []
    for key, value in tree.items():
        name = f"{before}.{key}" if before else key
        found.append(name)
        if isinstance(value, dict):
            found += leaves(value, name)
    return found


RESOLVED = RunConfig.of({"lm": "sandbox:arithmetic-policy", "rm": "sandbox:arithmetic-reward"}).resolved()
OPTIONS = leaves(RESOLVED)
OWN = [
    "--prompts", "--task", "--problems", "--problem_seed", "--offset", "--json", "--output", "--config",
    "--methods", "--quick", "--budget", "--seeds", "--workers", "--report", "--reference", "--targets",
    "--repeats", "--setting", "--device", "--threads", "--estimators", "--seed", "--jobs", "--list",
    "--debug", "--allow-code", "--help", "-h", "--dense-repeats", "--nonsense", "--lm", "--rm.path",
    "--rm.name", "--lm_arguments.dtype", "--method.name", "--rm.function", "--rm.members", "--callbacks.0",
    "--rm_arguments", "--samples", "--swaps", "--rerolls", "--rewards.a", "--process_bench", "--trace",
    "--format",
]  # fmt: skip
FILES = ["p.txt", "p.jsonl", "c.yaml", "e.yaml", "a.yaml", "pipe.yaml", "pipe.jsonl", "folder", "none", "out"]

# -- files -------------------------------------------------------------------------------------------

PLAIN = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


def mutated(draw: Any, value: Any) -> Any:
    """A valid tree with something else at one place, or at none."""
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], mutated(draw, value[place]), *value[place + 1 :]]
    if isinstance(value, dict) and value and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(value)))
        changed = {**value, key: mutated(draw, value[key])}
        if not draw(st.integers(0, 5)):
            changed.pop(key)
        if not draw(st.integers(0, 5)):
            changed[draw(WORDS)] = draw(PLAIN)
        return changed
    return draw(PLAIN)


def as_text(draw: Any, value: Any) -> bytes:
    """JSON (which is YAML, too), or with its bytes damaged."""
    data = json.dumps(value, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    return damaged(draw, data)


def damaged(draw: Any, data: bytes) -> bytes:
    """Bytes with a piece left out, put in or turned, mostly as they are."""
    what = draw(st.integers(0, 9))
    at = draw(st.integers(0, len(data)))
    if what == 0:
        return data[:at]
    if what == 1:
        return data[:at] + draw(st.binary(max_size=8)) + data[at:]
    if what == 2:
        return draw(st.sampled_from([b"\xef\xbb\xbf", b"\xff\xfe", b"---\n"])) + data
    if what == 3:
        return data[:at] + draw(st.sampled_from(NASTY)).encode("utf-8", "surrogatepass") + data[at:]
    return data


@st.composite
def run_files(draw: Any) -> bytes:
    return as_text(draw, mutated(draw, RESOLVED))


@st.composite
def evaluation_files(draw: Any) -> bytes:
    return as_text(draw, mutated(draw, EVALUATION))


@st.composite
def ablation_files(draw: Any) -> bytes:
    return as_text(draw, mutated(draw, ABLATION))


@st.composite
def prompt_files(draw: Any) -> bytes:
    rows = []
    for _ in range(draw(st.integers(0, 3))):
        row = {"prompt": SUM, "id": "a", "answer": "259"}
        if draw(st.booleans()):
            row = {"messages": [{"role": "user", "content": SUM}], "id": None}  # type: ignore[dict-item]
        rows.append(as_text(draw, mutated(draw, row)))
    return damaged(draw, b"\n".join(rows))


EVALUATION: dict[str, Any] = {
    "tasks": {
        "a": {
            "task": {"name": "sandbox", "family": "arithmetic"},
            "lm": "sandbox:arithmetic-policy",
            "rewards": {"r": "sandbox:arithmetic-reward"},
        }
    },
    "methods": {"g": "greedy", "b": {"name": "best-of-n", "n": 2}},
    "budgets": {"calls": [1, 2]},
    "seeds": [0],
    "problems": 1,
    "quick": {"problems": 1},
}
ABLATION: dict[str, Any] = {
    "base": {k: v for k, v in EVALUATION.items() if k != "methods"} | {"method": {"name": "best-of-n"}},
    "factors": {"n": {"path": "method.n", "levels": [1, 2]}},
    "sampler": "grid",
}


class Reached(BaseException):
    """Everything has been read and checked: now a model would be loaded, or problems be solved."""


class Hang(BaseException):
    """The try takes too long."""


@contextlib.contextmanager
def in_time() -> Any:
    def ring(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    left, _ = signal.setitimer(signal.ITIMER_REAL, SECONDS)
    begin = time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - begin), 1.0) if left else 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def cut() -> Any:
    """Cuts the heavy parts off: models, studies, benchmarks."""
    import nabla.study.benchmark.run as bench
    import nabla.study.diagnosis.study as diagnosis
    import nabla.study.laboratory.study as laboratory
    import nabla.theory.suite as theory
    from nabla.models.causal_lm import CausalLM
    from nabla.problems.sandbox.base import Family
    from nabla.study.benchmark.bench import Stand
    from nabla.study.evaluation.runner import Evaluation

    def reached(*_: Any, **__: Any) -> Any:
        raise Reached

    for line in (*([command, "--help"] for command in COMMANDS), ["list"], ["theory", "--list"]):
        with contextlib.redirect_stdout(io.StringIO()):  # imports are no part of a try
            main(line)

    few = Family.problems

    def at_most_a_few(self: Any, split: Any, n: int, seed: int) -> Any:
        return few(self, split, min(n, 50), seed)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("load_models", "load_lm", "load_reward"):
            patch.setattr(RunConfig, name, reached)
        patch.setattr(CausalLM, "from_pretrained", reached)
        patch.setattr(Family, "problems", at_most_a_few)
        patch.setattr(Evaluation, "run", reached)
        patch.setattr(theory, "run_checks", reached)
        patch.setattr(bench, "run_targets", reached)
        patch.setattr(Stand, "__init__", reached)
        patch.setattr(laboratory, "run_study", reached)
        patch.setattr(diagnosis, "diagnose", reached)
        yield


REACHED: Counter[str] = Counter()


@pytest.fixture(scope="module", autouse=True)
def figures() -> Any:
    """What ``make fuzz`` (with -s) tells in the end."""
    yield
    tried = sum(REACHED.values())
    print(f"\ncommand lines: {tried}, by status {dict(REACHED)}; files per reader: {TRIES // 4}")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def attempt(arguments: list[str]) -> int | None:
    """One command line: its status is 0, 1 or 2 (None: it came through to what is cut off), and it says what
    is wrong in a line, not in a traceback."""
    out, err = io.StringIO(), io.StringIO()
    status: int | None = None
    try:
        with in_time(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(arguments)
    except Reached:
        REACHED["reached"] += 1
        return None
    except Hang:
        raise AssertionError(f"hangs: {arguments}") from None
    said = err.getvalue()
    REACHED[str(status)] += 1
    assert status in (0, 1, 2), arguments
    assert "A bug of nabla" not in said, (arguments, said)
    if "--debug" not in arguments:
        assert "Traceback" not in said + out.getvalue(), (arguments, said)
    if status == 2:
        assert said.strip(), arguments
    return status


#: Lines that are in order but for what the fuzz adds: without them nearly every try ends at its first fault.
SOUND = [
    ["solve", SUM],
    ["solve", SUM, "--method.name", "best-of-n"],
    ["solve", "--task.name", "sandbox", "--problems", "2", "--output", "out"],
    ["demo"],
    ["diagnose", "--task", "latin", "--problems", "2", "--output", "out"],
    ["bench", "--setting", "small", "--output", "out"],
    ["theory", "--output", "out"],
    ["evaluate", "e.yaml", "--output", "out"],
    ["view", "folder", "--output", "page.html"],
    ["plot", "folder", "--output", "out"],
]


@st.composite
def command_lines(draw: Any) -> list[str]:
    if not draw(st.integers(0, 3)):
        found = list(draw(st.sampled_from(SOUND)))
        if draw(st.booleans()):
            option = draw(st.sampled_from(OPTIONS).map("--{}".format))
            found += [option, draw(st.one_of(WORDS, PLAIN.map(json.dumps)))]
        return found
    command = draw(st.sampled_from([*COMMANDS, *["solve"] * 8, "nonsense"]))
    found = [command]
    if command == "solve" and draw(st.booleans()):
        found.append(draw(st.one_of(st.just(SUM), WORDS)))
    if command in ("show", "evaluate", "ablate", "view", "plot") and draw(st.integers(0, 3)):
        found.append(draw(st.sampled_from(FILES)))
    if draw(st.booleans()):
        option = draw(st.sampled_from(["--config", "--prompts", "--report", "--output"]))
        found += [option, draw(st.sampled_from(FILES))]
    for _ in range(draw(st.integers(0, 4))):
        option = draw(st.one_of(st.sampled_from(OWN), st.sampled_from(OPTIONS).map("--{}".format), WORDS))
        value = draw(st.one_of(WORDS, st.sampled_from(FILES), PLAIN.map(json.dumps)))
        form = draw(st.integers(0, 3))
        found += [f"{option}={value}"] if form == 0 else [option] if form == 1 else [option, value]
    return found


@given(
    st.lists(command_lines(), min_size=1, max_size=1),
    run_files(), evaluation_files(), ablation_files(), prompt_files(),
)  # fmt: skip
@fuzzed
def test_command_lines(cut, lines, run_file, evaluation_file, ablation_file, prompts) -> None:
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        mine = {
            "c.yaml": run_file, "e.yaml": evaluation_file, "a.yaml": ablation_file, "p.jsonl": prompts,
            "p.txt": prompts, "config.yaml": b"by hand", "folder/solutions.jsonl": b"{}\n", "run.txt": b"",
        }  # fmt: skip
        for name, data in mine.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
        for name in ("pipe.yaml", "pipe.jsonl"):
            os.mkfifo(folder / name)
        os.chdir(folder)
        try:
            for arguments in lines:
                attempt(arguments)
        finally:
            os.chdir(before)
        left = contents(folder)
        assert {name: left.get(name) for name in mine} == mine, lines


# -- readers -----------------------------------------------------------------------------------------


def clean(reader: Any, *arguments: Any) -> None:
    """A reader reads, or says in a NablaError why not."""
    try:
        with in_time(), contextlib.suppress(NablaError):
            reader(*arguments)
    except Hang:
        raise AssertionError("hangs") from None


def whole(reader: Any) -> Any:
    def read_it(path: Path) -> None:
        reader(path).resolved()

    return read_it


@pytest.mark.parametrize(
    ("name", "files", "reader"),
    [
        ("p.jsonl", prompt_files(), lambda path: read_file(str(path))),
        ("p.txt", prompt_files(), lambda path: read_file(str(path))),
        ("t.jsonl", prompt_files(), read_jsonl),
        ("c.yaml", run_files(), whole(load_config)),
        ("e.yaml", evaluation_files(), whole(EvaluationConfig.load)),
        ("a.yaml", ablation_files(), whole(AblationConfig.load)),
    ],
    ids=["prompts-jsonl", "prompts-txt", "task-rows", "run", "evaluation", "ablation"],
)
def test_readers(cut, name, files, reader, tmp_path) -> None:
    path = tmp_path / name

    @read_often
    @given(files)
    def check(data: bytes) -> None:
        path.write_bytes(data)
        clean(reader, path)
        assert path.read_bytes() == data
        assert [p.name for p in tmp_path.iterdir()] == [name]

    check()


@st.composite
def journal_lines(draw: Any) -> bytes:
    """Lines of a journal, whole units and torn ones."""
    row = {"task": "a", "method": "g", "seed": 0, "problem": "0", "kind": "run", "error": None}
    found = b""
    for number in range(draw(st.integers(0, 3))):
        found += as_text(draw, mutated(draw, row)) + b"\n"
        mark = {"unit": ["a", "g", number, 0], "lines": 1}
        found += json.dumps(mark, separators=(",", ":")).encode() + b"\n"
        if not draw(st.integers(0, 2)):
            found += b'{"unit":' + as_text(draw, draw(PLAIN)) + b"\n"
    return damaged(draw, found)


@given(journal_lines(), journal_lines(), evaluation_files())
@read_often
def test_journals(journal, records, about) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "journal-0.jsonl").write_bytes(journal)
        (folder / "evaluation.json").write_bytes(b'{"config": ' + about + b"}")
        for path in journals(folder):
            clean(lambda path=path: list(units(path)))
        clean(lambda: list(read(folder)))
        clean(Results.load, folder)
        assert (folder / "journal-0.jsonl").read_bytes() == journal  # reading changes nothing
        clean(recover, folder)
        assert journal.startswith((folder / "journal-0.jsonl").read_bytes())  # only a torn end is cut off
        (folder / "records.jsonl").write_bytes(records)
        clean(Results.load, folder)
        (folder / "design.json").write_bytes(about)
        clean(Study.load, folder)
        assert (folder / "records.jsonl").read_bytes() == records


def test_the_fuzz_reaches_what_it_is_for() -> None:
    """Some tries come through to where a model would load, and some are refused."""
    assert sum(REACHED.values()) >= TRIES
    assert REACHED["reached"] > TRIES / 50
    assert REACHED["2"] > TRIES / 10
