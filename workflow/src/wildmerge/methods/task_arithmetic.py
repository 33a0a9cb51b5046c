"""Task Arithmetic (Ilharco et al., 2023): the paper's Eq. 2, and Eq. 12 for the mean."""

from collections.abc import Sequence

import torch

from wildmerge.tensors.chunks import delta, flat, in_parallel, slices


def update(
    base: torch.Tensor, experts: Sequence[torch.Tensor], *, combine: str, lambda_: float
) -> torch.Tensor:
    """λ ΔW_TA, the scaled sum (Eq. 2) or mean (Eq. 12) of the task vectors.

    Args:
        base: W_0, any shape and floating dtype.
        experts: the W_i, each of the base's shape.
        combine: `sum` or `mean`.
        lambda_: the scale λ.

    Returns:
        The update, float32, of the base's shape: W_merged = W_0 + update.
    """
    scale = scale_of(combine, lambda_, len(experts))
    total = torch.empty(base.numel(), device=base.device)
    origin, *members = flat([base, *experts])

    def chunk(part: slice) -> None:
        start, found = origin[part].float(), total[part].zero_()
        vector = torch.empty_like(start)
        for member in members:
            found.add_(delta(start, member[part], vector))
        found.mul_(scale)

    in_parallel(chunk, slices(base.numel()))
    return total.view(base.shape)


def unscaled(parameters: dict, experts: int) -> tuple[dict, float]:
    """The parameters of the plain sum, and the factor that makes it this update."""
    return {"combine": "sum", "lambda": 1.0}, scale_of(
        parameters["combine"], parameters["lambda"], experts
    )


def scale_of(combine: str, lambda_: float, experts: int) -> float:
    """The factor of the plain sum: λ, divided by the number of experts for the mean."""
    return lambda_ / experts if combine == "mean" else lambda_


def mergekit(parameters: dict) -> dict:
    """The same recipe in the names of mergekit's own `task_arithmetic`."""
    return {
        "weight": 1.0,
        "normalize": parameters["combine"] == "mean",
        "lambda": parameters["lambda"],
    }
