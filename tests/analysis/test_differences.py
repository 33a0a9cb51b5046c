"""Differences question by question: by hand, against scipy and statsmodels, with known truth."""

import math

import numpy as np
import pytest
import simulate
from scipy import stats as scipy_stats
from wildmerge.analysis import stats
from wildmerge.analysis.questions import (
    EXACT,
    RESAMPLES,
    Moments,
    Questions,
    least_p,
    paired_test,
    smallest_seen,
    weights,
)

TASKS = np.array([150, 100, 60])


def alone(tasks=TASKS):
    """The questions of a suite, each a cluster of its own."""
    stratum = np.repeat(np.arange(len(tasks)), tasks)
    return Questions.of([f"task {i}" for i in range(len(tasks))], stratum, np.arange(len(stratum)))


def counted(wins, losses, same=20):
    """One task with so many questions won, lost and answered alike; its differences by cluster."""
    difference = np.array([1.0] * wins + [-1.0] * losses + [0.0] * same)
    own = alone([len(difference)])
    return own, own.sums(difference)


def simulated(rng, gains, churn=0.2, own=None):
    """Questions, and what merges with these true gains in points differ from the base by."""
    own = own or alone()
    chance = rng.uniform(0.3, 0.7, len(own.tasks))[own.stratum]
    base = rng.random(len(own.stratum)) < chance
    merges = [simulate.outcomes(rng, base, chance, gain, churn) for gain in gains]
    return own, own.sums(np.array(merges, float) - base)


def test_weights_give_the_mean_over_tasks():
    stratum = np.array([0, 1, 0, 1, 1])
    weight = weights(stratum, np.array([0.5, 0.5]))
    assert weight.tolist() == [1 / 4, 1 / 6, 1 / 4, 1 / 6, 1 / 6]
    own = Questions.of(["a", "b"], stratum, np.arange(5))
    correct = np.array([[1.0, 0, 0, 1, 1]])
    assert own.sums(correct).sum() == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_clusters_add_up_their_questions():
    own = Questions.of(["a", "b"], np.array([0, 0, 0, 1, 1]), np.array([7, 7, 3, 7, 7]))
    assert len(own.size) == 3  # a cluster lies within one task
    sums = own.sums(np.array([[1.0, 1, -1, 0, 1], [0, 0, 0, 1, 1]]))
    assert sorted(sums[0]) == pytest.approx([-1 / 6, 1 / 4, 2 / 6])
    assert sorted(own.size) == pytest.approx([1 / 6, 1 / 3, 1 / 2])


@pytest.mark.parametrize(("wins", "losses"), [(3, 0), (5, 1), (9, 4), (8, 8), (13, 3), (14, 3)])
def test_few_differences_have_mcnemars_mid_p(wins, losses):
    p = paired_test(counted(wins, losses)[1])
    binomial = scipy_stats.binom(wins + losses, 0.5)
    exact = scipy_stats.binomtest(wins, wins + losses).pvalue
    equal = binomial.pmf(wins) * (1 if wins != losses else 0.5)
    assert p[0] == pytest.approx(exact - equal)


def test_p_does_not_jump_where_counting_ends():
    """The mid-p value of the last number that is counted lies by that of the normal limit."""
    for wins in (15, 16, 17, 18):
        here = paired_test(counted(wins, EXACT - wins)[1])[0]
        z = (2 * wins - EXACT) / math.sqrt(EXACT)
        assert here == pytest.approx(2 * scipy_stats.norm.sf(z), rel=0.1)
    assert paired_test(counted(14, 3)[1])[0] < paired_test(counted(13, 3)[1])[0]


def test_many_differences_are_tested_by_mcnemar():
    wins, losses = 60, 35
    oracle = scipy_stats.chi2.sf((wins - losses) ** 2 / (wins + losses), 1)
    assert paired_test(counted(wins, losses, 300)[1])[0] == pytest.approx(oracle)


def test_models_that_never_differ_are_not_told_apart():
    assert paired_test(np.zeros((2, 9))).tolist() == [1, 1]
    low, high = Moments.of(alone([9]), np.zeros((2, 9))).interval()
    assert np.isnan([low, high]).all()


