"""How the recipes and bases of a study are named, ordered and coloured, the same everywhere."""

import colorsys
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from wildmerge import WildmergeError
from wildmerge.methods import METHODS, Look

# The name of a recipe -> {label, merge_method, parameters, version}; for a point of a sweep also
# `of`, the recipe that it varies, and `changed`, the parameters that differ with their values.
Recipes = Mapping[str, Mapping[str, Any]]


_FAMILIES = ("weight interpolation", "subspace", "other")
CHECKPOINT_LOOK = Look("#888888", ".")
# Of no method's colour. A point of a sweep is dotted, hence no spare look is.
_SPARE_COLOURS = ("#6A3D9A", "#A6761D", "#1B7837", "#B2182B", "#2166AC")
_SPARE_MARKERS = ("h", "<", ">", "p", "d")
_SPARE_DASHES = ("-.", "--", "-")

BASES = {
    "average": "Mean over bases",
    "llama-3.2-3b": "Llama 3.2 3B",
    "llama-3.1-8b": "Llama 3.1 8B",
    "qwen3-4b": "Qwen3 4B",
    "qwen3-8b": "Qwen3 8B",
    "smollm2-135m": "SmolLM2 135M",
}


def base_label(base: str) -> str:
    """A base's printed name."""
    return BASES.get(base, base)


class Looks:
    """The labels, order and looks of a study's recipes; no two of them look alike.

    A recipe has the look of its method. One whose method is none of this project's, or has been
    given to another recipe of the study, has a spare look. A point of a sweep is dotted and hollow
    in a shade of the colour of the recipe that it varies.

    Args:
        recipes: the study's recipes, in its order.
    """

    def __init__(self, recipes: Recipes) -> None:
        self._roots = list(dict.fromkeys(root_of(recipes, name) for name in recipes))
        self._recipes = {name: recipes[name] for name in recipes}
        spare = _spare_looks()
        taken: set[tuple[str, str, str]] = set()
        self._looks: dict[str, Look] = {}
        for root in self._roots:
            points = [name for name in recipes if root_of(recipes, name) == root]
            # A sweep may leave out the recipe itself; its points have all of it but the parameters.
            self._recipes.setdefault(root, {**recipes[points[0]], "changed": {}})
            method = recipes[points[0]]["merge_method"]
            declared = METHODS[method].look if method in METHODS else None
            free = (look for look in itertools.chain([declared], spare) if look)
            look = next(look for look in free if (look.colour, look.marker, look.dash) not in taken)
            taken.add((look.colour, look.marker, look.dash))
            changed = [name for name in points if recipes[name].get("changed")]
            self._looks |= dict.fromkeys([root, *points], look)
            for i, name in enumerate(changed):
                colour = _lighter(look.colour, 0.6 * i / len(changed))
                self._looks[name] = Look(colour, look.marker, ":", hollow=True)

    def of(self, recipe: str) -> Look:
        """How a recipe is drawn; `identity` is a checkpoint that was not merged.

        Raises:
            WildmergeError: the study has no such recipe.
        """
        if recipe == "identity":
            return CHECKPOINT_LOOK
        self._entry(recipe)
        return self._looks[recipe]

    def label(self, recipe: str) -> str:
        """The printed name of a recipe; a point of a sweep says what differs: `TIES (density 0.3)`.

        Raises:
            WildmergeError: the study has no such recipe.
        """
        if recipe == "identity":
            return "checkpoint"
        entry = self._entry(recipe)
        changed = sorted(entry.get("changed", {}).items())
        differs = ", ".join(
            f"{key} {value}" if isinstance(value, str) else f"{key} {value:g}"
            for key, value in changed
        )
        return f"{entry['label']} ({differs})" if differs else str(entry["label"])

    def rank(self, recipe: str) -> int:
        """The place of a recipe's method in the paper; behind all of them where it has none."""
        method, known = self._entry(recipe)["merge_method"], list(METHODS)
        return known.index(method) if method in known else len(known)

    def order(self, recipes: Iterable[str]) -> list[str]:
        """The distinct recipes in the paper's order, then in the study's; `identity` is left out.

        The points of a sweep follow the recipe that they vary, in the order of the sweep.
        """
        places = list(self._recipes)

        def key(name: str) -> tuple[int, int, bool, int]:
            changed = bool(self._entry(name).get("changed"))
            root = self._roots.index(root_of(self._recipes, name))
            return self.rank(name), root, changed, places.index(name)

        return sorted(set(recipes) - {"identity"}, key=key)

    def families(self, recipes: Iterable[str]) -> dict[str, list[str]]:
        """Family of methods -> the recipes of it, in order; families without any are left out."""
        families: dict[str, list[str]] = {}
        for recipe in self.order(recipes):
            method = METHODS.get(self._entry(recipe)["merge_method"])
            families.setdefault(method.family if method else "other", []).append(recipe)
        return dict(sorted(families.items(), key=lambda item: _FAMILIES.index(item[0])))

    def _entry(self, recipe: str) -> Mapping[str, Any]:
        if recipe not in self._recipes:
            raise WildmergeError(
                f"A recipe of the study was expected, found {recipe!r}. Its recipes are "
                f"{', '.join(self._recipes)}. Make the study's tables again."
            )
        return self._recipes[recipe]


def root_of(recipes: Recipes, name: str) -> str:
    """The recipe that a point of a sweep varies; any other recipe is its own."""
    return str(recipes[name].get("of", name))


def _spare_looks() -> Iterator[Look]:
    """Looks that no method has, all different: first other colours and markers, then dashes."""
    for dash, shift in itertools.product(_SPARE_DASHES, range(len(_SPARE_MARKERS))):
        for i, colour in enumerate(_SPARE_COLOURS):
            yield Look(colour, _SPARE_MARKERS[(i + shift) % len(_SPARE_MARKERS)], dash)
    raise WildmergeError(
        "At most 75 recipes without a look of their own were expected in a study, found more: "
        "nobody could distinguish them in a figure. Divide the study in two."
    )


def _lighter(colour: str, share: float) -> str:
    """A colour `#rrggbb` moved towards white, by a share of its distance from white."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    mixed = colorsys.hls_to_rgb(hue, lightness + share * (1 - lightness), saturation)
    return "#" + "".join(f"{round(255 * part):02X}" for part in mixed)
