"""How a merge comes to its update of the base: from the tensors, or from what was shared.

A strategy says of each floating-point tensor where it is read from, whether slice by slice, and
what its update is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from wildmerge import WildmergeError
from wildmerge.methods import (
    MERGEKIT,
    METHODS,
    Identity,
    Method,
    arguments,
    is_projection,
    tsv_m,
)
from wildmerge.tensors import Weights, lazy_tensor

from .shared import ExpertFactors, Shared, SharedUpdate, SumFactors

if TYPE_CHECKING:
    from .bridge import Foreign


# Of a slice of a tensor's flat elements: the update there.
Pieces = Callable[[slice], torch.Tensor]

# What a method reads several times is kept in memory up to this many bytes of a tensor, of base and
# experts together; a larger one, such as an embedding, is read again slice by slice.
KEPT_BYTES = 10**9


class Strategy(ABC):
    """A way to come to the update of one tensor after another."""

    @abstractmethod
    def sources(self, name: str) -> Sequence[Weights]:
        """The folders that a tensor is read from: the base's first."""

    def reads_slices(self, name: str) -> bool:
        """Whether all but the base's tensor are read slice by slice, where they are computed with.

        Then `pieces` gets a LazyTensor of each.
        """
        return False

    @property
    def bounds(self) -> Sequence[str]:
        """What is known of each expert over the whole model (`Method.bounds`), or nothing."""
        return ()

    @abstractmethod
    def pieces(self, name: str, base: torch.Tensor, others: Sequence[torch.Tensor]) -> Pieces:
        """The update of one tensor, W_merged - W_0.

        Args:
            name: the tensor's.
            base: W_0, any floating dtype.
            others: the tensors of `sources` after the base's, of the base's shape.

        Returns:
            Of a slice of the flat elements the update, (k,) float32, on the base's device.

        Raises:
            torch.linalg.LinAlgError: a factorisation did not come to an end, as with NaN or Inf.
        """


@dataclass(frozen=True)
class Direct(Strategy):
    """The update from the tensors of base and experts.

    Attributes:
        method: of this package.
        parameters: the recipe's.
        inputs: the folders of base and experts.
        device: where the arithmetic is done.
        digests: of the experts' weights, in order, for a method that is `salted`.
    """

    method: Method
    parameters: dict
    inputs: Sequence[Weights]
    device: torch.device
    digests: Sequence[str]

    def sources(self, name: str) -> Sequence[Weights]:
        """Base and experts."""
        return self.inputs

    def reads_slices(self, name: str) -> bool:
        """Where each element is looked at once; to a GPU a tensor is better sent as a whole."""
        kept = sum(weights[name].nbytes for weights in self.inputs) <= KEPT_BYTES
        return self.device.type == "cpu" and (self.method.once or not kept)

    def pieces(self, name: str, base: torch.Tensor, others: Sequence[torch.Tensor]) -> Pieces:
        """What the method makes of the tensors."""
        identity = Identity(name, self.digests, self.bounds)
        return self.method.pieces(
            base,
            others,
            self.parameters,
            projection=is_projection(name, base.shape),
            identity=identity,
        )

    @cached_property
    def bounds(self) -> Sequence[str]:
        """Found when they are first asked for."""
        if self.method.bounds is None:
            return ()
        return self.method.bounds(self._tensors, self.digests, **arguments(self.parameters))

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor, list[torch.Tensor]]]:
        """Every tensor that is merged: its name, the base's, the experts'."""
        start, *experts = self.inputs
        for name in sorted(start):
            if start[name].dtype.is_floating_point:
                base = start.read(name).to(self.device)
                if self.device.type == "cpu":
                    yield name, base, [lazy_tensor(expert, name) for expert in experts]
                else:
                    yield name, base, [e.read(name).to(self.device) for e in experts]


@dataclass(frozen=True)
class FromExpertFactors(Direct):
    """TSV-M with the factors of each expert's task vectors made already, in the experts' order."""

    factors: Sequence[ExpertFactors]

    def pieces(self, name: str, base: torch.Tensor, others: Sequence[torch.Tensor]) -> Pieces:
        """Of a projection, what the method makes of the tensors and their leading factors."""
        if not is_projection(name, base.shape):
            return super().pieces(name, base, others)
        kept = tsv_m.share(base.shape, len(others))
        factors = [expert.leading(name, kept, self.device) for expert in self.factors]
        given = arguments(self.parameters)
        return _pieces_of(self.method.update(base, others, factors=factors, **given))


