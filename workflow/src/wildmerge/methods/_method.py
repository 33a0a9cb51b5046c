"""How a merge method declares itself: all that the rest of the project needs to know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

LAST = 1000  # the place of a method that names none: after all that do


@dataclass(frozen=True)
class Parameter:
    """A parameter of a method: what it means and what it may be.

    Attributes:
        description: its meaning and unit, for the schema, the pages and error messages.
        choices: the words it may be; empty for a number.
        minimum: the least number allowed; None for no bound.
        above: a number that it must exceed; None for no bound.
        maximum: the largest number allowed; None for no bound.
        below: a number that it must stay under; None for no bound.
        default: what it is where a recipe does not say; None if every recipe must say it.
        whole: whether it is a whole number.
    """

    description: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None
    default: float | str | None = None
    whole: bool = False

    @property
    def kind(self) -> Any:
        """The type of its values: float, int, or a Literal of the choices."""
        return Literal[self.choices] if self.choices else int if self.whole else float

    @property
    def schema(self) -> dict[str, Any]:
        """Its JSON Schema."""
        bounds = {
            "minimum": self.minimum,
            "exclusiveMinimum": self.above,
            "maximum": self.maximum,
            "exclusiveMaximum": self.below,
            "default": self.default,
        }
        number = {"type": "integer" if self.whole else "number"}
        kind = {"enum": list(self.choices)} if self.choices else number
        stated = {key: value for key, value in bounds.items() if value is not None}
        return {"description": self.description, **kind, **stated}


@dataclass(frozen=True)
class Look:
    """How figures draw a method.

    Attributes:
        colour: `#RRGGBB`.
        marker: matplotlib's letter of the marker.
        dash: matplotlib's name of the line style.
        hollow: whether markers are filled with white.
    """

    colour: str
    marker: str
    dash: str = "-"
    hollow: bool = False


@dataclass(frozen=True)
class Identity:
    """Which tensor it is, and of whom: what a choice among equal entries depends on.

    Attributes:
        tensor: its name.
        digests: of each expert's weights, in the order of the experts.
        bounds: of each expert, what `Method.bounds` found over the whole model; none where each
            tensor is looked at by itself.
    """

    tensor: str
    digests: Sequence[str]
    bounds: Sequence[str] = ()


@dataclass(frozen=True)
class Piecewise:
    """An update that is made chunk by chunk, so that it need not be in memory as a whole.

    Attributes:
        prepare: the function of (base, experts, **parameters) that gives the update of a slice of
            the flat elements: (k,) float32, new.
    """

    prepare: Callable[..., Callable[[slice], torch.Tensor]]

    def __call__(
        self, base: torch.Tensor, experts: Sequence[torch.Tensor], **parameters: Any
    ) -> torch.Tensor:
        """The whole update, float32, of the base's shape."""
        import torch

        from wildmerge.tensors import in_parallel, slices

        piece = self.prepare(base, experts, **parameters)
        result = torch.empty(base.numel(), device=base.device)

        def chunk(part: slice) -> None:
            result[part] = piece(part)

        in_parallel(chunk, slices(base.numel()))
        return result.view(base.shape)


