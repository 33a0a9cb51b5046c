"""Compute once what several merges share (`shared` says what that is), and write it."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from wildmerge.files import atomic_folder, full_disk, require_space, write_json
from wildmerge.methods import is_projection, task_arithmetic, tsv_m
from wildmerge.tensors import (
    Weights,
    Writer,
    in_parallel,
    lazy_tensor,
    slices,
    spectral,
    unchanged,
)

from .shared import BOUNDS, DIGESTS, NOTES, UPDATE, digests_for, unscaled_recipe
from .strategies import Pieces, choose_strategy

# A merge of two uses half of the directions, a merge of more uses fewer.
_FEWEST = 2


def factorize_expert(
    base: str | Path, expert: str | Path, output: str | Path, digests: Mapping[str, str]
) -> None:
    """Write the leading half of the factors of one expert's task vectors.

    Args:
        base: folder of the base.
        expert: folder of the checkpoint.
        output: the folder to write; it appears when it is whole.
        digests: of the base's weights and the expert's, by name; kept beside the factors.

    Raises:
        WildmergeError: a file is missing or broken, weights have another digest or change
            meanwhile, or the disk is full.
        torch.linalg.LinAlgError: NaN or Inf in a task vector.
    """

    def sizes(shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        kept = tsv_m.share(shape, _FEWEST)
        return {"values": (kept,), "vectors": (kept, min(shape))}

    def parts(delta: torch.Tensor) -> dict[str, torch.Tensor]:
        values, vectors = spectral.leading(delta, tsv_m.share(delta.shape, _FEWEST))
        return {"values": values, "vectors": vectors}

    _write_factors([base, expert], output, digests, sizes, parts)


def factorize_sum(
    base: str | Path,
    experts: Sequence[str | Path],
    output: str | Path,
    digests: Mapping[str, str],
) -> None:
    """Write the factors of the sum of the task vectors of `experts`; see `factorize_expert`."""

    def sizes(shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        short, long = sorted(shape)
        return {"values": (short,), "vectors": (short, short), "polar": (short, long)}

    def parts(delta: torch.Tensor) -> dict[str, torch.Tensor]:
        factors = spectral.factorize(delta)
        return {"values": factors.values, "vectors": factors.vectors, "polar": factors.polar}

    _write_factors([base, *experts], output, digests, sizes, parts)


def write_update(
    base: str | Path,
    experts: Mapping[str, str | Path],
    recipe: dict,
    output: str | Path,
    digests: Mapping[str, str],
) -> None:
    """Write the update of all floating-point tensors by a recipe, without its scale.

    Args:
        base: folder of the base.
        experts: name -> folder of the checkpoints.
        recipe: an entry of recipes.yaml whose method has `unscaled`.
        output: the folder to write; it appears when it is whole.
        digests: of the base's weights and the experts', by name; kept beside the update.

    Raises:
        WildmergeError: a file is missing or broken, weights have another digest or change
            meanwhile, or the disk is full.
    """
    made = unscaled_recipe(recipe, len(experts))
    inputs = start, *members = [Weights(folder) for folder in [base, *experts.values()]]
    shapes = {n: start[n].shape for n in sorted(start) if start[n].dtype.is_floating_point}
    device, where = _device(), f"Writing {output}"
    wanted = [digests[name] for name in ("base", *experts)]
    with (
        atomic_folder(output) as folder,
        full_disk(where, Path(output)),
        unchanged(inputs, where, wanted),
    ):
        salts = digests_for(recipe, experts, digests)
        strategy = choose_strategy(made, inputs, None, torch.device(device), where, salts)
        writer = Writer(folder, {name: (torch.float32, shape) for name, shape in shapes.items()})
        require_space(writer.nbytes, folder, where)
        for name, shape in shapes.items():
            others = _tensors(members, name, device, strategy.reads_slices(name))
            pieces = strategy.pieces(name, start.read(name).to(device), others)
            update = torch.empty(torch.Size(shape).numel())

            def chunk(part: slice, pieces: Pieces = pieces, update: torch.Tensor = update) -> None:
                update[part] = pieces(part)

            in_parallel(chunk, slices(len(update)))
            writer.write(name, update)
        write_json(folder / DIGESTS, {**digests, UPDATE: made})
        write_json(folder / BOUNDS, list(strategy.bounds))


def _write_factors(
    folders: Sequence[str | Path],
    output: str | Path,
    digests: Mapping[str, str],
    sizes: Callable[[Sequence[int]], dict[str, tuple[int, ...]]],
    parts: Callable[[torch.Tensor], dict[str, torch.Tensor]],
) -> None:
    """Write the parts of the sum of the task vectors of `folders[1:]`, projection by projection.

    Args:
        folders: of the base and of one or more experts.
        output: the folder to write.
        digests: of their weights, by name, in the same order.
        sizes: of a projection's shape: the names of its parts and their shapes at full rank.
        parts: of the sum (m, n) float32: its parts, smaller where the rank is not full.
    """
    inputs = start, *experts = [Weights(folder) for folder in folders]
    shapes = {n: start[n].shape for n in sorted(start) if is_projection(n, start[n].shape)}
    tensors = {
        f"{name}.{part}": (torch.float32, size)
        for name, shape in shapes.items()
        for part, size in sizes(shape).items()
    }
    device, where = _device(), f"Writing {output}"
    notes: dict[str, list[str]] = {}
    with (
        atomic_folder(output) as folder,
        full_disk(where, Path(output)),
        unchanged(inputs, where, list(digests.values())),
    ):
        writer = Writer(folder, tensors)
        require_space(writer.nbytes, folder, where)
        for name in shapes:
            origin = start.read(name).to(device)
            members = _tensors(experts, name, device, by_slices=True)
            delta = task_arithmetic.update(origin, members, combine="sum", lambda_=1.0)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", spectral.SpectralWarning)
                factors = parts(delta)
            if caught:
                notes[name] = [str(warning.message) for warning in caught]
            for part, tensor in factors.items():
                # Where the rank is not full the rest is zeros.
                whole = torch.zeros(tensors[f"{name}.{part}"][1])
                whole[tuple(slice(size) for size in tensor.shape)] = tensor
                writer.write(f"{name}.{part}", whole)
        write_json(folder / DIGESTS, digests)
        write_json(folder / NOTES, notes)


def _tensors(
    folders: Sequence[Weights], name: str, device: str, by_slices: bool
) -> list[torch.Tensor]:
    """A tensor of each folder; read where it is computed with, if that may be."""
    if by_slices and device == "cpu":
        return [lazy_tensor(weights, name) for weights in folders]
    return [weights.read(name).to(device) for weights in folders]


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
