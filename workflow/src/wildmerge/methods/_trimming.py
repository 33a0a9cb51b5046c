"""Which entries of a task vector are its largest, where many are equally large.

Entries are ordered by magnitude, and equally large ones by a hash of where they stand and of whose
they are. What stays of an expert then depends on no other expert and on no order in memory, and
can be computed anywhere again: by digits of 16 bits, the key (magnitude, hash) of the last entry
that stays is found in a few walks over the weights, without a sort and without a copy of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# So many candidates are collected; more are counted by digits first.
_FEW = 1 << 22

# A sample says between which keys the bound lies: so many strips of so many entries.
_STRIPS, _STRIP = 1024, 1024

_DIGIT = 1 << 16  # the values of 16 bits
_WORD = 0xFFFFFFFF  # the bits of a word of 32
_MAGNITUDE = 0x7FFFFFFF  # those of a float32 without its sign


@dataclass(frozen=True)
class Salt:
    """What the hash of an entry is seeded by: two words, the same for all entries of a tensor."""

    first: int
    second: int

    @classmethod
    def of(cls, seed: int, tensor: str, digest: str) -> Salt:
        """From the recipe's seed, the tensor's name and the digest of the expert's weights."""
        text = "\n".join([str(seed), tensor, digest])
        drawn = hashlib.sha256(text.encode()).digest()
        return cls(int.from_bytes(drawn[:4], "little"), int.from_bytes(drawn[4:8], "little"))

    def hashes(self, positions: torch.Tensor) -> torch.Tensor:
        """The hashes of entries.

        A permutation of the numbers of 32 bits: two multiplications and three shifts (a finaliser
        such as MurmurHash's), one word of the salt before and one between. No two entries of a
        tensor of fewer than 2^32 have the same.

        Args:
            positions: (k,) int64, row-major indices.

        Returns:
            (k,) int64, each 0 to 2^32 - 1.
        """
        import numpy as np
        import torch

        if positions.device.type == "cpu":  # where numpy has arithmetic on short, unsigned words
            return torch.from_numpy(self.mix(positions.numpy().astype(np.uint32)).astype(np.int64))
        return self.mix(positions & _WORD)

    def mix(self, x: Any) -> Any:
        """The hashes of words of 32 bits: numpy's own, or torch's in 64 bits."""
        x = x ^ self.first
        x ^= x >> 16
        x = x * 0x21F0AAAD & _WORD
        x ^= x >> 15
        x ^= self.second
        x = x * 0x735A2D97 & _WORD
        x ^= x >> 15
        return x


@dataclass(frozen=True)
class Bound:
    """The key of the smallest entry that stays.

    Attributes:
        magnitude: the bits of its absolute value in float32.
        hash: its hash; of equally large entries, those with this or a larger one stay.
    """

    magnitude: int
    hash: int

    def __str__(self) -> str:
        return f"{self.magnitude:08x}-{self.hash:08x}"

    @classmethod
    def parse(cls, text: str) -> Bound:
        """From `str(bound)`.

        Raises:
            ValueError: it is no such text.
        """
        magnitude, hashed = text.split("-")
        return cls(int(magnitude, 16), int(hashed, 16))

    def trim(self, delta: torch.Tensor, start: int, salt: Salt) -> None:
        """Zero, in place, what does not stay of a chunk of a task vector.

        Args:
            delta: (k,) float32.
            start: the position at which the chunk begins.
            salt: the tensor's and expert's.
        """
        import torch

        # hardshrink keeps what is larger than its bound: one step below, the magnitude passes.
        torch.hardshrink(delta, _float(max(self.magnitude - 1, 0)), out=delta)
        if self.hash:
            equal = _between(delta, self.magnitude, self.magnitude)
            leaving, _ = _in_range(salt.hashes(equal + start), 0, self.hash - 1)
            delta.index_fill_(0, equal.index_select(0, leaving), 0)


