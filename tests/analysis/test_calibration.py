"""Outcomes by likelihood: at the model's own temperature a mere flattening is no difference."""

import numpy as np
import pytest
from scipy import special, stats as distributions
from wildmerge.analysis.calibration import calibrated, inverse_temperature
from wildmerge.analysis.questions import Questions

QUESTIONS = 310
OWN = Questions.of(["a"], np.zeros(QUESTIONS, int), np.arange(QUESTIONS))
FOLD = np.arange(QUESTIONS) % 10
RIGHT = np.arange(QUESTIONS)


def p_of(difference):
    """The two-sided p-value of a mean of differences by question."""
    sums = OWN.sums(difference)
    z = abs(sums.sum()) / np.sqrt(OWN.variance(sums)[0])
    return 2 * distributions.norm.sf(z)


def test_the_temperature_is_found():
    """Choices are right as often as the softmax of the scores says, but for the factor."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(20000, 4))
    chance = special.softmax(2.5 * scores, axis=1)
    target = (chance.cumsum(1) < rng.random((20000, 1))).sum(1)
    assert inverse_temperature(scores, target) == pytest.approx(2.5, rel=0.03)
    padded = np.column_stack([scores, np.full(20000, -np.inf)])
    assert inverse_temperature(padded, target) == pytest.approx(inverse_temperature(scores, target))
    likely, temperature = calibrated(scores, target, np.arange(20000) % 10)
    assert temperature == pytest.approx(1 / 2.5, rel=0.03)
    assert (likely < 0).all()


def test_what_each_model_is_scaled_by_changes_nothing():
    rng = np.random.default_rng(1)
    scores, target = rng.normal(size=(QUESTIONS, 4)), rng.integers(4, size=QUESTIONS)
    scores[RIGHT, target] += 0.7
    one, t = calibrated(scores, target, FOLD)
    other, u = calibrated(0.5 * scores, target, FOLD)
    assert other == pytest.approx(one, abs=1e-6)
    assert u == pytest.approx(0.5 * t, rel=1e-6)


@pytest.mark.parametrize("scale", [0.95, 1.05])
def test_scaled_logits_without_a_gain_are_no_difference(scale):
    """1,000 studies: raw log-probabilities differ in half, calibrated ones in <= 6 %.

    The model's logits are the base's times `scale`, and noise that takes and gives alike.
    """
    rng = np.random.default_rng(int(100 * scale))
    raw, fine = [], []
    for _ in range(1000):
        target = rng.integers(4, size=QUESTIONS)
        truth = rng.normal(size=(QUESTIONS, 4))
        truth[RIGHT, target] += 0.8
        base, model = (truth + 0.15 * rng.normal(size=truth.shape) for _ in range(2))
        base, model = 3 * base, 3 * scale * model
        likely = [special.log_softmax(s, axis=1)[RIGHT, target] for s in (model, base)]
        raw.append(p_of(likely[0] - likely[1]))
        own = [calibrated(s, target, FOLD)[0] for s in (model, base)]
        fine.append(p_of(own[0] - own[1]))
    sizes = [float(np.mean(np.array(p) < 0.05)) for p in (raw, fine)]
    print(f"scale {scale}: differ raw {sizes[0]:.3f}, calibrated {sizes[1]:.3f}")
    assert sizes[1] <= 0.06 + np.sqrt(0.06 * 0.94 / 1000)
    assert sizes[0] > 0.5


def test_a_true_gain_is_seen_with_fewer_questions_than_by_accuracy():
    rng = np.random.default_rng(3)
    likely, right = [], []
    for _ in range(300):
        target = rng.integers(4, size=QUESTIONS)
        base = rng.normal(size=(QUESTIONS, 4))
        base[RIGHT, target] += 0.8
        model = base + 0.15 * rng.normal(size=base.shape)
        model[RIGHT, target] += 0.04
        own = [calibrated(s, target, FOLD)[0] for s in (model, base)]
        likely.append(p_of(own[0] - own[1]))
        hit = [(s.argmax(1) == target).astype(float) for s in (model, base)]
        right.append(p_of(hit[0] - hit[1]))
    found = [float(np.mean(np.array(p) < 0.05)) for p in (likely, right)]
    print(f"found by likelihood {found[0]:.2f}, by accuracy {found[1]:.2f}")
    assert found[0] > 2 * found[1]
