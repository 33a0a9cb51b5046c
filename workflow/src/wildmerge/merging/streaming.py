"""Merge checkpoints of one base by a recipe, tensor by tensor."""

import math
import resource
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch

from wildmerge import WildmergeError, __version__
from wildmerge.files import atomic_folder, full_disk, require_space
from wildmerge.methods import check
from wildmerge.tensors import (
    Digest,
    SpectralWarning,
    Weights,
    Writer,
    in_parallel,
    slices,
    unchanged,
)

from .checks import check_shapes, not_finite_error, require_equal
from .companions import check_companions, write_companions
from .progress import MergeProgress
from .reading import Reading, read_ahead
from .shared import Shared, SharedUpdate, SumFactors, digests_for
from .strategies import Pieces, Strategy, choose_strategy

# By the names of config.yaml and of transformers.
MERGED_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def merge(
    base: str | Path,
    experts: Mapping[str, str | Path],
    recipe: dict,
    output: str | Path,
    *,
    dtype: str = "bfloat16",
    device: str | None = None,
    shared: Shared | None = None,
    digests: Mapping[str, str] | None = None,
    room: Callable[[int, Path, str], None] = require_space,
) -> dict:
    """Merge experts into their base and write the model.

    Tensors are read, merged in float32 and written one after another; reading the next and
    writing the last go on meanwhile. The result is rounded once, to `dtype`. Config, tokenizer
    and generation config are the base's.

    Args:
        base: folder of the base, W_0.
        experts: name -> folder of the checkpoints W_i, of the base's tensors and shapes.
        recipe: an entry of recipes.yaml, with its `name`.
        output: the folder to write; it appears under this name when it is whole.
        dtype: `bfloat16`, `float16` or `float32`, of the weights written.
        device: where the arithmetic is done; by default the first GPU, or the CPU if there is none.
        shared: what was made already for several merges, see `shared`. With factors the result is
            the same up to round-off, with an update to the bit. Without, the merge computes all
            by itself.
        digests: of the weights, `base` and by the experts' names, where something was found of
            them before: other weights are refused. TIES' choice among equal entries depends on
            them, too; None computes them where the method asks for them.
        room: called before the first tensor is written, with the bytes of all, their folder and
            the merge in words; it raises WildmergeError, or waits, where the disk lacks room.

    Returns:
        The content of summary.json that the merge itself knows: method, digest of the output, L2
        norm of the update before and after rounding, seconds, bytes, versions and the like.

    Raises:
        WildmergeError: the recipe is not allowed, a file is missing or broken, an expert has other
            tensors or shapes, weights have another digest or change meanwhile, a number is not
            finite, or the disk is full.
    """
    started = time.monotonic()
    base, output = Path(base), Path(output)
    where = f"Merge of {', '.join(experts)} by {recipe['name']}"
    check(recipe)
    at = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    inputs = [Weights(base), *(Weights(folder) for folder in experts.values())]
    check_shapes(inputs, where)
    check_companions(base, where)
    wanted = [digests[name] for name in ("base", *experts)] if digests else []
    with (
        atomic_folder(output) as folder,
        full_disk(where, output),
        unchanged(inputs, where, wanted),
    ):
        salts = digests_for(recipe, experts, digests) if shared is None else ()
        strategy = choose_strategy(recipe, inputs, shared, at, where, salts)
        job = _Job(inputs, list(experts), strategy, at, dtype, where)
        outcome = job.write_tensors(folder, room)
        write_companions(base, folder, dtype)
    tensors = outcome.tensors
    bounds = dict(zip(experts, strategy.bounds, strict=False))
    return {
        "members": list(experts),
        "merge_method": recipe["merge_method"],
        "parameters": recipe["parameters"],
        "version": recipe["version"],
        "output_digest": outcome.digest.hexdigest(),
        "norm": math.hypot(*(tensor["norm"] for tensor in tensors.values())),
        "norm_rounded": math.hypot(*(tensor["norm_rounded"] for tensor in tensors.values())),
        "tensors": tensors,
        **({"bounds": bounds} if bounds else {}),
        "warnings": outcome.warnings,
        "seconds": time.monotonic() - started,
        "bytes_read": sum(weights.bytes_read for weights in [*inputs, *_folders(shared)]),
        "bytes_written": outcome.nbytes,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "versions": {
            "wildmerge": __version__,
            "torch": torch.__version__,
            "mergekit": version("mergekit"),
        },
        "device": at.type,
        "dtype": dtype,
        "threads": torch.get_num_threads(),
    }


