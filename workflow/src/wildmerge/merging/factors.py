"""What several merges share, as files: factorisations, and updates before their scale.

Three kinds, each a folder of float32 safetensors with the digests of what it was made from:

- of one expert, for TSV-M: of each projection's task vector the leading half of the singular values
  and of the singular vectors on the shorter side, which is all that a merge of two or more can use.
  Vectors lie row after row: a merge of T experts reads just the 1 / T it needs. The other side's
  vectors are not kept; a product with the task vector gives them back.
- of the sum of a subset's task vectors, for Iso-C, TA + SB and every point of their sweeps: polar
  factor, singular values and vectors. A merge then reads no expert's projections at all.
- of a subset by a method whose scale is a plain factor (Task Arithmetic, TIES): the update without
  it. The points of a sweep over lambda then read base and update, not base and all experts.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from wildmerge import WildmergeError
from wildmerge.files import atomic_folder, full_disk, read_json, require_space, write_json
from wildmerge.methods import METHODS, is_projection, task_arithmetic, tsv_m
from wildmerge.tensors import spectral
from wildmerge.tensors.weights import LazyTensor, Weights, Writer

DIGESTS = "digests.json"
NOTES = "notes.json"  # tensor -> what was found in factorising it, told by every merge that uses it
UPDATE = "update"  # the key of what was computed, beside the weights' digests

# A merge of two uses half of the directions, a merge of more uses fewer.
FEWEST = 2


def digests(members: Sequence[str], verdicts: Sequence[Path]) -> dict[str, str]:
    """The digests of the base and of each member, from the members' verdicts, in their order."""
    found = [read_json(path) for path in verdicts]
    return {"base": found[0]["base_digest"]} | {
        member: verdict["digest"] for member, verdict in zip(members, found, strict=True)
    }


