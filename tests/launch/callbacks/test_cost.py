from __future__ import annotations

import io

from rich.console import Console

from nabla.core.costs import Cost, Usage
from nabla.launch.callbacks.cost import CostTable, cost_table
from nabla.launch.launcher import TestTimeLoop


def test_every_phase_and_the_total_have_a_row():
    cost = Cost(
        {
            "gradient": Usage(forward_passes=2, backward_passes=1, tokens=10, flops=1e9, peak_bytes=2**21),
            "rollout": Usage(decode_steps=5, tokens=5, flops=1e6, seconds=1.5),
            "something else": Usage(),
        }
    )
    out = io.StringIO()
    Console(file=out, width=110).print(cost_table(cost))
    lines = [line.split() for line in out.getvalue().splitlines() if line.strip()]
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
