"""Iso-C (Marczak et al., 2025): the paper's Eqs. 9 and 10."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import task_arithmetic
from ._method import COMBINE, LAMBDA, Look, Method

if TYPE_CHECKING:
    import torch

    from wildmerge.tensors import spectral


def update(
    base: torch.Tensor, experts: Sequence[torch.Tensor], *, combine: str, lambda_: float
) -> torch.Tensor:
    """λ σ̄ U V^T of the combined task vectors U Σ V^T, σ̄ the mean of the singular values (Eq. 10).

    Args:
        base: W_0, (m, n), any floating dtype.
        experts: the W_i, each (m, n).
        combine: `sum` or `mean` of the task vectors.
        lambda_: the scale λ.

    Returns:
        The update, (m, n) float32: W_merged = W_0 + update. σ̄ is the mean over all min(m, n)
        singular values; directions of the null space, which are arbitrary, get nothing.
    """
    import torch

    from wildmerge.tensors import spectral

    delta = task_arithmetic.update(base, experts, combine=combine, lambda_=1.0)
    factor = spectral.polar(delta)
    # The sum of the singular values is the inner product of A = U Σ V^T with U V^T.
    total = torch.linalg.vecdot(delta, factor).double().sum().item()
    return factor * (lambda_ * total / min(delta.shape))


def from_factors(
    factors: spectral.Factors, experts: int, *, combine: str, lambda_: float
) -> torch.Tensor:
    """The same from the factors of the sum of so many experts' task vectors."""
    mean = factors.values.double().sum().item() / min(factors.polar.shape)
    scale = lambda_ * mean / experts if combine == "mean" else lambda_ * mean
    return (factors.polar.mT if factors.tall else factors.polar) * scale


METHOD = Method(
    name="iso_c",
    label="Iso-C",
    reference="Marczak et al., 2025, arXiv:2502.04959; Eqs. 9 and 10",
    update=update,
    other=task_arithmetic.mean,
    from_sum=from_factors,
    family="subspace",
    parameters={"combine": COMBINE, "lambda": LAMBDA},
    look=Look("#444444", "X"),
    place=7,
)