class Search:
    """The search for one expert's bound, in walks over its entries.

    A sample may say between which two keys the bound lies. A walk then counts the entries above
    them and collects those between; whether the sample was right follows from the numbers.

    Without a sample, or where it was wrong, the bound's digits are found one after another, a walk
    for each: the upper and the lower 16 bits of the magnitude, then the upper 16 of the hash.
    Candidates are the entries with the digits that are found; as soon as they are few, their keys
    are collected. What is added up is whole numbers: threads may work in any order.

    Args:
        stay: how many entries stay.
        entries: how many there are.

    Attributes:
        bound: what was looked for; None until it is found.
        entries: how many there are.
    """

    def __init__(self, stay: int, entries: int):
        import torch

        self.bound: Bound | None = None
        self.entries = entries
        self._left, self._candidates = stay, entries
        self._digits: list[int] = []
        self._counts = torch.zeros(_DIGIT, dtype=torch.int64)
        self._keys: list[torch.Tensor] = []
        self._between: tuple[int, int] | None = None
        self._above = 0
        self._lock = Lock()

    def guess(self, sample: torch.Tensor) -> None:
        """Guess between which keys the bound lies.

        Args:
            sample: (strips, entries of each) int64, keys from all over the weights.
        """
        strips, size = len(sample), sample.numel()
        ordered, share = sample.view(-1).sort().values, self._left / self._candidates
        place = min(size - 1, int((1 - share) * size))
        # Neighbours are alike, so the error is that of a mean over strips, here six times.
        shares = (sample >= ordered[place]).double().mean(1)
        error = 6 * shares.std().item() / strips**0.5 + 1 / size
        if 2 * error * self._candidates <= _FEW:
            first, last = (place + int(sign * error * size) for sign in (-1, 1))
            low = int(ordered[first]) if first > 0 else 0
            high = int(ordered[last]) if last < size - 1 else (1 << 63) - 1
            self._between = low, high

    def look(self, delta: torch.Tensor, start: int, salt: Salt) -> None:
        """Count or collect the candidates in a chunk of the task vector.

        Args:
            delta: (k,) float32.
            start: the position at which the chunk begins.
            salt: the tensor's and expert's.
        """
        import torch

        if self._between:
            return self._collect(delta, start, salt, *self._between)
        if not self._digits:
            # The upper half of each number: its sign, which is dropped, and 15 bits.
            return self._count(delta.view(torch.int16)[1::2] & 0x7FFF)
        low = high = self._digits[0] << 16
        if len(self._digits) == 1:
            high += _DIGIT - 1
        else:
            low = high = low + self._digits[1]
        found = _between(delta, low, high)
        if len(self._digits) == 1 and self._candidates > _FEW:
            return self._count(delta.index_select(0, found).view(torch.int32) & 0xFFFF)
        keys = _keys(delta, found, start, salt)
        if self._candidates > _FEW:
            return self._count((keys & _WORD) >> 16)
        if len(self._digits) == 3:
            keys = keys[(keys & _WORD) >> 16 == self._digits[2]]
        with self._lock:
            self._keys.append(keys)
        return None

    def _collect(self, delta: torch.Tensor, start: int, salt: Salt, low: int, high: int) -> None:
        """Count the keys above `high`, and collect those from `low` up to it."""
        keys = _keys(delta, _between(delta, low >> 32, high >> 32), start, salt)
        inside, above = _in_range(keys, low, high)
        with self._lock:
            self._above += above + _count_above(delta, high >> 32)
            self._keys.append(keys.index_select(0, inside))

    def _count(self, digits: torch.Tensor) -> None:
        import torch

        counts = torch.bincount(digits).cpu()
        with self._lock:
            self._counts[: len(counts)] += counts

    def advance(self) -> None:
        """Take in what a walk over all entries has found."""
        import torch

        if self._keys:
            keys = torch.cat(self._keys)
            self._keys.clear()
            rank = self._left - self._above
            self._between, self._above = None, 0
            if 0 < rank <= len(keys):  # else the sample was wrong
                smallest = int(keys.kthvalue(len(keys) - rank + 1).values)
                # Of zeros it does not matter which stay.
                self.bound = Bound(smallest >> 32, smallest & _WORD if smallest >> 32 else 0)
            return
        # How many entries have each digit or a larger one, the largest digit first.
        reached = self._counts.flip(0).cumsum(0)
        place = int((reached < self._left).sum())
        digit = _DIGIT - 1 - place
        self._candidates = int(self._counts[digit])
        self._left -= int(reached[place]) - self._candidates
        self._digits.append(digit)
        self._counts.zero_()
        if len(self._digits) == 2:
            magnitude = self._digits[0] << 16 | digit
            if magnitude == 0 or self._left == self._candidates:
                self.bound = Bound(magnitude, 0)


