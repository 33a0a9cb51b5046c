"""How far a mean over merges can be trusted, for each population that it may be about."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats as distributions

from . import stats
from .questions import LEVEL

POPULATIONS = ("questions", "draws", "both", "checkpoints")
LEAVING_OUT = 5  # draws that must leave a checkpoint out before its absence says anything


class Merges(NamedTuple):
    """Some merges and their differences to a reference.

    gain: (merges,) points; replicates: (merges, resamples), the same on resampled questions;
    n: (merges,) sizes; members: of each merge; drawn: whether they are random draws; pool: how
    many checkpoints they were drawn from.
    """

    gain: np.ndarray
    replicates: np.ndarray
    n: np.ndarray
    members: Sequence[frozenset[str]]
    drawn: bool
    pool: int


class Spread(NamedTuple):
    """The variance of a mean in some population, points squared, and its degrees of freedom."""

    variance: float
    freedom: float

    def interval(self, mean: float, level: float = LEVEL) -> tuple[float, float]:
        """The interval by Student's quantile."""
        half = distributions.t.ppf((1 + level) / 2, self.freedom) * math.sqrt(self.variance)
        return mean - half, mean + half

    def p(self, mean: float) -> float:
        """The two-sided p-value of a mean of 0."""
        if self.variance <= 0:
            return 1.0 if mean == 0 else 0.0
        return float(2 * distributions.t.sf(abs(mean) / math.sqrt(self.variance), self.freedom))

    def equal(self, mean: float, margin: float) -> float:
        """The p-value of two one-sided tests that the mean lies within +-margin."""
        if self.variance <= 0:
            return 1.0  # nothing differs: too few questions to say so
        distance = (margin - abs(mean)) / math.sqrt(self.variance)
        return float(distributions.t.sf(distance, self.freedom))


def _sizes(merges: Merges) -> list[tuple[np.ndarray, float]]:
    """The places of the merges of each size, and the part of all such subsets that is left."""
    found = []
    for n in np.unique(merges.n):
        at = np.flatnonzero(merges.n == n)
        found.append((at, max(0.0, 1 - len(at) / math.comb(merges.pool, int(n)))))
    return found


def _noise(replicates: np.ndarray) -> float:
    """The part of the variance between merges that is their own noise over questions."""
    apart = replicates - replicates.mean(0)
    return float(apart.var(axis=1).sum() / (len(replicates) - 1))


def over_both(merges: Merges, questions: float) -> Spread | None:
    """Over other questions and other subsets of the same checkpoints.

    V_questions + V_draws - V_both, floored at either part: the noise over questions that each
    merge has for itself is in both of them. Draws out of a finite number of subsets count the less
    the more of them were drawn.

    Args:
        merges: random draws.
        questions: the variance of their mean over questions, points squared.

    Returns:
        None where the merges are no draws, or one draw of several stands for a size.
    """
    sizes = _sizes(merges)
    if not merges.drawn or any(len(at) < 2 and left for at, left in sizes):
        return None
    draws = shared = 0.0
    freedom = 0
    for at, left in sizes:
        if left and len(at) > 1:
            part = (len(at) / len(merges.gain)) ** 2 * left / len(at)
            draws += part * float(merges.gain[at].var(ddof=1))
            shared += part * _noise(merges.replicates[at])
            freedom += len(at) - 1
    total = max(questions + draws - shared, questions, draws)
    own = total - questions  # what the draws add
    # Welch and Satterthwaite; the questions are many.
    return Spread(total, freedom * (total / own) ** 2 if own > 0 else math.inf)


def over_checkpoints(merges: Merges, both: Spread | None, questions: float) -> Spread | None:
    """Over other checkpoints, their subsets and other questions, by leaving out one at a time.

    The mean is a U-statistic of the pool. Without checkpoint i it moves by the mean deviation,
    from others of their size, of the merges that leave i out; these moves give the jackknife's
    variance, to which that over questions is added. Student's t has a degree less than there are
    checkpoints.

    Returns:
        None where fewer than `LEAVING_OUT` draws leave some checkpoint out.
    """
    if both is None or merges.pool < 3:
        return None
    deviation, member = [], []
    for at, _ in _sizes(merges):
        if len(at) > 1 and merges.n[at[0]] < merges.pool:
            deviation.append(merges.gain[at] - merges.gain[at].mean())
            member += [merges.members[i] for i in at]
    if not member:
        return None
    apart = np.concatenate(deviation)
    names = sorted(set().union(*member))
    absent = np.array([[name not in own for own in member] for name in names])
    if absent.sum(1).min() < LEAVING_OUT or len(names) < merges.pool:
        return None
    moves = (absent @ apart) / absent.sum(1)
    jackknife = (merges.pool - 1) * float(moves.var())
    draws = both.variance - questions
    return Spread(questions + max(jackknife, draws), merges.pool - 1)


