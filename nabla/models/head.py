"""Language-model heads and embedding tables: the only places where the vocabulary's size matters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor, nn

from nabla.models.architecture import logit_scale, logit_softcap
from nabla.models.precision import require_plain, work_dtype

#: Largest number of logits held at once where a whole response's rows are needed.
CHUNK_ELEMENTS = 1 << 21
#: The same for tiles of the vocabulary: a tile that stays in a CPU's cache is faster than a large one,
#: a GPU wants large ones.
TILE_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 24}


@dataclass(frozen=True, eq=False)
class Partition:
    """What is known of rows of logits without holding them; see :meth:`Head.partition`.

    Args:
        log_z: logarithm of the sum of exponentials ``[n]``.
        top: largest logit ``[n]``.
        mean: expected logit ``Σ p_v z_v``; 0 unless asked for ``[n]``.
        slope: ``∂ log_z/∂h``; 0 unless asked for ``[n, H]``.
    """

    log_z: Float[Tensor, " n"]
    top: Float[Tensor, " n"]
    mean: Float[Tensor, " n"]
    slope: Float[Tensor, "n hidden"]


class Head:
    """Hidden states → logits, with scaling, soft-capping and the mask of usable tokens.

    Args:
        module: the output embedding (``model.get_output_embeddings()``).
        config: of the model; read for its logits' scale and soft cap.
        usable: number of leading ids that the tokenizer knows; the rest is padding of the matrix.

    Raises ModelError where the head's weights are not a plain matrix of floating-point numbers (quantised).
    """

    def __init__(self, module: nn.Linear, config: Any, usable: int) -> None:
        self.module = module
        config = config.get_text_config()
        self.scale, self.softcap = logit_scale(config), logit_softcap(config)
        require_plain(module.weight, "The language model's head")
        self.usable = min(usable, int(module.weight.shape[0]))
        #: Additional ids that may not be used (-inf), or None.
        self.blocked: Tensor | None = None

    @property
    def weight(self) -> Float[Tensor, "usable hidden"]:
        """Rows of the tokenizer's ids."""
        return self.module.weight[: self.usable]

    @property
    def device(self) -> torch.device:
        """Where hidden states go."""
        return self.module.weight.device

    def flops(self, rows: int, candidates: int | None = None) -> float:
        """FLOPs of the logits of ``rows`` hidden states, of so many candidates each; all by default."""
        return 2.0 * rows * (candidates or self.usable) * int(self.module.weight.shape[1])

    def slope_flops(self, rows: int, candidates: int) -> float:
        """FLOPs of the way back from so many candidates' logits to their hidden states."""
        return self.flops(rows, candidates if self._gathers(rows, candidates) else None)

    def _gathers(self, rows: int, candidates: int) -> bool:  # else all of the head's rows in one product
        return rows * candidates < self.usable

    def _finish(self, raw: Tensor) -> Tensor:
        """Scale and soft cap, in the working dtype."""
        logits = raw.to(work_dtype(raw.dtype))
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits

    def logits(
        self,
        hidden: Float[Tensor, "*batch hidden"],
        candidates: Int[Tensor, "*batch_or_not k"] | None = None,
    ) -> Float[Tensor, "*batch k"]:
        """Logits of all usable ids, or of ``candidates`` (``[K]``, or one row of K per hidden state): float32
        (float64 for float64 models); ``-inf`` at blocked ids."""
        weight, bias = self.weight, self.module.bias
        hidden = hidden.to(weight.device)
        # Latents are optimised in float32: keep their small moves.
        if candidates is None:
            raw = hidden @ weight.to(hidden.dtype).mT
            if bias is not None:
                raw = raw + bias[: self.usable]
        else:
            candidates = candidates.to(weight.device)
            raw = _chosen_products(lambda ids: weight[ids].to(hidden.dtype), hidden, candidates)
            if bias is not None:
                raw = raw + bias[candidates]
        logits = self._finish(raw)
        if self.blocked is not None:
            blocked = self.blocked.to(logits.device)
            blocked = blocked if candidates is None else blocked[candidates]
            logits = logits.masked_fill(blocked, float("-inf"))
        return logits

    @property
    def linear(self) -> bool:
        """Logits are an affine function of the hidden state at every id: no cap, nothing blocked."""
        return self.softcap is None and self.blocked is None

    def affine(self, ids: slice) -> Float[Tensor, "n _"]:
        """Rows of a linear head in the working dtype, scaled, its bias (if any) as one more column."""
        rows = self.weight[ids]
        bias = self.module.bias
        if bias is not None:
            rows = torch.cat([rows, bias[: self.usable][ids].unsqueeze(-1)], -1)
        return rows.to(work_dtype(rows.dtype)) * self.scale

    def block(self, tokens: Int[Tensor, " n"]) -> None:
        """Forbids ids from now on, everywhere: sampling, likelihood and gradient alike."""
        if self.blocked is None:
            self.blocked = torch.zeros(self.usable, dtype=torch.bool, device=self.device)
        self.blocked[tokens.to(self.device)] = True

    def chunks(self, rows: int) -> list[slice]:
        """Slices of rows whose logits together stay under CHUNK_ELEMENTS."""
        size = max(1, CHUNK_ELEMENTS // self.usable)
        return [slice(i, min(i + size, rows)) for i in range(0, rows, size)]

    @torch.no_grad()
    def partition(
        self, hidden: Float[Tensor, "n hidden"], *, slope: bool = False, moments: bool = False
    ) -> Partition:
        """Log-partition of each row, with no n×V numbers at any time.

        The vocabulary goes through in tiles, each with a softmax of its own; results are put together by
        the tiles' shares, as in online softmax (arXiv 1805.02867). All rows meet a tile at once, so that the
        head is read once, not once per chunk of rows.

        Args:
            hidden: states.
            slope: also ``∂ log Z/∂h``, by a second product.
            moments: also the expected and the largest logit.
        """
        count = len(hidden)
        dtype = work_dtype(hidden.dtype)
        hidden = hidden.to(self.weight.device)
        lowest = torch.full((count,), float("-inf"), dtype=dtype, device=hidden.device)
        log_z, top, mean = lowest, lowest, torch.zeros_like(lowest)
        pulled = torch.zeros(count, hidden.shape[-1], dtype=dtype, device=hidden.device)
        for tile in self._tiles(count):
            logits = self._tile(hidden, tile)
            probs = logits.softmax(-1)
            largest = logits.amax(-1)
            own = largest - probs.amax(-1).log()  # the largest probability is 1/Σexp(z - max)
            both = torch.logaddexp(log_z, own)
            old, new = (log_z - both).exp(), (own - both).exp()
            log_z, top = both, torch.maximum(top, largest)
            if moments:
                known = logits if self.blocked is None else logits.masked_fill(logits.isinf(), 0.0)
                mean = mean * old + new * (probs * known).sum(-1)
            if slope:
                if self.softcap is not None:
                    probs *= self._cap_slope(logits)
                part = (probs.to(self.weight.dtype) @ self.weight[tile]).to(dtype)
                pulled.mul_(old.unsqueeze(-1)).addcmul_(part, new.unsqueeze(-1), value=self.scale)
        return Partition(log_z, top, mean, pulled)

    def _tiles(self, rows: int) -> list[slice]:
        """Slices of ids whose logits stay under TILE_ELEMENTS, without those that are blocked entirely."""
        size = max(1, TILE_ELEMENTS.get(self.device.type, CHUNK_ELEMENTS) // max(rows, 1))
        tiles = [slice(i, min(i + size, self.usable)) for i in range(0, self.usable, size)]
        if self.blocked is None:
            return tiles
        return [tile for tile in tiles if not bool(self.blocked[tile].all())]

    def _tile(self, hidden: Tensor, ids: slice) -> Tensor:
        raw = hidden.to(self.weight.dtype) @ self.weight[ids].mT
        if self.module.bias is not None:
            raw = raw + self.module.bias[: self.usable][ids]
        logits = self._finish(raw)
        if self.blocked is not None:
            logits = logits.masked_fill(self.blocked[ids], float("-inf"))
        return logits

    def _cap_slope(self, logits: Tensor) -> Tensor:
        """Derivative of the soft cap, from its result."""
        assert self.softcap is not None
        return 1 - (logits.masked_fill(logits.isinf(), 0.0) / self.softcap) ** 2

    def _chosen_slope(
        self, logits: Float[Tensor, "n k"], tokens: Int[Tensor, "n k"], weights: Float[Tensor, "n k"]
    ) -> Float[Tensor, "n hidden"]:
        """``Σ_k w_k ∂z[t_k]/∂h``."""
        if self.softcap is not None:
            weights = weights * self._cap_slope(logits)
        weights = weights.to(self.weight.dtype)
        if self._gathers(*tokens.shape):
            return self.scale * einsum(weights, self.weight[tokens], "n k, n k h -> n h")
        parts = []
        for rows in self.chunks(len(tokens)):
            dense = weights.new_zeros(len(tokens[rows]), self.usable)
            parts.append(dense.scatter_add_(-1, tokens[rows], weights[rows]) @ self.weight)
        return self.scale * torch.cat(parts)

    def log_likelihood(
        self,
        hidden: Float[Tensor, "n hidden"],
        tokens: Int[Tensor, "n k"],
        weights: Float[Tensor, "n k"],
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """``Σ_k w_ik log softmax(logits_i)[t_ik]`` per row, differentiable in ``hidden`` only, and the
        log-normaliser of each row (no gradient).

        Never holds n×V numbers (:meth:`partition`); the gradient with respect to ``hidden`` is formed in
        the forward pass, since each row's value depends on its own hidden state alone. Two products with
        the head in all.
        """
        values, normalisers = _LinearLogLikelihood.apply(  # type: ignore[no-untyped-call]
            hidden, tokens, weights, self
        )
        return values, normalisers


class _LinearLogLikelihood(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, tokens: Tensor, weights: Tensor, head: Head
    ) -> tuple[Tensor, Tensor]:
        device, need = hidden.device, ctx.needs_input_grad[0]
        own = hidden.to(head.device)
        dtype = work_dtype(hidden.dtype)
        tokens, weights = tokens.to(head.device), weights.to(head.device, dtype)
        found = head.partition(own, slope=need)
        every = tokens.shape[-1] == head.usable  # rows over the whole vocabulary, a few at most
        chosen = head.logits(own).gather(-1, tokens) if every else head.logits(own, tokens)
        picked = chosen - found.log_z.unsqueeze(-1)
        # A zero weight on a blocked token (-inf) counts nothing.
        picked = torch.where(weights == 0, torch.zeros_like(picked), picked)
        values = (weights * picked).sum(-1)
        if need:
            mass = weights.sum(-1, keepdim=True)
            grads = head._chosen_slope(chosen, tokens, weights).to(dtype) - mass * found.slope
            ctx.save_for_backward(grads.to(device, hidden.dtype))
        normalisers = found.log_z.to(device)
        ctx.mark_non_differentiable(normalisers)
        return values.to(device), normalisers

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None, None, None]:
        (grads,) = ctx.saved_tensors
        return grads * cotangents[0].unsqueeze(-1).to(grads.dtype), None, None, None


class EmbeddingTable:
    """The input embedding of one model, indexed by the language model's token ids.

    Args:
        module: the model's input embedding.
        usable: number of language-model ids.
        index: this model's id for each of them, -1 where it has none; None if the ids are the same.
    """

    def __init__(self, module: nn.Module, usable: int, index: Int[Tensor, " usable"] | None = None) -> None:
        self.module = module
        weight = next(module.parameters())
        require_plain(weight, "The input embedding")
        self._parameter = weight
        self.usable = usable
        self.index = index
        probe = torch.arange(min(4, len(weight)), device=weight.device)
        with torch.no_grad():
            # Some embeddings scale their rows (Gemma): those are asked for, not read.
            plain = torch.equal(module(probe), weight[probe])
            self.hidden_size = int(module(probe).shape[-1])
        self._weight = weight if plain else None
        self._gram: Tensor | None = None
        self._mean: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self._parameter.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the rows."""
        return self._parameter.dtype

    def rows(self, tokens: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch hidden"]:
        """Embeddings of language-model ids; zero where this model has no such token."""
        tokens = tokens.to(self.device)
        if self.index is None:
            return self._read(tokens)
        mapped = self.index.to(self.device)[tokens]
        rows = self._read(mapped.clamp_min(0))
        return rows.masked_fill((mapped < 0).unsqueeze(-1), 0.0)

    def _read(self, ids: Tensor) -> Tensor:
        with torch.no_grad():
            rows: Tensor = self._weight[ids] if self._weight is not None else self.module(ids)
        return rows

    def _slices(self) -> Iterator[tuple[slice, Tensor]]:
        """(slice of ids, their embeddings); one slice without a copy where the table is plain, else
        one copy at a time."""
        if self._weight is not None and self.index is None:
            yield slice(0, self.usable), self._weight[: self.usable].detach()
            return
        size = max(1, CHUNK_ELEMENTS // self.hidden_size)
        parts = [slice(i, min(i + size, self.usable)) for i in range(0, self.usable, size)]
        ids = torch.arange(self.usable, device=self.device)
        for part in parts:
            yield part, self.rows(ids[part])

    def products(
        self,
        vectors: Float[Tensor, "n hidden"],
        candidates: Int[Tensor, "*n_or_not k"] | None = None,
    ) -> Float[Tensor, "n k"]:
        """``E v`` for all ids, or for ``candidates`` (``[K]`` or ``[n, K]``), in the working dtype."""
        vectors = vectors.to(self.device, self.dtype)
        if candidates is not None:
            return _chosen_products(self.rows, vectors, candidates).to(work_dtype(self.dtype))
        parts = [vectors @ rows.mT for _, rows in self._slices()]
        out = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        return out.to(work_dtype(self.dtype))

    def transposed(self, weights: Float[Tensor, "n usable"]) -> Float[Tensor, "n hidden"]:
        """``E^T w`` for weights over all ids."""
        total = torch.zeros(len(weights), self.hidden_size, dtype=weights.dtype, device=self.device)
        for part, rows in self._slices():
            total += weights[:, part].to(self.device) @ rows.to(weights.dtype)
        return total

    def mix(
        self, weights: Float[Tensor, "n k"], candidates: Int[Tensor, "n k"] | None = None
    ) -> Float[Tensor, "n hidden"]:
        """``y^T E`` for rows over ``candidates``, or over all ids."""
        if candidates is None:
            return self.transposed(weights).to(self.dtype)
        rows = self.rows(candidates)
        return einsum(weights.to(rows), rows, "n k, n k h -> n h")

    def gram(self) -> Float[Tensor, "hidden hidden"]:
        """``E^T E`` over all ids, computed once: norms of ``E v`` without touching V (SPEC 7.2)."""
        if self._gram is None:
            self._gram = cross_gram(self, self)
        return self._gram

    def mean(self) -> Float[Tensor, " hidden"]:
        """Mean embedding over all ids."""
        if self._mean is None:
            total = sum(rows.to(work_dtype(rows.dtype)).sum(0) for _, rows in self._slices())
            self._mean = torch.as_tensor(total) / self.usable
        return self._mean

    def flops(self, vectors: int, candidates: int | None = None) -> float:
        """FLOPs of :meth:`products`."""
        return 2.0 * vectors * (candidates or self.usable) * self.hidden_size


def _chosen_products(
    read: Callable[[Tensor], Tensor],
    vectors: Float[Tensor, "*n hidden"],
    candidates: Int[Tensor, "*n_or_not k"],
) -> Float[Tensor, "*n k"]:
    """``M[candidates] v``, candidates shared by all vectors or one row of them each; differentiable in the
    vectors. ``read`` gives rows of the matrix M, which are gathered in chunks."""
    if candidates.dim() == 1:
        return vectors @ read(candidates).mT
    size = max(1, CHUNK_ELEMENTS // (candidates.shape[-1] * vectors.shape[-1]))
    parts = [
        einsum(read(ids), rows, "n k h, n h -> n k")
        for ids, rows in zip(torch.split(candidates, size), torch.split(vectors, size), strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def cross_gram(left: EmbeddingTable, right: EmbeddingTable) -> Float[Tensor, "h1 h2"]:
    """``E_1^T E_2`` over all ids of two tables that share the language model's ids."""
    dtype = work_dtype(left.dtype)
    total = torch.zeros(left.hidden_size, right.hidden_size, dtype=dtype, device=left.device)
    size = max(1, CHUNK_ELEMENTS // max(left.hidden_size, right.hidden_size))
    for i in range(0, left.usable, size):
        ids = torch.arange(i, min(i + size, left.usable))
        total += left.rows(ids).to(dtype).mT @ right.rows(ids).to(left.device, dtype)
    return total
