"""How the task vectors (W_i - W_0) of a base's checkpoints lie to each other.

No more than one slice of each checkpoint is in memory; sums run in float64.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from wildmerge import WildmergeError
from wildmerge.tensors import Weights, deltas, in_parallel, slices, unchanged

SLICE = 1 << 20  # elements of a tensor that are handled at once


def gram_matrices(base: str | Path, experts: dict[str, str | Path]) -> dict[str, np.ndarray]:
    """Products of all task vectors of a base, tensor by tensor, in one pass.

    Args:
        base: the base's folder.
        experts: model -> folder; all have the base's names and shapes.

    Returns:
        `names` (T,) of the tensors and `models` (k,) as text, and `gram` (T, k, k) float64, the
        products <W_i - W_0, W_j - W_0>.

    Raises:
        WildmergeError: a checkpoint has other tensors than the base, or not finite ones, or is
            written to while it is read.
    """
    ours = Weights(base)
    theirs = {model: Weights(folder) for model, folder in experts.items()}
    names, k = sorted(ours), len(theirs)
    for model, weights in theirs.items():
        shapes = {name: weights[name].shape for name in weights}
        if shapes != {name: ours[name].shape for name in ours}:
            raise WildmergeError(
                f"The tensors of the base {ours.folder} were expected in {weights.folder}, found "
                f"other names or shapes. See the verdict on {model} for which, and drop it."
            )
    gram = np.zeros((len(names), k, k))
    with unchanged([ours, *theirs.values()], f"Products over {ours.folder}"):
        _fill(gram, ours, theirs)
    return {"names": np.array(names), "models": np.array(list(theirs)), "gram": gram}


def _fill(gram: np.ndarray, ours: Weights, theirs: dict[str, Weights]) -> None:
    """Add the products of every tensor, in the order of the names, to (T, k, k) float64 zeros."""
    for t, name in enumerate(sorted(ours)):
        size = torch.Size(ours[name].shape).numel()
        for first in range(0, size, SLICE):
            last = min(first + SLICE, size)
            start = ours.read_part(name, first, last)
            members = [weights.read_part(name, first, last) for weights in theirs.values()]
            work = partial(_products, start, members)
            for products in in_parallel(work, slices(last - first)):
                gram[t] += products
        if not np.isfinite(gram[t]).all():
            models = [
                m for m, bad in zip(theirs, ~np.isfinite(gram[t].diagonal()), strict=True) if bad
            ]
            raise WildmergeError(
                f"Finite numbers were expected in tensor {name} of {ours.folder} and its "
                f"checkpoints, found NaN or Inf in {', '.join(models)}. Drop what is broken."
            )


def _products(start: torch.Tensor, members: list[torch.Tensor], part: slice) -> np.ndarray:
    """The Gram matrix (k, k) float64 of one chunk.

    The chunk's products are formed in float32 from differences that are exact to its last bit,
    and summed up in float64 by the caller: an error of 10^-7 of the norms' product.
    """
    vectors = deltas(start, members, part)  # (k, chunk) float32
    return (vectors @ vectors.T).double().numpy()