def true_spread(merges: Merges) -> tuple[float, float]:
    """How much the true gains of merges of one size differ, and the share of them above zero.

    The variance between merges less their own noise over questions; the share by the normal
    distribution that has this spread. Returns points and percent; NaN for single merges, and for
    the share where no spread is seen.
    """
    between, freedom = 0.0, 0
    for at, _ in _sizes(merges):
        if len(at) > 1:
            own = float(merges.gain[at].var(ddof=1)) - _noise(merges.replicates[at])
            between += (len(at) - 1) * own
            freedom += len(at) - 1
    if not freedom:
        return math.nan, math.nan
    spread, mean = math.sqrt(max(0.0, between / freedom)), float(merges.gain.mean())
    if spread < 1e-9:
        return 0.0, math.nan
    return spread, 100 * float(distributions.norm.cdf(mean / spread))


def share_over_questions(merges: Merges) -> tuple[float, float]:
    """The interval of the share of merges that are truly above, over questions, in percent.

    Equal merges count as not above at the low end and as above at the high end.
    """
    tail = 50 * (1 - LEVEL)
    above = 100 * (merges.replicates > 0).mean(0)
    level = 100 * (merges.replicates >= 0).mean(0)
    return float(np.percentile(above, tail)), float(np.percentile(level, 100 - tail))


def ends(merges: Merges, questions: float, seed: int) -> tuple[dict[str, float], dict[str, Spread]]:
    """The intervals of a mean over draws, both and checkpoints, and the spreads behind them."""
    found: dict[str, float] = {}
    spreads: dict[str, Spread] = {}
    mean = float(merges.gain.mean())
    both = over_both(merges, questions)
    if both is None:
        return found, spreads
    spreads["both"] = both
    if checkpoints := over_checkpoints(merges, both, questions):
        spreads["checkpoints"] = checkpoints
    for name, spread in spreads.items():
        if spread.variance > 1e-18:
            found[f"{name}_low"], found[f"{name}_high"] = spread.interval(mean)
    sizes = _sizes(merges)
    parts = [merges.gain[at] for at, _ in sizes]
    subsets = [math.comb(merges.pool, int(merges.n[at[0]])) for at, _ in sizes]
    interval = stats.mean_over_draws(parts, subsets, seed)
    if interval and interval[1] - interval[0] > 1e-12:
        found["draws_low"], found["draws_high"] = interval
        half = (interval[1] - interval[0]) / 2
        freedom = sum(len(part) - 1 for part in parts)
        quantile = distributions.t.ppf((1 + LEVEL) / 2, freedom)
        spreads["draws"] = Spread((half / quantile) ** 2, freedom)
    return found, spreads


def widened(
    ends_: tuple[float, float], mean: float, spread: Spread, questions: float
) -> tuple[float, float]:
    """Ends over questions that are not even on both sides, widened to another population.

    Args:
        ends_: low and high, points.
        mean: that they are about.
        spread: of the mean in the wider population.
        questions: its variance over questions.
    """
    more = distributions.t.ppf((1 + LEVEL) / 2, spread.freedom) ** 2
    more *= max(0.0, spread.variance - questions)
    low, high = (math.sqrt((end - mean) ** 2 + more) for end in ends_)
    return mean - low, mean + high


def weakened(p: float, effect: float, spread: Spread, questions: float) -> float:
    """A two-sided p-value over questions in a wider population, for an effect of this size."""
    z = distributions.norm.isf(p / 2)
    if z <= 0 or effect <= 0:
        return 1.0
    error = math.sqrt((effect / z) ** 2 + max(0.0, spread.variance - questions))
    return float(2 * distributions.t.sf(effect / error, spread.freedom))


def headline(
    declared: str, spreads: dict[str, Spread], mean: float, questions: tuple[float, float]
) -> dict[str, Any]:
    """The test of a mean in the population that a study is about, or the widest one below it.

    Args:
        declared: one of `POPULATIONS`.
        spreads: those that can be had, by population.
        mean: the mean difference, points.
        questions: the p-values of the test over questions, and of equality over questions.
    """
    order = {"checkpoints": ("checkpoints", "both"), "both": ("both",), "draws": ("draws",)}
    for name in order.get(declared, ()):
        if name in spreads:
            return {"population": name, "p": spreads[name].p(mean)}
    return {"population": "questions", "p": questions[0]}
