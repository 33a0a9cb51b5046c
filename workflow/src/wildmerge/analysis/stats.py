"""Corrections for many tests, and what follows from the draws alone. Arrays in, numbers out.

"Over draws" means: the other subsets of the same size from the same checkpoints, these very
questions. What is about questions stands in `questions`.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from scipy import stats

from .questions import LEVEL, RESAMPLES


def false_discovery(p: np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's adjusted p-values: below q, a share of at most q is false."""
    return stats.false_discovery_control(p) if len(p) else np.array([])


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's adjusted p-values: below a, the chance of any false one is at most a."""
    rank = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[rank] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[rank] = np.minimum(stepped, 1)
    return adjusted


def verdict(gain: float, p: float, p_equal: float = math.nan) -> str:
    """What adjusted p-values allow to say: `above`, `below`, `equal` or `not told apart`."""
    if p < 1 - LEVEL:
        return "above" if gain > 0 else "below"
    return "equal" if p_equal < 1 - LEVEL else "not told apart"


def verdicts(gains: Iterable[float], p: Iterable[float], p_equal: Iterable[float]) -> list[str]:
    """The verdict of each row."""
    return [verdict(*row) for row in zip(gains, p, p_equal, strict=True)]


def percentile(replicates: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """The percentile interval of bootstrap replicates along the last axis. Returns (..., 2)."""
    tail = (1 - level) / 2
    return np.moveaxis(np.quantile(replicates, [tail, 1 - tail], axis=-1), 0, -1)


def mean_over_draws(
    cells: Sequence[np.ndarray], subsets: Sequence[int], seed: int, level: float = LEVEL
) -> tuple[float, float] | None:
    """Interval of the mean gain over all subsets, from random samples of the subsets of some sizes.

    A bootstrap of the draws within each size, its deviations widened to Student's quantile and
    narrowed for the part of the subsets that was drawn: the plain percentile interval covers 92 %
    with 15 draws and 83 % with 5, and all subsets drawn leave no doubt.
    cells: one array (draws,) of gains a size; subsets: how many subsets of that size there are.
    Returns (low, high) of the mean over all draws of all sizes; None where one draw out of several
    subsets says nothing of the others, or where no subset is left out.
    """
    drawn = [len(cell) for cell in cells]
    left = [1 - k / n for k, n in zip(drawn, subsets, strict=True)]
    if not any(left) or any(k < 2 and part for k, part in zip(drawn, left, strict=True)):
        return None
    rng = np.random.default_rng(seed)
    deviation = np.zeros(RESAMPLES)
    for cell, k, part in zip(cells, drawn, left, strict=True):
        if part:
            means = np.mean(np.asarray(cell)[rng.integers(k, size=(RESAMPLES, k))], axis=1)
            deviation += (means - np.mean(cell)) * math.sqrt(part * k / (k - 1)) * k / sum(drawn)
    freedom = sum(k - 1 for k, part in zip(drawn, left, strict=True) if part)
    upper = (1 + level) / 2
    deviation *= stats.t.ppf(upper, freedom) / stats.norm.ppf(upper)
    low, high = percentile(np.mean(np.concatenate(cells)) + deviation, level)
    return float(low), float(high)


def share_over_draws(
    above: int, draws: int, subsets: float, level: float = LEVEL
) -> tuple[float, float] | None:
    """Wilson's interval of the share of all subsets that lie above, from a random sample of them.

    The sample counts as larger for the part of the subsets that it holds. above, draws, subsets:
    counts. Returns (low, high) as fractions; None where no subset is left out.
    """
    if draws >= subsets:
        return None
    size = draws * (subsets - 1) / (subsets - draws)
    z2 = stats.norm.ppf((1 + level) / 2) ** 2
    share = above / draws
    centre = (share + z2 / (2 * size)) / (1 + z2 / size)
    half = math.sqrt(z2 * (share * (1 - share) / size + z2 / (4 * size**2))) / (1 + z2 / size)
    # At 0 and 1 the interval reaches the end itself, but for rounding.
    low = 0.0 if above == 0 else centre - half
    return low, 1.0 if above == draws else centre + half


def membership_effect(
    gains: np.ndarray, member: np.ndarray, size: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """How much better merges are with a checkpoint than without it, at equal size.

    Least squares of the gains on who is in, after taking out each size's mean; effects are
    relative to the average checkpoint, since a merge of n has n members whoever they are.
    gains: (merges,) points; member: (merges, checkpoints) bool; size: (merges,) int.
    Returns the effects (checkpoints,) and their intervals (checkpoints, 2) by a bootstrap of the
    merges within each size (over draws); None where the merges are too few to tell the
    checkpoints apart.
    """
    groups = [np.flatnonzero(size == n) for n in np.unique(size)]
    groups = [index for index in groups if len(index) > 1]

    def fit(parts: Sequence[np.ndarray]) -> tuple[np.ndarray, int]:
        x = np.concatenate([member[i] - member[i].mean(0) for i in parts])
        y = np.concatenate([gains[i] - gains[i].mean() for i in parts])
        effect, _, rank, _ = np.linalg.lstsq(x, y, rcond=1e-9)
        return effect, rank

    rows = sum(len(index) - 1 for index in groups)
    checkpoints = member.shape[1]
    # With fewer the resamples often lack a checkpoint, and hardly any effect could be seen.
    if rows < 2 * checkpoints:
        return None
    member = member.astype(float)
    effect, rank = fit(groups)
    if rank < checkpoints - 1:
        return None
    rng = np.random.default_rng(seed)
    resamples = []
    for _ in range(RESAMPLES // 4):
        again, rank = fit([rng.choice(index, len(index)) for index in groups])
        if rank == checkpoints - 1:
            resamples.append(again)
    return effect, percentile(np.transpose(resamples))
