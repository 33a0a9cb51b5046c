"""Task Arithmetic (Ilharco et al., 2023): the paper's Eq. 2, and Eq. 12 for the mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ._method import COMBINE, LAMBDA, Look, Method, Piecewise

if TYPE_CHECKING:
    import torch


def pieces(
    base: torch.Tensor, experts: Sequence[torch.Tensor], *, combine: str, lambda_: float
) -> Callable[[slice], torch.Tensor]:
    """λ ΔW_TA, the scaled sum (Eq. 2) or mean (Eq. 12) of the task vectors.

    Args:
        base: W_0, any shape and floating dtype.
        experts: the W_i, each of the base's shape.
        combine: `sum` or `mean`.
        lambda_: the scale λ.

    Returns:
        Of a slice of the flat elements the update, (k,) float32: W_merged = W_0 + update.
    """
    import torch

    from wildmerge.tensors import delta, flat

    scale = scale_of(combine, lambda_, len(experts))
    origin, *members = flat([base, *experts])

    def piece(part: slice) -> torch.Tensor:
        start = origin[part].float()
        sums, vector = torch.zeros_like(start), torch.empty_like(start)
        for member in members:
            sums.add_(delta(start, member[part], vector))
        return sums.mul_(scale)

    return piece


update = Piecewise(pieces)


def _mean(
    base: torch.Tensor, experts: Sequence[torch.Tensor], *, lambda_: float, **_: Any
) -> Callable[[slice], torch.Tensor]:
    return pieces(base, experts, combine="mean", lambda_=lambda_)


# λ times the mean of the task vectors: what the subspace methods do with other tensors.
mean = Piecewise(_mean)


def unscaled(parameters: dict[str, Any], experts: int) -> tuple[dict[str, Any], float]:
    """The parameters of the plain sum, and the factor that makes it this update."""
    return {"combine": "sum", "lambda": 1.0}, scale_of(
        parameters["combine"], parameters["lambda"], experts
    )


def scale_of(combine: str, lambda_: float, experts: int) -> float:
    """The factor of the plain sum: λ, divided by the number of experts for the mean."""
    return lambda_ / experts if combine == "mean" else lambda_


def mergekit(parameters: dict[str, Any]) -> dict[str, Any]:
    """The same recipe in the names of mergekit's own `task_arithmetic`."""
    return {
        "weight": 1.0,
        "normalize": parameters["combine"] == "mean",
        "lambda": parameters["lambda"],
    }


METHOD = Method(
    name="task_arithmetic",
    label="TA",
    reference="Ilharco et al., 2023, arXiv:2212.04089; Eqs. 1, 2 and 12",
    update=update,
    family="weight interpolation",
    parameters={"combine": COMBINE, "lambda": LAMBDA},
    look=Look("#0072B2", "o"),
    place=1,
    gpu=False,
    scale=("combine", "lambda"),
    unscaled=unscaled,
    mergekit=mergekit,
)
