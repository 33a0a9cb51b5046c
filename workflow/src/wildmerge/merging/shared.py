"""What several merges share, as files: factorisations, and updates before their scale.

Three kinds, each a folder of float32 safetensors with the digests of what it was made from
(`precompute` makes them):

- `ExpertFactors` of one expert, for TSV-M: of each projection's task vector the leading half of the
  singular values and of the singular vectors on the shorter side, which is all that a merge of two
  or more can use. Vectors lie row after row: a merge of T experts reads just the 1 / T it needs.
  The other side's vectors are not kept; a product with the task vector gives them back.
- `SumFactors` of the sum of a subset's task vectors, for Iso-C, TA + SB and every point of their
  sweeps: polar factor, singular values and vectors. A merge then reads no expert's projections.
- `SharedUpdate` of a subset by a method whose scale is a plain factor (Task Arithmetic, TIES): the
  update without it. The points of a sweep over lambda then read base and update, not base and all
  experts.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from wildmerge import WildmergeError
from wildmerge.files import read_json
from wildmerge.methods import METHODS
from wildmerge.tensors import Weights, known_digest, spectral

DIGESTS = "digests.json"
NOTES = "notes.json"  # tensor -> what was found in factorising it, told by every merge that uses it
BOUNDS = "bounds.json"  # of an update: what trimming over the whole model found of each expert
UPDATE = "update"  # the key of what was computed, beside the weights' digests


def digests(members: Sequence[str], verdicts: Sequence[str | Path]) -> dict[str, str]:
    """The digests of the base (key `base`) and of each member, from the members' verdicts.

    Args:
        members: names of checkpoints of one base.
        verdicts: their verdict files, in the same order.
    """
    contents = [read_json(path) for path in verdicts]
    return {"base": contents[0]["base_digest"]} | {
        member: verdict["digest"] for member, verdict in zip(members, contents, strict=True)
    }


def digests_for(
    recipe: dict, experts: Mapping[str, str | Path], known: Mapping[str, str] | None
) -> list[str]:
    """The digests of the experts' weights, in order, for a method that asks for them; else none.

    Args:
        recipe: an entry of recipes.yaml.
        experts: name -> folder.
        known: name -> digest; what is missing is computed.
    """
    method = METHODS.get(recipe["merge_method"])
    if method is None or not method.salted:
        return []
    known = known or {}
    return [known.get(name) or known_digest(Weights(path)) for name, path in experts.items()]


def unscaled_recipe(recipe: dict, experts: int) -> dict:
    """What a recipe's update is without its scale: kept beside it, and compared before its use."""
    method = recipe["merge_method"]
    without_scale = METHODS[method].unscaled
    if without_scale is None:
        raise ValueError(f"the scale of {method} is no plain factor")
    parameters, _ = without_scale(recipe["parameters"], experts)
    return {"merge_method": method, "parameters": parameters, "version": recipe["version"]}


class _SharedFolder:
    """A folder that `precompute` made, read as the merges need it.

    Args:
        folder: the folder.
        made_from: the digests of the weights that it must have been made from, and for an update
            what it must be (`unscaled_recipe`) under the key `update`; None takes any.

    Attributes:
        weights: its tensors.

    Raises:
        WildmergeError: it was made from something else, or is broken.
    """

    def __init__(self, folder: str | Path, made_from: Mapping[str, object] | None = None):
        self.weights = Weights(folder)
        notes = Path(folder) / NOTES
        self._notes = read_json(notes) if notes.exists() else {}
        recorded = read_json(Path(folder) / DIGESTS)
        if made_from is not None and recorded != made_from:
            raise WildmergeError(
                f"What lies in {folder} should have been made from weights with the digests "
                f"{made_from}, but was made from {recorded}. Delete that folder, so that it is "
                "made again."
            )

    def _tell(self, name: str) -> None:
        for note in self._notes.get(name, ()):
            warnings.warn(note, spectral.SpectralWarning, stacklevel=3)


class ExpertFactors(_SharedFolder):
    """The leading factors of one expert's task vectors."""

    def leading(
        self, name: str, kept: int, device: torch.device | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The leading singular values and vectors, as `spectral.leading` gives them.

        Args:
            name: the tensor's.
            kept: how many at most.
            device: where to put them; None leaves them on the CPU.

        Returns:
            The values (k,), falling, and the vectors (k, min(m, n)), float32.
        """
        values = self.weights.read_part(f"{name}.values", 0, kept)
        rank = int((values > 0).sum())
        self._tell(name)
        length = self.weights[f"{name}.vectors"].shape[1]
        vectors = self.weights.read_part(f"{name}.vectors", 0, rank * length)
        return values[:rank].to(device), vectors.view(rank, length).to(device)


class SumFactors(_SharedFolder):
    """The factors of the sum of a subset's task vectors."""

    def whole(self, name: str, tall: bool, device: torch.device | None = None) -> spectral.Factors:
        """The factors of a tensor, as `spectral.factorize` gives them.

        Args:
            name: the tensor's.
            tall: whether it has more rows than columns.
            device: where to put them; None leaves them on the CPU.
        """
        values, vectors, polar = (
            self.weights.read(f"{name}.{part}").to(device)
            for part in ("values", "vectors", "polar")
        )
        rank = int((values > 0).sum())
        self._tell(name)
        return spectral.Factors(polar, values[:rank], vectors[:, :rank], tall)


class SharedUpdate(_SharedFolder):
    """The update of a subset by a method, without its scale."""

    @property
    def bounds(self) -> list[str]:
        """What trimming over the whole model found of each expert, or nothing."""
        return read_json(self.weights.folder / BOUNDS)


# What one merge takes of it: the factors of each expert in order, those of the sum, or the update.
Shared = Sequence[ExpertFactors] | SumFactors | SharedUpdate


def open_shared(
    recipe: dict,
    members: Sequence[str],
    inputs: Mapping[str, str],
    factors: Sequence[str | Path] = (),
    update: str | Path | None = None,
) -> Shared | None:
    """Open what was made for a merge, compared with the recipe and the digests of the weights.

    Args:
        recipe: an entry of recipes.yaml.
        members: the experts' names.
        inputs: the digests of base and experts, as `digests` gives them.
        factors: folders of factors: one of the sum, or one of each expert in order.
        update: folder of the update without its scale.

    Returns:
        None if neither was given.

    Raises:
        WildmergeError: a folder was made from something else, or is broken.
    """
    if update:
        return SharedUpdate(update, {**inputs, UPDATE: unscaled_recipe(recipe, len(members))})
    if not factors:
        return None
    if METHODS[recipe["merge_method"]].from_sum:
        (folder,) = factors
        return SumFactors(folder, inputs)
    return [
        ExpertFactors(folder, {"base": inputs["base"], member: inputs[member]})
        for folder, member in zip(factors, members, strict=True)
    ]
