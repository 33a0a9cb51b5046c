"""TIES-Merging (Yadav et al., 2023): the paper's Eq. 3, as mergekit defines it.

mergekit divides every entry by the number of experts that survive the trimming and agree with the
elected sign there (`combine: mean`), where Eq. 3 divides by the number of experts.
"""

from collections.abc import Sequence

import numpy as np
import torch

from wildmerge.methods.chunks import flat, slices, subtract


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
            the first ones in memory are kept.
        lambda_: the scale λ.

    Returns:
        The update, float32, of the base's shape: W_merged = W_0 + update.
    """
    result = torch.empty(base.numel(), device=base.device)
    (origin, *members) = flat([base, *experts])
    trims = [_Trim(origin, expert, density) for expert in members]
    for part in slices(base.numel(), 1 << 15):
        start = origin[part].float()
        deltas = start.new_empty(len(members), len(start))
        for delta, expert, trim in zip(deltas, members, trims, strict=True):
            trim(subtract(expert[part], start, delta))
        # Turned so that the elected sign is positive, what agrees is what is positive.
        elected = (deltas.sum(0) >= 0).float().mul_(2).sub_(1)
        agreeing = deltas.mul_(elected).relu_()
        merged = torch.sum(agreeing, 0, out=result[part])
        if combine == "mean":
            merged /= agreeing.sign_().sum(0).clamp_(min=1)
        merged *= elected.mul_(lambda_)
    return result.view(base.shape)


class _Trim:
    """Zeroes all but the largest entries of one task vector, chunk after chunk in their order."""

    def __init__(self, base: torch.Tensor, expert: torch.Tensor, density: float):
        size = base.numel()
        kept = min(size, max(1, int(density * size)))
        magnitudes = torch.empty(size, device=base.device)
        for part in slices(size):
            subtract(expert[part], base[part].float(), magnitudes[part]).abs_()
        if magnitudes.device.type == "cpu":
            # Quickselect in vector instructions, in place: tens of times faster than sorting.
            magnitudes.numpy().partition(size - kept)
        else:
            magnitudes = magnitudes.sort().values
        largest, rest = magnitudes[size - kept :], magnitudes[: size - kept]
        smallest = largest[0]
        self.threshold = smallest.item()
        # hardshrink keeps what is larger than its bound: this one lets the threshold pass.
        self.below = float(np.nextafter(np.float32(self.threshold), np.float32(0)))
        # Entries as large as the threshold that may stay, if there are more of them than that.
        shared = kept < size and rest.max() == smallest
        self.ties = int((largest == smallest).sum()) if shared and self.threshold else None

    def __call__(self, delta: torch.Tensor) -> None:
        if self.ties is None:
            torch.hardshrink(delta, self.below, out=delta)
            return
        tied = (delta.abs() == self.threshold).nonzero().view(-1) if self.ties else delta[:0]
        if len(tied):
            stay = tied[: self.ties]
            values = delta[stay]
            self.ties -= len(stay)
            torch.hardshrink(delta, self.threshold, out=delta)
            delta[stay] = values
        else:
            torch.hardshrink(delta, self.threshold, out=delta)


def mergekit(parameters: dict) -> dict:
    """The same recipe in the names of mergekit's own `ties`."""
    return {
        "weight": 1.0,
        "normalize": parameters["combine"] == "mean",
        "density": parameters["density"],
        "lambda": parameters["lambda"],
    }
