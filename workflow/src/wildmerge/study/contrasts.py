"""The planned comparisons of a study: groups of recipes that differ in one choice."""

from collections.abc import Callable, Mapping
from typing import Any

from wildmerge.methods import METHODS

Recipe = Mapping[str, Any]


def _without(recipe: Recipe, *keys: str) -> dict[str, Any]:
    return {key: value for key, value in recipe.get("parameters", {}).items() if key not in keys}


def _boosted(one: Recipe, other: Recipe) -> bool:
    """Whether the first is Subspace Boosting on top of the second."""
    method = METHODS.get(one["merge_method"])
    if method is None or method.boosts != other["merge_method"]:
        return False
    # The boosting has parameters of its own besides.
    plain = other.get("parameters", {})
    return {key: value for key, value in one["parameters"].items() if key in plain} == plain


def _summed(one: Recipe, other: Recipe) -> bool:
    """Whether the first is the second on the sum in the place of the mean of the task vectors."""
    combined = [recipe.get("parameters", {}).get("combine") for recipe in (one, other)]
    same = one["merge_method"] == other["merge_method"]
    return (
        same
        and combined == ["sum", "mean"]
        and (_without(one, "combine") == _without(other, "combine"))
    )


PLANNED: dict[str, Callable[[Recipe, Recipe], bool]] = {
    "boosted against plain": _boosted,
    "sum against mean": _summed,
}


def contrasts(recipes: Mapping[str, Recipe]) -> list[dict[str, Any]]:
    """The contrasts that a study's recipes allow.

    Each takes the pairs of recipes that are alike but for that choice, so that nothing else
    differs between the sides.

    Args:
        recipes: of the study, by name.

    Returns:
        One dict a contrast: its name, and the names of the recipes of either side, `a` and `b`.
    """
    found = []
    for name, matches in PLANNED.items():
        pairs = [
            (one, other)
            for one in recipes
            for other in recipes
            if one != other and matches(recipes[one], recipes[other])
        ]
        if pairs:
            a, b = (list(dict.fromkeys(side)) for side in zip(*pairs, strict=True))
            found.append({"name": name, "a": a, "b": b})
    return found