@dataclass(frozen=True)
class FromSumFactors(Direct):
    """A method of the sum of the task vectors, whose factors are made already.

    Of the projections no expert is read.
    """

    factors: SumFactors

    def sources(self, name: str) -> Sequence[Weights]:
        """The base alone for a projection, base and experts for other tensors."""
        projection = is_projection(name, self.inputs[0][name].shape)
        return self.inputs[:1] if projection else self.inputs

    def pieces(self, name: str, base: torch.Tensor, others: Sequence[torch.Tensor]) -> Pieces:
        """Of a projection, what the method makes of the factors."""
        if not is_projection(name, base.shape):
            return super().pieces(name, base, others)
        assert self.method.from_sum is not None
        factors = self.factors.whole(name, base.shape[0] > base.shape[1], self.device)
        experts = [lazy_tensor(weights, name) for weights in self.inputs[1:]]
        return _pieces_of(
            self.method.from_sum(factors, base, experts, **arguments(self.parameters))
        )


@dataclass(frozen=True)
class FromUpdate(Strategy):
    """The update made already but for its scale: no expert is read. The same to the bit.

    Attributes:
        base: its folder.
        unscaled: the update without its scale.
        scale: the factor that makes it this one.
    """

    base: Weights
    unscaled: SharedUpdate
    scale: float

    @property
    def bounds(self) -> Sequence[str]:
        """Those that the update was made with."""
        return self.unscaled.bounds

    def sources(self, name: str) -> Sequence[Weights]:
        """Base and shared update."""
        return [self.base, self.unscaled.weights]

    def pieces(self, name: str, base: torch.Tensor, others: Sequence[torch.Tensor]) -> Pieces:
        """The shared update times its scale."""
        unscaled = others[0].reshape(-1)
        return lambda part: unscaled[part] * self.scale


class FromMergekit(Strategy):
    """One of mergekit's own methods, from the tensors of base and experts."""

    def __init__(self, method: Foreign, inputs: Sequence[Weights]):
        self._method, self._inputs = method, inputs

    def sources(self, name: str) -> Sequence[Weights]:
        """Base and experts."""
        return self._inputs

    def pieces(self, name: str, base: torch.Tensor, others: Sequence[torch.Tensor]) -> Pieces:
        """The merged tensor of mergekit less the base."""
        return _pieces_of(self._method.merged(name, base, others).sub_(base))


def _pieces_of(update: torch.Tensor) -> Pieces:
    return update.reshape(-1).__getitem__


def choose_strategy(
    recipe: dict,
    inputs: Sequence[Weights],
    shared: Shared | None,
    device: torch.device,
    where: str,
    digests: Sequence[str] = (),
) -> Strategy:
    """The strategy by which a recipe merges the experts `inputs[1:]` into the base `inputs[0]`.

    Args:
        recipe: an entry of recipes.yaml.
        inputs: the folders of base and experts.
        shared: what was made for several merges; None to compute all from the tensors.
        device: where the arithmetic is done.
        where: the merge in words, for messages.
        digests: of the experts' weights, in order; only a method that is `salted` asks for them.

    Raises:
        WildmergeError: too few experts for the method, or a method that mergekit has not.
        ValueError: what is shared does not fit the method or the number of experts.
    """
    name, parameters, experts = recipe["merge_method"], recipe["parameters"], len(inputs) - 1
    if name.startswith(MERGEKIT):
        from .bridge import Foreign

        foreign = Foreign(name.removeprefix(MERGEKIT), parameters, where)
        _require_experts(foreign.fewest, name, experts, where)
        if shared:
            raise ValueError(f"{name} shares nothing")
        return FromMergekit(foreign, inputs)
    method = METHODS[name]
    _require_experts(method.fewest, name, experts, where)
    match shared:
        case None:
            return Direct(method, parameters, inputs, device, digests)
        case SumFactors() if method.from_sum:
            return FromSumFactors(method, parameters, inputs, device, digests, shared)
        case SharedUpdate() if method.unscaled:
            _, scale = method.unscaled(parameters, experts)
            return FromUpdate(inputs[0], shared, scale)
        case [*factors] if method.from_experts and len(factors) == experts:
            return FromExpertFactors(method, parameters, inputs, device, digests, factors)
    raise ValueError(f"{shared} does not fit {name} and {experts} experts")


def _require_experts(fewest: int, method: str, experts: int, where: str) -> None:
    if experts < fewest:
        raise WildmergeError(
            f"{where}: {method} is defined for at least {fewest} experts, found {experts}. Merge "
            "more of them, or use another recipe."
        )
