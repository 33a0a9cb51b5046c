"""TSV-Merge (Gargiulo et al., 2025): the paper's Eqs. 5 to 8."""

from collections.abc import Sequence

import torch

from wildmerge.methods import spectral, task_arithmetic


def update(
    base: torch.Tensor, experts: Sequence[torch.Tensor], *, combine: str, lambda_: float
) -> torch.Tensor:
    """λ U⊥ Σ V⊥^T from the leading singular vectors of every task vector (Eq. 8).

    Args:
        base: W_0, (m, n), any floating dtype.
        experts: the W_i, each (m, n).
        combine: `sum` is Eq. 8; `mean` divides it by the number of experts.
        lambda_: the scale λ.

    Returns:
        The update, (m, n) float32: W_merged = W_0 + update. Each of T experts gives its
        floor(min(m, n) / T) leading directions, fewer if its rank is smaller: directions of a
        null space are arbitrary and do not enter the Procrustes step (Eq. 7).
    """
    kept = min(base.shape) // len(experts)
    us, spectra, vts = [], [], []
    for expert in experts:
        delta = task_arithmetic.update(base, [expert], combine="sum", lambda_=1.0)
        u, s, vt = spectral.svd(delta)
        us.append(u[:, :kept])
        spectra.append(s[:kept])
        vts.append(vt[:kept])
    scale = lambda_ / len(experts) if combine == "mean" else lambda_
    return (orthogonal(torch.cat(us, 1)) * (torch.cat(spectra) * scale)) @ orthogonal(
        torch.cat(vts)
    )


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """The closest matrix with orthonormal columns (or rows), P Q^T of P D Q^T (Eq. 7).

    Null directions are left out: then it is the closest partial isometry of the same range.
    """
    if not matrix.numel():
        return matrix
    u, _, vt = spectral.svd(matrix)
    return u @ vt
