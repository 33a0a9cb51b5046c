"""Task vectors in pieces that stay in a core's cache.

The kernels walk over a tensor's flat elements in chunks and form the task vectors W_i - W_0
(Eq. 1) of one chunk at a time in float32. No expert is ever held in float32 as a whole: reading
memory once is what these methods cost.
"""

from collections.abc import Iterator, Sequence

import torch

# 2^17 float32 numbers are half a megabyte: three or four such buffers fit a core's second-level
# cache, and a call on one of them takes far longer than Python needs to make it.
CHUNK = 1 << 17


def slices(numel: int, chunk: int = CHUNK) -> Iterator[slice]:
    """The slices that cover 0 .. numel - 1, each at most `chunk` long."""
    return (slice(start, min(start + chunk, numel)) for start in range(0, numel, chunk))


def flat(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The tensors as one-dimensional views (a copy only of what is not contiguous)."""
    return [tensor.reshape(-1) for tensor in tensors]


def subtract(expert: torch.Tensor, base: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Write expert - base (Eq. 1) into `out`, formed in float32 whatever the expert's dtype.

    Args:
        expert: (k,) any floating dtype.
        base: (k,) float32.
        out: (k,) float32, overwritten.

    Returns:
        `out`.
    """
    # Converting first and subtracting in place is several times faster than a mixed subtraction.
    return out.copy_(expert).sub_(base)
