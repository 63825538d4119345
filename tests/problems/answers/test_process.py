"""The grading process: its limits, its end, threads and forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from nabla.core.errors import ConfigError
from nabla.problems.answers.process import MATH, GradingProcess, Unanswered


@pytest.fixture
def grading():
    made = GradingProcess()
    yield made
    made.close()


def ask(grading, left, right, seconds=2):
    return grading.ask({"left": left, "right": right}, seconds)


def exists(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_starts_when_first_asked_and_answers_from_one_process(grading):
    assert grading.pid is None
    assert ask(grading, "x+1", "1+x") is True
    first = grading.pid
    assert ask(grading, "x+1", "x+2") is False
    assert grading.pid == first
    assert (grading.counts.started, grading.counts.answered, grading.counts.unanswered) == (1, 2, 0)


def test_a_computation_without_end_is_ended_and_the_next_request_is_answered(grading):
    assert ask(grading, "a", "a") is True
    first = grading.pid
    with pytest.raises(Unanswered):
        ask(grading, "5", "10^{10^{10}}", seconds=1)
    assert not exists(first)
    assert grading.counts.unanswered == 1
    assert ask(grading, "x+1", "1+x") is True
    assert grading.counts.started == 2


def test_a_process_that_was_killed_is_replaced(grading):
    ask(grading, "a", "a")
    os.kill(grading.pid, signal.SIGKILL)
    with_luck = []  # the death may be seen before or after the request is written
    for _ in range(2):
        try:
            with_luck.append(ask(grading, "x+1", "1+x"))
        except Unanswered:
            with_luck.append(None)
    assert with_luck[-1] is True
    assert grading.counts.started == 2


def test_a_stalled_process_is_given_up(grading, monkeypatch):
    ask(grading, "a", "a")
    os.kill(grading.pid, signal.SIGSTOP)
    read = grading._read
    monkeypatch.setattr(grading, "_read", lambda child, seconds: read(child, seconds / 100))
    with pytest.raises(Unanswered):
        ask(grading, "x+1", "1+x")


def test_memory_is_bounded(grading):
    ask(grading, "a", "a")
    limits = Path(f"/proc/{grading.pid}/limits")
    if not limits.exists():
        pytest.skip("no /proc on this platform")
    line = next(entry for entry in limits.read_text().splitlines() if entry.startswith("Max address space"))
    assert line.split()[3] == str(2 << 30)


def test_closing_ends_the_process_and_asking_starts_another(grading):
    ask(grading, "a", "a")
    pid = grading.pid
    grading.close()
    assert not exists(pid)
    grading.close()
    assert ask(grading, "a", "a") is True


def test_threads_share_it_without_mixing_replies(grading):
    def verdict(k):
        return ask(grading, f"x+{k}", f"{k}+x"), ask(grading, f"x+{k}", f"x+{k + 1}")

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(verdict, range(20))) == [(True, False)] * 20
    assert grading.counts.started == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_asks_a_process_of_its_own(grading):
    ask(grading, "a", "a")
    parents = grading.pid
    lock = grading._lock
    lock.acquire()  # as if another thread were asking at the moment of the fork
    child = os.fork()
    if child == 0:
        good = grading.pid is None and ask(grading, "x+1", "1+x") is True and grading.pid != parents
        grading.close()
        os._exit(0 if good else 1)
    lock.release()
    assert os.waitpid(child, 0)[1] == 0
    assert grading.pid == parents
    assert ask(grading, "x+2", "2+x") is True
    assert grading.counts.started == 1


def test_nothing_is_left_when_python_exits():
    program = (
        "from nabla.problems.answers.process import grading\n"
        "grading.ask({'left': 'a', 'right': 'a'}, 2)\n"
        "print(grading.pid)\n"
    )
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not done.stderr
    assert not exists(int(done.stdout))


def test_a_process_that_cannot_start_says_what_it_needs(tmp_path):
    broken = tmp_path / "worker.py"
    broken.write_text("import no_such_package_of_answers")
    with pytest.raises(ConfigError, match=r"grades mathematical .* pip install 'math-verify") as raised:
        ask(GradingProcess(replace(MATH, path=broken)), "a", "b")
    assert "no_such_package_of_answers" in str(raised.value)


def test_the_main_thread_is_not_needed(grading):
    found = []
    thread = threading.Thread(target=lambda: found.append(ask(grading, "x+1", "1+x")))
    thread.start()
    thread.join()
    assert found == [True]
