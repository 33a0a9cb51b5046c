"""Which singular values of a task vector are signal, and which rounding to a number format adds.

A checkpoint in bfloat16 holds its update only as exactly as eight significant bits of its weights
allow. An adapter of rank 16 that was merged and saved in bfloat16 has therefore a task vector of
full rank, and a method that raises small singular values raises that noise. Rounding errors are
independent from entry to entry and evenly spread over one step of the format, so the largest
singular value that they have by themselves is known: about the largest norm of a row plus that of a
column of their standard deviations (Bandeira and van Handel, 2016, arXiv:1408.6185, Theorem 1.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ._method import Parameter

if TYPE_CHECKING:
    import torch

RANK = Parameter(
    "Which singular values count: `signal`, those above what rounding to the checkpoints' number "
    "format adds to a task vector; `all` above a millionth of the largest, as in the paper.",
    choices=("signal", "all"),
    default="signal",
)

# dtype -> significant bits, the first one included.
_SIGNIFICANT = {"torch.bfloat16": 8, "torch.float16": 11, "torch.float32": 24, "torch.float64": 53}
_LOOKED_AT = 1 << 16  # weights by which a format that was widened is recognised


def floor(rank: str, base: torch.Tensor, experts: Sequence[torch.Tensor]) -> float:
    """The singular value that a sum of task vectors has to exceed to count.

    Args:
        rank: the recipe's parameter `rank`.
        base: W_0, (m, n), any floating dtype.
        experts: the W_i whose task vectors are added, each (m, n); only their first weights are
            read.

    Returns:
        In the unit of the weights; 0 where all count.
    """
    import torch

    from wildmerge.tensors import slices

    if rank == "all":
        return 0.0
    # A step of the format at the base's weights, whose size the experts' are: 2^(exponent - bits).
    rows = torch.zeros(len(base), dtype=torch.float64, device=base.device)
    columns = torch.zeros(base.shape[1], dtype=torch.float64, device=base.device)
    for part in slices(len(base), max(1, (1 << 20) // base.shape[1])):
        exponent = torch.frexp(base[part].float()).exponent
        steps = torch.ldexp(torch.ones_like(exponent, dtype=torch.float32), exponent)
        steps.masked_fill_(base[part] == 0, 0).square_()
        rows[part] = steps.sum(1).double()
        columns += steps.sum(0).double()
    # The variance of an error spread evenly over one step is a twelfth of the step's square.
    variance = sum(4.0 ** -_bits(expert, base.numel()) for expert in experts) / 12
    return float((rows.max().sqrt() + columns.max().sqrt()) * variance**0.5)


def _bits(expert: torch.Tensor, size: int) -> int:
    """How many significant bits the weights of a tensor with so many elements have.

    Fewer than its dtype allows where it was widened: bfloat16 that was saved as float32.
    """
    import torch

    from wildmerge.tensors import flat

    first = flat([expert])[0][slice(0, min(size, _LOOKED_AT))]
    for narrow in (torch.bfloat16, torch.float16):
        if torch.equal(first.to(narrow).double(), first.double()):
            return _SIGNIFICANT[str(narrow)]
    return _SIGNIFICANT[str(first.dtype)]
