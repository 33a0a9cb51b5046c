"""Statistics: hand-worked numbers, scipy as oracle, coverage where the truth is known."""

import itertools
import math

import numpy as np
import pytest
import simulate
from scipy import stats as scipy_stats
from wildmerge.analysis import stats

TASKS = np.array([150, 100, 60])


def questions(tasks=TASKS):
    """Stratum and weight of every question of a suite: (questions,) each."""
    stratum = np.repeat(np.arange(len(tasks)), tasks)
    return stratum, stats.weights(stratum, np.full(len(tasks), 1 / len(tasks)))


def simulated(rng, gains, churn=0.2):
    """Outcomes of a base (row 0) and of merges with these true gains in points."""
    stratum, weight = questions()
    chance = rng.uniform(0.3, 0.7, len(TASKS))[stratum]
    base = rng.random(len(stratum)) < chance
    merges = [simulate.outcomes(rng, base, chance, gain, churn) for gain in gains]
    return np.array([base, *merges], np.float32), stratum, weight


def test_weights_give_the_mean_over_tasks():
    stratum = np.array([0, 1, 0, 1, 1])
    weight = stats.weights(stratum, np.array([0.5, 0.5]))
    assert weight.tolist() == [1 / 4, 1 / 6, 1 / 4, 1 / 6, 1 / 6]
    correct = np.array([1, 0, 0, 1, 1])
    assert correct @ weight == pytest.approx((1 / 2 + 2 / 3) / 2)


@pytest.mark.parametrize(("wins", "losses"), [(3, 0), (5, 1), (9, 4), (8, 8), (16, 0)])
def test_few_differences_are_tested_exactly(wins, losses):
    difference = np.array([1] * wins + [-1] * losses + [0] * 20)
    p = stats.paired_test(difference, np.full(len(difference), 1 / len(difference)))
    assert p[0] == pytest.approx(scipy_stats.binomtest(wins, wins + losses).pvalue)


def test_many_differences_are_tested_by_mcnemar():
    wins, losses = 60, 35
    difference = np.array([1.0] * wins + [-1.0] * losses + [0.0] * 300)
    p = stats.paired_test(difference, np.full(len(difference), 1 / len(difference)))
    oracle = scipy_stats.chi2.sf((wins - losses) ** 2 / (wins + losses), 1)
    assert p[0] == pytest.approx(oracle)


def test_exact_and_normal_test_agree_where_they_meet():
    rng = np.random.default_rng(0)
    weight = rng.uniform(1, 2, stats.EXACT)
    sign = np.where(np.arange(stats.EXACT) < 12, 1, -1)
    exact = stats.paired_test(sign, weight)[0]
    terms = weight * sign
    normal = 2 * scipy_stats.norm.sf(abs(terms.sum()) / np.sqrt((terms**2).sum()))
    assert exact == pytest.approx(normal, rel=0.25)


def test_models_that_never_differ_are_not_told_apart():
    assert stats.paired_test(np.zeros((2, 9)), np.full(9, 1 / 9)).tolist() == [1, 1]


def test_holm_by_hand():
    p = np.array([0.01, 0.04, 0.03, 0.005])
    assert stats.holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm(np.array([])).tolist() == []
    assert (stats.holm(p) >= stats.false_discovery(p)).all()


def test_resamples_are_paired_seeded_and_unbiased():
    correct, stratum, weight = simulated(np.random.default_rng(1), [0, 2])
    correct[2] = correct[0]
    replicates = stats.resample_questions(correct, weight, stratum, seed=3)
    assert replicates.shape == (3, stats.RESAMPLES)
    assert (replicates[0] == replicates[2]).all()
    again = stats.resample_questions(correct, weight, stratum, seed=3)
    assert (replicates == again).all()
    assert replicates.mean(1) == pytest.approx(correct @ weight, abs=0.003)
    # The variance of a mean of stratified means, by the textbook.
    variance = sum(
        correct[1, stratum == s].var() / len(TASKS) ** 2 / size for s, size in enumerate(TASKS)
    )
    assert replicates[1].var() == pytest.approx(variance, rel=0.1)
    # A suite without its first task keeps the resamples of the others.
    kept = stratum > 0
    less = stats.resample_questions(correct[:, kept], weight[kept], stratum[kept], seed=3)
    first = stats.resample_questions(correct[:, ~kept], weight[~kept], stratum[~kept], seed=3)
    assert less + first == pytest.approx(replicates)


