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
    lefts, spectra, rights = [], [], []
    for expert in experts:
        delta = task_arithmetic.update(base, [expert], combine="sum", lambda_=1.0)
        left, values, right = leading(delta, kept)
        lefts.append(left)
        spectra.append(values)
        rights.append(right)
    scale = lambda_ / len(experts) if combine == "mean" else lambda_
    left, right = spectral.polar(torch.cat(lefts, 1)), spectral.polar(torch.cat(rights))
    return (left * (torch.cat(spectra) * scale)) @ right


def leading(delta: torch.Tensor, kept: int):
    """The leading singular vectors and values of a task vector (Eq. 5).

    Args:
        delta: ΔW_i, (m, n) float32.
        kept: how many at most; fewer come where the rank is smaller.

    Returns:
        U (m, k), s (k,), V^T (k, n), float32.
    """
    factors = spectral.factorize(delta)
    near, values = factors.vectors[:, :kept], factors.values[:kept]
    far = near.mT @ factors.polar
    return (far.mT, values, near.mT) if factors.tall else (near, values, far)
