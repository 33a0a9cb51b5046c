"""Iso-C (Marczak et al., 2025): the paper's Eqs. 9 and 10."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import task_arithmetic
from ._method import COMBINE, LAMBDA, Look, Method
from ._rank import RANK, floor

if TYPE_CHECKING:
    import torch

    from wildmerge.tensors import spectral


def update(
    base: torch.Tensor,
    experts: Sequence[torch.Tensor],
    *,
    combine: str,
    lambda_: float,
    rank: str = "signal",
) -> torch.Tensor:
    """λ σ̄ U V^T of the combined task vectors U Σ V^T, σ̄ the mean of the singular values (Eq. 10).

    Args:
        base: W_0, (m, n), any floating dtype.
        experts: the W_i, each (m, n).
        combine: `sum` or `mean` of the task vectors.
        lambda_: the scale λ.
        rank: which singular values count, see `_rank`.

    Returns:
        The update, (m, n) float32: W_merged = W_0 + update. σ̄ is the mean over all min(m, n)
        singular values; directions that do not count, such as those of the null space, which are
        arbitrary, add nothing to it and get nothing.
    """
    import torch

    from wildmerge.tensors import spectral

    least = floor(rank, base, experts)
    if least:
        total = task_arithmetic.update(base, experts, combine="sum", lambda_=1.0)
        factors = spectral.factorize(total)
        return from_factors(factors, base, experts, combine=combine, lambda_=lambda_, rank=rank)
    delta = task_arithmetic.update(base, experts, combine=combine, lambda_=1.0)
    factor = spectral.polar(delta)
    # The sum of the singular values is the inner product of A = U Σ V^T with U V^T.
    total = torch.linalg.vecdot(delta, factor).double().sum().item()
    return factor * (lambda_ * total / min(delta.shape))


def from_factors(
    factors: spectral.Factors,
    base: torch.Tensor,
    experts: Sequence[torch.Tensor],
    *,
    combine: str,
    lambda_: float,
    rank: str = "signal",
) -> torch.Tensor:
    """The same from the factors of the sum of these experts' task vectors."""
    size = min(factors.polar.shape)
    counted = factors.above(floor(rank, base, experts))
    mean = counted.values.double().sum().item() / size
    scale = task_arithmetic.scale_of(combine, lambda_ * mean, len(experts))
    return (counted.polar.mT if counted.tall else counted.polar) * scale


METHOD = Method(
    name="iso_c",
    label="Iso-C",
    reference="Marczak et al., 2025, arXiv:2502.04959; Eqs. 9 and 10",
    update=update,
    other=task_arithmetic.mean,
    from_sum=from_factors,
    family="subspace",
    parameters={"combine": COMBINE, "lambda": LAMBDA, "rank": RANK},
    look=Look("#444444", "X"),
    place=7,
)
