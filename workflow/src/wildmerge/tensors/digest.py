"""The digest that names a model's weights, and whether weights are still those it was taken of."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from wildmerge import WildmergeError
from wildmerge.files import read_json, stamps, write_json

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


def weights_digest(weights: Weights) -> str:
    """The digest of a folder's weights, all of them read.

    Raises:
        WildmergeError: a file cannot be read.
    """
    digest = Digest()
    for name in weights:
        digest.add(name, weights.read(name))
    return digest.hexdigest()


def folder_digest(folder: str | Path) -> str:
    """The digest of a checkpoint folder's weights, as summaries of merges and verdicts have it.

    Raises:
        WildmergeError: there are no whole safetensors in the folder.
    """
    return weights_digest(Weights(folder))


def known_digest(weights: Weights) -> str:
    """The same digest; read only where files changed since it was last taken.

    It is kept in `.NAME.digest.json` beside the folder NAME, with the stamps of the files.

    Raises:
        WildmergeError: a file cannot be read.
    """
    now = stamps(weights.files)
    try:
        kept = read_json(_record(weights))
        if kept["files"] == now:
            return str(kept["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none yet, or a damaged one
    digest = folder_digest(weights.folder)
    remember(weights, digest, now)
    return digest


def told_digest(weights: Weights, told: str, by: str | Path) -> str:
    """The digest that a file tells of weights, read for it only where they are newer than the file.

    Args:
        weights: the folder.
        told: their digest, by the file.
        by: the file, which was written after them.

    Raises:
        WildmergeError: they have another digest, or a file cannot be read.
    """
    (said,) = stamps({"": Path(by)}).values()
    if all(stamp and max(stamp[1:]) < said[1] for stamp in stamps(weights.files).values()):
        return told
    if (found := weights_digest(weights)) != told:
        raise WildmergeError(
            f"The weights in {weights.folder} should have the digest {told}, which {by} tells of "
            f"them, but have {found}: they were written to since. Delete both, so that they are "
            "made again, and run again."
        )
    return found


def remember(weights: Weights, digest: str, taken: Mapping[str, list[int]]) -> None:
    """Keep the digest of a folder's weights for `known_digest`.

    Args:
        weights: the folder.
        digest: of its weights.
        taken: the stamps of its files, from before they were read.
    """
    # Where nobody may write it is taken anew each time.
    if stamps(weights.files) == taken:
        with suppress(OSError):
            write_json(_record(weights), {"digest": digest, "files": taken})


def _record(weights: Weights) -> Path:
    return weights.folder.with_name(f".{weights.folder.name}.digest.json")


@contextmanager
def unchanged(
    folders: Sequence[Weights], where: str, digests: Sequence[str] = ()
) -> Iterator[list[dict[str, list[int]]]]:
    """Hold folders to what they are while a job reads them.

    Args:
        folders: what the job reads.
        where: the job in words, for messages.
        digests: those of the folders' weights, where the job goes on from what was found of them.

    Yields:
        The stamps of each folder's files.

    Raises:
        WildmergeError: at the start, if weights have another digest; at the end, if a file was
            written or replaced meanwhile.
    """
    before = [stamps(weights.files) for weights in folders]
    for weights, digest in zip(folders, digests, strict=bool(digests)):
        if (found := known_digest(weights)) != digest:
            raise WildmergeError(
                f"{where}: the weights in {weights.folder} should have the digest {digest}, with "
                f"which they were measured, but have {found}: they changed since. Run again: if "
                "they lie in a folder of yours (`dir:` in config/models.tsv), that is noticed, and "
                "what depends on them is made again. If this comes once more, delete "
                f"{weights.folder}, so that they are brought anew."
            )
    yield before
    for weights, taken in zip(folders, before, strict=True):
        if stamps(weights.files) != taken:
            raise WildmergeError(
                f"{where}: weights that stay as they are were expected in {weights.folder}, but "
                "files there were written or replaced while they were read. Nothing of this job is "
                "kept. Wait until they are whole, and run again."
            )
