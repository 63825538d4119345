from __future__ import annotations

import io

from rich.console import Console

from nabla.core.costs import Cost, Usage
from nabla.engine.events import Run
from nabla.launch.callbacks.cost import CostTable, cost_table, kept_line, size
from nabla.launch.launcher import TestTimeLoop
from nabla.models.ledger import ByteBudget
from nabla.models.prefixes import PrefixStore


def test_every_phase_and_the_total_have_a_row():
    cost = Cost(
        {
            "gradient": Usage(0, 2, 1, tokens=10, flops=1e9, peak_bytes=2**21, beside=1),
            "rollout": Usage(decode_steps=5, tokens=5, flops=1e6, seconds=1.5),
            "something else": Usage(),
        }
    )
    out = io.StringIO()
    Console(file=out, width=110).print(cost_table(cost))
    lines = [line.split() for line in out.getvalue().splitlines() if line.strip()]
    assert " ".join(lines.pop()) == "critical path: 7 of 8 calls wait for one another"
    assert lines[-4] == ["rollout", "5", "5", "0", "0", "5", "1.00e+06", "1.50", "-"]
    assert lines[-3] == ["gradient", "3", "0", "2", "1", "10", "1.00e+09", "0.00", "2"]
    assert lines[-2][:2] == ["something", "else"]
    assert lines[-1] == ["total", "8", "5", "2", "1", "15", "1.00e+09", "1.50", "2"]


def test_it_is_printed_at_the_end_of_a_run(latin_lm, latin_prompts, capsys):
    table = CostTable()
    loop = TestTimeLoop("greedy", latin_lm, callbacks=[table], accelerator="cpu")
    solutions = loop.run(latin_prompts[:2])
    assert table.cost == Cost.sum(s.cost for s in solutions)
    assert "rollout" in capsys.readouterr().out
    (solution,) = loop.run(latin_prompts[:1])
    assert table.cost == solution.cost


def test_solutions_of_other_processes_count_once(latin_lm, latin_prompts, capsys):
    """Callbacks hear of their process's share as it goes, and of all solutions at the end."""
    first, second = TestTimeLoop("greedy", latin_lm, accelerator="cpu").run(latin_prompts[:2])
    table, run = CostTable(), Run(latin_lm.vocabulary, world_size=2)
    for _ in range(2):
        table.on_run_start(run, latin_prompts[:2])
        table.on_solution(first)
        table.on_run_end(run, [first, second])
        assert table.cost == first.cost + second.cost


def test_what_was_kept_is_told_with_a_problems_share():
    store = PrefixStore(budget=ByteBudget(2 * 10**9))
    assert kept_line(store, Cost()) is None
    store.peak, store.peak_problems = 64 * 10**6, 8
    assert kept_line(store, Cost()) == "keys and values kept: 64.0 MB of 2.0 GB, 8.0 MB a live problem"
    line = kept_line(PrefixStore(budget=ByteBudget(0)), Cost(counts={"prefix_tokens_lost": 1234}))
    assert "kept: 0.0 kB of 0.0 kB, 0.0 kB a live problem; 1,234 tokens gave way" in line


def test_bytes_for_people():
    assert [size(n) for n in (0, 960, 1e6, 2.5e9)] == ["0.0 kB", "1.0 kB", "1.0 MB", "2.5 GB"]
