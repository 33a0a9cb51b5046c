"""Safetensors written in place: each tensor at its position as soon as it is ready."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from .digest import raw_bytes
from .weights import DTYPE_NAMES, INDEX, SINGLE

# The hub's own limit of a shard; weights that fit one shard need no index.
SHARD_BYTES = 5 * 10**9

# Linux writes at most 2 GiB in one call.
_CALL = 1 << 30


class Writer:
    """A model's safetensors: shards, their index, each tensor put at its place when it is ready.

    Args:
        folder: an empty folder.
        tensors: name -> (dtype, shape), in the order of the files.

    Attributes:
        nbytes: bytes of all tensors together.
    """

    def __init__(self, folder: Path, tensors: Mapping[str, tuple[torch.dtype, Sequence[int]]]):
        sizes = {n: torch.Size(s).numel() * d.itemsize for n, (d, s) in tensors.items()}
        self.nbytes = sum(sizes.values())
        self._place: dict[str, tuple[Path, int]] = {}
        shards = _shards(sizes)
        for number, names in enumerate(shards, 1):
            file = f"model-{number:05}-of-{len(shards):05}.safetensors"
            path = folder / (file if len(shards) > 1 else SINGLE)
            starts = _write_header(path, {name: tensors[name] for name in names})
            self._place |= {name: (path, start) for name, start in starts.items()}
        if len(shards) > 1:
            index = {
                "metadata": {"total_size": self.nbytes},
                "weight_map": {name: path.name for name, (path, _) in self._place.items()},
            }
            (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Write a tensor (contiguous, on the CPU) of the dtype and shape announced."""
        path, offset = self._place[name]
        data, done = raw_bytes(tensor), 0
        with open(path, "r+b", buffering=0) as file:
            while done < len(data):
                done += os.pwrite(file.fileno(), data[done : done + _CALL], offset + done)


def _shards(sizes: Mapping[str, int]) -> list[list[str]]:
    """The names of the tensors in each file, in order, by their sizes in bytes."""
    shards: list[list[str]] = [[]]
    room = SHARD_BYTES
    for name, size in sizes.items():
        if size > room and shards[-1]:
            shards.append([])
            room = SHARD_BYTES
        shards[-1].append(name)
        room -= size
    return shards


def _write_header(
    path: Path, tensors: Mapping[str, tuple[torch.dtype, Sequence[int]]]
) -> dict[str, int]:
    """Begin a file with its header; returns the byte at which each of its tensors starts."""
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    offsets, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        offsets[name] = end
        end += torch.Size(shape).numel() * dtype.itemsize
        header[name] = {
            "dtype": DTYPE_NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [offsets[name], end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    return {name: 8 + len(text) + offset for name, offset in offsets.items()}
