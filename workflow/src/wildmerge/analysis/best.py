"""Against the best of several checkpoints, on all questions; and which merge is the best.

The best of several scores lies above the truth, so that a plain difference to it lies below. What
can be said without choosing first: a merge is better than the best if it is better than every one
(an intersection-union test), and its gain over the best is at least, and at most, the smallest of
its gains over them (multiple comparisons with the best; Hsu, 1984).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import optimize, stats as distributions

from .questions import LEVEL, Moments, Questions, one_sided, paired_test


@dataclass(frozen=True)
class OverBest:
    """Differences of merges to the best of several checkpoints.

    Attributes, all (merges,) but the last: `gain` to the one that scored best, points, and
    `corrected` for its having been picked; `best`, its row; `low` and `high`, points; `p`,
    two-sided; `equal`, that of equality. `replicates`: (merges, resamples) of the gain, points.
    """

    gain: np.ndarray
    corrected: np.ndarray
    best: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    equal: np.ndarray
    replicates: np.ndarray


@dataclass(frozen=True)
class Experts:
    """Every merge against every single checkpoint.

    Attributes:
        rows: (checkpoints,) their rows among the models.
        gain: (checkpoints, merges) fractions of accuracy.
        p: (checkpoints, merges) two-sided, of the paired test.
        moments: (checkpoints, merges), of the differences.
    """

    rows: np.ndarray
    gain: np.ndarray
    p: np.ndarray
    moments: Moments = field(repr=False)

    @classmethod
    def of(
        cls, questions: Questions, sums: np.ndarray, rows: np.ndarray, merges: np.ndarray
    ) -> "Experts":
        """From the accuracies by cluster, sums: (models, clusters)."""
        p, moments = [], []
        for row in rows:
            difference = sums[merges] - sums[row]
            p.append(paired_test(difference))
            moments.append(Moments.of(questions, difference))
        joined = Moments(
            np.array([m.gain for m in moments]),
            np.array([m.square for m in moments]),
            np.array([m.step for m in moments]),
            moments[0].even,
        )
        return cls(rows, joined.gain, np.array(p), joined)

    def over_best(
        self,
        among: np.ndarray,
        accuracy: np.ndarray,
        merges: np.ndarray,
        replicates: np.ndarray,
        margin: float,
    ) -> OverBest:
        """Each merge against the best of its own set of checkpoints.

        Args:
            among: (checkpoints, merges) bool, the set of each merge; none is empty.
            accuracy: (models,) fractions.
            merges: (merges,) rows of the merges among the models.
            replicates: (models, resamples) accuracies on resampled questions.
            margin: what counts as equal, a fraction of accuracy.
        """
        count = among.sum(0)
        known = np.where(among, accuracy[self.rows][:, None], -np.inf)
        best = known.argmax(0)
        gain = accuracy[merges] - known.max(0)
        again = np.empty((len(merges), replicates.shape[1]))
        for own, at in _sets(among):
            most = replicates[self.rows[own]].max(0)
            again[at] = replicates[merges[at]] - most
        bias = again.mean(1) - gain
        low = self.moments.interval(self.p)[0]
        high = self.moments.interval(level=1 - (1 - LEVEL) / count)[1]
        # A checkpoint that a merge never differs from: the gain over it is 0 on these questions.
        same = self.moments.square == 0
        low, high = (np.where(same, 0.0, end) for end in (low, high))
        nothing = (same | ~among).all(0)
        better = one_sided(self.p, self.gain)
        worse = one_sided(self.p, -self.gain)
        above = np.where(among, better, -np.inf).max(0)
        below = np.minimum(count * np.where(among, worse, np.inf).min(0), 1)
        not_less, not_more = self.moments.beyond(margin)
        not_less = np.where(among, not_less, -np.inf).max(0)
        not_more = np.minimum(count * np.where(among, not_more, np.inf).min(0), 1)
        return OverBest(
            gain=100 * gain,
            corrected=100 * (gain - bias),
            best=self.rows[best],
            low=np.where(nothing, np.nan, 100 * np.where(among, low, np.inf).min(0)),
            high=np.where(nothing, np.nan, 100 * np.where(among, high, np.inf).min(0)),
            p=np.minimum(2 * np.minimum(above, below), 1),
            equal=np.maximum(not_less, not_more),
            replicates=100 * again,
        )


def _sets(among: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The distinct sets of checkpoints, as places, and the merges that have each."""
    sets, place = np.unique(among.T, axis=0, return_inverse=True)
    place = place.reshape(-1)
    return [(np.flatnonzero(own), np.flatnonzero(place == i)) for i, own in enumerate(sets)]


