"""Attention of packed nodes to their ancestors, in the place of a model's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel
from transformers.modeling_utils import AttentionInterface

# The backend's name in lm-eval, and its attention's in transformers.
NAME = "shared-prefix"


@dataclass
class Tiles:
    """Tiles of queries whose paths are about as long, so that their keys stack with little padding.

    Attributes:
        number: (tiles,) which of the pass.
        index: (tiles, keys) rows of [carried; own] keys.
        mask: (tiles, 1, tile, keys) bool.
        depth: of the queries (tiles, 1, tile, 1) and of the keys (tiles, 1, 1, keys).
    """

    number: torch.Tensor
    index: torch.Tensor
    mask: torch.Tensor
    depth: tuple[torch.Tensor, torch.Tensor]
    _bias: dict[tuple[int | None, torch.dtype], torch.Tensor] = field(default_factory=dict)

    def bias(self, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        """What is added to the scores: 0 where a query sees a key, else -inf."""
        if (window, dtype) not in self._bias:
            seen = self.mask
            if window is not None:
                seen = seen & (self.depth[0] - self.depth[1] < window)
            hidden = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
            self._bias[window, dtype] = hidden.masked_fill_(~seen, float("-inf"))
        return self._bias[window, dtype]


# Layer -> its keys and values, (nodes, heads, width) each.
Cache = dict[int, tuple[torch.Tensor, ...]]


@dataclass
class Pass:
    """One forward pass over consecutive nodes.

    Attributes:
        tile: queries in a tile.
        groups: its tiles.
        carry: rows of [carried; own] keys to keep for the next pass.
        carried: of the ancestors of the first node, from the passes before.
        kept: the same for the next pass.
    """

    tile: int
    groups: list[Tiles]
    carry: torch.Tensor
    carried: Cache
    kept: Cache = field(default_factory=dict)

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        """Attention over ancestors.

        Args:
            layer: its number.
            query: (1, heads, N, width).
            key: (1, key heads, N, width).
            value: (1, key heads, N, value width).
            scaling: factor of the scores; None for torch's own.
            window: positions that a query looks back on; None for all.
            softcap: bound of the scores; None for none.

        Returns:
            (1, N, heads, value width).
        """
        _, heads, count, width = query.shape
        tiles = -(-count // self.tile)
        rows = []
        for own, old in zip((key, value), self.carried.get(layer, (None, None)), strict=True):
            own = own[0].transpose(0, 1)
            rows.append(own if old is None else torch.cat([old, own]))
        self.kept[layer] = tuple(x[self.carry] for x in rows)
        if tiles * self.tile != count:
            query = F.pad(query, (0, 0, 0, tiles * self.tile - count))
        query = query[0].view(heads, tiles, self.tile, width).transpose(0, 1)
        out = query.new_empty(tiles, self.tile, heads, rows[1].shape[-1])
        for group in self.groups:
            key, value = (x[group.index].transpose(1, 2) for x in rows)
            grouped = heads != key.shape[1]
            # GPUs have no fast kernel for grouped heads under a mask.
            if grouped and (softcap or query.is_cuda):
                key, value = (x.repeat_interleave(heads // x.shape[1], 1) for x in (key, value))
                grouped = False
            bias = group.bias(window, query.dtype)
            if softcap:
                assert scaling is not None
                scores = torch.matmul(query[group.number], key.transpose(2, 3)) * scaling
                scores = torch.tanh(scores / softcap) * softcap + bias
                shares = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
                mixed = torch.matmul(shares, value)
            else:
                mixed = F.scaled_dot_product_attention(
                    query[group.number], key, value, bias, scale=scaling, enable_gqa=grouped
                )
            out[group.number] = mixed.transpose(1, 2)
        return out.view(1, tiles * self.tile, heads, -1)[:, :count]


class PackedAttention:
    """The function that a model's attention layers call while it runs packed nodes.

    Attributes:
        running: the pass that runs now; transformers gives an attention function no other way to
            know.
    """

    def __init__(self, model: PreTrainedModel):
        self._model = model
        self._native = model.config._attn_implementation
        self.running: Pass | None = None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let the model's layers call this, for a while."""
        AttentionInterface.register(NAME, self)
        self._model.config._attn_implementation = NAME
        try:
            yield
        finally:
            self._model.config._attn_implementation = self._native
            self.running = None

    def __call__(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        sliding_window: int | None = None,
        softcap: float | None = None,
        **_: object,
    ) -> tuple[torch.Tensor, None]:
        """Attention as transformers calls it."""
        layer = module.layer_idx
        assert self.running is not None and isinstance(layer, int)
        # transformers' own sdpa leaves soft-capping out; do as it does.
        softcap = softcap if self._native == "eager" else None
        out = self.running.attend(layer, query, key, value, scaling, sliding_window, softcap)
        return out, None
