"""Polar factors and singular values at the price of a few matrix products.

The subspace methods need of a matrix A = U Σ V^T its polar factor P = U V^T, its singular values,
and the singular vectors of one side: never a whole singular value decomposition. What takes the
time here is products, Cholesky factors and one symmetric eigenproblem of the shorter side, several
times faster than a singular value decomposition, in code that is the same for a CPU and a GPU:

- P alone by the dynamically weighted Halley iteration (QDWH; Nakatsukasa, Bai and Gygi, 2010) on
  the shorter side. Its first step runs in float64, where it is exact enough for a condition number
  of 1e6, and leaves one of about 10; then float32 suffices.
- With P, Σ and U are the eigenvalues and eigenvectors of A P^T = U Σ U^T in float32, as in QDWH-SVD
  (Nakatsukasa and Higham, 2013). For small matrices the next is faster.
- Σ and U from A A^T = U Σ^2 U^T in float64. Its squares cost a singular value that is 1e-5 of the
  largest six of float64's sixteen digits more, so it is exact enough for all of them, and it tells
  null directions, which are arbitrary, from others: they are left out.
"""

import math
import warnings
from dataclasses import dataclass

import torch

# Singular values of at most this share of the largest count as zero: round-off of float32 is
# hardly smaller.
RANK_TOLERANCE = 1e-6

# The worst condition number for the iteration: of a matrix that is not square the first thing done
# is to factor A A^T, which squares it.
_WORST = {True: 1e6, False: 1e5}

# The side up to which one eigenproblem in float64 is faster than the iteration and one in float32.
_SMALL = 1024

# How far from orthonormal, ||X X^T - I||, one Newton-Schulz step (3/8 of its square is left) brings
# to float32's round-off.
_NEAR = 1.5e-3

# The relative error that a last product in float32 may bring in; otherwise it is in float64.
_LAST_PRODUCT = 3e-6


class SpectralWarning(UserWarning):
    """A matrix has a null space, whose directions are left out, or is very ill-conditioned."""


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

    def above(self, floor: float) -> "Factors":
        """Without the directions whose singular value is at most `floor`."""
        rank = int((self.values > floor).sum())
        if rank == len(self.values):
            return self
        values, vectors = self.values[:rank], self.vectors[:, :rank]
        return Factors(vectors @ (vectors.mT @ self.polar), values, vectors, self.tall)

    def rebuild(self, values: torch.Tensor) -> torch.Tensor:
        """U diag(values) V^T: the matrix with other singular values (k,)."""
        matrix = ((self.vectors * values) @ self.vectors.mT) @ self.polar
        return matrix.mT if self.tall else matrix


def factorize(matrix: torch.Tensor) -> Factors:
    """The polar factor, singular values and left singular vectors of a matrix (m, n) float32.

    Raises:
        torch.linalg.LinAlgError: NaN or Inf in the matrix.
    """
    wide, tall = _widen(matrix)
    exact, gram = _square(wide)
    factor = _halley(exact, gram) if len(wide) > _SMALL else None
    if factor is None:
        values, vectors = _eigen(exact, gram)
        return Factors(_from_eigen(exact, values, vectors), values.float(), vectors.float(), tall)
    product = wide @ factor.mT
    values, vectors = torch.linalg.eigh((product + product.mT) / 2)
    return Factors(factor, values.flip(0).clamp_(min=0), vectors.flip(1), tall)


def polar(matrix: torch.Tensor) -> torch.Tensor:
    """The polar factor U V^T of a matrix U Σ V^T, (m, n) float32, without its null directions.

    It is the closest matrix with orthonormal rows or columns (the solution of the Procrustes
    problem of Eq. 7).

    Raises:
        torch.linalg.LinAlgError: NaN or Inf in the matrix.
    """
    if not matrix.numel():
        return matrix
    wide, tall = _widen(matrix)
    exact, gram = _square(wide)
    factor = _halley(exact, gram)
    if factor is None:
        factor = _from_eigen(exact, *_eigen(exact, gram))
    return factor.mT if tall else factor


