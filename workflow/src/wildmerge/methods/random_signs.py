"""Random signs: a control for Task Arithmetic, whose gain may be that of a distance alone.

Each task vector's tensors are added with a sign drawn for each expert and tensor. The update is as
far from the base as Task Arithmetic's where task vectors are near orthogonal, and made of the same
numbers, but points nowhere that fine-tuning went: what it gains is no merging of what was learned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from . import task_arithmetic
from ._method import COMBINE, LAMBDA, SEED, Identity, Method, Piecewise
from ._trimming import Salt

if TYPE_CHECKING:
    import torch


def pieces(
    base: torch.Tensor,
    experts: Sequence[torch.Tensor],
    *,
    combine: str,
    lambda_: float,
    identity: Identity,
    seed: int = 0,
) -> Callable[[slice], torch.Tensor]:
    """λ Σ s_i (W_i - W_0), each sign s_i by a hash of seed, tensor and expert.

    Args:
        base: W_0, any shape and floating dtype.
        experts: the W_i, each of the base's shape.
        combine: `sum` or `mean`.
        lambda_: the scale λ.
        identity: the tensor's name and the experts' digests.
        seed: of the signs.

    Returns:
        Of a slice of the flat elements the update, (k,) float32: W_merged = W_0 + update.
    """
    import torch

    from wildmerge.tensors import delta, flat

    scale = task_arithmetic.scale_of(combine, lambda_, len(experts))
    signs = [sign(seed, identity.tensor, digest) for digest in identity.digests]
    origin, *members = flat([base, *experts])

    def piece(part: slice) -> torch.Tensor:
        start = origin[part].float()
        sums, vector = torch.zeros_like(start), torch.empty_like(start)
        for member, one in zip(members, signs, strict=True):
            sums.add_(delta(start, member[part], vector), alpha=one)
        return sums.mul_(scale)

    return piece


def sign(seed: int, tensor: str, digest: str) -> int:
    """1 or -1, of one tensor of one expert."""
    return 1 if Salt.of(seed, tensor, digest).first & 1 else -1


METHOD = Method(
    name="random_signs",
    label="Random signs",
    reference="a control: Task Arithmetic with the signs drawn by expert and tensor",
    update=Piecewise(pieces),
    family="weight interpolation",
    parameters={"combine": COMBINE, "lambda": LAMBDA, "seed": SEED},
    gpu=False,
    scale=("combine", "lambda"),
    unscaled=lambda parameters, experts: (
        parameters | {"combine": "sum", "lambda": 1.0},
        task_arithmetic.scale_of(parameters["combine"], parameters["lambda"], experts),
    ),
    salted=True,
)
