"""Model Stock (Jang et al., 2024): the paper's Eq. 4, as mergekit defines it.

The angle is that of the mean of the pairwise cosines, tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ._method import Look, Method

if TYPE_CHECKING:
    import torch

# mergekit's own bounds: of a product of norms, and of the denominator of t.
TINY = 1e-6


def update(base: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
    """T (W_avg - W_0), with t = N cos θ / (1 + (N - 1) cos θ) (Eq. 4).

    Args:
        base: W_0, any shape and floating dtype.
        experts: the W_i, two or more, each of the base's shape.

    Returns:
        The update, float32, of the base's shape: W_merged = W_0 + update.
    """
    import torch

    from wildmerge.tensors import deltas, flat, in_parallel, slices

    count = len(experts)
    total = torch.empty(base.numel(), device=base.device)
    origin, *members = flat([base, *experts])

    def chunk(part: slice) -> torch.Tensor:
        vectors = deltas(origin, members, part)
        torch.sum(vectors, 0, out=total[part])
        return (vectors @ vectors.T).double()

    gram: torch.Tensor = sum(in_parallel(chunk, slices(base.numel())))
    return total.mul_(interpolation(gram) / count).view(base.shape)


def interpolation(gram: torch.Tensor) -> float:
    """The interpolation factor t of Eq. 4.

    Args:
        gram: (n, n) float64, the inner products of the task vectors.

    Returns:
        t; 0 at the singularity 1 + (n - 1) cos θ = 0, where the base is kept.
    """
    import torch

    count = len(gram)
    norms = gram.diagonal().sqrt()
    cosines = (gram / torch.outer(norms, norms).clamp(min=TINY)).clamp(-1, 1)
    pairs = torch.ones_like(gram, dtype=torch.bool).triu(1)
    cosine = cosines[pairs].mean().item()
    denominator = 1 + (count - 1) * cosine
    return 0.0 if abs(denominator) < TINY else count * cosine / denominator


def mergekit(parameters: dict[str, Any]) -> dict[str, Any]:
    """The same recipe in the names of mergekit's own `model_stock`, which has no parameters."""
    return {}


METHOD = Method(
    name="model_stock",
    label="Model Stock",
    reference="Jang et al., 2024, arXiv:2403.19522; Eq. 4",
    update=update,
    family="weight interpolation",
    look=Look("#009E73", "s"),
    place=2,
    gpu=False,
    fewest=2,
    mergekit=mergekit,
)
