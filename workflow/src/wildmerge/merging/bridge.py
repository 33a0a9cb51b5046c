"""Between this package and mergekit: our methods under its roof, its methods under ours.

Importing this module imports mergekit, which takes seconds; the methods themselves do without.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from mergekit import merge_methods
from mergekit.merge_methods import GroupMergeMethod, InputContract, MergeMethodSpec, TensorGroup
from mergekit.merge_methods.base import MISSING, BasePolicy, ParameterScope, ParameterSpec

from wildmerge import WildmergeError
from wildmerge.methods import METHODS, check_parameters, is_projection


class Registered(GroupMergeMethod):
    """A method of this package as mergekit sees it, parameters and all."""

    def __init__(self, name: str):
        self.name, self.method = name, METHODS[name]
        self.spec = MergeMethodSpec(
            name=name,
            parameters=tuple(
                ParameterSpec(
                    key,
                    parameter.kind,
                    ParameterScope.SHARED,
                    default=MISSING if parameter.default is None else parameter.default,
                )
                for key, parameter in self.method.parameters.items()
            ),
            contract=InputContract(base=BasePolicy.REQUIRED, min_non_base=self.method.fewest),
        )

    def merge_group(self, group: TensorGroup, /, **parameters: Any) -> torch.Tensor:
        """The merged tensor, in the base's dtype; parameters by the recipe's names."""
        check_parameters(self.method, parameters, "the mergekit YAML")
        base, experts = group.base.tensor, [entry.tensor for entry in group.non_base]
        projection = group.metadata.vocabulary_axis is None and is_projection(
            group.metadata.name or "", base.shape
        )
        update = self.method(base, experts, parameters, projection=projection)
        return (base.float() + update).to(base.dtype)


def register_methods() -> None:
    """Make this package's own methods known to mergekit; a second call changes nothing."""
    known = {method.spec.name for method in merge_methods.registered_methods()}
    for name, method in METHODS.items():
        if method.mergekit is None and name not in known:
            merge_methods.register(Registered(name))


class Foreign:
    """One of mergekit's own methods, in the place of a `Method` of this package.

    Args:
        name: mergekit's name of it, such as `dare_ties`.
        parameters: by mergekit's names; each is given to every expert.

    Raises:
        WildmergeError: mergekit has no such method, or the method has not these parameters.
    """

    def __init__(self, name: str, parameters: dict, where: str):
        methods = {method.spec.name: method for method in merge_methods.registered_methods()}
        if name not in methods:
            raise WildmergeError(
                f"{where}: `merge_method: mergekit/{name}` names no method of mergekit. It has "
                f"{', '.join(sorted(methods))}. Correct the name."
            )
        self.method, self.parameters = methods[name], parameters
        known = {parameter.name: parameter for parameter in self.method.spec.parameters}
        for key, value in parameters.items():
            if key not in known:
                raise WildmergeError(
                    f"{where}: mergekit's {name} has no parameter `{key}`; it takes "
                    f"{', '.join(known) or 'none'}. Correct the recipe."
                )
            try:
                known[key].validate(value)
            except ValueError as error:
                kind = getattr(known[key].value_type, "__name__", known[key].value_type)
                raise WildmergeError(
                    f"{where}: mergekit's {name} takes a {kind} as {key}, found {value!r}. Correct "
                    "the recipe."
                ) from error
        for key, parameter in known.items():
            if parameter.required and key not in parameters:
                raise WildmergeError(
                    f"{where}: mergekit's {name} needs the parameter `{key}`, which the recipe "
                    "does not set. Add it."
                )
        contract = self.method.spec.contract
        self.fewest = contract.min_non_base or max(1, contract.min_inputs - 1)

    def merged(
        self, name: str, base: torch.Tensor, experts: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """The merged tensor, float32.

        A method that draws at random is seeded by the tensor's name: the same merge is made every
        time, whatever else is merged beside it.
        """
        forbidden = self.method.spec.contract.base == BasePolicy.FORBIDDEN
        tensors = [*experts] if forbidden else [base, *experts]
        group = TensorGroup.from_tensors(tensors, base_index=None if forbidden else 0, name=name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) >> 1)
            (merged,) = self.method([group], parameters=self.parameters, dtype=torch.float32)
        return merged
