"""Claims of a study where the truth is known: unequal experts, new checkpoints, shares, methods."""

import itertools
import math

import numpy as np
import pytest
import simulate
from wildmerge.analysis.best import Experts, MeanOverBest, ranked
from wildmerge.analysis.populations import (
    Merges,
    ends,
    over_both,
    over_checkpoints,
    share_over_questions,
    true_spread,
)
from wildmerge.analysis.questions import Moments, Questions, paired_test

QUESTIONS = 310
TASKS = np.array([150, 100, 60])
STRATUM = np.repeat(np.arange(3), TASKS)
OWN = Questions.of("abc", STRATUM, np.arange(QUESTIONS))


def answers(rng, gains, churn=0.2):
    """Right or wrong of models with these true gains over one base, (models, questions) float."""
    chance = rng.uniform(0.4, 0.6, 3)[STRATUM]
    base = rng.random(QUESTIONS) < chance
    return np.array([simulate.outcomes(rng, base, chance, g, churn) for g in gains], float)


def over_best(rng, experts, merges, resamples=200, churn=0.2):
    """One study: `OverBest` of merges over all of the experts, with these true gains in points."""
    sums = OWN.sums(answers(rng, [*experts, *merges], churn))
    rows = np.arange(len(sums))
    singles, merged = rows[: len(experts)], rows[len(experts) :]
    found = Experts.of(OWN, sums, singles, merged)
    replicates = OWN.resample(sums, int(rng.integers(2**31)), resamples)
    among = np.ones((len(experts), len(merges)), bool)
    return found.over_best(among, sums.sum(1), merged, replicates, 0.005)


@pytest.mark.parametrize(
    ("spread", "studies"),
    [
        (1.5, 200),
        pytest.param(0.0, 500, marks=pytest.mark.slow),
        pytest.param(0.7, 500, marks=pytest.mark.slow),
    ],
)
def test_against_the_best_of_unequal_experts(spread, studies):
    """Studies of twelve experts: MCB covers >= 95 %, false claims of a gain <= 2.5 %.

    A split of the questions is unbiased for the expert that it chose, not for the best one; the
    gain corrected by bootstrap lies nearer to the truth than the plain one.
    """
    rng = np.random.default_rng(int(10 * spread))
    covered, false, plain, corrected = [], [], [], []
    for _ in range(studies):
        experts = spread * rng.normal(size=12)
        truth = 0.0  # the merge is as good as the best of them
        over = over_best(rng, experts, [experts.max()])
        covered.append(over.low[0] <= truth <= over.high[0])
        false.append(over.gain[0] > 0 and over.p[0] < 0.05)
        plain.append(over.gain[0] - truth)
        corrected.append(over.corrected[0] - truth)
    error = [math.sqrt(np.mean(np.square(e))) for e in (plain, corrected)]
    print(f"spread {spread}: covered {np.mean(covered):.3f}, false {np.mean(false):.3f}, "
          f"error plain {error[0]:.2f}, corrected {error[1]:.2f}, "
          f"bias {np.mean(plain):+.2f}, {np.mean(corrected):+.2f}")  # fmt: skip
    assert np.mean(covered) >= 0.95
    assert np.mean(false) <= 0.025
    assert abs(np.mean(corrected)) < abs(np.mean(plain))
    assert error[1] < error[0]


def test_a_merge_equal_to_its_best_member_is_rarely_called_better():
    """300 studies, members 3 points apart: one side of the union decides; false claims <= 2.5 %."""
    rng = np.random.default_rng(31)
    over = [over_best(rng, [0.0, -3.0], [0.0], resamples=2) for _ in range(300)]
    false = np.mean([o.gain[0] > 0 and o.p[0] < 0.05 for o in over])
    print(f"false claims {false:.4f}")
    assert false <= 0.025 + 2 * math.sqrt(0.025 * 0.975 / 300)
    below = np.mean([o.gain[0] < 0 and o.p[0] < 0.05 for o in over])
    assert below <= 0.025 + 2 * math.sqrt(0.025 * 0.975 / 300)


def test_a_merge_above_all_of_its_members_is_found():
    rng = np.random.default_rng(32)
    over = [over_best(rng, [0.0, -1.0, -2.0], [10.0], resamples=2, churn=0.3) for _ in range(100)]
    assert np.mean([o.gain[0] > 0 and o.p[0] < 0.05 for o in over]) > 0.6


