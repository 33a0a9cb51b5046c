"""Task vectors in pieces that stay in a core's cache.

The kernels walk over a tensor's flat elements in chunks and form the task vectors W_i - W_0
(Eq. 1) of one chunk at a time in float32. No expert is ever held in float32 as a whole: reading
memory once is what these methods cost.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

# A slice of this many float32 numbers is 1 MB, near a core's own cache. A call on it takes far
# longer than Python needs to make it, so that threads hardly wait for each other.
CHUNK = 1 << 18


def slices(numel: int, chunk: int = CHUNK) -> list[slice]:
    """The slices that cover 0 .. numel - 1, each at most `chunk` long."""
    return [slice(start, min(start + chunk, numel)) for start in range(0, numel, chunk)]


def flat(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The tensors as one-dimensional views (a copy only of what is not contiguous)."""
    return [tensor.reshape(-1) for tensor in tensors]


def deltas(base: torch.Tensor, experts: Sequence[torch.Tensor], part: slice) -> torch.Tensor:
    """The task vectors (Eq. 1) of one chunk, formed in float32 whatever the experts' dtype.

    Args:
        base: flat, any floating dtype.
        experts: n flat tensors, any floating dtype.
        part: the chunk, k elements.

    Returns:
        (n, k) float32, new.
    """
    start = base[part].float()
    vectors = start.new_empty(len(experts), len(start))
    for vector, expert in zip(vectors, experts, strict=True):
        delta(start, expert[part], vector)
    return vectors


def delta(start: torch.Tensor, expert: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """The task vector of one chunk of one expert, written to `out` and returned.

    Args:
        start: the base's chunk, (k,) float32.
        expert: the expert's, (k,), any floating dtype.
        out: (k,) float32.
    """
    # Converting first, then subtracting in place: several times faster than mixing dtypes.
    return out.copy_(expert).sub_(start)


def in_parallel(function: Callable, items: Iterable) -> list:
    """[function(item) for item in items], on as many threads as torch is set to use.

    Each thread works on items of its own. torch's own threads would meet at a barrier after each
    call, tens of thousands of times a tensor, and wait for whichever core is busy with others.
    """
    items, threads = list(items), torch.get_num_threads()
    if threads == 1 or len(items) == 1:
        return [function(item) for item in items]
    torch.set_num_threads(1)
    try:
        return list(_pool(threads).map(function, items))
    finally:
        torch.set_num_threads(threads)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    # Kept: every thread that multiplied matrices leaves buffers of the library's behind.
    return ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
