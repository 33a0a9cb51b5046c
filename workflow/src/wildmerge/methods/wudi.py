"""WUDI-Merging (Cheng et al., 2025): the update that disturbs each task vector least.

Of a layer, with task vectors τ_i (m, n), the loss of an update τ is

    Σ_i ||(τ - τ_i) τ_i^T||² / ||τ_i||²,

since a task vector's rows stand for the inputs that the expert was trained on. The published method
takes a fixed number of Adam's steps from the sum of the task vectors, and stops far from the
minimum; `wudi_exact` is the minimum itself, τ = K H^+ with H = Σ_i τ_i^T τ_i / ||τ_i||² and
K = Σ_i τ_i τ_i^T τ_i / ||τ_i||². The gradient of the loss is 2 (τ H - K), so that a step costs one
product whatever the number of experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import task_arithmetic
from ._method import LAMBDA, Method, Parameter

if TYPE_CHECKING:
    import torch

STEPS, RATE = 300, 1e-5  # as published
_MOMENTA = (0.9, 0.999)  # Adam's own defaults, as is the next
_EPSILON = 1e-8
# Directions in which no task vector has inputs: below the square of a millionth, like elsewhere.
_NULL = 1e-12


def update(
    base: torch.Tensor,
    experts: Sequence[torch.Tensor],
    *,
    lambda_: float = 1.0,
    steps: float = STEPS,
    rate: float = RATE,
) -> torch.Tensor:
    """λ times what so many of Adam's steps make of the sum of the task vectors.

    Args:
        base: W_0, (m, n), any floating dtype.
        experts: the W_i, each (m, n).
        lambda_: the scale λ.
        steps: of Adam; a whole number.
        rate: the learning rate, in the unit of the weights: each step moves an entry by about this.

    Returns:
        The update, (m, n) float32: W_merged = W_0 + update.
    """
    import torch

    # The sum is the start, and by then the sums H and K of the task vectors are known.
    merged, inputs, products = _sums(base, experts, torch.float32)
    first, second = torch.zeros_like(merged), torch.zeros_like(merged)
    for step in range(1, int(steps) + 1):
        gradient = torch.addmm(products, merged, inputs, beta=-2, alpha=2)
        first.lerp_(gradient, 1 - _MOMENTA[0])
        second.mul_(_MOMENTA[1]).addcmul_(gradient, gradient, value=1 - _MOMENTA[1])
        spread = (second / (1 - _MOMENTA[1] ** step)).sqrt_().add_(_EPSILON)
        merged.addcdiv_(first, spread, value=-rate / (1 - _MOMENTA[0] ** step))
    return merged.mul_(lambda_)


def exact(
    base: torch.Tensor, experts: Sequence[torch.Tensor], *, lambda_: float = 1.0
) -> torch.Tensor:
    """λ times the minimum of the loss, the smallest one where there are several; see `update`."""
    import torch

    _, inputs, products = _sums(base, experts, torch.float64)
    values, vectors = torch.linalg.eigh(inputs)
    kept = values > _NULL * values[-1]
    vectors = vectors[:, kept]
    solved = ((products @ vectors) / values[kept]) @ vectors.mT
    return solved.mul_(lambda_).float()


def _sums(
    base: torch.Tensor, experts: Sequence[torch.Tensor], dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Σ τ_i and K, (m, n), and H (n, n); experts that equal the base add nothing."""
    import torch

    total = torch.zeros(base.shape, dtype=dtype, device=base.device)
    products = torch.zeros_like(total)
    inputs = total.new_zeros(base.shape[1], base.shape[1])
    for expert in experts:
        delta = task_arithmetic.update(base, [expert], combine="sum", lambda_=1.0).to(dtype)
        square = torch.linalg.vector_norm(delta, dtype=torch.float64).item() ** 2
        if not square:
            continue
        gram = (delta.mT @ delta) / square
        total += delta
        inputs += gram
        products.addmm_(delta, gram)
    return total, inputs, products


REFERENCE = "Cheng et al., 2025, arXiv:2503.08099"
SCALE = Parameter(LAMBDA.description, default=1.0)
WUDI = Method(
    name="wudi",
    label="WUDI",
    reference=REFERENCE,
    update=update,
    other=task_arithmetic.mean,
    family="subspace",
    parameters={
        "lambda": SCALE,
        "steps": Parameter(
            "Adam's steps from the sum of the task vectors.", minimum=0, default=STEPS
        ),
        "rate": Parameter(
            "Adam's learning rate, in the unit of the weights.", above=0, default=RATE
        ),
    },
    place=8,
)
WUDI_EXACT = Method(
    name="wudi_exact",
    label="WUDI, exact",
    reference=f"the minimum of the loss of {REFERENCE}",
    update=exact,
    other=task_arithmetic.mean,
    family="subspace",
    parameters={"lambda": SCALE},
    place=9,
)
