"""The digest that names a model's weights."""

import hashlib
from pathlib import Path

import torch

from .weights import DTYPE_NAMES, Weights


def raw_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, in place, as they stand in a safetensors file."""
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().data


class Digest:
    """The sha256 that names a model's weights, whatever shards or order they come in.

    It is the sha256 over one line a tensor, sorted by name: name, dtype, shape, and the sha256 of
    the tensor's bytes. Tensors may be added in any order, each once, from one thread or several.
    """

    def __init__(self) -> None:
        self._lines: dict[str, str] = {}

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Add one tensor (contiguous, on the CPU)."""
        content = hashlib.sha256(raw_bytes(tensor)).hexdigest()
        shape = "x".join(map(str, tensor.shape))
        self._lines[name] = f"{name} {DTYPE_NAMES[tensor.dtype]} {shape} {content}\n"

    def hexdigest(self) -> str:
        """The digest of all the tensors added so far, as 64 hexadecimal digits."""
        return hashlib.sha256(
            "".join(self._lines[name] for name in sorted(self._lines)).encode()
        ).hexdigest()


def folder_digest(folder: str | Path) -> str:
    """The digest of a checkpoint folder's weights, as summaries of merges and verdicts have it.

    Raises:
        WildmergeError: there are no whole safetensors in the folder.
    """
    weights, digest = Weights(folder), Digest()
    for name in weights:
        digest.add(name, weights.read(name))
    return digest.hexdigest()