def factorize_expert(base: Path, expert: Path, output: Path, digests: dict[str, str]) -> None:
    """Write the leading half of the factors of one expert's task vectors.

    Args:
        base: folder of the base.
        expert: folder of the checkpoint.
        output: the folder to write; it appears when it is whole.
        digests: what weights these are, by name; kept beside the factors.

    Raises:
        WildmergeError: a file is missing or broken, or the disk is full.
        torch.linalg.LinAlgError: NaN or Inf in a task vector.
    """

    def layout(shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        kept = tsv_m.share(shape, FEWEST)
        return {"values": (kept,), "vectors": (kept, min(shape))}

    def parts(delta: torch.Tensor) -> dict[str, torch.Tensor]:
        values, vectors = spectral.leading(delta, tsv_m.share(delta.shape, FEWEST))
        return {"values": values, "vectors": vectors}

    _write([base, expert], output, digests, layout, parts)


def factorize_sum(base: Path, experts: Sequence[Path], output: Path, digests: dict) -> None:
    """Write the factors of the sum of the task vectors of `experts`; see `factorize_expert`."""

    def layout(shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        short, long = sorted(shape)
        return {"values": (short,), "vectors": (short, short), "polar": (short, long)}

    def parts(delta: torch.Tensor) -> dict[str, torch.Tensor]:
        factors = spectral.factorize(delta)
        return {"values": factors.values, "vectors": factors.vectors, "polar": factors.polar}

    _write([base, *experts], output, digests, layout, parts)


def unscaled(recipe: dict, experts: int) -> dict:
    """What a recipe's update is without its scale: kept beside it, and held against its use."""
    method = recipe["merge_method"]
    parameters, _ = METHODS[method].unscaled(recipe["parameters"], experts)
    return {"merge_method": method, "parameters": parameters, "version": recipe["version"]}


def write_update(
    base: Path, experts: Sequence[Path], recipe: dict, output: Path, digests: dict
) -> None:
    """Write the update of all floating-point tensors by a recipe, without its scale.

    Args:
        base: folder of the base.
        experts: folders of the checkpoints.
        recipe: an entry of recipes.yaml whose method has `unscaled`.
        output: the folder to write; it appears when it is whole.
        digests: what weights these are, by name; kept beside the update.

    Raises:
        WildmergeError: a file is missing or broken, or the disk is full.
    """
    method = METHODS[recipe["merge_method"]]
    what = unscaled(recipe, len(experts))
    start, *members = (Weights(folder) for folder in [base, *experts])
    shapes = {n: start[n].shape for n in sorted(start) if start[n].dtype.is_floating_point}
    device, where = _device(), f"Writing {output}"
    with atomic_folder(output) as folder, full_disk(where, output):
        writer = Writer(folder, {name: (torch.float32, shape) for name, shape in shapes.items()})
        require_space(writer.nbytes, folder, where)
        for name, shape in shapes.items():
            origin, projection = start.read(name).to(device), is_projection(name, shape)
            tensors = _tensors(members, name, device, method.once)
            writer.write(
                name, method(origin, tensors, what["parameters"], projection=projection).cpu()
            )
        write_json(folder / DIGESTS, digests | {UPDATE: what})


def _write(
    folders: Sequence[Path], output: Path, digests: dict, layout: Callable, parts: Callable
) -> None:
    start, *experts = (Weights(folder) for folder in folders)
    shapes = {n: start[n].shape for n in sorted(start) if is_projection(n, start[n].shape)}
    tensors = {
        f"{name}.{part}": (torch.float32, size)
        for name, shape in shapes.items()
        for part, size in layout(shape).items()
    }
    device, where = _device(), f"Writing {output}"
    notes: dict[str, list[str]] = {}
    with atomic_folder(output) as folder, full_disk(where, output):
        writer = Writer(folder, tensors)
        require_space(writer.nbytes, folder, where)
        for name in shapes:
            origin = start.read(name).to(device)
            members = _tensors(experts, name, device, once=True)
            delta = task_arithmetic.update(origin, members, combine="sum", lambda_=1.0)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", spectral.SpectralWarning)
                found = parts(delta)
            if caught:
                notes[name] = [str(warning.message) for warning in caught]
            for part, tensor in found.items():
                # Where the rank is not full the rest is zeros.
                whole = torch.zeros(tensors[f"{name}.{part}"][1])
                whole[tuple(slice(size) for size in tensor.shape)] = tensor
                writer.write(f"{name}.{part}", whole)
        write_json(folder / DIGESTS, digests)
        write_json(folder / NOTES, notes)


def _tensors(folders: Sequence[Weights], name: str, device: str, once: bool) -> list:
    """A tensor of each folder; read slice by slice where each element is looked at once."""
    if once and device == "cpu":
        return [LazyTensor(weights, name) for weights in folders]
    return [weights.read(name).to(device) for weights in folders]


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


class Factors:
    """A folder of factors, or of an update, read as the merges need them.

    Args:
        folder: made by `factorize_expert`, `factorize_sum` or `write_update`.
        digests: of the weights that it must have been made from, and for an update what it must be
            (`unscaled`) under the key `update`; None takes any.

    Raises:
        WildmergeError: it was made from other weights, or is broken.
    """

    def __init__(self, folder: Path, digests: dict | None = None):
        self.weights = Weights(folder)
        notes = Path(folder) / NOTES
        self._notes = read_json(notes) if notes.exists() else {}
        found = read_json(Path(folder) / DIGESTS)
        if digests is not None and found != digests:
            raise WildmergeError(
                f"What lies in {folder} should have been made from weights with the digests "
                f"{digests}, but was made from {found}. Delete that folder, so that it is made "
                "again."
            )

    def leading(self, name: str, kept: int, device=None) -> tuple[torch.Tensor, torch.Tensor]:
        """One expert's leading singular values and vectors, as `spectral.leading` gives them."""
        values = self.weights.read_part(f"{name}.values", 0, kept)
        rank = int((values > 0).sum())
        self._tell(name)
        length = self.weights[f"{name}.vectors"].shape[1]
        vectors = self.weights.read_part(f"{name}.vectors", 0, rank * length)
        return values[:rank].to(device), vectors.view(rank, length).to(device)

    def whole(self, name: str, tall: bool, device=None) -> spectral.Factors:
        """The factors of a sum of task vectors."""
        values, vectors, polar = (
            self.weights.read(f"{name}.{part}").to(device)
            for part in ("values", "vectors", "polar")
        )
        rank = int((values > 0).sum())
        self._tell(name)
        return spectral.Factors(polar, values[:rank], vectors[:, :rank], tall)

    def _tell(self, name: str) -> None:
        for note in self._notes.get(name, ()):
            warnings.warn(note, spectral.SpectralWarning, stacklevel=3)
