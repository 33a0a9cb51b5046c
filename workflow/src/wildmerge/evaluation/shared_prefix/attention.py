"""Attention of packed nodes to their ancestors, in the place of a model's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface

# The backend's name in lm-eval, and its attention's in transformers.
NAME = "shared-prefix"

# What transformers hands to every attention function and none of its own reads, or reads as this
# one does: without dropout, a cache or gradients.
IDLE = {
    *("cache_position", "dropout", "is_causal", "logits_to_keep", "output_attentions"),
    *("output_hidden_states", "output_router_logits", "position_ids", "return_dict", "use_cache"),
}


class Mask:
    """A model's own mask as a rule on positions: which keys a query sees, by how deep both are.

    In a tree a token's position is its depth, so the rule that transformers makes for a sequence
    holds for every path: the causal rule, a window, chunks.

    Args:
        rule: transformers' mask function of batch, head, query and key.
        by_index: it takes tensors of positions.
    """

    def __init__(self, rule: Callable[..., torch.Tensor], by_index: bool):
        self._rule, self._by_index = rule, by_index

    @classmethod
    def of_model(cls, *, mask_function: Callable, use_vmap: bool = False, **_: object) -> Mask:
        """Make it of what transformers hands to a mask function."""
        return cls(mask_function, not use_vmap)

    def sees(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """Which keys are seen, bool, of positions that broadcast to four axes."""
        if not self._by_index:
            raise ValueError("its mask is not made from positions")
        first = query.new_zeros(1, 1, 1, 1)
        return self._rule(first, first, query, key)

    def ends_at(self, reach: int) -> bool:
        """Whether a query stops to see the first key when it is `reach` positions behind it."""
        key = torch.zeros(1, 1, 1, 1, dtype=torch.int64)
        inside, behind = (self.sees(key + reach - back, key) for back in (1, 0))
        return bool(inside) and not bool(behind)


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
    _bias: dict[tuple[Mask | None, torch.dtype], torch.Tensor] = field(default_factory=dict)

    def bias(self, mask: Mask | None, dtype: torch.dtype) -> torch.Tensor:
        """What is added to the scores: 0 where a query sees a key, else -inf."""
        if (mask, dtype) not in self._bias:
            seen = self.mask
            if mask is not None:
                seen = seen & mask.sees(*self.depth)
            hidden = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
            self._bias[mask, dtype] = hidden.masked_fill_(~seen, float("-inf"))
        return self._bias[mask, dtype]


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
        masks: of the model, that its layers were given.
    """

    tile: int
    groups: list[Tiles]
    carry: torch.Tensor
    carried: Cache
    kept: Cache = field(default_factory=dict)
    masks: set[Mask] = field(default_factory=set)

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        mask: Mask | None,
        softcap: float | None,
    ) -> torch.Tensor:
        """Attention over ancestors.

        Args:
            layer: its number.
            query: (1, heads, N, width).
            key: (1, key heads, N, width).
            value: (1, key heads, N, value width).
            scaling: factor of the scores; None for torch's own.
            mask: which ancestors a query sees; None for all.
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
        if mask is not None:
            self.masks.add(mask)
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
            bias = group.bias(mask, query.dtype)
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
        AttentionMaskInterface.register(NAME, Mask.of_model)
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
        attention_mask: Mask | torch.Tensor | None,
        scaling: float | None = None,
        sliding_window: int | None = None,
        softcap: float | None = None,
        **more: object,
    ) -> tuple[torch.Tensor, None]:
        """Attention as transformers calls it.

        A window is taken from the mask, as transformers' own sdpa and eager functions take it.

        Raises:
            ValueError: the layer hands over what is not understood here.
        """
        layer = module.layer_idx
        assert self.running is not None and isinstance(layer, int)
        given = {name for name, value in more.items() if value is not None} - IDLE
        if isinstance(attention_mask, torch.Tensor):
            given.add("a mask of its own")
        if attention_mask is None and sliding_window is not None:
            given.add("a window without a mask")
        if given:
            raise ValueError(f"its attention is given {', '.join(sorted(given))}")
        # transformers' own sdpa leaves soft-capping out; do as it does.
        softcap = softcap if self._native == "eager" else None
        assert not isinstance(attention_mask, torch.Tensor)
        out = self.running.attend(layer, query, key, value, scaling, attention_mask, softcap)
        return out, None
