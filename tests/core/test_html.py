"""What a notebook shows of solutions, costs and reasoners."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nabla.core import html, pages
from nabla.core.costs import Cost, Usage
from nabla.core.errors import ConfigError
from nabla.core.prompt import Prompt
from nabla.core.solution import Details, Revision, Solution
from nabla.launch.reasoner import NablaReasoner
from tests import tiny

EVIL = "<script>alert(1)</script>"
SOLUTION = Solution(
    prompt=Prompt.of(f"1+1 {EVIL}", id="a"),
    response=f"2 {EVIL}",
    tokens=(5, 6),
    reward=0.5,
    finished=False,
    method="nabla-reasoner",
    cost=Cost({"rollout": Usage(decode_steps=7, tokens=9, flops=1e6)}, {}),
    revisions=(Revision(1, 4, 6, 0.1, 0.5, True, "1", f"2 {EVIL}"),),
    revised_positions=(1,),
    details=Details(pieces=("2", f" {EVIL}"), log_probs=(-0.1, float("nan")), entropy=(0.2, 0.3)),
)


def test_nothing_is_markup_but_our_own():
    for made in (SOLUTION, replace(SOLUTION, details=None)):
        shown = made._repr_html_()
        assert "<script>" not in shown
        assert "&lt;script&gt;" in shown
        assert "1 accepted, 0 rejected" in shown
        assert "cut off" in shown
    assert "underline" in SOLUTION._repr_html_()
    assert "<b>" not in html.table(("<b>",), [("<b>",)], "<b>")


def test_a_cost_is_a_table():
    shown = SOLUTION.cost._repr_html_()
    assert shown.count("<tr>") == 3  # head, phase, total
    assert "rollout" in shown
    assert "1.00e+06" in shown


def test_a_solution_is_a_page(tmp_path):
    path = SOLUTION.to_html(tmp_path / "page.html")
    text = path.read_text()
    assert text.startswith(pages.MARK)
    assert EVIL not in text
    assert SOLUTION.to_html(str(path)) == path  # its own page may be written over
    (tmp_path / "other.html").write_text("by hand")
    with pytest.raises(ConfigError, match="no page of nabla"):
        SOLUTION.to_html(tmp_path / "other.html")
    with pytest.raises(ConfigError, match="cannot be written"):
        SOLUTION.to_html(path / "below")
    frame = SOLUTION.show()._repr_html_()
    assert frame.startswith("<iframe srcdoc=")
    assert "<script" not in frame
    assert "log_prob" in text
    assert "log_prob" in replace(SOLUTION, details=None).to_html(Path(tmp_path / "plain.html")).read_text()


def test_a_reasoner_gives_answers_with_the_text_of_their_tokens():
    models = tiny.causal_lm("qwen2"), tiny.outcome("qwen3")
    reasoner = NablaReasoner(*models, method="greedy", max_new_tokens=6)
    solution = reasoner.solve("1+2=")
    assert "".join(solution.details.pieces) == solution.response
    assert len(solution.details.log_probs) == len(solution.details.entropy) == len(solution.tokens)
    (again,) = reasoner.solve(["1+2="])
    assert again == solution or again.prompt.id == solution.prompt.id
    shown = reasoner._repr_html_()
    assert "greedy" in shown
    assert "OutcomeReward" in shown