@dataclass(frozen=True)
class MeanOverBest:
    """The mean gain of some merges over the best of each one's set of checkpoints.

    With the error of the mean's difference to each checkpoint, whatever the order of the
    checkpoints truly is: the mean lies above `end(-z)` but for a chance of 1 - Phi(z), and below
    `end(z)` but for as many times that as there are checkpoints.

    Attributes:
        mean: of the merges' accuracies, points.
        accuracy: (checkpoints,) points.
        error: (checkpoints,) of the mean less that checkpoint, points.
        among: (checkpoints, merges) bool, the set of each merge.
    """

    mean: float
    accuracy: np.ndarray
    error: np.ndarray
    among: np.ndarray

    @property
    def count(self) -> int:
        """How many checkpoints are in any of the sets."""
        return int(self.among.any(1).sum())

    def end(self, z: float) -> float:
        """The mean of the smallest gains, each moved by z errors."""
        over = (self.mean - self.accuracy + z * self.error)[:, None]
        return float(np.where(self.among, over, np.inf).min(0).mean())

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Its low and high end; NaN where nothing differs."""
        if self.error[self.among.any(1)].max() < 1e-12:
            return np.nan, np.nan
        tail = (1 - level) / 2
        low, high = distributions.norm.isf([tail, tail / self.count])
        return self.end(-low), self.end(high)

    def above(self, bound: float) -> float:
        """The p-value of the claim that it is more than `bound`, points."""
        return self._tail(bound, -1)

    def below(self, bound: float) -> float:
        """The p-value of the claim that it is less than `bound`, points."""
        return min(1.0, self.count * self._tail(bound, 1))

    def _tail(self, bound: float, side: int) -> float:
        """The chance beyond the z at which the end on this side meets the bound."""
        if self.error[self.among.any(1)].max() < 1e-12 or side * (self.end(0) - bound) >= 0:
            return 1.0
        far = 40.0
        if side * (self.end(side * far) - bound) < 0:
            return 0.0
        z = optimize.brentq(lambda z: self.end(side * z) - bound, 0, far)
        return float(distributions.norm.sf(z))

    @property
    def p(self) -> float:
        """The two-sided p-value of no gain."""
        return min(1.0, 2 * min(self.above(0), self.below(0)))

    def equal(self, margin: float) -> float:
        """The p-value of two one-sided tests that it lies within +-margin, points."""
        return max(self.above(-margin), self.below(margin))


@dataclass(frozen=True)
class Ranked:
    """The merges of a base by their gain over it, (merges,) each.

    Attributes: `rank` from 1; `corrected`, the gain, points, corrected for having been picked by
    its rank; `low` and `high`, simultaneous for all merges, points; `contender`, whether the best
    merge may be this one.
    """

    rank: np.ndarray
    corrected: np.ndarray
    low: np.ndarray
    high: np.ndarray
    contender: np.ndarray


def ranked(questions: Questions, sums: np.ndarray, replicates: np.ndarray) -> Ranked:
    """Rank merges by their gain.

    Simultaneous ends stand as far from the gain as the largest deviation, in standard errors, of
    any merge in 95 % of resamples. A merge contends unless another is better by more than chance
    gives among so many (Bonferroni).

    Args:
        questions: of the suite.
        sums: (merges, clusters), differences to the base.
        replicates: (merges, resamples) of the gains, fractions.
    """
    gain = sums.sum(1)
    order = np.argsort(-gain, kind="stable")
    rank = np.empty(len(gain), int)
    rank[order] = np.arange(1, len(gain) + 1)
    # The gain that a model of this rank shows, less the one it has.
    again = np.argsort(-replicates, axis=0, kind="stable")
    shown = np.take_along_axis(replicates, again, 0)
    bias = (shown - gain[again]).mean(1)
    residual = questions.residuals(sums)
    error = np.sqrt(np.square(residual).sum(1))
    safe = np.where(error > 0, error, 1)
    most = (np.abs(replicates - gain[:, None]) / safe[:, None]).max(0)
    quantile = max(np.quantile(most, LEVEL), distributions.norm.ppf((1 + LEVEL) / 2))
    products = residual @ residual.T
    square = products.diagonal()
    apart = np.sqrt(np.maximum(square[:, None] + square - 2 * products, 0))
    level = distributions.norm.ppf(1 - (1 - LEVEL) / max(len(gain) - 1, 1))
    behind = gain[:, None] < gain - level * apart - 1e-12
    low, high = gain - quantile * error, gain + quantile * error
    return Ranked(
        rank=rank,
        corrected=100 * (gain - bias[rank - 1]),
        low=np.where(error > 0, 100 * low, np.nan),
        high=np.where(error > 0, 100 * high, np.nan),
        contender=~behind.any(1),
    )


def listed(names: Sequence[str], gains: Mapping[str, float]) -> str:
    """Gains by name, `a:+1.20;b:-0.30`."""
    return ";".join(f"{name}:{gains[name]:+.2f}" for name in names)
