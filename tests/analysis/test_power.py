"""What a study can see before it runs: worked out by hand, and against simulated studies."""

import math

import numpy as np
import pandas as pd
import pytest
import simulate
from project import ROOT, wildmerge
from wildmerge.analysis import power
from wildmerge.analysis.questions import Questions, paired_test
from wildmerge.validation import read_yaml

SUITES = read_yaml(ROOT / "config/suites.yaml")
NOWHERE = ROOT / "no such folder"


def single(questions):
    """Tasks of so many questions that stand alone."""
    return [power.Task(str(i), count) for i, count in enumerate(questions)]


@pytest.mark.parametrize(
    ("churn", "alone", "holm"), [(2, 2.3, 3.7), (10, 5.1, 8.2), (20, 7.2, 11.6)]
)
def test_the_smallest_gain_that_is_seen_by_hand(churn, alone, holm):
    tasks = (50, 40, 50, 40, 50, 50, 30)
    table = power.visible(single(tasks), {"x": (churn, "stated")}, 26, [], 182)
    row = table.iloc[0]
    error = 100 * math.sqrt(churn / 100 * sum(1 / q for q in tasks)) / len(tasks)
    assert row["one_mde"] == pytest.approx(error * (1.959964 + 0.841621))
    assert round(row["one_mde"], 1) == alone
    assert round(row["one_mde_holm"], 1) == pytest.approx(holm, abs=0.11)
    assert row["one_mde"] > row["mde"] > 0.7 * row["one_mde"]


def test_the_papers_questions_are_those_of_its_tasks():
    tasks, unknown = power.tasks_of(SUITES["paper"], NOWHERE)
    assert unknown == []
    assert sum(task.questions for task in tasks) == 83_933
    alone = single([task.questions for task in tasks])
    assert len(tasks) ** 2 / sum(t.variance() for t in alone) == pytest.approx(29_434, abs=1)
    error = power.standard_error(alone, 100)
    assert error == pytest.approx(0.58, abs=0.005)
    assert power.standard_error(tasks, 100) == pytest.approx(1.2 * error, rel=0.03)  # clusters


def test_prosts_error_is_that_of_its_templates():
    tasks = {task.name: task for task in power.tasks_of(SUITES["paper"], NOWHERE)[0]}
    one = power.standard_error([tasks["prost"]], 15)
    assert 2 < one < 3  # points; question by question .28


def test_a_leaner_suite_costs_what_it_says():
    tasks, _ = power.tasks_of(SUITES["paper"], NOWHERE)
    fewer = power.lean(tasks)
    widths = [
        math.sqrt(sum(task.variance(asked.get(task.name)) for task in tasks))
        for asked in ({}, fewer)
    ]
    assert widths[1] / widths[0] == pytest.approx(1 + power.LOSS, abs=1e-3)
    assert all(fewer[task.name] == task.questions for task in tasks if task.questions < 2000)
    assert sum(fewer.values()) < 0.5 * sum(task.questions for task in tasks)


def test_the_lean_suite_is_what_plan_proposes():
    """Its numbers are those of `lean`, rounded up a little, with a leaf's share of each."""
    tasks, _ = power.tasks_of(SUITES["paper"], NOWHERE)
    fewer = power.lean(tasks)
    lean, paper = SUITES["paper_lean"]["tasks"], SUITES["paper"]["tasks"]
    assert list(lean) == list(paper)
    for task in tasks:
        wanted = dict(lean[task.name])
        most = wanted.pop("questions", None)
        assert wanted == paper[task.name]
        proposed = fewer[task.name]
        assert (most is None) == (proposed == task.questions)
        if most:
            assert proposed <= most * task.leaves <= 1.03 * proposed


def test_a_lean_sample_widens_intervals_as_reckoned():
    """Simulated outcomes of the paper's tasks, clusters and all: measured widths, not formulas."""
    rng = np.random.default_rng(4)
    tasks, _ = power.tasks_of(SUITES["paper"], NOWHERE)
    small = [power.Task(t.name, max(60, t.questions // 10), 1, t.cluster) for t in tasks]
    fewer = power.lean(small)
    ratios = []
    for _ in range(6):
        stratum = np.repeat(np.arange(len(small)), [t.questions for t in small])
        cluster = np.concatenate(
            [rng.integers(max(1, round(t.questions / t.cluster)), size=t.questions) for t in small]
        )
        own = Questions.of([t.name for t in small], stratum, cluster)
        shared = rng.normal(size=(40, len(own.size)))[:, own.cluster]
        latent = math.sqrt(0.35) * shared + math.sqrt(0.65) * rng.normal(size=(40, len(stratum)))
        alone = np.isin(stratum, [i for i, t in enumerate(small) if t.cluster == 1])
        latent[:, alone] = rng.normal(size=(40, int(alone.sum())))
        apart = np.where(latent > 1.3, 1.0, np.where(latent < -1.3, -1.0, 0.0))
        kept = np.zeros(len(stratum), bool)
        for i, task in enumerate(small):
            kept[rng.choice(np.flatnonzero(stratum == i), fewer[task.name], replace=False)] = True
        part = own.only(kept)
        wide, less = (q.variance(q.sums(d)) for q, d in ((own, apart), (part, apart[:, kept])))
        ratios.append(np.sqrt(less.mean() / wide.mean()))
    print(f"intervals of the lean sample are {100 * (np.mean(ratios) - 1):.1f} % wider")
    assert 1.0 < np.mean(ratios) < 1.09


def test_what_plan_calls_visible_is_found_in_four_of_five_simulated_studies():
    rng = np.random.default_rng(2)
    questions = [150, 100, 60]
    gain = power.visible(single(questions), {"x": (10.0, "stated")}, 1, [], 1).iloc[0]["one_mde"]
    stratum = np.repeat(np.arange(3), questions)
    own = Questions.of("abc", stratum, np.arange(len(stratum)))
    chance = np.full((2000, len(stratum)), 0.5)
    base = rng.random(chance.shape) < chance
    merge = simulate.outcomes(rng, base, chance, gain, 0.2)  # half of what is redrawn differs
    found = (paired_test(own.sums(merge.astype(float) - base)) < 0.05).mean()
    assert 0.76 <= found <= 0.86


def test_churn_is_stated_measured_or_assumed():
    recipes = {name: {"merge_method": name} for name in ("ties", "iso_c", "new")}
    seen = pd.DataFrame({"reference": "base", "recipe": "iso_c", "differing": [20, 40]})
    found = power.churns(recipes, {"ties": 3}, seen, 300)
    assert found["ties"] == (3, "stated")
    assert found["iso_c"] == (pytest.approx(10), "measured")
    assert found["new"] == (power.OTHER_CHURN, "assumed")


def test_plan_prints_what_a_study_can_see(tmp_path):
    (tmp_path / "config").symlink_to(ROOT / "config")
    told = wildmerge("plan", "homogeneous", cwd=tmp_path).stdout
    assert "What suite medical can see" in told
    assert "What suite math can see" in told
    assert "8,036 questions of 8 tasks" in told
    assert "Two methods on the same subsets (21 pairs, corrected)" in told
    assert "TA + SB, TIES + SB against TA, TIES" in told
    assert "Worth asking" in told
