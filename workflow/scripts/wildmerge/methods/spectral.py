"""Polar factors and singular values at the price of a few matrix products.

The subspace methods need of a matrix A = U Σ V^T its polar factor P = U V^T, its singular values,
and one set of singular vectors, never the singular value decomposition itself. What takes the time
here is products, Cholesky factors and one symmetric eigenproblem of the shorter side, several times
faster than a singular value decomposition, in code that is the same for a CPU and a GPU:

- P by the dynamically weighted Halley iteration (QDWH; Nakatsukasa, Bai and Gygi, 2010) on the
  shorter side. Its first step runs in float64, where it is exact enough for a condition number
  of 1e6, and leaves one of about 10; then float32 suffices.
- Σ and U as the eigenvalues and eigenvectors of A P^T = U Σ U^T in float32, as in QDWH-SVD
  (Nakatsukasa and Higham, 2013): no squaring, so that small singular values stay what they are.

A matrix too ill-conditioned for that, or rank-deficient, goes by the eigenproblem of A A^T in
float64 instead: slower, and directions of the null space are left out.
"""

import math
import warnings
from dataclasses import dataclass

import torch

# Singular values of at most this share of the largest count as zero: round-off of float32 is
# hardly smaller, and their directions are arbitrary.
RANK_TOLERANCE = 1e-6

# The worst condition number whose square float64 resolves to the accuracy wanted: of a matrix that
# is not square only A A^T is factored.
_WORST = {True: 1e6, False: 1e5}


class SpectralWarning(UserWarning):
    """A matrix took the slow path: its rank is not full, or its condition is bad."""


@dataclass(frozen=True)
class Factors:
    """A = U diag(s) U^T P, for a matrix A (m, n) with m <= n; of a tall one, of its transpose.

    Attributes:
        polar: P = U V^T (m, n) float32, the polar factor; a partial isometry if A has a null space.
        values: s (k,) float32, falling, the singular values; k is the numerical rank.
        vectors: U (m, k) float32, the left singular vectors.
        tall: whether A^T was factored.
    """

    polar: torch.Tensor
    values: torch.Tensor
    vectors: torch.Tensor
    tall: bool

    def rebuild(self, values: torch.Tensor) -> torch.Tensor:
        """U diag(values) V^T: the matrix with other singular values (k,)."""
        matrix = ((self.vectors * values) @ self.vectors.mT) @ self.polar
        return matrix.mT if self.tall else matrix


