"""What a model costs, from its configuration alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Size:
    """What a model costs.

    Args:
        parameters: weights, shared ones once.
        flops: FLOPs of a forward pass of one token without context, head included (SPEC section 13).
    """

    parameters: int
    flops: float

    def bytes(self, width: int = 4) -> int:
        """Memory of the weights, ``width`` bytes each (4: float32, 2: bfloat16)."""
        return width * self.parameters


def measure(folder: Path, auto: str = "AutoModelForCausalLM", **settings: Any) -> Size:
    """Of a saved model, whose weights are not read.

    Args:
        folder: with its ``config.json``.
        auto: class of transformers.
        settings: of the configuration, changed (``num_labels``).
    """
    import torch
    import transformers

    from nabla.models.architecture import count_parameters

    config = transformers.AutoConfig.from_pretrained(str(folder), **settings)
    with torch.device("meta"):
        model = getattr(transformers, auto).from_config(config)
    model.tie_weights()
    parameters = sum({id(p): p.numel() for p in model.parameters()}.values())
    _, active = count_parameters(model.base_model, config.get_text_config())
    head = model.get_output_embeddings() or getattr(model, "score", None)
    weights = 0 if head is None else head.weight.numel()
    return Size(parameters, 2.0 * (active + weights))