def search_all(
    searches: Sequence[Search],
    tensors: Callable[[], Iterable[tuple[torch.Tensor, Sequence[torch.Tensor], Sequence[Salt]]]],
) -> list[Bound]:
    """Walk over the task vectors until the bound of every expert is found.

    Args:
        searches: of each expert.
        tensors: begins a walk over (base, experts, salts) of each tensor, flat.
    """
    from wildmerge.tensors import in_parallel, slices

    _guess_all(searches, tensors)
    while unfinished := [i for i, search in enumerate(searches) if search.bound is None]:
        for origin, experts, salts in tensors():
            shown = [(experts[i], salts[i], searches[i]) for i in unfinished]
            in_parallel(partial(_show, origin, shown), slices(origin.numel()))
        for i in unfinished:
            searches[i].advance()
    return [search.bound for search in searches if search.bound]


def _guess_all(
    searches: Sequence[Search],
    tensors: Callable[[], Iterable[tuple[torch.Tensor, Sequence[torch.Tensor], Sequence[Salt]]]],
) -> None:
    """Tell every search about a sample of its entries, where there are many."""
    import torch

    from wildmerge.tensors import delta

    apart = searches[0].entries // _STRIPS
    if apart < 16 * _STRIP:
        return
    every = torch.arange(_STRIP)
    samples: list[list[torch.Tensor]] = [[] for _ in searches]
    for origin, experts, salts in tensors():
        for first in range(0, len(origin) - _STRIP + 1, apart):
            part = slice(first, first + _STRIP)
            start = origin[part].float()
            for sample, expert, salt in zip(samples, experts, salts, strict=True):
                vector = delta(start, expert[part], torch.empty_like(start))
                sample.append(_keys(vector, every.to(vector.device), first, salt))
    for search, sample in zip(searches, samples, strict=True):
        search.guess(torch.stack(sample))


def _show(
    origin: torch.Tensor, shown: Iterable[tuple[torch.Tensor, Salt, Search]], part: slice
) -> None:
    """Show one chunk of the task vectors to their searches."""
    import torch

    from wildmerge.tensors import delta

    start = origin[part].float()
    vector = torch.empty_like(start)
    for expert, salt, search in shown:
        search.look(delta(start, expert[part], vector), part.start, salt)


def _between(delta: torch.Tensor, low: int, high: int) -> torch.Tensor:
    """The positions at which a chunk's magnitudes, as bits, lie in [low, high]: int64, rising."""
    import numpy as np
    import torch

    if delta.device.type == "cpu":  # numpy's comparisons are several times faster than torch's
        bits = delta.numpy().view(np.uint32) & _MAGNITUDE
        bits -= low
        return torch.from_numpy(np.flatnonzero(bits <= high - low))
    magnitudes = delta.view(torch.int32) & _MAGNITUDE
    return ((magnitudes >= low) & (magnitudes <= high)).nonzero().view(-1)


def _in_range(values: torch.Tensor, low: int, high: int) -> tuple[torch.Tensor, int]:
    """Of (k,) int64 the positions at which they lie in [low, high], and how many are larger."""
    import numpy as np
    import torch

    if values.device.type == "cpu":
        found = values.numpy()
        inside = np.flatnonzero((found >= low) & (found <= high))
        return torch.from_numpy(inside), int(np.count_nonzero(found > high))
    return ((values >= low) & (values <= high)).nonzero().view(-1), int((values > high).sum())


def _count_above(delta: torch.Tensor, high: int) -> int:
    """How many magnitudes of a chunk, as bits, are larger."""
    import numpy as np
    import torch

    if delta.device.type == "cpu":
        return int(np.count_nonzero(delta.numpy().view(np.uint32) & _MAGNITUDE > high))
    return int((delta.view(torch.int32) & _MAGNITUDE > high).sum())


def _keys(delta: torch.Tensor, positions: torch.Tensor, start: int, salt: Salt) -> torch.Tensor:
    """The keys of entries of a chunk that begins at `start`: magnitude, then hash; (k,) int64."""
    import torch

    bits = delta.index_select(0, positions).view(torch.int32) & _MAGNITUDE
    return bits.long() << 32 | salt.hashes(positions + start)


def _float(bits: int) -> float:
    """The float32 of these bits."""
    import numpy as np

    return float(np.uint32(bits).view(np.float32))
