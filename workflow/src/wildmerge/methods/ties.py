"""TIES-Merging (Yadav et al., 2023): the paper's Eq. 3, and a choice among equal entries.

In 16-bit checkpoints most entries at the threshold of the trimming are equally large. Which of them
stay is left to memory and sort by other implementations, and their updates differ by half; here a
hash decides (`_trimming`), hence the method's own name. Where no entries are equal it is mergekit's
`ties`.

mergekit divides every entry by the number of experts that survive the trimming and agree with the
elected sign there (`combine: mean`), where Eq. 3 divides by the number of experts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ._method import COMBINE, DENSITY, LAMBDA, SEED, Identity, Look, Method, Parameter, Piecewise
from ._trimming import Bound, Salt, Search, search_all

if TYPE_CHECKING:
    import torch

    Tensors = Callable[[], Iterable[tuple[str, torch.Tensor, Sequence[torch.Tensor]]]]


def pieces(
    base: torch.Tensor,
    experts: Sequence[torch.Tensor],
    *,
    combine: str,
    density: float,
    lambda_: float,
    identity: Identity,
    seed: int = 0,
    trim: str = "tensor",
) -> Callable[[slice], torch.Tensor]:
    """λ ΔW_TIES: trim each task vector, elect a sign an entry, combine what agrees (Eq. 3).

    Args:
        base: W_0, any shape and floating dtype.
        experts: the W_i, each of the base's shape.
        combine: `mean` divides each entry by the number of agreeing experts, `sum` by nothing.
        density: the share of entries, largest first, that each task vector keeps, in (0, 1];
            exactly max(1, floor(density x entries)) of them.
        lambda_: the scale λ.
        identity: the tensor's name and the experts' digests, which with the seed decide which of
            equally large entries stay.
        seed: of that choice.
        trim: whether the share is that of each `tensor`, or of the whole `model`: then the
            identity holds the bounds that `model_bounds` found.

    Returns:
        Of a slice of the flat elements the update, (k,) float32: W_merged = W_0 + update. The
        order of the experts changes no bit of it.
    """
    import torch

    from wildmerge.tensors import deltas, flat

    order = sorted(range(len(experts)), key=lambda i: identity.digests[i])
    origin, *members = flat([base, *(experts[i] for i in order)])
    salts = [Salt.of(seed, identity.tensor, identity.digests[i]) for i in order]
    if trim == "model":
        bounds = [Bound.parse(identity.bounds[i]) for i in order]
    else:
        entries = base.numel()
        searches = [Search(staying(density, entries), entries) for _ in order]
        bounds = search_all(searches, lambda: [(origin, members, salts)])

    def piece(part: slice) -> torch.Tensor:
        trimmed = deltas(origin, members, part)
        for delta, bound, salt in zip(trimmed, bounds, salts, strict=True):
            bound.trim(delta, part.start, salt)
        # Turned so that the elected sign is positive, what agrees is what is positive.
        total = trimmed.sum(0)
        elected = torch.copysign(torch.ones_like(total), total)
        agreeing = trimmed.mul_(elected).relu_()
        merged = agreeing.sum(0)
        if combine == "mean":
            merged /= agreeing.sign_().sum(0).clamp_(min=1)
        return merged.mul_(elected.mul_(lambda_))

    return piece


update = Piecewise(pieces)


def staying(density: float, entries: int) -> int:
    """How many of so many entries stay: max(1, floor(density x entries))."""
    return min(entries, max(1, int(density * entries)))


def model_bounds(
    tensors: Tensors,
    digests: Sequence[str],
    *,
    density: float,
    seed: int = 0,
    trim: str = "tensor",
    **_: Any,
) -> list[str]:
    """The bounds of trimming over all tensors of a model together, as the authors' code trims.

    Args:
        tensors: walks over (name, base, experts) of every tensor that is merged.
        digests: of the experts, in order.
        density: the share of all entries that stays.
        seed: of the choice among equally large entries.
        trim: where it is not `model`, nothing is looked for.

    Returns:
        The bound of each expert, as text; none if each tensor is trimmed by itself.
    """
    if trim != "model":
        return []
    from wildmerge.tensors import flat

    entries = sum(base.numel() for _, base, _ in tensors())
    searches = [Search(staying(density, entries), entries) for _ in digests]

    def walk() -> Iterable[tuple[torch.Tensor, Sequence[torch.Tensor], Sequence[Salt]]]:
        for name, base, experts in tensors():
            origin, *members = flat([base, *experts])
            yield origin, members, [Salt.of(seed, name, digest) for digest in digests]

    return [str(bound) for bound in search_all(searches, walk)]


def unscaled(parameters: dict[str, Any], experts: int) -> tuple[dict[str, Any], float]:
    """The parameters of the update with λ = 1, and the factor that makes it this one."""
    return parameters | {"lambda": 1.0}, parameters["lambda"]


TRIM = Parameter(
    "Of what each task vector keeps its share: of each `tensor` by itself, or of the whole "
    "`model`, as the authors' code does.",
    choices=("tensor", "model"),
    default="tensor",
)
METHOD = Method(
    name="ties_hashed",
    label="TIES",
    reference="Yadav et al., 2023, arXiv:2306.01708; Eq. 3",
    update=update,
    family="weight interpolation",
    parameters={
        "combine": replace(
            COMBINE,
            description="`mean` (Eq. 3) divides each entry by the number of experts that agree "
            "there, `sum` by nothing.",
        ),
        "density": DENSITY,
        "lambda": LAMBDA,
        "seed": SEED,
        "trim": TRIM,
    },
    look=Look("#D55E00", "^"),
    place=3,
    gpu=False,
    scale=("lambda",),
    unscaled=unscaled,
    once=False,
    salted=True,
    bounds=model_bounds,
)
