"""What the prefix store takes: shapes on meta, and the same arithmetic beside a real run."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from nabla.core.solution import Solution
from nabla.methods.base import methods
from nabla.models.ledger import ACCELERATOR_SHARE
from nabla.models.prefixes import PrefixStore
from nabla.study.benchmark.kept import main, on_meta, rewriting
from nabla.study.benchmark.models import Workbench
from nabla.study.benchmark.settings import SETTINGS

GPU, SMALL = SETTINGS["gpu"], SETTINGS["small"]
KINDS = {"lm": "ForCausalLM", "rm": "ForSequenceClassification"}


def test_64_problems_of_a_7b_and_a_4b_model_stay_below_12_gb() -> None:
    """512 tokens each, on a GPU of 80 GB; without a limit they would not."""
    models = [on_meta(getattr(GPU, name), kind, 512) for name, kind in KINDS.items()]
    assert [keys(1).bytes_per_token for _, keys in models] == [2 * 28 * 4 * 128 * 2, 2 * 36 * 8 * 128 * 2]
    size: dict[str, Any] = {"problems": 64, "prompt": 112, "response": 400, "positions": 2}
    kept = rewriting(models, **size, limit=int(ACCELERATOR_SHARE * 80e9))
    assert 9e9 < kept.peak <= 10e9 < 12e9
    assert kept.lost < 0.2 * kept.found
    free = rewriting([models[0]], **size, limit=None)
    # A prompt and 400 tokens, then two and one third of these once more, from the beginning of a block on.
    assert free.each == (512 + (512 - 224) + (512 - 352)) * 57_344
    assert (free.lost, free.peak) == (0, 64 * free.each)


def test_a_real_run_takes_what_the_arithmetic_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens in blocks times bytes per token of a model that does not exist, against storage."""
    sizes = [
        on_meta(getattr(SMALL, name), kind, 8, torch.float32)[1](1).bytes_per_token
        for name, kind in KINDS.items()
    ]
    bench = Workbench(SMALL)
    engine = bench.engine()
    store, most = engine.workspace.store, 0
    bodies = engine.workspace.weights.body, *engine.reward.bodies()  # the engine's own views
    each = dict(zip(bodies, sizes, strict=True))
    original = PrefixStore.put

    def put(*arguments: Any) -> Any:
        nonlocal most
        found = original(*arguments)
        stored, expected = 0, 0
        for body, tree in store._trees.items():
            nodes = list(tree.root.children.values())
            while nodes:
                node = nodes.pop()
                nodes += node.children.values()
                assert node.block is not None
                stored += sum(part.untyped_storage().nbytes() for part in node.block.tensors)
                expected += len(node.tokens) * each[body]
        assert stored == expected == store.used
        most = max(most, stored)
        return found

    monkeypatch.setattr(PrefixStore, "put", put)
    dto = {"steps": 2, "objective": "reward"}
    sampling = {"temperature": 1.0, "max_new_tokens": 12}
    method = methods.build({"name": "nabla-reasoner", "max_rollouts": 2, "sampling": sampling, "dto": dto})
    prompts = [bench.prompt(seed) for seed in range(8)]
    solved = dict(engine.run(method.solve, prompts))
    assert [type(solution) for solution in solved.values()] == [Solution] * 8
    assert store.peak == most > 0
    assert store.peak_problems == 8
    # Prompt and answer at both models at least; below three texts each.
    length = SMALL.prefix + 12
    assert length * sum(sizes) < most / 8 < 3 * (length + 40) * sum(sizes)


def test_it_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nabla.study.benchmark.kept.SETTINGS", {"gpu": SMALL})
    arguments = ["--problems", "2", "--prompt", "8", "--response", "40", "--positions", "2", "--gpu", "1e5"]
    monkeypatch.setattr(sys, "argv", ["kept", *arguments])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(f"{2 * 2 * 1 * 16 * 2:,} bytes a token")
    assert lines[2].startswith("no limit: 0.00 GB")
    assert lines[3].startswith("default: 0.00 GB")
    assert lines[2].endswith(" 0 lost")
    assert not lines[3].endswith(" 0 lost")


def test_meta_bodies_have_no_storage() -> None:
    body, keys = on_meta(SMALL.lm, "ForCausalLM", 5)
    assert body.device == torch.device("meta")
    assert keys(3).length == 3