def test_intervals_over_questions_cover_the_truth():
    """Population: other questions of the same tasks; single merges and the mean of several."""
    rng = np.random.default_rng(7)
    gains = np.array([-2.0, 0.0, 0.5, 1.0, 3.0])
    single, mean = [], []
    for seed in range(500):
        correct, stratum, weight = simulated(rng, gains)
        replicates = 100 * stats.resample_questions(correct, weight, stratum, seed, 500)
        difference = replicates[1:] - replicates[0]
        low, high = stats.percentile(difference).T
        single.append((low <= gains) & (gains <= high))
        low, high = stats.percentile(difference.mean(0))
        mean.append(low <= gains.mean() <= high)
    assert 0.93 <= np.mean(single) <= 0.97
    assert 0.93 <= np.mean(mean) <= 0.97


def pool_gains(rng, n, pool=12):
    """True gains of all subsets of a size, from what each checkpoint is worth and chance."""
    subsets = np.array(list(itertools.combinations(range(pool), n)))
    worth = rng.normal(size=pool)
    return worth[subsets].mean(1) + 0.3 * rng.normal(size=len(subsets))


@pytest.mark.parametrize("draws", [5, 15])
@pytest.mark.parametrize("n", [2, 4])
def test_intervals_over_draws_cover_the_mean_of_all_subsets(draws, n):
    rng = np.random.default_rng([draws, n])
    covered = []
    for seed in range(800):
        every = pool_gains(rng, n)
        drawn = rng.choice(every, draws, replace=False)
        low, high = stats.mean_over_draws([drawn], [len(every)], seed)
        covered.append(low <= every.mean() <= high)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_intervals_over_draws_of_several_sizes_cover_the_mean():
    rng = np.random.default_rng(5)
    sizes, draws, covered = (2, 4, 10, 12), (15, 15, 15, 1), []
    for seed in range(800):
        every = [pool_gains(rng, n) for n in sizes]
        drawn = [rng.choice(e, k, replace=False) for e, k in zip(every, draws, strict=True)]
        low, high = stats.mean_over_draws(drawn, [len(e) for e in every], seed)
        truth = np.average([e.mean() for e in every], weights=draws)
        covered.append(low <= truth <= high)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_intervals_of_shares_cover_the_share_of_all_subsets():
    """Coverage of a share jumps with its true value; the mean over true values is 95 %."""
    rng = np.random.default_rng(6)
    covered = []
    for _ in range(3000):
        subsets = int(rng.choice([66, 495]))
        every = rng.random(subsets) < rng.random()
        above = rng.choice(every, 15, replace=False).sum()
        low, high = stats.share_over_draws(above, 15, subsets)
        covered.append(low <= every.mean() <= high)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_intervals_over_draws_where_there_is_nothing_to_say():
    assert stats.mean_over_draws([np.array([1.0])], [66], 0) is None
    assert stats.mean_over_draws([np.array([1.0])], [1], 0) is None
    assert stats.mean_over_draws([np.arange(6.0)], [6], 0) is None
    assert stats.mean_over_draws([np.arange(6.0), np.array([1.0])], [66, 66], 0) is None
    assert stats.share_over_draws(3, 6, 6) is None
    low, high = stats.share_over_draws(15, 15, 495)
    assert high == 1
    assert 0.75 < low < 0.85  # 15 of 15 is not yet all


def test_single_tests_err_at_their_level():
    rng = np.random.default_rng(8)
    p = []
    for _ in range(1500):
        correct, _, weight = simulated(rng, [0, 0])
        p.extend(stats.paired_test(correct[1:] - correct[0], weight))
    assert 0.035 <= np.mean(np.array(p) < 0.05) <= 0.06
    assert 0.004 <= np.mean(np.array(p) < 0.01) <= 0.015


def test_false_discoveries_stay_at_the_stated_rate():
    """40 merges without effect among 60 with one, all against one base: dependent tests."""
    rng = np.random.default_rng(9)
    gains = np.array([0.0] * 40 + [8.0] * 30 + [-8.0] * 30)
    false, any_false, found = [], [], []
    for _ in range(300):
        correct, _, weight = simulated(rng, gains, churn=0.3)
        p = stats.paired_test(correct[1:] - correct[0], weight)
        discovered = stats.false_discovery(p) < 0.05
        false.append(discovered[:40].sum() / max(1, discovered.sum()))
        found.append(discovered[40:].mean())
        any_false.append((stats.holm(p)[:40] < 0.05).any())
    assert np.mean(false) <= 0.05
    assert np.mean(any_false) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 300)
    assert np.mean(found) > 0.5


