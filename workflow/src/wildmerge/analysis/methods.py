"""Method against method, on the same subsets of checkpoints, question by question."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from . import stats
from .outcomes import Facts, Outcomes
from .populations import Merges, Spread, ends, headline
from .questions import Moments, paired_test, smallest_seen
from .scores import DIGITS

PAIRED = 12  # recipes up to which every pair is compared; the points of a sweep are not
METHODS = [
    "base", "suite", "n", "contrast", "a", "b", "subsets", "difference", "questions_low",
    "questions_high", "draws_low", "draws_high", "both_low", "both_high", "checkpoints_low",
    "checkpoints_high", "wins", "differing", "mde", "population", "p", "p_holm", "p_equal",
    "p_equal_holm", "verdict",
]  # fmt: skip

Sides = tuple[str, tuple[str, ...], tuple[str, ...]]  # a contrast's name, recipes of either side


def _sides(recipes: Sequence[str], facts: Facts) -> Iterator[Sides]:
    """What is compared: every pair of recipes, and planned contrasts whose recipes are there."""
    if len(recipes) <= PAIRED:
        for one, other in itertools.combinations(recipes, 2):
            yield "", (one,), (other,)
    for contrast in facts.contrasts:
        a, b = tuple(contrast["a"]), tuple(contrast["b"])
        if {*a, *b} <= {*recipes}:
            yield str(contrast["name"]), a, b


def compare(
    rows: pd.DataFrame,
    members: Sequence[frozenset[str]],
    sums: np.ndarray,
    replicates: np.ndarray,
    outcomes: Outcomes,
    pool: int,
    facts: Facts,
    seed: int,
    key: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Compare the recipes of one base on one suite, two by two and by the planned contrasts.

    Args:
        rows: the models, columns `MODEL`.
        members: of each model.
        sums: (models, clusters) accuracies by cluster.
        replicates: (models, resamples) accuracies on resampled questions.
        outcomes: of the models.
        pool: how many checkpoints subsets were drawn from.
        facts: what the study declares.
        seed: of the resampling.
        key: base and suite.

    Returns:
        A dict a pair or contrast and size, and one with n `all`, as `METHODS` but for what is
        corrected. Only subsets that all the recipes have merged count.
    """
    merged = rows[rows["recipe"] != "identity"]
    recipes = list(dict.fromkeys(merged["recipe"]))
    place = {
        recipe: dict(zip(own["subset"], own.index, strict=True))
        for recipe, own in merged.groupby("recipe", sort=False)
    }
    found = []
    for name, a, b in _sides(recipes, facts):
        own = [place[recipe] for recipe in (*a, *b)]
        common = [subset for subset in own[0] if all(subset in other for other in own)]
        if not common:
            continue
        sides = [np.array([[place[r][s] for r in side] for s in common]) for side in (a, b)]
        first = sides[0][:, 0]
        n = rows["n"].to_numpy()[first]
        apart = sums[sides[0]].mean(1) - sums[sides[1]].mean(1)
        again = 100 * (replicates[sides[0]].mean(1) - replicates[sides[1]].mean(1))
        differing = np.full(len(common), np.nan)
        if len(a) == len(b) == 1:
            one, other = (outcomes.correct[side[:, 0]] for side in sides)
            differing = 100 * (one != other).mean(1)
        for size in ["all", *map(str, np.unique(n))]:
            at = np.flatnonzero((size == "all") | (n.astype(str) == size))
            drawn = bool((rows["draw"].to_numpy()[first[at]] > 0).all())
            merges = Merges(
                (100 * apart[at].sum(1)).round(DIGITS), again[at].round(DIGITS), n[at],
                [members[i] for i in first[at]], drawn, pool,
            )  # fmt: skip
            said = {
                **key, "n": size, "contrast": name, "a": ";".join(a), "b": ";".join(b),
                "differing": float(differing[at].mean()),
            }  # fmt: skip
            found.append(said | _difference(merges, apart[at], outcomes, facts, seed))
    return found


def _difference(
    merges: Merges, apart: np.ndarray, outcomes: Outcomes, facts: Facts, seed: int
) -> dict[str, Any]:
    """The mean difference over subsets with its intervals and tests."""
    mean = float(merges.gain.mean())
    sums = apart.mean(0, keepdims=True)
    moments = Moments.of(outcomes.questions, sums)
    p = paired_test(sums)
    low, high = (100 * float(end[0]) for end in moments.interval(p))
    variance = 1e4 * float(outcomes.questions.variance(sums)[0])
    equal = float(moments.equal(facts.margin / 100)[0])
    said: dict[str, Any] = {
        "subsets": len(merges.gain), "difference": mean, "questions_low": low,
        "questions_high": high, "mde": float(smallest_seen(math.sqrt(variance))),
        "wins": 100 * float((merges.gain > 0).mean()),
    }  # fmt: skip
    spreads: dict[str, Spread] = {}
    if merges.drawn:
        more, spreads = ends(merges, variance, seed)
        said |= more
    said |= headline(facts.population, spreads, mean, (float(p[0]), equal))
    spread = spreads.get(said["population"])
    said["p_equal"] = equal if spread is None else max(equal, spread.equal(mean, facts.margin))
    return said


def tested(pairs: pd.DataFrame) -> pd.DataFrame:
    """Add p-values adjusted by Holm over the pairs, or contrasts, of one size, and verdicts."""
    if pairs.empty:
        return pairs
    pairs = pairs.reset_index(drop=True)
    family = [pairs[key] for key in ("base", "suite", "n")] + [pairs["contrast"] == ""]
    for _, own in pairs.groupby(family):
        for p in ("p", "p_equal"):
            pairs.loc[own.index, f"{p}_holm"] = stats.holm(own[p].to_numpy(float))
    columns = (pairs[key] for key in ("difference", "p_holm", "p_equal_holm"))
    return pairs.assign(verdict=stats.verdicts(*columns))
