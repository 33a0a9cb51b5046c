"""What several merges share, so that it is computed once: factorisations and updates.

A merge computes for itself what few others need. The factors of an expert take 0.4 of its 16-bit
weights on disk, those of a sum 2.6 models (17 GB for a 3B model): from `SHARED_BY` merges on,
another job, its writing and everybody's reading cost less than factorising again. An update in
float32 takes 2 models and replaces the reading of all experts.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from wildmerge.methods import METHODS

from .plan import Evaluation, sweep_name

SHARED_BY = 5


class Sharing:
    """What the merges of all studies share.

    Args:
        evaluations: of all studies.
        recipes: name -> recipe, of all that any study merges by.
    """

    def __init__(self, evaluations: Iterable[Evaluation], recipes: Mapping[str, dict[str, Any]]):
        self._recipes = recipes
        merges = {(e.base, e.subset, e.recipe): e for e in evaluations if e.is_merge}
        self._experts: Counter[tuple[str, str]] = Counter()
        self._sums: Counter[tuple[str, str]] = Counter()
        self._updates: dict[tuple[str, str, str], list[str]] = {}
        for e in merges.values():
            method = METHODS.get(recipes[e.recipe]["merge_method"])
            if method and method.from_experts and len(e.members) > 1:
                self._experts.update((e.base, model) for model in e.members)
            if method and method.from_sum:
                self._sums[e.base, e.subset] += 1
            if update := self.update_name(e.recipe):
                self._updates.setdefault((e.base, e.subset, update), []).append(e.recipe)

    def expert_factors(self, base: str, recipe: str, members: Iterable[str]) -> bool:
        """Whether a merge reads the factors of its experts, because enough others do."""
        method = METHODS.get(self._recipes[recipe]["merge_method"])
        enough = min((self._experts[base, model] for model in members), default=0) >= SHARED_BY
        return bool(method and method.from_experts and enough)

    def sum_factors(self, base: str, subset: str, recipe: str) -> bool:
        """Whether a merge reads the factors of its experts' sum, because enough others do."""
        method = METHODS.get(self._recipes[recipe]["merge_method"])
        return bool(method and method.from_sum and self._sums[base, subset] >= SHARED_BY)

    def update(self, base: str, subset: str, recipe: str) -> str | None:
        """The name of the update before its scale that a merge reads; None if too few do."""
        name = self.update_name(recipe)
        if name is None or len(self._updates.get((base, subset, name), ())) < SHARED_BY:
            return None
        return name

    def update_name(self, recipe: str) -> str | None:
        """A name for a recipe's update before its scale; None where the method has no scale."""
        entry = self._recipes[recipe]
        method = METHODS.get(entry["merge_method"])
        if method is None or not method.scale:
            return None
        rest = {k: v for k, v in entry["parameters"].items() if k not in method.scale}
        return sweep_name(f"{method.name}.v{entry['version']}", rest)

    def any_recipe_of(self, base: str, subset: str, update: str) -> dict[str, Any] | None:
        """One of the recipes that share an update; None where no merge has it."""
        names = self._updates.get((base, subset, update))
        return self._recipes[names[0]] if names else None
