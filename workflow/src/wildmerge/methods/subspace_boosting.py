"""Subspace Boosting (Skorobogat et al., 2025): the paper's Eq. 11, on any method's update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from . import task_arithmetic, ties
from ._method import BETA, Look, Method, Piecewise
from ._rank import RANK, floor

if TYPE_CHECKING:
    import torch

    from wildmerge.tensors import spectral


def boost(update: torch.Tensor, beta: float, least: float = 0.0) -> torch.Tensor:
    """Raise the small singular values of a method's update to that at the threshold (Eq. 11).

    The threshold is the first singular value at which the cumulative sum of the singular values
    reaches the share β of the whole.

    Args:
        update: λ ΔW of the plain method, (m, n) float32.
        beta: the share β, in [0, 1]; 1 changes nothing, 0 raises all to the largest.
        least: the singular value that has to be exceeded to count; what lies below is left out.

    Returns:
        The boosted update, (m, n) float32. Directions of the null space, which are arbitrary, are
        not raised.
    """
    from wildmerge.tensors import spectral

    factors = spectral.factorize(update).above(least)
    return factors.rebuild(raised(factors.values, beta))


def from_factors(
    factors: spectral.Factors,
    base: torch.Tensor,
    experts: Sequence[torch.Tensor],
    *,
    combine: str,
    lambda_: float,
    beta: float,
    rank: str = "signal",
) -> torch.Tensor:
    """Boosted Task Arithmetic from the factors of the sum of these experts' task vectors.

    Boosting commutes with scaling: SB(c ΔW) = c SB(ΔW).
    """
    scale = task_arithmetic.scale_of(combine, lambda_, len(experts))
    counted = factors.above(floor(rank, base, experts))
    return counted.rebuild(scale * raised(counted.values, beta))


def raised(s: torch.Tensor, beta: float) -> torch.Tensor:
    """The boosted spectrum σ* of Eq. 11, from the falling singular values s (k,)."""
    if not len(s):
        return s
    share = s.double().cumsum(0)
    # Rounding may leave the last share a hair below 1.
    cutoff = min(int((share < beta * share[-1]).sum()), len(s) - 1)
    return s.clamp(min=s[cutoff].item())


def boosted_task_arithmetic(
    base: torch.Tensor,
    experts: Sequence[torch.Tensor],
    *,
    combine: str,
    lambda_: float,
    beta: float,
    rank: str = "signal",
) -> torch.Tensor:
    """Subspace Boosting on top of Task Arithmetic; see `boost` and `_rank`."""
    update = task_arithmetic.update(base, experts, combine=combine, lambda_=lambda_)
    scale = task_arithmetic.scale_of(combine, lambda_, len(experts))
    return boost(update, beta, abs(scale) * floor(rank, base, experts))


def boosted_ties(
    base: torch.Tensor, experts: Sequence[torch.Tensor], *, beta: float, **parameters: Any
) -> torch.Tensor:
    """Subspace Boosting on top of TIES, whose trimming leaves no noise that could be known."""
    return boost(ties.update(base, experts, **parameters), beta)


def _without(pieces: Callable[..., Callable[[slice], torch.Tensor]]) -> Piecewise:
    """The plain method with the boosted one's parameters, for tensors that are no projections."""

    def plain(
        base: torch.Tensor,
        experts: Sequence[torch.Tensor],
        *,
        beta: float,
        rank: str = "all",
        **parameters: Any,
    ) -> Callable[[slice], torch.Tensor]:
        return pieces(base, experts, **parameters)

    return Piecewise(plain)


REFERENCE = "Skorobogat et al., 2025, arXiv:2506.16506; Eq. 11"
TASK_ARITHMETIC_SB = Method(
    name="task_arithmetic_sb",
    label="TA + SB",
    reference=REFERENCE,
    update=boosted_task_arithmetic,
    other=_without(task_arithmetic.pieces),
    from_sum=from_factors,
    family="subspace",
    parameters={**task_arithmetic.METHOD.parameters, "beta": BETA, "rank": RANK},
    look=Look("#56B4E9", "D", "--"),
    place=4,
    boosts=task_arithmetic.METHOD.name,
)
TIES_SB = Method(
    name="ties_sb",
    label="TIES + SB",
    reference=REFERENCE,
    update=boosted_ties,
    other=_without(ties.pieces),
    family="subspace",
    parameters={**ties.METHOD.parameters, "beta": BETA},
    look=Look("#E69F00", "v", "--"),
    place=5,
    once=False,
    boosts=ties.METHOD.name,
    salted=True,
    bounds=ties.METHOD.bounds,
)
