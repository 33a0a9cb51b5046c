"""Differences question by question: clusters, tests, intervals, resamples. Arrays in and out.

Questions that depend on each other (those on one passage) form a cluster, and a cluster counts as
one: all that is computed here rests on one array (models, clusters) of weighted sums. Its row sums
are the gains, since accuracy is linear in the questions.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse, special, stats

LEVEL = 0.95
POWER = 0.8
RESAMPLES = 2000
EXACT = 24  # differing clusters up to which all patterns of signs are counted
DIGITS = 9  # of a difference in points; beyond is rounding


def weights(stratum: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The weight of each question in a suite's accuracy, where questions of a stratum count alike.

    stratum: (questions,) int from 0; share: (strata,) the part of each stratum in the accuracy,
    1 / tasks for a suite's mean over tasks. Returns (questions,) float64.
    """
    count = np.bincount(stratum, minlength=len(share))
    return (share / np.maximum(count, 1))[stratum]


@dataclass(frozen=True)
class Questions:
    """The questions of a suite.

    Attributes:
        tasks: names of the tasks.
        stratum: (questions,) int, the task of each question.
        cluster: (questions,) int from 0; a cluster lies within one task.
        weight: (questions,) float64, so that `correct @ weight` is the mean over tasks.
    """

    tasks: tuple[str, ...]
    stratum: np.ndarray
    cluster: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, tasks: Sequence[str], stratum: np.ndarray, cluster: np.ndarray) -> "Questions":
        """The questions of tasks that count alike; clusters are numbered within each task."""
        within = cluster.astype(np.int64) + stratum.astype(np.int64) * (cluster.max() + 1)
        number = np.unique(within, return_inverse=True)[1].reshape(-1)
        share = np.full(len(tasks), 1 / len(tasks))
        return cls(tuple(tasks), stratum, number, weights(stratum, share))

    def only(self, kept: np.ndarray) -> "Questions":
        """The questions of one or some tasks by themselves. kept: (questions,) bool."""
        names = [task for i, task in enumerate(self.tasks) if (self.stratum[kept] == i).any()]
        place = np.unique(self.stratum[kept], return_inverse=True)[1].reshape(-1)
        return Questions.of(names, place, self.cluster[kept])

    @cached_property
    def _to_clusters(self) -> sparse.csr_array:
        """(clusters, questions): the weight of a question in the row of its cluster."""
        place = np.arange(len(self.cluster))
        shape = (int(self.cluster.max()) + 1, len(self.cluster))
        return sparse.csr_array((self.weight, (self.cluster, place)), shape=shape)

    @cached_property
    def size(self) -> np.ndarray:
        """(clusters,) the part of each cluster in the accuracy."""
        return np.bincount(self.cluster, self.weight)

    @cached_property
    def task(self) -> np.ndarray:
        """(clusters,) int, the task of each cluster."""
        found = np.empty(len(self.size), int)
        found[self.cluster] = self.stratum
        return found

    def sums(self, difference: np.ndarray) -> np.ndarray:
        """Weighted sums by cluster. difference: (models, questions). Returns (models, clusters)."""
        difference = np.atleast_2d(difference)
        if len(self.size) == len(self.cluster):  # each question stands alone
            found = np.empty(difference.shape)
            found[:, self.cluster] = difference * self.weight
            return found
        return np.ascontiguousarray((self._to_clusters @ difference.T.astype(float)).T)

    def residuals(self, sums: np.ndarray) -> np.ndarray:
        """What clusters differ by from the mean of their task, so that squares add to a variance.

        Scaled by sqrt(G / (G - 1)) for the G clusters of a task, as statsmodels does for one task
        with `use_correction=True`. sums: (models, clusters). Returns the same shape.
        """
        found = np.empty_like(sums, float)
        for s in range(len(self.tasks)):
            own = np.flatnonzero(self.task == s)
            size, count = self.size[own], len(own)
            mean = sums[:, own].sum(1, keepdims=True) / size.sum()
            scale = math.sqrt(count / (count - 1)) if count > 1 else 0.0
            found[:, own] = scale * (sums[:, own] - mean * size)
        return found

    def variance(self, sums: np.ndarray) -> np.ndarray:
        """The variance of the gains over questions, robust to clusters. Returns (models,)."""
        return np.square(self.residuals(sums)).sum(1)

    def resample(self, sums: np.ndarray, seed: int, resamples: int = RESAMPLES) -> np.ndarray:
        """Gains, or accuracies, on resampled questions, the same resamples for all models.

        Clusters are drawn with replacement within their task, as many as it has; differences of
        rows are then a paired bootstrap. A task keeps its resamples whatever stands beside it.
        sums: (models, clusters). Returns (models, resamples), of the unit of `sums`.
        """
        residual = self.residuals(sums)
        found = np.repeat(sums.sum(1)[:, None], resamples, axis=1)
        for s, name in enumerate(self.tasks):
            own = np.flatnonzero(self.task == s)
            rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
            picks = rng.integers(len(own), size=(resamples, len(own)))
            picks += len(own) * np.arange(resamples)[:, None]
            times = np.bincount(picks.ravel(), minlength=resamples * len(own))
            found += residual[:, own] @ times.reshape(resamples, -1).T.astype(float)
        return found

    def flip(self, sums: np.ndarray, seed: int, resamples: int = RESAMPLES // 2) -> np.ndarray:
        """Gains of models that are no better: each cluster's sign by a coin, the same for all.

        sums: (models, clusters) of differences. Returns (models, resamples).
        """
        found = np.zeros((len(sums), resamples))
        for s, name in enumerate(self.tasks):
            own = np.flatnonzero(self.task == s)
            rng = np.random.default_rng([seed, zlib.crc32(name.encode()), 1])
            sign = 2.0 * rng.integers(2, size=(len(own), resamples)) - 1
            found += sums[:, own] @ sign
        return found


def _halves(terms: np.ndarray) -> np.ndarray:
    """All sums of terms with either sign, sorted: (2 ** terms,)."""
    found = np.zeros(1)
    for term in terms:
        found = np.concatenate([found - term, found + term])
    return np.sort(found)


def _mid_p(terms: np.ndarray) -> float:
    """The two-sided mid-p value of a sum among all patterns of its terms' signs."""
    size, total = np.abs(terms), abs(terms.sum())
    slack = 1e-9 * size.sum()  # equal sums in another order of addition
    left, right = _halves(size[::2]), _halves(size[1::2])
    count = len(left) * len(right)
    above = count - int(np.searchsorted(right, total + slack - left, "right").sum())
    from_it = count - int(np.searchsorted(right, total - slack - left, "left").sum())
    if total <= slack:  # half of the patterns that give 0, all others
        return 1 - (from_it - above) / count / 2
    return (above + from_it) / count


def paired_test(sums: np.ndarray) -> np.ndarray:
    """Two-sided p-values of the hypothesis that two models answer equally well.

    The sum over clusters is compared with what it would be if each cluster's outcomes were
    exchanged between the models by a coin: the mid-p value over all patterns for up to `EXACT`
    differing clusters, beyond by the normal limit, which it meets there. For one task of single
    questions that is McNemar's test.
    sums: (models, clusters), a model minus its reference. Returns (models,), 1 where none differs.
    """
    sums = np.atleast_2d(sums)
    square = np.square(sums).sum(1)
    z = np.abs(sums.sum(1)) / np.sqrt(np.where(square > 0, square, 1))
    p = np.where(square > 0, 2 * special.ndtr(-z), 1.0)
    differing = np.count_nonzero(sums, axis=1)
    for i in np.flatnonzero((differing > 0) & (differing <= EXACT)):
        p[i] = _mid_p(sums[i, sums[i] != 0])
    return p


def least_p(sums: np.ndarray) -> np.ndarray:
    """The smallest p-value that `paired_test` could give with these differing clusters."""
    return paired_test(np.abs(np.atleast_2d(sums)))


def one_sided(p: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """The p-value of "is better" from a two-sided one and the sign of the gain."""
    return np.where(gain > 0, p / 2, 1 - p / 2)


@dataclass(frozen=True)
class Moments:
    """What intervals and tests of equivalence need of an array of sums; fractions of accuracy.

    Attributes:
        gain: (...) the sums over clusters.
        square: (...) the sums of their squares.
        step: (...) the part of the accuracy that a typical differing cluster decides.
        even: the sum of squared sizes of all clusters: what gains that are spread evenly take
            away from the variance.
    """

    gain: np.ndarray
    square: np.ndarray
    step: np.ndarray
    even: float

    @classmethod
    def of(cls, questions: Questions, sums: np.ndarray) -> "Moments":
        """Those of (models, clusters) differences; each (models,)."""
        square, size = np.square(sums).sum(1), np.abs(sums).sum(1)
        even = float(np.square(questions.size).sum())
        step = np.where(size > 0, square / np.where(size > 0, size, 1), even)
        return cls(sums.sum(1), square, step, even)

    def variance(self, gain: np.ndarray) -> np.ndarray:
        """The variance of a gain if the true one were `gain`.

        At 0 that of `paired_test`; elsewhere that of Tango's score interval (1998), whose counts
        of won and lost questions are here `square` and `gain` in units of `step`: with few
        differing questions the variance grows with the gain.
        """
        inner = self.square**2 + 4 * self.step**2 * gain * (gain - self.gain)
        found = (self.square + np.sqrt(np.maximum(inner, 0))) / 2 - self.even * gain**2
        return np.maximum(found, 0)

    def interval(
        self, p: np.ndarray | None = None, level: float | np.ndarray = LEVEL
    ) -> tuple[np.ndarray, np.ndarray]:
        """The score interval of the gains.

        Args:
            p: of `paired_test`: the interval then leaves out 0 exactly where p < 1 - level, also
                where few clusters differ and the test counts patterns.
            level: of the interval.

        Returns:
            Low and high ends, NaN where no cluster differs.
        """
        quantile = np.broadcast_to(stats.norm.ppf((1 + np.asarray(level)) / 2), self.gain.shape)
        if p is not None:
            edge = np.abs(self.gain) / np.sqrt(np.where(self.square > 0, self.square, 1))
            inside = np.minimum(quantile, edge * (1 - 1e-9))
            quantile = np.where(p < 1 - level, inside, np.maximum(quantile, edge))
        ends = []
        for side in (-1, 1):
            near = self.gain.astype(float)
            reach = 4 * quantile * np.sqrt(self.square) + 4 * quantile**2 * self.step
            far = self.gain + side * reach
            for _ in range(60):
                middle = (near + far) / 2
                within = (middle - self.gain) ** 2 <= quantile**2 * self.variance(middle)
                near, far = np.where(within, middle, near), np.where(within, far, middle)
            ends.append(np.where(self.square > 0, np.round(near, DIGITS + 2), np.nan))
        return ends[0], ends[1]

    def beyond(self, margin: float) -> tuple[np.ndarray, np.ndarray]:
        """The p-values of two one-sided tests: the gain is more than -margin, and less than it."""
        low = (self.gain + margin) / np.sqrt(self.variance(np.full(self.gain.shape, -margin)))
        high = (margin - self.gain) / np.sqrt(self.variance(np.full(self.gain.shape, margin)))
        return np.asarray(special.ndtr(-low)), np.asarray(special.ndtr(-high))

    def equal(self, margin: float) -> np.ndarray:
        """The p-value of both together: the gain lies within +-margin."""
        return np.maximum(*self.beyond(margin))


def smallest_seen(se: np.ndarray | float, tests: int = 1, level: float = LEVEL) -> np.ndarray:
    """The smallest true difference that is found with 80 % power, of the unit of `se`.

    Args:
        se: standard error of the difference.
        tests: how many the p-value is corrected for (the first step of Holm's procedure).
        level: one minus the level of the test.
    """
    quantile = stats.norm.ppf(1 - (1 - level) / 2 / tests) + stats.norm.ppf(POWER)
    return np.asarray(se) * quantile