@pytest.mark.parametrize("spread", [0.0, 1.5])
def test_mean_gains_over_the_best_of_their_members_are_covered(spread):
    """200 studies: the mean over eight merges of their gains over the best of four members each."""
    rng = np.random.default_rng([33, int(spread)])
    covered, wrong = [], []
    for _ in range(200):
        experts = spread * rng.normal(size=8)
        among = np.array([np.isin(np.arange(8), rng.choice(8, 4, False)) for _ in range(8)]).T
        best = np.where(among, experts[:, None], -np.inf).max(0)
        gains = best + rng.normal(size=8)
        sums = OWN.sums(answers(rng, [*experts, *gains]))
        accuracy, mean = sums.sum(1), sums[8:].mean(0)
        error = np.sqrt(OWN.variance(mean - sums[:8]))
        over = MeanOverBest(100 * mean.sum(), 100 * accuracy[:8], 100 * error, among)
        truth = (gains - best).mean()
        low, high = over.interval()
        covered.append(low <= truth <= high)
        naive = over.end(0)
        wrong.append(over.p < 0.05 and np.sign(naive) != np.sign(truth))
        assert (over.p < 0.05) == (low > 0 or high < 0)
    print(f"spread {spread}: covered {np.mean(covered):.3f}, wrong {np.mean(wrong):.3f}")
    assert np.mean(covered) >= 0.95
    assert np.mean(wrong) <= 0.025


def test_the_best_merge_has_a_simultaneous_interval_and_is_a_contender():
    """300 studies of thirty merges: all intervals cover at once in 95 %; the best contends."""
    rng = np.random.default_rng(34)
    covered, contends, plain, corrected = [], [], [], []
    for _ in range(300):
        gains = rng.normal(size=30)
        sums = OWN.sums(answers(rng, [0.0, *gains]))
        apart = sums[1:] - sums[0]
        # The base itself is drawn anew like the merges; its true gain is 0.
        found = ranked(OWN, apart, OWN.resample(apart, int(rng.integers(2**31)), 500))
        told = ~np.isnan(found.low)
        covered.append(((found.low <= gains) & (gains <= found.high))[told].all())
        contends.append(found.contender[gains.argmax()])
        first = found.rank.argmin()
        plain.append(100 * apart[first].sum() - gains[first])
        corrected.append(found.corrected[first] - gains[first])
    print(f"covered {np.mean(covered):.3f}, best contends {np.mean(contends):.3f}, "
          f"first {np.mean(plain):+.2f}, corrected {np.mean(corrected):+.2f}")  # fmt: skip
    assert np.mean(covered) >= 0.93
    assert np.mean(contends) >= 0.95
    assert abs(np.mean(corrected)) < 0.7 * np.mean(plain)


SUBSETS = {n: list(itertools.combinations(range(12), n)) for n in (2, 4, 6)}


def pool_study(rng, worth, noise=0.3, draws=15, questions=0.6, own=0.4):
    """The gains of draws from a pool of checkpoints, and their replicates over questions.

    worth: (checkpoints,) points; noise: what a subset adds; questions, own: standard errors over
    questions that all merges share, and that each has for itself, points.
    """
    gains, sizes, members = [], [], []
    for n, subsets in SUBSETS.items():
        for i in rng.choice(len(subsets), draws, replace=False):
            gains.append(worth[list(subsets[i])].mean() + noise * rng.normal())
            sizes.append(n)
            members.append(frozenset(map(str, subsets[i])))
    count = len(gains)
    seen = np.array(gains) + questions * rng.normal() + own * rng.normal(size=count)
    replicates = seen[:, None] + questions * rng.normal(size=(1, 400))
    replicates = replicates + own * rng.normal(size=(count, 400))
    return Merges(seen, replicates, np.array(sizes), members, True, 12), np.mean(gains)


def test_intervals_cover_in_the_population_that_they_name():
    """500 studies, new checkpoints, draws and questions each: >= 95 % where 95 % is promised.

    What each narrower interval covers of the wider population is printed beside it.
    """
    rng = np.random.default_rng(41)
    hits = {"both": [], "checkpoints": [], "questions": [], "draws": []}
    for seed in range(500):
        worth = rng.normal(size=12)  # their population has mean 0
        merges, _ = pool_study(rng, worth)
        variance = float(merges.replicates.mean(0).var())
        both = over_both(merges, variance)
        checkpoints = over_checkpoints(merges, both, variance)
        mean = merges.gain.mean()
        low, high = both.interval(mean)
        hits["both"].append(low <= worth.mean() <= high)
        low, high = checkpoints.interval(mean)
        hits["checkpoints"].append(low <= 0 <= high)
        hits["questions"].append(abs(mean) <= 1.96 * math.sqrt(variance))
        found, _ = ends(merges, variance, seed)
        hits["draws"].append(found["draws_low"] <= 0 <= found["draws_high"])
    rates = {name: float(np.mean(own)) for name, own in hits.items()}
    print("of other checkpoints: checkpoints {checkpoints:.3f}, questions {questions:.3f}, draws "
          "{draws:.3f}; of questions and draws: both {both:.3f}".format(**rates))  # fmt: skip
    assert rates["both"] >= 0.94
    assert rates["checkpoints"] >= 0.95
    assert rates["draws"] < 0.7  # the interval over draws is not about other checkpoints


