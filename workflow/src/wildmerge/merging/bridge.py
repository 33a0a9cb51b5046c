"""Between this package and mergekit: our methods under its roof, its methods under ours.

Importing this module imports mergekit, which takes seconds; the methods themselves do without.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mergekit import merge_methods
from mergekit.merge_methods import GroupMergeMethod, InputContract, MergeMethodSpec, TensorGroup
from mergekit.merge_methods.base import MISSING, BasePolicy, ParameterScope, ParameterSpec

from wildmerge import WildmergeError
from wildmerge.methods import METHODS, Identity, check_parameters, is_projection

# What a `salted` method is told of each model, beside the recipe's parameters.
_OF_A_MODEL = ("digest", "bound")
_BOUND = r"[0-9a-f]{8}-[0-9a-f]{8}"


class Registered(GroupMergeMethod):
    """A method of this package as mergekit sees it, parameters and all."""

    def __init__(self, name: str):
        self.name, self.method = name, METHODS[name]
        shared = [
            ParameterSpec(
                key,
                parameter.kind,
                ParameterScope.SHARED,
                default=MISSING if parameter.default is None else parameter.default,
            )
            for key, parameter in self.method.parameters.items()
        ]
        salts = [ParameterSpec(k, str, ParameterScope.NON_BASE, default="") for k in _OF_A_MODEL]
        self.spec = MergeMethodSpec(
            name=name,
            parameters=(*shared, *(salts if self.method.salted else ())),
            contract=InputContract(base=BasePolicy.REQUIRED, min_non_base=self.method.fewest),
        )

    def merge_group(self, group: TensorGroup, /, **parameters: Any) -> torch.Tensor:
        """The merged tensor, in the base's dtype; parameters by the recipe's names."""
        digests, bounds = (
            [values[entry.id] for entry in group.non_base] if values else []
            for values in (parameters.pop(key, None) for key in _OF_A_MODEL)
        )
        check_parameters(self.method, parameters, "the mergekit YAML")
        if self.method.salted:
            self._check_salts(digests, bounds, parameters)
        base, experts = group.base.tensor, [entry.tensor for entry in group.non_base]
        identity = Identity(group.metadata.name or "", digests, bounds)
        projection = group.metadata.vocabulary_axis is None and is_projection(
            group.metadata.name or "", base.shape
        )
        update = self.method(base, experts, parameters, projection=projection, identity=identity)
        return (base.float() + update).to(base.dtype)

    def _check_salts(
        self, digests: Sequence[str], bounds: Sequence[str], parameters: Mapping[str, Any]
    ) -> None:
        if not all(digests):
            raise WildmergeError(
                f"{self.name} in the mergekit YAML: a `digest` was expected beside each model, "
                "under its own `parameters`, but not every model has one. It is the digest of the "
                "model's weights, by which equally large entries are chosen: `wildmerge digest "
                "FOLDER` prints it."
            )
        if parameters.get("trim") == "model" and not all(map(re.compile(_BOUND).fullmatch, bounds)):
            raise WildmergeError(
                f"{self.name} in the mergekit YAML: with `trim: model` a `bound` (two words of "
                "eight hexadecimal digits, as 3a83126f-00000000) was expected under each model's "
                f"own `parameters`, found {', '.join(map(repr, bounds))}. mergekit shows a method "
                "one tensor at a time: merge by a study, which writes the bounds into the YAML "
                "beside the merge, or with `trim: tensor`."
            )


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