def test_the_smallest_p_that_can_be_reached():
    _, sums = counted(3, 2)
    assert least_p(sums)[0] == pytest.approx(2 * 0.5**5 / 2)
    assert (least_p(simulated(np.random.default_rng(0), [1.0] * 9)[1]) < 1e-5).all()


def test_errors_and_tests_are_statsmodels():
    """Cluster-robust errors with `use_correction=True`, task by task; McNemar's two tests."""
    sm = pytest.importorskip("statsmodels.api")
    from statsmodels.stats.contingency_tables import mcnemar

    rng = np.random.default_rng(3)
    stratum = np.repeat([0, 1, 2], TASKS)
    cluster = rng.integers(40, size=len(stratum))
    own = Questions.of(["a", "b", "c"], stratum, cluster)
    apart = rng.choice([-1.0, 0, 1], len(stratum), p=[0.1, 0.8, 0.1])
    apart += rng.choice([-1.0, 0, 1], 40, p=[0.1, 0.8, 0.1])[cluster]
    oracle = 0.0
    for s in range(3):
        at = stratum == s
        fit = sm.OLS(apart[at], np.ones(at.sum())).fit(
            cov_type="cluster", cov_kwds={"groups": cluster[at], "use_correction": True}
        )
        oracle += (fit.bse[0] / 3) ** 2
    assert own.variance(own.sums(apart))[0] == pytest.approx(oracle, rel=1e-6)
    plain = alone()
    oracle = sum(
        (sm.OLS(apart[stratum == s], np.ones(q)).fit().bse[0] / 3) ** 2 for s, q in enumerate(TASKS)
    )
    assert plain.variance(plain.sums(apart))[0] == pytest.approx(oracle, rel=1e-6)
    for wins, losses in ((9, 4), (60, 35)):
        table = [[5, wins], [losses, 5]]
        p = paired_test(counted(wins, losses)[1])[0]
        if wins + losses > EXACT:
            oracle = mcnemar(table, exact=False, correction=False).pvalue
        else:
            oracle = mcnemar(table, exact=True).pvalue
            oracle -= scipy_stats.binom(wins + losses, 0.5).pmf(wins)  # mid-p
        assert p == pytest.approx(oracle, abs=1e-6)


def test_resamples_are_paired_seeded_and_unbiased():
    own, sums = simulated(np.random.default_rng(1), [0, 2, 0])
    sums[2] = sums[0]
    replicates = own.resample(sums, seed=3)
    assert replicates.shape == (3, RESAMPLES)
    assert replicates[0] == pytest.approx(replicates[2], abs=1e-12)
    assert (replicates == own.resample(sums, seed=3)).all()
    assert replicates.mean(1) == pytest.approx(sums.sum(1), abs=0.003)
    assert replicates.var(1) == pytest.approx(own.variance(sums), rel=0.1)
    # A suite without its first task keeps the resamples of the others, whatever their numbers are.
    kept = own.stratum > 0
    others, first = own.only(kept), own.only(~kept)
    less = others.resample(1.5 * sums[:, kept[own.cluster.argsort()]], seed=3)
    rest = first.resample(3 * sums[:, ~kept[own.cluster.argsort()]], seed=3)
    assert (less * 2 + rest) / 3 == pytest.approx(replicates)


def test_single_tests_err_at_their_level():
    rng = np.random.default_rng(8)
    p = np.concatenate([paired_test(simulated(rng, [0, 0])[1]) for _ in range(1500)])
    assert 0.035 <= np.mean(p < 0.05) <= 0.06
    assert 0.004 <= np.mean(p < 0.01) <= 0.015