def test_without_fewer_than_five_draws_that_leave_a_checkpoint_out():
    rng = np.random.default_rng(42)
    merges, _ = pool_study(rng, rng.normal(size=12), draws=2)
    both = over_both(merges, 0.1)
    few = over_checkpoints(merges, both, 0.1)
    absent = [sum(str(i) not in own for own in merges.members) for i in range(12)]
    assert (few is None) == (min(absent) < 5)
    named = merges._replace(drawn=False)
    assert over_both(named, 0.1) is None


def test_the_true_spread_of_merges_is_told_from_noise():
    rng = np.random.default_rng(43)
    for noise in (0.0, 1.0):
        found = [true_spread(pool_study(rng, np.zeros(12), noise=noise)[0])[0] for _ in range(200)]
        print(f"true spread {noise}: {np.mean(found):.2f}")
        assert np.mean(found) == pytest.approx(noise, abs=0.12)


def test_shares_of_a_null_study_hold_half():
    """300 studies without any gain, 26 merges that share most of their noise: >= 95 %.

    The observed share alone is 88 % or more, or 12 % or less, in a third of them.
    """
    rng = np.random.default_rng(44)
    held, extreme, null = [], [], []
    for seed in range(300):
        base = rng.random(QUESTIONS) < 0.5
        common = simulate.outcomes(rng, base, np.full(QUESTIONS, 0.5), 0.0, 0.16)
        merges = np.array(
            [simulate.outcomes(rng, common, np.full(QUESTIONS, 0.5), 0.0, 0.08) for _ in range(26)]
        )
        sums = OWN.sums(merges.astype(float) - base)
        replicates = np.round(100 * OWN.resample(sums, seed, 500), 9)
        gain = 100 * sums.sum(1).round(11)
        own = Merges(gain, replicates, np.full(26, 2), [frozenset()] * 26, True, 12)
        low, high = share_over_questions(own)
        held.append(low <= 50 <= high)
        share = 100 * (gain > 0).mean()
        extreme.append(share >= 88 or share <= 12)
        flips = np.round(OWN.flip(sums, seed, 500), 11)
        shares = 100 * ((flips > 0).mean(0) + (flips == 0).mean(0) / 2)
        band = np.percentile(shares, [2.5, 97.5])
        half = share + 50 * (gain == 0).mean()
        null.append(band[0] <= half <= band[1])
    print(f"interval holds 50 %: {np.mean(held):.3f}; null band holds the share: "
          f"{np.mean(null):.3f}; shares beyond 88 or 12 %: {np.mean(extreme):.3f}")  # fmt: skip
    assert np.mean(held) >= 0.95
    assert np.mean(null) >= 0.94
    assert np.mean(extreme) > 0.15


def test_two_methods_equal_on_average_are_told_apart_in_five_of_a_hundred_studies():
    """800 studies, fifteen subsets each, the mean difference question by question."""
    rng = np.random.default_rng(45)
    p = []
    for _ in range(800):
        chance = rng.uniform(0.4, 0.6, 3)[STRATUM]
        base = rng.random(QUESTIONS) < chance
        gains = rng.normal(size=15)  # a subset is good for both methods
        a, b = (
            np.array([simulate.outcomes(rng, base, chance, g, c) for g in gains], float)
            for c in (0.2, 0.3)
        )
        p.append(paired_test(OWN.sums((a - b).mean(0)))[0])
    size = np.mean(np.array(p) < 0.05)
    print(f"size {size:.3f}")
    assert 0.03 <= size <= 0.07


def test_a_null_study_claims_neither_gain_nor_equality():
    """Equality within half a point can't be seen in 310 questions, and no gain is there."""
    rng = np.random.default_rng(46)
    sums = np.concatenate([OWN.sums(np.diff(answers(rng, [0, 0]), axis=0)) for _ in range(2000)])
    p, equal = paired_test(sums), Moments.of(OWN, sums).equal(0.005)
    print(f"gains claimed {np.mean(p < 0.05):.3f}, equality claimed {np.mean(equal < 0.05):.3f}")
    assert np.mean(p < 0.05) <= 0.06
    assert np.mean(equal < 0.05) == 0
