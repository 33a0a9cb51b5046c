"""TIES-Merging (Yadav et al., 2023): the paper's Eq. 3, as mergekit defines it.

mergekit divides every entry by the number of experts that survive the trimming and agree with the
elected sign there (`combine: mean`), where Eq. 3 divides by the number of experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ._method import COMBINE, DENSITY, LAMBDA, Look, Method

if TYPE_CHECKING:
    import torch


def update(
    base: torch.Tensor,
    experts: Sequence[torch.Tensor],
    *,
    combine: str,
    density: float,
    lambda_: float,
) -> torch.Tensor:
    """λ ΔW_TIES: trim each task vector, elect a sign an entry, combine what agrees (Eq. 3).

    Args:
        base: W_0, any shape and floating dtype.
        experts: the W_i, each of the base's shape.
        combine: `mean` divides each entry by the number of agreeing experts, `sum` by nothing.
        density: the share of entries, largest first, that each task vector keeps, in (0, 1];
            exactly max(1, floor(density x entries)) of them. Of entries that are equally large
            the first ones in memory are kept (mergekit: an arbitrary choice of them).
        lambda_: the scale λ.

    Returns:
        The update, float32, of the base's shape: W_merged = W_0 + update.
    """
    import torch

    from wildmerge.tensors import deltas, flat, in_parallel, slices

    result = torch.empty(base.numel(), device=base.device)
    origin, *members = flat([base, *experts])
    kept = min(base.numel(), max(1, int(density * base.numel())))
    bounds = in_parallel(lambda expert: _bound(origin, expert, kept), members)

    def chunk(part: slice) -> None:
        trimmed = deltas(origin, members, part)
        for delta, bound in zip(trimmed, bounds, strict=True):
            bound.trim(delta, part.start)
        # Turned so that the elected sign is positive, what agrees is what is positive.
        total = trimmed.sum(0)
        elected = torch.copysign(torch.ones_like(total), total)
        agreeing = trimmed.mul_(elected).relu_()
        merged = torch.sum(agreeing, 0, out=result[part])
        if combine == "mean":
            merged /= agreeing.sign_().sum(0).clamp_(min=1)
        merged *= elected.mul_(lambda_)

    in_parallel(chunk, slices(base.numel()))
    return result.view(base.shape)


@dataclass(frozen=True)
class _Bound:
    """The largest entries of a task vector: all above a magnitude, and the first ones of that size.

    Attributes:
        threshold: the magnitude.
        last: the position up to which, inclusive, entries of just this size stay.
    """

    threshold: float
    last: int

    def trim(self, delta: torch.Tensor, start: int) -> None:
        """Zero, in place, what does not stay of the chunk (k,) that begins at position `start`."""
        import numpy as np
        import torch

        # hardshrink keeps what is larger than its bound: one step below, the threshold passes.
        below = float(np.nextafter(np.float32(self.threshold), np.float32(0)))
        split = min(max(self.last + 1 - start, 0), len(delta))
        if split:
            torch.hardshrink(delta[:split], below, out=delta[:split])
        if split < len(delta):
            torch.hardshrink(delta[split:], self.threshold, out=delta[split:])


def _bound(base: torch.Tensor, expert: torch.Tensor, kept: int) -> _Bound:
    import numpy as np
    import torch

    from wildmerge.tensors import deltas, slices

    size = base.numel()
    magnitudes = torch.empty(size, device=base.device)
    for part in slices(size):
        torch.abs(deltas(base, [expert], part)[0], out=magnitudes[part])
    if base.device.type != "cpu":
        threshold = magnitudes.sort().values[size - kept]
        equal = (magnitudes == threshold).nonzero().view(-1)
        staying = kept - int((magnitudes > threshold).sum())
        return _Bound(threshold.item(), int(equal[staying - 1]))
    # The bits of numbers that are not negative are ordered as they are. numpy selects and compares
    # integers in vector instructions, tens of times faster than a sort.
    bits = magnitudes.view(torch.int32).numpy()
    ordered = np.partition(bits, size - kept)
    smallest = ordered[size - kept]
    staying = int(np.count_nonzero(ordered[size - kept :] == smallest))
    last = np.flatnonzero(bits == smallest)[staying - 1]
    return _Bound(smallest.view(np.float32).item(), int(last))


def unscaled(parameters: dict[str, Any], experts: int) -> tuple[dict[str, Any], float]:
    """The parameters of the update with λ = 1, and the factor that makes it this one."""
    return parameters | {"lambda": 1.0}, parameters["lambda"]


def mergekit(parameters: dict[str, Any]) -> dict[str, Any]:
    """The same recipe in the names of mergekit's own `ties`."""
    return {
        "weight": 1.0,
        "normalize": parameters["combine"] == "mean",
        "density": parameters["density"],
        "lambda": parameters["lambda"],
    }


METHOD = Method(
    name="ties",
    label="TIES",
    reference="Yadav et al., 2023, arXiv:2306.01708; Eq. 3",
    update=update,
    family="weight interpolation",
    parameters={
        "combine": replace(
            COMBINE,
            description="`mean` (Eq. 3) divides each entry by the number of experts that agree "
            "there, `sum` by nothing.",
        ),
        "density": DENSITY,
        "lambda": LAMBDA,
    },
    look=Look("#D55E00", "^"),
    place=3,
    gpu=False,
    scale=("lambda",),
    unscaled=unscaled,
    once=False,
    mergekit=mergekit,
)