def leading(matrix: torch.Tensor, kept: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The leading singular values and vectors of the shorter side of a matrix (m, n) float32.

    Args:
        matrix: any; its right singular vectors are given if it is tall.
        kept: how many at most; fewer come where the rank is smaller.

    Returns:
        The values (k,), falling, and the vectors (k, min(m, n)), float32.

    Raises:
        torch.linalg.LinAlgError: NaN or Inf in the matrix.
    """
    wide, _ = _widen(matrix)
    values, vectors = _eigen(*_square(wide))
    return values[:kept].float(), vectors[:, :kept].mT.float()


def _widen(matrix: torch.Tensor) -> tuple[torch.Tensor, bool]:
    tall = matrix.shape[0] > matrix.shape[1]
    return (matrix.mT if tall else matrix), tall


def _square(wide: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A and A A^T in float64."""
    exact = wide.double()
    gram = _times_transposed(exact)
    if not math.isfinite(gram.trace().item()):
        raise torch.linalg.LinAlgError("a matrix with NaN or Inf has no singular values")
    return exact, gram


def _times_transposed(x: torch.Tensor) -> torch.Tensor:
    """X X^T, its blocks below the diagonal once: nearly half of the work of a product."""
    half = len(x) // 2
    if half < 256:
        return x @ x.mT
    product = x.new_empty(len(x), len(x))
    product[:half, :half] = _times_transposed(x[:half])
    product[half:, half:] = _times_transposed(x[half:])
    torch.mm(x[half:], x[:half].mT, out=product[half:, :half])
    product[:half, half:] = product[half:, :half].mT
    return product


def _halley(exact: torch.Tensor, gram: torch.Tensor) -> torch.Tensor | None:
    """The polar factor by QDWH; None if the condition number is too large for it.

    A step is X <- X (a I + b X^T X) (I + c X^T X)^-1. Of a matrix that is not square, A = L Q with
    L lower triangular, the iteration runs on L: A's factor is that of L times Q.
    """
    lower, failed = torch.linalg.cholesky_ex(gram)
    if failed:
        return None
    square = exact.shape[0] == exact.shape[1]
    largest, smallest = _largest(gram), _smallest(lower)
    if not smallest * _WORST[square] > largest:
        return None
    x, product = (exact if square else lower) / largest, gram / largest**2
    low = smallest / largest
    while True:
        a, b, c, low = _weights(low)
        shifted = product.mul_(c)
        shifted.diagonal().add_(1)
        root, failed = torch.linalg.cholesky_ex(shifted)
        if failed:
            return None
        x = torch.cholesky_solve(x, root).mul_(a - b / c).add_(x, alpha=b / c).float()
        product = _times_transposed(x)
        product.diagonal().sub_(1)
        if _norm(product) < _NEAR:
            break
        product.diagonal().add_(1)
    x -= 0.5 * (product @ x)
    if square:
        return x
    inverse_root = torch.linalg.solve_triangular(lower, x.double(), upper=False, left=False)
    # Round-off of float32 in the product, relative to the factor's norm; twice, as was measured.
    spread = torch.linalg.vector_norm(inverse_root) * torch.linalg.vector_norm(exact) / len(exact)
    if 2 * torch.finfo(torch.float32).eps * spread < _LAST_PRODUCT:
        return inverse_root.float() @ exact.float()
    return (inverse_root @ exact).float()


def _weights(low: float) -> tuple[float, float, float, float]:
    """The weights a, b, c for singular values in [low, 1], and the smallest after the step."""
    low = min(low, 1 - 1e-6)
    d = (4 * (1 - low**2) / low**4) ** (1 / 3)
    root = (1 + d) ** 0.5
    a = root + 0.5 * (8 - 4 * d + 8 * (2 - low**2) / (low**2 * root)) ** 0.5
    b = (a - 1) ** 2 / 4
    c = a + b - 1
    return a, b, c, low * (a + b * low**2) / (1 + c * low**2)


def _eigen(exact: torch.Tensor, gram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Singular values (k,), falling, and left vectors (m, k), float64, without null directions."""
    try:
        squares, vectors = torch.linalg.eigh(gram)
        values = squares.clamp_(min=0).sqrt_()
    except torch.linalg.LinAlgError:
        vectors, values, _ = torch.linalg.svd(exact, full_matrices=False)
        warnings.warn("the eigenproblem failed, decomposed in float64", SpectralWarning, 2)
        return values, vectors
    values, vectors = values.flip(0), vectors.flip(1)
    rank = int((values > RANK_TOLERANCE * values[0]).sum())
    if 0 < rank < len(values):
        missing = len(values) - rank
        what = f"rank {rank} of {len(values)}, the {missing} null directions are left out"
        warnings.warn(what, SpectralWarning, 2)
    elif rank and values[0] > _WORST[False] * values[-1]:
        what = (
            f"condition number {(values[0] / values[-1]).item():.0e}, small directions less exact"
        )
        warnings.warn(what, SpectralWarning, 2)
    return values[:rank], vectors[:, :rank]


def _from_eigen(exact: torch.Tensor, values: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    return ((vectors / values) @ (vectors.mT @ exact)).float()


def _start(gram: torch.Tensor) -> torch.Tensor:
    # A fixed vector: the same bits every time.
    generator = torch.Generator().manual_seed(0)
    return torch.randn(len(gram), 1, generator=generator, dtype=gram.dtype).to(gram.device)


def _norm(symmetric: torch.Tensor, steps: int = 8) -> float:
    """The spectral norm of a symmetric matrix, by power iteration, a little too small."""
    vector = _start(symmetric)
    for _ in range(steps):
        vector = symmetric @ (vector / torch.linalg.vector_norm(vector).clamp(min=1e-30))
    return torch.linalg.vector_norm(vector).item()


def _largest(gram: torch.Tensor) -> float:
    """The largest singular value of A from A A^T, a little too large."""
    return 1.1 * _norm(gram, 12) ** 0.5


def _smallest(lower: torch.Tensor, steps: int = 6) -> float:
    """The smallest singular value from the Cholesky factor of A A^T, a little too small."""
    vector = _start(lower)
    for _ in range(steps):
        vector = torch.cholesky_solve(vector / torch.linalg.vector_norm(vector), lower)
    return 0.5 * torch.linalg.vector_norm(vector).item() ** -0.5
