"""Singular values and vectors for the subspace methods."""

import torch

# Singular values below this share of the largest are round-off of float32 arithmetic: their
# directions carry nothing and are left out.
RANK_TOLERANCE = 1e-6


def svd(matrix: torch.Tensor, tolerance: float = RANK_TOLERANCE):
    """The numerical singular value decomposition matrix = U diag(s) V^T.

    Args:
        matrix: (m, n) float32.
        tolerance: directions with a singular value of at most this share of the largest are left
            out.

    Returns:
        U (m, k), s (k,) in falling order, V^T (k, n), float32; k is the numerical rank.
    """
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    rank = int((s > tolerance * s[0]).sum()) if s[0] > 0 else 0
    return u[:, :rank], s[:rank], vt[:rank]