@dataclass
class _Outcome:
    """What was found while the tensors were merged.

    Attributes:
        nbytes: of the weights written.
        digest: of the weights written.
        tensors: name -> `norm` and `norm_rounded`, the L2 norms of its update, of the
            floating-point tensors.
        warnings: what the factorisations had to say.
    """

    nbytes: int
    digest: Digest = field(default_factory=Digest)
    tensors: dict[str, dict[str, float]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Job:
    """One merge on its way.

    Attributes:
        inputs: the folders, the base's first.
        members: the experts' names.
        strategy: gives the updates.
        device: where the arithmetic is done.
        dtype: of the weights written, by its name.
        where: the merge in words, for messages.
    """

    inputs: Sequence[Weights]
    members: Sequence[str]
    strategy: Strategy
    device: torch.device
    dtype: str
    where: str

    def write_tensors(self, folder: Path, room: Callable[[int, Path, str], None]) -> _Outcome:
        """Merge every tensor, in the order of their names, and write them to a folder."""
        base = self.inputs[0]
        readings = [self._reading(name) for name in sorted(base)]
        dtypes = {reading.name: self._dtype(reading.name) for reading in readings}
        writer = Writer(folder, {n: (dtype, base[n].shape) for n, dtype in dtypes.items()})
        room(writer.nbytes, folder, self.where)
        outcome = _Outcome(writer.nbytes)
        progress = MergeProgress(self.where, sum(reading.nbytes for reading in readings))

        def write(name: str, tensor: torch.Tensor) -> None:
            writer.write(name, tensor)
            outcome.digest.add(name, tensor)

        with ThreadPoolExecutor(1) as pool:
            written: Future[None] | None = None
            for reading, (start, *others) in read_ahead(readings):
                name = reading.name
                start = start.to(self.device)
                if not reading.slices:
                    others = [other.to(self.device) for other in others]
                if start.is_floating_point():
                    merged = self._merged(name, start, others, dtypes[name], outcome)
                else:
                    # Buffers that are no floating-point numbers are kept as they are.
                    require_equal(name, start, others, self.where)
                    merged = start.clone()
                if written:
                    written.result()
                written = pool.submit(write, name, merged.cpu())
                progress.add(reading.nbytes)
                del start, others, merged
            if written:
                written.result()
        return outcome

    def _reading(self, name: str) -> Reading:
        if not self.inputs[0][name].dtype.is_floating_point:
            return Reading(name, self.inputs, slices=False)
        return Reading(name, self.strategy.sources(name), self.strategy.reads_slices(name))

    def _dtype(self, name: str) -> torch.dtype:
        dtype = self.inputs[0][name].dtype
        return MERGED_DTYPES[self.dtype] if dtype.is_floating_point else dtype

    def _merged(
        self,
        name: str,
        base: torch.Tensor,
        others: Sequence[torch.Tensor],
        dtype: torch.dtype,
        outcome: _Outcome,
    ) -> torch.Tensor:
        """The merged tensor, rounded; its norms and warnings go to the outcome."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", SpectralWarning)
            try:
                pieces = self.strategy.pieces(name, base, others)
            except torch.linalg.LinAlgError as error:
                raise self._not_finite(name) from error
        outcome.warnings += [f"{name}: {warning.message}" for warning in caught]
        merged, norm, norm_rounded = _round(base, pieces, dtype)
        if not math.isfinite(norm_rounded):
            raise self._not_finite(name)
        outcome.tensors[name] = {"norm": norm, "norm_rounded": norm_rounded}
        return merged

    def _not_finite(self, name: str) -> WildmergeError:
        return not_finite_error(name, self.inputs, self.members, self.where, self.dtype)


def _folders(shared: Shared | None) -> list[Weights]:
    if shared is None:
        return []
    folders = [shared] if isinstance(shared, SumFactors | SharedUpdate) else shared
    return [folder.weights for folder in folders]


def _round(
    base: torch.Tensor, pieces: Pieces, dtype: torch.dtype
) -> tuple[torch.Tensor, float, float]:
    """Round base + update once, chunk by chunk.

    Args:
        base: any shape and floating dtype.
        pieces: gives the update of a slice of the flat elements, float32.
        dtype: of the result.

    Returns:
        The rounded sum, and the L2 norms of the update as it was computed and as it stands in the
        rounded result.
    """
    merged = torch.empty(base.shape, dtype=dtype, device=base.device)
    origin, result = base.reshape(-1), merged.view(-1)

    def chunk(part: slice) -> tuple[float, float]:
        start, delta = origin[part].float(), pieces(part)
        sums = start + delta
        result[part] = sums
        rounded = sums.copy_(result[part]).sub_(start)
        return _square(delta), _square(rounded)

    squares = in_parallel(chunk, slices(base.numel()))
    norm, norm_rounded = (math.sqrt(math.fsum(column)) for column in zip(*squares, strict=True))
    return merged, norm, norm_rounded


def _square(vector: torch.Tensor) -> float:
    """Squared L2 norm of a flat float32 tensor: rows of 256 in float32, their sum in float64."""
    end = len(vector) // 256 * 256
    rows, rest = vector[:end].view(-1, 256), vector[end:]
    square = sum(torch.linalg.vecdot(x, x).double().sum().item() for x in (rows, rest))
    return square if math.isfinite(square) else vector.double().square().sum().item()