@dataclass(frozen=True)
class Method:
    """A merge method: W_merged = W_0 + update, from the tensors of one name.

    A file of this package that holds a `Method` adds that method to the project. The recipe schema,
    mergekit's registration, figures, cost and what merges share are derived from it.

    Attributes:
        name: its name in recipes and results.
        label: its name in figures, tables and the report.
        reference: where it comes from: authors, year, identifier, equations of the paper.
        update: the function of (base, experts, **parameters), tensors in, tensor out.
        family: `weight interpolation` or `subspace`: which of two panels figures draw it in.
        parameters: name -> what it may be.
        look: colour, marker and line in figures; None takes one that is free.
        place: where it stands among all methods in figures and tables, smallest first.
        gpu: whether its arithmetic is worth a GPU; a method that mostly reads weights says no.
        other: the function for tensors that are no projections (`is_projection`); None for a method
            that acts on all tensors alike.
        from_sum: the function of (factors of the sum of the task vectors, base, experts,
            **parameters), for a method that needs of the experts no more than their number and
            format; several merges then share these factors.
        from_experts: whether several merges share the leading factors of each expert, which
            `update` then takes as `factors`.
        scale: the parameters that do no more than multiply the update by a number; merges that
            differ in these alone share the update.
        unscaled: of (parameters, number of experts): the parameters of that shared update, and the
            number that makes it this one, to the bit. Given if and only if `scale` is.
        once: whether every element of an expert is read just once. A `LazyTensor` will do in either
            case; where elements are read again it saves memory at the cost of reading.
        salted: whether it chooses among equal entries by a hash, and takes an `identity`.
        bounds: of (tensors, digests, **parameters): what is known over the whole model before its
            first tensor, a word an expert, or nothing; `tensors()` walks over each tensor's name,
            base and experts.
        fewest: the fewest experts it is defined for.
        boosts: the name of the plain method that it boosts, by a parameter `beta`; empty for none.
        version: counts the changes of its code; raising it makes its merges again, where a study
            names the method itself (recipes of recipes.yaml have versions of their own).
        mergekit: the parameters in the names of mergekit's own method of this name; None for a
            method that this package registers with mergekit.
    """

    name: str
    label: str
    reference: str
    update: Callable[..., torch.Tensor]
    family: Literal["weight interpolation", "subspace"]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    look: Look | None = None
    place: int = LAST
    gpu: bool = True
    other: Callable[..., torch.Tensor] | None = None
    from_sum: Callable[..., torch.Tensor] | None = None
    from_experts: bool = False
    scale: tuple[str, ...] = ()
    unscaled: Callable[[dict[str, Any], int], tuple[dict[str, Any], float]] | None = None
    once: bool = True
    salted: bool = False
    bounds: Callable[..., list[str]] | None = None
    fewest: int = 1
    boosts: str = ""
    version: int = 1
    mergekit: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    @property
    def tensors(self) -> str:
        """On which tensors it acts."""
        return "projections; the mean of all others" if self.other else "all"

    @property
    def recipe(self) -> dict[str, Any] | None:
        """The recipe of its default parameters; None where a parameter has no default."""
        defaults = {name: parameter.default for name, parameter in self.parameters.items()}
        if None in defaults.values():
            return None
        return {
            "label": self.label,
            "merge_method": self.name,
            "parameters": defaults,
            "version": self.version,
        }

    def __call__(
        self,
        base: torch.Tensor,
        experts: Sequence[torch.Tensor],
        parameters: dict[str, Any],
        *,
        projection: bool,
        identity: Identity | None = None,
    ) -> torch.Tensor:
        """The update of one tensor.

        Args:
            base: W_0, any shape and floating dtype.
            experts: the W_i, of the base's shape.
            parameters: the recipe's, by their names in recipes.yaml.
            projection: whether the tensor is an attention or MLP projection (`is_projection`).
            identity: of the tensor and its experts, for a method that is `salted`.

        Returns:
            The update, float32, of the base's shape.
        """
        function = self._function(projection)
        return function(base, experts, **self._arguments(parameters, identity))

    def pieces(
        self,
        base: torch.Tensor,
        experts: Sequence[torch.Tensor],
        parameters: dict[str, Any],
        *,
        projection: bool,
        identity: Identity | None = None,
    ) -> Callable[[slice], torch.Tensor]:
        """The update of one tensor as a function of a slice of its flat elements: (k,) float32.

        Where the method allows it, no more than the slice is made. Arguments as of a call.
        """
        function, given = self._function(projection), self._arguments(parameters, identity)
        if isinstance(function, Piecewise):
            return function.prepare(base, experts, **given)
        return function(base, experts, **given).reshape(-1).__getitem__

    def _function(self, projection: bool) -> Callable[..., Any]:
        return self.update if projection or self.other is None else self.other

    def _arguments(self, parameters: dict[str, Any], identity: Identity | None) -> dict[str, Any]:
        given = arguments(parameters)
        return given | {"identity": identity} if self.salted else given


def arguments(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's parameters as Python's arguments: `lambda`, the field's word, is a keyword."""
    return {"lambda_" if name == "lambda" else name: v for name, v in parameters.items()}


# Parameters that several methods have.
COMBINE = Parameter(
    "How the experts' task vectors are combined: their `sum` (Eq. 2) or `mean` (Eq. 12).",
    choices=("sum", "mean"),
)
LAMBDA = Parameter("The scale of the update, the paper's lambda; a factor without unit.")
DENSITY = Parameter(
    "Share of each task vector's entries that trimming keeps, largest first; 0 to 1.",
    above=0,
    maximum=1,
)
SEED = Parameter(
    "Seed of the choice among entries that are equally large; a whole number.",
    default=0,
    whole=True,
)
BETA = Parameter(
    "Threshold of Subspace Boosting, as a share of the sum of all singular values; 0 to 1.",
    minimum=0,
    maximum=1,
)