def test_nothing_is_found_where_nothing_is():
    rng = np.random.default_rng(10)
    found = []
    for _ in range(400):
        correct, _, weight = simulated(rng, np.zeros(30))
        p = stats.paired_test(correct[1:] - correct[0], weight)
        found.append((stats.false_discovery(p) < 0.05).any())
    assert np.mean(found) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)


def test_best_checkpoint_is_judged_without_bias_after_a_split():
    """Twelve equal checkpoints: the maximum seems better than it is, the split one does not."""
    rng = np.random.default_rng(11)
    share = np.full(len(TASKS), 1 / len(TASKS))
    naive, fair, covered, p = [], [], [], []
    for seed in range(600):
        correct, stratum, weight = simulated(rng, np.zeros(13))
        merge, checkpoints = correct[1], correct[2:]
        naive.append(100 * (merge @ weight - (checkpoints @ weight).max()))
        chosen, judge = stats.best_by_split(checkpoints, stratum, share, seed)
        rows = np.stack([merge, checkpoints[chosen]])[:, judge]
        weight = stats.weights(stratum[judge], share)
        fair.append(100 * (rows[0] - rows[1]) @ weight)
        replicates = 100 * stats.resample_questions(rows, weight, stratum[judge], seed, 500)
        low, high = stats.percentile(replicates[0] - replicates[1])
        covered.append(low <= 0 <= high)
        p.append(stats.paired_test(rows[0] - rows[1], weight)[0])
    assert abs(np.mean(fair)) < 3 * np.std(fair) / math.sqrt(len(fair))
    assert np.mean(naive) < -1.5
    assert 0.93 <= np.mean(covered) <= 0.97
    assert 0.03 <= np.mean(np.array(p) < 0.05) <= 0.07


def test_a_split_takes_the_best_when_it_is_plain_and_halves_every_task():
    rng = np.random.default_rng(12)
    stratum, _ = questions()
    correct = (rng.random((3, len(stratum))) < [[0.3], [0.9], [0.5]]).astype(np.float32)
    chosen, judge = stats.best_by_split(correct, stratum, np.full(3, 1 / 3), seed=0)
    assert chosen == 1
    assert np.bincount(stratum[judge]).tolist() == [75, 50, 30]


def draws_of_all_sizes(rng, pool=12, draws=15):
    rows = []
    for n in (2, 4, 6, 8, 10):
        subsets = list(itertools.combinations(range(pool), n))
        for i in rng.choice(len(subsets), draws, replace=False):
            rows.append((n, np.isin(np.arange(pool), subsets[i])))
    return np.array([n for n, _ in rows]), np.array([m for _, m in rows])


def test_membership_effects_are_recovered():
    rng = np.random.default_rng(13)
    size, member = draws_of_all_sizes(rng)
    worth = rng.normal(size=12)
    effect, interval = stats.membership_effect(member @ worth + 0.2 * size, member, size, seed=0)
    assert effect == pytest.approx(worth - worth.mean())
    assert interval == pytest.approx(np.repeat(effect[:, None], 2, axis=1))


def test_membership_effects_need_enough_merges():
    member = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1]], bool)
    assert stats.membership_effect(np.arange(3.0), member, np.full(3, 2), seed=0) is None
    never = np.tile([[True, False, False, True], [False, True, False, True]], (5, 1))
    gains = np.arange(10.0)
    assert stats.membership_effect(gains, never, np.full(10, 2), seed=0) is None


@pytest.mark.slow
def test_membership_intervals_cover_the_truth():
    rng = np.random.default_rng(14)
    covered = []
    for seed in range(120):
        size, member = draws_of_all_sizes(rng)
        worth = rng.normal(size=12)
        gains = member @ worth + 0.5 * rng.normal(size=len(size))
        truth = worth - worth.mean()
        _, interval = stats.membership_effect(gains, member, size, seed)
        covered.append((interval[:, 0] <= truth) & (truth <= interval[:, 1]))
    assert 0.93 <= np.mean(covered) <= 0.97
