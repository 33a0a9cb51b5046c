"""TSV-Merge (Gargiulo et al., 2025): the paper's Eqs. 5 to 8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import task_arithmetic
from ._method import COMBINE, LAMBDA, Look, Method, Parameter
from ._rank import RANK, floor

if TYPE_CHECKING:
    import torch

# Where the project's own code counts a singular value as zero (`wildmerge.tensors.spectral`).
RANK_TOLERANCE = 1e-6


def update(
    base: torch.Tensor,
    experts: Sequence[torch.Tensor],
    *,
    combine: str,
    lambda_: float,
    rank: str = "signal",
    rank_tolerance: float = RANK_TOLERANCE,
    factors: Sequence[tuple[torch.Tensor, torch.Tensor]] | None = None,
) -> torch.Tensor:
    """λ U⊥ Σ V⊥^T from the leading singular vectors of every task vector (Eq. 8).

    Args:
        base: W_0, (m, n), any floating dtype.
        experts: the W_i, each (m, n).
        combine: `sum` is Eq. 8; `mean` divides it by the number of experts.
        lambda_: the scale λ.
        rank: which singular values of an expert's task vector count, see `_rank`.
        rank_tolerance: directions with a singular value of at most this share of the expert's
            largest do not enter the Procrustes step.
        factors: of each expert its leading singular values and the vectors on the shorter side,
            as `spectral.leading` gives them, where they are known already.

    Returns:
        The update, (m, n) float32: W_merged = W_0 + update. Each of T experts gives its
        floor(min(m, n) / T) leading directions, fewer if its rank is smaller: directions of a
        null space are arbitrary and do not enter the Procrustes step (Eq. 7).
    """
    import torch

    from wildmerge.tensors import spectral

    kept = share(base.shape, len(experts))
    nears: list[torch.Tensor] = []
    spectra: list[torch.Tensor] = []
    fars: list[torch.Tensor] = []
    for i, expert in enumerate(experts):
        delta = task_arithmetic.update(base, [expert], combine="sum", lambda_=1.0)
        wide = delta.mT if delta.shape[0] > delta.shape[1] else delta
        values, near = factors[i] if factors else spectral.leading(delta, kept)
        least = floor(rank, base, [expert])
        counted = int(((values > rank_tolerance * values[:1]) & (values > least)).sum())
        values, near = values[:counted], near[:counted]
        nears.append(near)
        spectra.append(values)
        # V^T = Σ^-1 U^T ΔW: the other side's vectors.
        fars.append((near @ wide).div_(values[:, None]))
    scale = task_arithmetic.scale_of(combine, lambda_, len(experts))
    near, far = spectral.polar(torch.cat(nears)), spectral.polar(torch.cat(fars))
    near *= torch.cat(spectra)[:, None] * scale
    return far.mT @ near if base.shape[0] > base.shape[1] else near.mT @ far


def share(shape: Sequence[int], experts: int) -> int:
    """How many directions of each of so many experts are kept: floor(min(m, n) / T)."""
    return min(shape) // experts


METHOD = Method(
    name="tsv_m",
    label="TSV-M",
    reference="Gargiulo et al., 2025, arXiv:2412.00081; Eqs. 5 to 8",
    update=update,
    other=task_arithmetic.mean,
    from_experts=True,
    family="subspace",
    parameters={
        "combine": COMBINE,
        "lambda": LAMBDA,
        "rank": RANK,
        "rank_tolerance": Parameter(
            "Directions of a task vector whose singular value is at most this share of its largest "
            "do not enter TSV-M's Procrustes step; 0 to 1. The default leaves out null spaces "
            "alone, whose directions are arbitrary.",
            minimum=RANK_TOLERANCE,
            below=1,
            default=RANK_TOLERANCE,
        ),
    },
    look=Look("#CC79A7", "P"),
    place=6,
)