@pytest.mark.parametrize(("churn", "gain"), [(0.01, 0.0), (0.02, 0.0), (0.02, 0.5), (0.05, 1.0)])
def test_intervals_over_questions_cover_the_truth(churn, gain):
    """Population: other questions of the same tasks. 3,000 bases with a merge each."""
    rng = np.random.default_rng([int(1000 * churn), int(10 * gain)])
    own = alone()
    chance = rng.uniform(0.4, 0.6, (3000, 3))[:, own.stratum]
    base = rng.random(chance.shape) < chance
    merge = simulate.outcomes(rng, base, chance, gain, churn)
    sums = own.sums(merge.astype(float) - base)
    p = paired_test(sums)
    low, high = (100 * end for end in Moments.of(own, sums).interval(p))
    told = ~np.isnan(low)  # where nothing differs there is none
    covered = ((low <= gain) & (gain <= high))[told].mean()
    print(f"churn {churn}, gain {gain}: covered {covered:.3f} of {told.sum()}")
    assert covered >= 0.945
    assert (((low > 0) | (high < 0)) == (p < 0.05))[told].all()
    if gain == 0:
        assert (p < 0.05).mean() <= 0.055


def test_clustered_questions_are_tested_at_their_level():
    """Five questions a cluster, correlated by .2: size 5 %, where questions alone err in 9 %."""
    rng = np.random.default_rng(21)
    stratum = np.repeat(np.arange(3), 200)
    cluster = np.arange(600) // 5
    own, single = (Questions.of("abc", stratum, c) for c in (cluster, np.arange(600)))
    shared = rng.normal(size=(3000, 120))[:, cluster]
    latent = math.sqrt(0.35) * shared + math.sqrt(0.65) * rng.normal(size=(3000, 600))
    apart = np.where(latent > 1.3, 1.0, np.where(latent < -1.3, -1.0, 0.0))
    size = (paired_test(own.sums(apart)) < 0.05).mean()
    naive = (paired_test(single.sums(apart)) < 0.05).mean()
    print(f"size {size:.3f} by cluster, {naive:.3f} question by question")
    assert 0.04 <= size <= 0.062
    assert naive > 0.075
    low, high = Moments.of(own, own.sums(apart)).interval()
    assert ((low <= 0) & (high >= 0)).mean() >= 0.94


def test_false_discoveries_stay_at_the_stated_rate():
    """40 merges without effect among 60 with one, all against one base: dependent tests."""
    rng = np.random.default_rng(9)
    gains = np.array([0.0] * 40 + [8.0] * 30 + [-8.0] * 30)
    false, any_false, found = [], [], []
    for _ in range(300):
        p = paired_test(simulated(rng, gains, churn=0.3)[1])
        discovered = stats.false_discovery(p) < 0.05
        false.append(discovered[:40].sum() / max(1, discovered.sum()))
        found.append(discovered[40:].mean())
        any_false.append((stats.holm(p)[:40] < 0.05).any())
    assert np.mean(false) <= 0.05
    assert np.mean(any_false) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 300)
    assert np.mean(found) > 0.5


def test_what_can_be_seen_is_seen_in_four_of_five_studies():
    """The smallest difference seen with 80 % power, at churn .1 in 310 questions: 5.1 points."""
    rng = np.random.default_rng(5)
    own = alone()
    error = 100 * math.sqrt(0.1 * float(np.square(own.size).sum()))
    gain = float(smallest_seen(error))
    assert gain == pytest.approx(2.8016 * error, rel=1e-4)
    chance = rng.uniform(0.45, 0.55, (2000, 3))[:, own.stratum]
    base = rng.random(chance.shape) < chance
    # A merge that draws 20 % of the answers anew differs on 10 % of the questions.
    merge = simulate.outcomes(rng, base, chance, gain, 0.2)
    found = (paired_test(own.sums(merge.astype(float) - base)) < 0.05).mean()
    assert 0.76 <= found <= 0.86


def test_equality_is_claimed_in_at_most_one_of_twenty_at_the_margin():
    rng = np.random.default_rng(6)
    own = alone([6000])
    for gain in (0.5, -0.5):
        chance = np.full((2000, 6000), 0.5)
        base = rng.random(chance.shape) < chance
        merge = simulate.outcomes(rng, base, chance, gain, 0.04)
        p = Moments.of(own, own.sums(merge.astype(float) - base)).equal(0.005)
        assert (p < 0.05).mean() <= 0.06
