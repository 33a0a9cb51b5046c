"""WUDI and its exact minimum, against the loss itself in float64."""

import numpy as np
import pytest
import torch
from test_methods import family, relative_error
from wildmerge.methods import METHODS

SHAPES = [(24, 24), (40, 16), (16, 40)]


def loss(update, deltas):
    """The published loss of an update (m, n), float64."""
    return sum(torch.sum(((update - d) @ d.mT) ** 2) / torch.sum(d**2) for d in deltas if d.any())


def by_adam(deltas, steps, rate):
    """torch's own Adam on the loss, in float64."""
    merged = torch.nn.Parameter(sum(deltas))
    optimizer = torch.optim.Adam([merged], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(merged, deltas).backward()
        optimizer.step()
    return merged.detach()


def task_vectors(base, experts):
    return [(expert - base).double() for expert in experts]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("n", [2, 5, 12])
def test_the_published_iterations(shape, n):
    base, experts = family(shape, n, scale=0.02)
    experts.append(base.clone())  # one that learned nothing
    update = METHODS["wudi"](base, experts, METHODS["wudi"].recipe["parameters"], projection=True)
    expected = by_adam(task_vectors(base, experts), 300, 1e-5)
    assert relative_error(update, expected.numpy()) < 1e-5
    assert relative_error(update, sum(task_vectors(base, experts)).numpy()) > 1e-3  # it has moved


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("n", [2, 5, 12])
def test_the_exact_minimum(shape, n):
    base, experts = family(shape, n, scale=0.02)
    deltas = task_vectors(base, experts)
    update = METHODS["wudi_exact"](base, experts, {"lambda": 0.5}, projection=True) / 0.5
    # The loss is a least-squares problem in the rows of the update.
    sides = [d.norm() for d in deltas]
    left = torch.cat([d / s for d, s in zip(deltas, sides, strict=True)])
    right = torch.cat([d @ d.mT / s for d, s in zip(deltas, sides, strict=True)])
    solved, *_ = np.linalg.lstsq(left.numpy(), right.numpy(), rcond=1e-6)
    assert relative_error(update, solved.T) < 1e-5
    # No step from there makes it smaller; the published method stops above it.
    least = loss(update.double(), deltas)
    published = METHODS["wudi"](
        base, experts, METHODS["wudi"].recipe["parameters"], projection=True
    )
    assert least < loss(published.double(), deltas) < loss(sum(deltas), deltas)


def test_the_exact_minimum_of_adapters_stays_in_their_inputs():
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(30, 50, generator=generator)
    inputs = torch.randn(4, 50, generator=generator)
    deltas = [torch.randn(30, 4, generator=generator) @ inputs for _ in range(3)]
    experts = [base + 0.01 * delta for delta in deltas]
    update = METHODS["wudi_exact"](base, experts, {"lambda": 1.0}, projection=True)
    outside = update @ (torch.eye(50) - torch.linalg.pinv(inputs) @ inputs)
    assert outside.norm() < 1e-3 * update.norm()  # the experts are rounded to float32


def test_identical_experts_are_kept():
    base, (expert,) = family((20, 30), 1, scale=0.02)
    update = METHODS["wudi_exact"](base, [expert] * 3, {"lambda": 1.0}, projection=True)
    assert relative_error(update, (expert - base).double().numpy()) < 1e-5


def test_nothing_learned_is_nothing():
    base, _ = family((20, 30), 1)
    for method in ("wudi", "wudi_exact"):
        parameters = METHODS[method].recipe["parameters"]
        assert not METHODS[method](base, [base, base], parameters, projection=True).any()
