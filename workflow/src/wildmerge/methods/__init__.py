"""The merge methods: tensors in, tensor out, one file a method.

Every method forms an update of the base, W_merged = W_0 + update, from the base's tensor and the
experts' tensors of the same name. `workflow/schemas/recipes.schema.yaml` names each method's
parameters and their ranges; here is what computes them.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from wildmerge.methods import iso_c, model_stock, subspace_boosting, task_arithmetic, ties, tsv_m

# Token embeddings and output heads have a row a token: no singular vector of them is a direction
# between two spaces of the network. Their names in the usual architectures.
VOCABULARY = re.compile(r"(^|\.)(embed\w*|lm_head|wte|wpe|word_embeddings)\.weight$")


def is_projection(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor is a 2-D weight of an attention or MLP block, where subspace methods act."""
    return len(shape) == 2 and not VOCABULARY.search(name)


@dataclass(frozen=True)
class Method:
    """A merge method.

    Attributes:
        update: the method's function of (base, experts, **parameters).
        other: the function for tensors which are no projections; None where there is no difference.
        from_sum: the method's function of (factors of the sum of the task vectors, number of
            experts, **parameters), where these factors are all it needs.
        once: whether every element of an expert is looked at just once, so that a `LazyTensor` will
            do.
        fewest: the fewest experts it is defined for.
        unscaled: of (parameters, number of experts): the parameters of an update which merges of
            other scales share, and the factor that makes it this one, to the bit; None where the
            scale is no plain factor.
        mergekit: the recipe's parameters in the names of mergekit's own method; None for the
            methods that this package registers with mergekit under their own names.
    """

    update: Callable[..., torch.Tensor]
    other: Callable[..., torch.Tensor] | None = None
    from_sum: Callable[..., torch.Tensor] | None = None
    once: bool = True
    fewest: int = 1
    unscaled: Callable[[dict, int], tuple[dict, float]] | None = None
    mergekit: Callable[[dict], dict] | None = None

    def __call__(
        self,
        base: torch.Tensor,
        experts: Sequence[torch.Tensor],
        parameters: dict,
        *,
        projection: bool,
    ) -> torch.Tensor:
        """The update of one tensor, float32, of the base's shape.

        Args:
            base: W_0, any floating dtype.
            experts: the W_i, of the base's shape.
            parameters: the recipe's, by their names in recipes.yaml.
            projection: whether the tensor is an attention or MLP projection (`is_projection`).
        """
        function = self.update if projection or self.other is None else self.other
        return function(base, experts, **arguments(parameters))


def arguments(parameters: dict) -> dict:
    """A recipe's parameters as arguments: `lambda` is the field's word, and Python's."""
    return {"lambda_" if name == "lambda" else name: v for name, v in parameters.items()}


def _mean(base, experts, *, lambda_, **_):
    return task_arithmetic.update(base, experts, combine="mean", lambda_=lambda_)


def _boosted(plain, from_sum=None, once=True):
    """Subspace Boosting on top of a plain method, and that method without it."""

    def update(base, experts, *, beta, **parameters):
        return subspace_boosting.boost(plain(base, experts, **parameters), beta)

    def other(base, experts, *, beta, **parameters):
        return plain(base, experts, **parameters)

    return Method(update, other, from_sum, once=once)


METHODS = {
    "task_arithmetic": Method(
        task_arithmetic.update,
        unscaled=task_arithmetic.unscaled,
        mergekit=task_arithmetic.mergekit,
    ),
    "ties": Method(ties.update, once=False, unscaled=ties.unscaled, mergekit=ties.mergekit),
    "model_stock": Method(model_stock.update, fewest=2, mergekit=model_stock.mergekit),
    "tsv_m": Method(tsv_m.update, other=_mean),
    "iso_c": Method(iso_c.update, other=_mean, from_sum=iso_c.from_factors),
    "task_arithmetic_sb": _boosted(task_arithmetic.update, subspace_boosting.from_factors),
    "ties_sb": _boosted(ties.update, once=False),
}
