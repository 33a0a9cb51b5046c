"""What is wrong with the weights of a merge, and whose fault it is."""

from collections.abc import Sequence

import torch

from wildmerge import WildmergeError
from wildmerge.tensors import DTYPE_NAMES, Weights


def check_shapes(inputs: Sequence[Weights], where: str) -> None:
    """Raise WildmergeError if an expert has other tensors or shapes than the base, or empty ones.

    Args:
        inputs: the folders, the base's first.
        where: the merge in words, for the message.
    """
    base = inputs[0]
    for name, entry in base.items():
        if 0 in entry.shape:
            raise WildmergeError(
                f"{where}: tensors with elements were expected in {base.folder}, but {name} has "
                f"shape {list(entry.shape)}. Save the base without it, or leave the base out."
            )
    for expert in inputs[1:]:
        for name, entry in base.items():
            if name not in expert:
                raise WildmergeError(
                    f"{where}: tensor {name} of the base {base.folder} is missing in "
                    f"{expert.folder}. It is no fine-tuned copy of this base: leave it out."
                )
            if expert[name].shape != entry.shape:
                raise WildmergeError(
                    f"{where}: tensor {name} should have the base's shape {list(entry.shape)}, but "
                    f"has {list(expert[name].shape)} in {expert[name].file}. It is no fine-tuned "
                    "copy of this base: leave it out."
                )
        if extra := sorted(set(expert) - set(base)):
            raise WildmergeError(
                f"{where}: {expert.folder} has {len(extra)} tensor(s) which the base "
                f"{base.folder} has not, such as {extra[0]}. It is no fine-tuned copy of this "
                "base: leave it out."
            )


def require_equal(
    name: str, base: torch.Tensor, experts: Sequence[torch.Tensor], where: str
) -> None:
    """Raise WildmergeError if numbers that cannot be merged, such as integers, differ."""
    if not all(torch.equal(base, expert) for expert in experts):
        raise WildmergeError(
            f"{where}: {name} holds {DTYPE_NAMES[base.dtype]} numbers, which cannot be merged, and "
            "they differ between the base and an expert. Leave that expert out."
        )


def not_finite_error(
    name: str, inputs: Sequence[Weights], members: Sequence[str], where: str, dtype: str
) -> WildmergeError:
    """The error for a tensor that came out with NaN or Inf: whose fault it is.

    Args:
        name: the tensor's.
        inputs: the folders, the base's first.
        members: the experts' names, in order.
        where: the merge in words.
        dtype: of the weights written.
    """
    for owner, weights in zip(["the base", *members], inputs, strict=True):
        if not weights.read(name).isfinite().all():
            return WildmergeError(
                f"{where}: finite numbers were expected in {name}, found NaN or Inf in that tensor "
                f"of {owner} ({weights[name].file}). Leave that checkpoint out, or repair it."
            )
    return WildmergeError(
        f"{where}: all inputs of {name} are finite, but the merged tensor is not: it overflows "
        f"{dtype}, or its factorisation failed. Use `merge_dtype: bfloat16` or a smaller lambda."
    )
