"""A checkpoint folder's tensors, read lazily."""

import json
import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from wildmerge import WildmergeError

from .headers import INDEX, SINGLE, read_header

# The names of the safetensors format (its public specification) and torch's.
DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

# Linux reads at most 2 GiB in one call.
_CALL = 1 << 30

# It takes advice to read ahead for this much at a time, its usual window.
_ANNOUNCED = 1 << 17


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: its shape, dtype, file, and the bytes from `offset` in it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    file: Path
    offset: int
    nbytes: int


class Weights(Mapping[str, Entry]):
    """The safetensors of one checkpoint folder: name -> Entry, and `read(name)` for the tensor.

    Only the headers are read at first; they are checked against the sizes of the files, so that a
    truncated download is found before any arithmetic. Reading is by `pread`, not by mapping the
    file: a file that shrinks or a disk that fails gives an error instead of a bus fault, and any
    number of threads may read at once.

    Args:
        folder: a folder with `model.safetensors`, or shards and `model.safetensors.index.json`.

    Attributes:
        files: name -> path of all files that it consists of, the index among them.
        bytes_read: how many bytes of tensors have been read so far.

    Raises:
        WildmergeError: no safetensors there, a shard missing, unreadable or truncated, or an index
            that names tensors which its shards do not hold.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.files: dict[str, Path] = {}
        self.bytes_read = 0
        self._lock = threading.Lock()
        self._files: dict[Path, int] = {}
        weakref.finalize(self, _close, self._files)
        self._entries: dict[str, Entry] = {}
        index = self.folder / INDEX
        if index.exists():
            placed = _read_index(index)
            shards = sorted(set(placed.values()))
            self.files = {name: self.folder / name for name in (INDEX, *shards)}
            for shard in shards:
                found = _read_entries(self.folder / shard)
                self._entries |= {n: e for n, e in found.items() if placed.get(n) == shard}
            if lost := sorted(set(placed) - set(self._entries)):
                raise WildmergeError(
                    f"{index} places {lost[0]} in {placed[lost[0]]}, but that file does not hold "
                    f"it ({len(lost)} such tensor(s)). The checkpoint is incomplete: delete the "
                    f"folder {self.folder} and make it again."
                )
        else:
            self.files = {SINGLE: self.folder / SINGLE}
            self._entries = _read_entries(self.folder / SINGLE)

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, name: str, memory: torch.Tensor | None = None) -> torch.Tensor:
        """Read one tensor: the shape and dtype of its entry, on the CPU.

        Args:
            name: the tensor's.
            memory: flat uint8 of at least the tensor's bytes, where to put it; by default memory
                of its own. Fresh memory costs as much time as reading from the page cache.

        Raises:
            WildmergeError: the file cannot be read, or is shorter than its header says.
        """
        entry = self[name]
        size = torch.Size(entry.shape).numel()
        return self.read_part(name, 0, size, memory).view(entry.shape)

    def read_part(
        self, name: str, first: int, last: int, memory: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Read the elements [first, last) of one tensor taken as flat: (last - first,), its dtype.

        Raises:
            WildmergeError: the file cannot be read, or is shorter than its header says.
        """
        entry = self[name]
        start, nbytes = first * entry.dtype.itemsize, (last - first) * entry.dtype.itemsize
        data = torch.empty(nbytes, dtype=torch.uint8) if memory is None else memory[:nbytes]
        view = data.numpy().data
        done = 0
        try:
            file = self._open(entry.file)
            while done < nbytes:
                place = entry.offset + start + done
                step = os.preadv(file, [view[done : done + _CALL]], place)
                if step == 0:
                    raise OSError(f"it ends {nbytes - done} bytes too early")
                done += step
        except OSError as error:
            raise WildmergeError(
                f"Tensor {name} could not be read from {entry.file}: {error}. Delete the folder "
                f"{self.folder}, so that it is made again, or repair the disk it lies on."
            ) from error
        with self._lock:
            self.bytes_read += nbytes
        return data.view(entry.dtype)

    def announce(self, name: str) -> None:
        """Tell the system that a tensor will be read soon, so that the disk starts now.

        It is advice: what is wrong with the file, the reading says.
        """
        entry = self[name]
        with suppress(OSError, AttributeError):  # AttributeError: not on this system
            file = self._open(entry.file)
            for start in range(0, entry.nbytes, _ANNOUNCED):
                where = entry.offset + start, min(_ANNOUNCED, entry.nbytes - start)
                os.posix_fadvise(file, *where, os.POSIX_FADV_WILLNEED)

    def _open(self, path: Path) -> int:
        with self._lock:
            if path not in self._files:
                self._files[path] = os.open(path, os.O_RDONLY)
            return self._files[path]


def _close(files: dict[Path, int]) -> None:
    for file in files.values():
        os.close(file)


class LazyTensor:
    """A tensor of a folder, of which a kernel reads one slice after another where it needs it.

    It takes the place of a flat tensor in the kernels of `methods` that look at each element once:
    what is read then stays in a core's cache until it is used, and is never in memory as a whole.
    A slice is valid until the same thread takes the next one. Making one announces the tensor.

    Args:
        weights: the folder.
        name: the tensor's.
    """

    def __init__(self, weights: Weights, name: str):
        self.weights, self.name, self.entry = weights, name, weights[name]
        self._local = threading.local()
        weights.announce(name)

    def reshape(self, *_: int) -> "LazyTensor":
        """Itself: it is flat already."""
        return self

    def __getitem__(self, part: slice) -> torch.Tensor:
        """The elements of a slice with start and stop, in the tensor's dtype, on the CPU."""
        nbytes = (part.stop - part.start) * self.entry.dtype.itemsize
        memory = getattr(self._local, "memory", None)
        if memory is None or len(memory) < nbytes:
            memory = self._local.memory = torch.empty(nbytes, dtype=torch.uint8)
        return self.weights.read_part(self.name, part.start, part.stop, memory)


def lazy_tensor(weights: Weights, name: str) -> torch.Tensor:
    """A LazyTensor under the type of what it stands for, since the kernels take either."""
    return cast(torch.Tensor, LazyTensor(weights, name))


def _read_index(index: Path) -> dict[str, str]:
    try:
        placed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {str(name): str(shard) for name, shard in placed.items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise WildmergeError(
            f"Expected a JSON object with a `weight_map` in {index}, found something else "
            f"({type(error).__name__}: {error}). Delete the folder {index.parent}, so that it is "
            "made again."
        ) from error


def _read_entries(path: Path) -> dict[str, Entry]:
    """The entries of one safetensors file, checked against the file's size."""
    try:
        entries = {}
        for name, place in read_header(path).items():
            dtype, nbytes = DTYPES[place.dtype], place.last - place.first
            wanted = torch.Size(place.shape).numel() * dtype.itemsize
            if nbytes != wanted:
                raise ValueError(f"{name} should have {wanted} bytes, its place has {nbytes}")
            entries[name] = Entry(place.shape, dtype, path, place.first, nbytes)
        return entries
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = error.strerror if isinstance(error, OSError) else error
        raise WildmergeError(
            f"Expected a whole safetensors file at {path}, but it is missing, truncated or "
            f"unreadable ({type(error).__name__}: {what}). Delete the folder {path.parent}, so "
            "that it is made again."
        ) from error