def factorize(matrix: torch.Tensor) -> Factors:
    """The polar factor, singular values and left singular vectors of a matrix (m, n) float32.

    Raises:
        torch.linalg.LinAlgError: NaN or Inf in the matrix.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    wide = matrix.mT if tall else matrix
    factor, spectrum = _polar(wide)
    if spectrum is None:
        product = wide @ factor.mT
        values, vectors = torch.linalg.eigh((product + product.mT) / 2)
        spectrum = values.flip(0).clamp_(min=0), vectors.flip(1)
    return Factors(factor, *spectrum, tall)


def polar(matrix: torch.Tensor) -> torch.Tensor:
    """The polar factor U V^T of a matrix U Σ V^T, (m, n) float32, without its null directions.

    It is the closest matrix with orthonormal rows or columns (the solution of the Procrustes
    problem of Eq. 7).
    """
    if matrix.shape[0] > matrix.shape[1]:
        return _polar(matrix.mT)[0].mT
    return _polar(matrix)[0]


def _polar(a: torch.Tensor):
    """The polar factor of a wide matrix; with it (s, U) if the slow path has found them anyway."""
    exact = a.double()
    gram = exact @ exact.mT
    size = gram.trace().item()
    if not math.isfinite(size):
        raise torch.linalg.LinAlgError("a matrix with NaN or Inf has no singular values")
    if size == 0:
        return a, (a.new_zeros(0), a.new_zeros(len(a), 0))
    lower, failed = torch.linalg.cholesky_ex(gram)
    largest = _largest(gram)
    if not failed:
        smallest = _smallest(lower)
        square = a.shape[0] == a.shape[1]
        if smallest * _WORST[square] > largest:
            return _halley(exact, gram, lower, largest, smallest, square), None
    return _slow(a, exact, gram)


def _halley(exact, gram, lower, largest, smallest, square):
    """QDWH: X <- X (a I + b X^T X) (I + c X^T X)^-1 with weights for singular values in [low, 1].

    Of a matrix that is not square the factor of A = L Q, L lower triangular, is that of L times Q.
    """
    x = (exact if square else lower) / largest
    low = smallest / largest
    product = gram / largest**2
    # Beyond this float32's round-off is larger than what is missing.
    while low < 1 - 1e-3:
        a, b, c, low = _weights(low)
        shifted = product.mul_(c)
        shifted.diagonal().add_(1)
        root = torch.linalg.cholesky(shifted)
        x = (a - b / c) * torch.cholesky_solve(x, root) + (b / c) * x
        x = x.float()
        product = x @ x.mT
    # One Newton-Schulz step squares what is missing.
    product.mul_(-0.5).diagonal().add_(1.5)
    x = product @ x
    if square:
        return x
    inverse_root = torch.linalg.solve_triangular(lower, x.double(), upper=False, left=False)
    if largest < 50 * smallest:
        return inverse_root.float() @ exact.float()
    return (inverse_root @ exact).float()


def _weights(low: float) -> tuple[float, float, float, float]:
    """The weights a, b, c of a step, and the smallest singular value after it."""
    d = (4 * (1 - low**2) / low**4) ** (1 / 3)
    root = (1 + d) ** 0.5
    a = root + 0.5 * (8 - 4 * d + 8 * (2 - low**2) / (low**2 * root)) ** 0.5
    b = (a - 1) ** 2 / 4
    c = a + b - 1
    return a, b, c, min(1.0, low * (a + b * low**2) / (1 + c * low**2))


def _slow(a, exact, gram):
    try:
        vectors = torch.linalg.eigh(gram).eigenvectors
        # Products with A tell small singular values better than the roots of the squares.
        values = torch.linalg.vector_norm(vectors.mT @ exact, dim=1)
    except torch.linalg.LinAlgError:
        vectors, values, _ = torch.linalg.svd(exact, full_matrices=False)
    values, order = values.sort(descending=True, stable=True)
    rank = int((values > RANK_TOLERANCE * values[0]).sum())
    values, vectors = values[:rank], vectors[:, order[:rank]]
    missing = len(a) - rank
    what = (
        f"rank {rank} of {len(a)}, the {missing} null directions are left out"
        if missing
        else (f"condition number {(values[0] / values[-1]).item():.0e}")
    )
    warnings.warn(f"slow path: {what}", SpectralWarning, stacklevel=2)
    factor = (vectors / values) @ (vectors.mT @ exact)
    return factor.float(), (values.float(), vectors.float())


def _start(gram: torch.Tensor) -> torch.Tensor:
    # A fixed vector: the same bits every time.
    generator = torch.Generator().manual_seed(0)
    return torch.randn(len(gram), 1, generator=generator, dtype=gram.dtype).to(gram.device)


def _largest(gram: torch.Tensor, steps: int = 20) -> float:
    """The largest singular value of A from A A^T, by power iteration, a little too large."""
    vector = _start(gram)
    for _ in range(steps):
        vector = gram @ (vector / torch.linalg.vector_norm(vector))
    return 1.1 * torch.linalg.vector_norm(vector).item() ** 0.5


def _smallest(lower: torch.Tensor, steps: int = 8) -> float:
    """The smallest singular value from the Cholesky factor of A A^T, a little too small."""
    vector = _start(lower)
    for _ in range(steps):
        vector = torch.cholesky_solve(vector / torch.linalg.vector_norm(vector), lower)
    return 0.5 * torch.linalg.vector_norm(vector).item() ** -0.5
