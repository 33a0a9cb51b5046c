"""Corrections, and what follows from the draws alone: by hand, and where the truth is known."""

import itertools

import numpy as np
import pytest
from wildmerge.analysis import stats


def test_holm_by_hand():
    p = np.array([0.01, 0.04, 0.03, 0.005])
    assert stats.holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm(np.array([])).tolist() == []
    assert (stats.holm(p) >= stats.false_discovery(p)).all()


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
