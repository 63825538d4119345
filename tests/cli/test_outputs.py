"""Closed and full outputs, ASCII terminals, full disks, signals: a run keeps what it has."""

from __future__ import annotations

import errno
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

import nabla.cli.solve_command as solve_command
from nabla.cli import main
from nabla.cli.terminal import Output, outputs, signals
from nabla.engine.events import Callback

ROOT = Path(__file__).parents[2]
SUM = "28*6+68-71+94"
GREEDY = ["--method", "greedy", "--accelerator", "cpu"]
FULL = Path("/dev/full")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _heard():
    """A suite that runs in the background has inherited ignored signals, and so would what it starts."""
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def nabla(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A shell command in which ``nabla`` is this package's."""
    return subprocess.run(
        ["bash", "-c", command.replace("nabla ", f"{sys.executable} -m nabla ", 1)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=120,
    )


def rows(path: str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


# -- standard output ---------------------------------------------------------------------------------


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
@pytest.mark.parametrize("to", ["> /dev/full", ">&-"])
def test_an_output_that_takes_nothing_is_one_message_and_the_run_is_stored(to):
    done = nabla(f"nabla solve '{SUM}' {' '.join(GREEDY)} --output out {to}")
    assert done.returncode == 2
    assert "Standard output took not everything" in done.stderr
    assert "Traceback" not in done.stderr
    assert rows("out/solutions.jsonl")[0]["response"]
    assert json.loads(Path("out/run.json").read_text())["status"] == "finished"


def test_a_reader_that_has_seen_enough_is_no_error():
    done = nabla("nabla list | head -1")
    assert done.returncode == 0
    assert done.stderr == ""


def test_a_lost_stream_takes_everything():
    class Broken:
        encoding = "utf-8"
        writes = 0

        def write(self, text: str) -> int:
            self.writes += 1
            raise OSError(errno.ENOSPC, "No space left on device")

        def flush(self) -> None:
            raise AssertionError("nothing is flushed into a lost stream")

    broken = Broken()
    out = Output(broken)
    assert out.write("a") == 1
    assert out.write("b") == 1
    out.flush()
    assert broken.writes == 1
    assert out.lost is not None
    assert out.encoding == "utf-8"


def test_outputs_are_put_back():
    before = sys.stdout, sys.stderr, sys.stdout.errors
    with outputs() as out:
        assert sys.stdout is out
    assert (sys.stdout, sys.stderr, sys.stdout.errors) == before


# -- ASCII terminals ---------------------------------------------------------------------------------


def test_an_ascii_terminal_reads_everything():
    ascii_alone = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LANG": "C", "LC_ALL": "C"}
    square = "1..4../....../.2..../....../.....6/......"
    Path("c.yaml").write_text('lm: sandbox:latin-policy\nmethod: greedy\nsystem: "∇ é"\n', encoding="utf-8")
    Path("p.jsonl").write_text(
        json.dumps({"prompt": square, "id": "∇é", "answer": "ü"}, ensure_ascii=False), encoding="utf-8"
    )
    quick = "--method.max_rollouts 3 --method.dto.steps 2 --accelerator cpu"
    trace = "--callbacks '[stream, cost, {name: trace, path: t.jsonl}]'"
    done = nabla(f"nabla solve --prompts p.jsonl --output out {quick} {trace}", **ascii_alone)
    assert (done.returncode, done.stdout.isascii()) == (0, True), done.stderr
    assert rows("out/solutions.jsonl")[0]["id"] == "∇é"
    assert rows("t.jsonl")[0]["problem"] == "∇é"
    done = nabla("nabla list", **ascii_alone)
    assert (done.returncode, done.stdout.isascii()) == (0, True), done.stderr
    done = nabla("nabla show c.yaml", **ascii_alone)  # data is UTF-8 everywhere
    assert yaml.safe_load(done.stdout)["system"] == "∇ é"
    done = nabla(f"nabla solve --prompts p.jsonl --json --output none {quick}", **ascii_alone)
    assert json.loads(done.stdout)["answer"] == "ü"


def test_signs_are_spelt_out():
    assert "⟦7⟧ → ∇𝛻".encode("ascii", "nabla") == b"[[7]] -> nabla\\U0001d6fb"


# -- disks -------------------------------------------------------------------------------------------


def full_disk(monkeypatch, *, after: int) -> list[float]:
    """os.write takes so many calls, then nothing; what is returned can be raised."""
    write, left = os.write, [float(after)]

    def limited(descriptor: int, data: bytes) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", limited)
    return left


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_disk_that_is_full_at_the_start(after, monkeypatch, capsys, tmp_path):
    full_disk(monkeypatch, after=after)
    assert main(["solve", SUM, "--output", "out/deep", *GREEDY]) == 2
    said = capsys.readouterr()
    assert "No space left" in said.err
    assert "--output none" in said.err
    assert not (tmp_path / "out" / "deep" / "config.yaml").exists()


def test_a_disk_that_fills_up_loses_no_solution(monkeypatch, capsys):
    full_disk(monkeypatch, after=4)  # the trial, config.yaml, run.json and the first solution
    sums = [SUM, "53*6-50+29-41", "31*4+11-22+33"]
    assert main(["solve", *sums, "--output", "out", "--engine.live", "1", *GREEDY]) == 2
    said = capsys.readouterr()
    assert "2 lines could not be stored" in said.err
    assert "Make room and run again" in said.err
    assert "Traceback" not in said.err
    assert all(text in said.out for text in sums)  # printed all the same
    assert [row["id"] for row in rows("out/solutions.jsonl")] == ["0"]


def test_room_that_is_made_in_time_is_used(monkeypatch, capsys):
    left = full_disk(monkeypatch, after=3)

    class Cleaner(Callback):
        def on_solution(self, solution):
            if solution.prompt.id == "1":
                left[0] = float("inf")

    monkeypatch.setattr(solve_command, "_callbacks", lambda *_, **__: [Cleaner()])
    sums = [SUM, "53*6-50+29-41", "31*4+11-22+33"]
    assert main(["solve", *sums, "--output", "out", "--engine.live", "1", *GREEDY]) == 0
    assert "kept in memory" in capsys.readouterr().err
    assert [row["id"] for row in rows("out/solutions.jsonl")] == ["0", "1", "2"]


# -- folders that belong to somebody -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.yaml", "solutions.jsonl", "notes.txt", "metrics.csv"])
@pytest.mark.parametrize(
    "command",
    [["solve", SUM, *GREEDY], ["compare", "--problems", "1"], ["theory", "--quick"], ["estimators"]],
)
def test_nothing_is_written_where_somebody_s_files_are(command, name, capsys, tmp_path):
    (tmp_path / name).write_text("by hand")
    assert main([*command, "--output", "."]) == 2
    assert "not empty" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "by hand"


def test_a_trace_of_another_run_stays(capsys, tmp_path):
    (tmp_path / "t.jsonl").write_text("theirs")
    traced = ["--callbacks", "[{name: trace, path: t.jsonl}]"]
    assert main(["solve", SUM, "--output", "none", *GREEDY, *traced]) == 2
    assert "there already" in capsys.readouterr().err
    assert (tmp_path / "t.jsonl").read_text() == "theirs"


def test_output_none_makes_no_folder(capsys, tmp_path, monkeypatch):
    import nabla.theory.suite as suite
    from nabla.theory.suite import Outcome

    monkeypatch.setattr(suite, "run_checks", lambda *_, **__: Outcome((), ()))
    assert main(["theory", "--quick", "--output", "none"]) == 0
    (tmp_path / "e.yaml").write_text("{}")
    for command in ("evaluate", "ablate"):
        assert main([command, "e.yaml", "--output", "none"]) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["e.yaml"]


# -- the end -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_ends_a_run_that_keeps_what_it_has(name, monkeypatch, capsys):
    class After(Callback):
        def __init__(self):
            self.rollouts = 0

        def on_rollout(self, prompt, trajectory):
            self.rollouts += 1
            if self.rollouts == 2:
                os.kill(os.getpid(), getattr(signal, name))
                time.sleep(5)

    monkeypatch.setattr(solve_command, "_callbacks", lambda *_, **__: [After()])
    before = signal.getsignal(getattr(signal, name))
    arguments = ["solve", SUM, "53*6-50+29-41", "--output", "out", "--engine.live", "1", *GREEDY]
    assert main(arguments) == 128 + getattr(signal, name)
    said = capsys.readouterr()
    assert "Interrupted after 1 of 2 problems. The finished solutions are kept" in said.err
    assert name in said.err
    assert SUM in said.out
    assert len(rows("out/solutions.jsonl")) == 1
    assert json.loads(Path("out/run.json").read_text())["status"] == "interrupted"
    assert signal.getsignal(getattr(signal, name)) == before


def press() -> None:
    """Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)


def test_a_second_ctrl_c_of_the_same_press_does_not_break_what_the_first_one_ends():
    stored = False
    before = signal.getsignal(signal.SIGINT)
    with signals():
        try:
            press()
        except KeyboardInterrupt:
            press()
            stored = True
    assert stored
    assert signal.getsignal(signal.SIGINT) == before


def test_a_later_ctrl_c_ends_at_once_with_a_word():
    script = (
        "import os, signal, time, nabla.cli.terminal as terminal\n"
        "terminal.PRESS = 0.0\n"
        "with terminal.signals():\n"
        "    try:\n        os.kill(os.getpid(), signal.SIGINT); time.sleep(9)\n"
        "    finally:\n        os.kill(os.getpid(), signal.SIGINT); time.sleep(9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 128 + signal.SIGINT
    assert "Interrupted again, and ended at once. What was stored until then is kept." in done.stderr
    assert "Traceback" not in done.stderr


#: While the command line is still being loaded, and while the interpreter ends.
EARLY = """
class Finder:
    def find_spec(name, *_):
        if name == "nabla.cli.parsing":
            press()
sys.meta_path.insert(0, Finder)
"""
LATE = "atexit.register(press)\n"


@pytest.mark.parametrize("moment", [EARLY, LATE])
def test_ctrl_c_before_and_behind_a_command_is_no_traceback(moment):
    script = (
        "import atexit, os, signal, sys, time\n"
        "def press(): os.kill(os.getpid(), signal.SIGINT); time.sleep(1)\n"
        f"{moment}"
        "from nabla.cli import program\n"
        "sys.argv = ['nabla', 'list']\n"
        "raise SystemExit(program())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (128 + signal.SIGINT, -signal.SIGINT)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["evaluate", "ablate"])
def test_a_stopped_study_says_how_it_goes_on(command, monkeypatch, capsys):
    module = importlib.import_module(f"nabla.cli.{command}_command")
    monkeypatch.setattr(module, "run", lambda call: press())
    assert main([command, "study.yaml"]) == 128 + signal.SIGINT
    assert "Interrupted. What was finished is kept: the same command goes on" in capsys.readouterr().err
    monkeypatch.setenv("LOCAL_RANK", "1")  # the first process tells it
    assert main([command, "study.yaml"]) == 128 + signal.SIGINT
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_says_what_to_do(number, monkeypatch, capsys):
    def run(call):
        raise OSError(number, os.strerror(number), "records.jsonl.partial")

    monkeypatch.setattr(solve_command, "run", run)
    assert main(["solve", SUM]) == 2
    said = capsys.readouterr().err
    assert os.strerror(number) in said
    assert "Make room and run this again" in said


@pytest.mark.parametrize("error", [RuntimeError("oops"), SystemExit(0)])
def test_a_callback_that_fails_costs_no_solution(error, monkeypatch, capsys):
    class Failing(Callback):
        def on_solution(self, solution):
            raise error

    monkeypatch.setattr(solve_command, "_callbacks", lambda *_, **__: [Failing()])
    assert main(["solve", SUM, "53*6-50+29-41", "--output", "out", "--engine.live", "1", *GREEDY]) == 2
    said = capsys.readouterr()
    assert "Stopped after 1 of 2 problems" in said.err
    assert SUM in said.out
    assert len(rows("out/solutions.jsonl")) == 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_model_that_there_is_no_room_for(error, monkeypatch, capsys):
    from transformers import AutoModelForCausalLM

    def large(*_, **__):
        raise error

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", large)
    assert main(["solve", SUM, "--output", "none", *GREEDY]) == 2
    said = capsys.readouterr().err
    assert "not enough memory for the language model" in said
    assert "--lm_arguments.dtype bfloat16" in said
    assert "save_pretrained" not in said


def test_a_model_that_there_is_no_room_for_on_its_device(monkeypatch, capsys):
    import transformers

    def large(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(transformers.PreTrainedModel, "to", large)
    assert main(["solve", SUM, "--output", "none", *GREEDY]) == 2
    assert "not enough memory for the language model" in capsys.readouterr().err


def test_a_bug_is_one_message(monkeypatch, capsys):
    def broken(*_, **__):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(solve_command, "_callbacks", broken)
    assert main(["solve", SUM, "--output", "none", *GREEDY]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "ZeroDivisionError: oops" in said
    assert "--debug" in said
