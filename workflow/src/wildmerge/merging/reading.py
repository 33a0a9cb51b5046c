"""The tensors of a merge in turn, each read while the one before it is merged."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from wildmerge.tensors import Weights, lazy_tensor

# The next tensors are read while the present ones are merged, as long as both together take no
# more than this: the embeddings of a large model are read alone.
READ_AHEAD_BYTES = 4 * 10**9

# Buffers up to this size are kept from tensor to tensor; the embeddings' are given back.
REUSED_BYTES = 1 << 28


@dataclass(frozen=True)
class Reading:
    """Where one tensor is read from.

    Attributes:
        name: the tensor's.
        sources: the folders, the base's first.
        slices: whether all but the first are read slice by slice while they are computed with.
    """

    name: str
    sources: Sequence[Weights]
    slices: bool

    @property
    def whole(self) -> Sequence[Weights]:
        """The folders that the tensor is read from as a whole."""
        return self.sources[:1] if self.slices else self.sources

    @property
    def nbytes(self) -> int:
        """Bytes read in all, at once or slice by slice."""
        return sum(weights[self.name].nbytes for weights in self.sources)

    @property
    def whole_nbytes(self) -> int:
        """Bytes in memory at once."""
        return sum(weights[self.name].nbytes for weights in self.whole)


def read_ahead(readings: Sequence[Reading]) -> Iterator[tuple[Reading, list[torch.Tensor]]]:
    """Each reading in order, and its tensors; the next ones are read meanwhile.

    The tensors are in the order of the sources, on the CPU; a LazyTensor stands in for what is
    read slice by slice. They are valid until the next ones are asked for: their memory is used
    again.
    """
    # Two sets of buffers in turn: one is filled while the other is merged.
    buffers = _Buffers(), _Buffers()

    def read(reading: Reading, turn: int) -> list[torch.Tensor]:
        name, whole = reading.name, reading.whole
        memory = [buffers[turn].take(weights, name) for weights in whole]
        tensors = list(readers.map(lambda weights, into: weights.read(name, into), whole, memory))
        return tensors + [lazy_tensor(weights, name) for weights in reading.sources[len(whole) :]]

    # A folder at a time is not all that a disk gives: as many as the job has cores.
    with ThreadPoolExecutor(1) as pool, ThreadPoolExecutor(torch.get_num_threads()) as readers:
        ahead: Future[list[torch.Tensor]] | None = None
        for i, reading in enumerate(readings):
            tensors = ahead.result() if ahead else read(reading, i % 2)
            ahead = None
            for after in readings[i + 1 : i + 2]:
                if reading.whole_nbytes + after.whole_nbytes <= READ_AHEAD_BYTES:
                    ahead = pool.submit(read, after, (i + 1) % 2)
            yield reading, tensors
            del tensors


class _Buffers:
    """Memory for one tensor of each folder, used again and again."""

    def __init__(self) -> None:
        self._kept: dict[int, torch.Tensor] = {}

    def take(self, weights: Weights, name: str) -> torch.Tensor | None:
        """Flat uint8 for a tensor; None where it is large and gets memory of its own."""
        nbytes = weights[name].nbytes
        if nbytes > REUSED_BYTES:
            return None
        kept = self._kept.get(id(weights))
        if kept is None or len(kept) < nbytes:
            kept = self._kept[id(weights)] = torch.empty(nbytes, dtype=torch.uint8)
        return kept
