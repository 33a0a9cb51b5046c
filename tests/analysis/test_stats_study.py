"""Comparisons of whole studies and of two models, from files to verdicts."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import simulate
from wildmerge import WildmergeError
from wildmerge.analysis import comparisons as comparing, gather, outcomes, scores, stats
from wildmerge.analysis.comparisons import compare_study

TASKS = {"piqa": 90, "boolq": 60}


def items(path, correct, tasks=TASKS):
    """Write an items file with these outcomes; returns its path."""
    names = np.repeat(list(tasks), list(tasks.values()))
    columns = {
        "task": names,
        "member": names,
        "doc": np.concatenate([np.arange(q, dtype=np.int32) for q in tasks.values()]),
        "correct": np.asarray(correct, np.float32),
    }
    pyarrow.parquet.write_table(pa.table(columns), path)
    return path


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    sizes, recipes = {2: 4, 4: 1}, ["task_arithmetic", "iso_c"]
    return simulate.study(folder, ["first", "second"], 4, sizes, recipes, tasks=TASKS)


def intervals_of(plan):
    """The rows of intervals.csv of merges of two over their base."""
    return compare_study(gather(plan))["intervals"].query("n == 2 and reference == 'base'")


@pytest.fixture(scope="module")
def study(plan):
    return compare_study(gather(plan))


def test_comparisons_agree_with_the_scores(plan, study):
    comparisons = study["comparisons"]
    merges = scores.read(plan)[1]
    assert list(comparisons) == comparing.COMPARISONS
    against_base = comparisons[comparisons["reference"] == "base"].merge(
        merges, on=scores.MODEL, suffixes=("", "_scores")
    )
    assert len(against_base) == len(plan) - 2
    assert against_base["gain"].tolist() == pytest.approx(against_base["gain_scores"].tolist())
    assert (against_base["low"] <= against_base["gain"]).all()
    assert (against_base["gain"] <= against_base["high"]).all()
    best = comparisons[comparisons["reference"] == "best"]
    assert set(best["reference_model"]) <= {f"expert-0{i}" for i in (1, 2, 3, 4)}
    assert (best["n"] > 1).all()


def test_p_values_are_corrected_for_all_merges_of_the_study(study):
    comparisons = study["comparisons"]
    family = comparisons[(comparisons["reference"] == "base") & (comparisons["n"] > 1)]
    assert len(family) == 2 * 2 * 5
    assert family["p_false_discovery"].to_numpy() == pytest.approx(
        stats.false_discovery(family["p"].to_numpy())
    )
    assert (family["p_holm"] >= family["p_false_discovery"] - 1e-12).all()
    told = family["verdict"] != "not told apart"
    assert (told == (family["p_false_discovery"] < 0.05)).all()


def test_paired_intervals_are_narrower(study):
    ratio = study["comparisons"]["width_to_unpaired"].dropna()
    assert 0.1 < ratio.median() < 0.9


def test_cells_and_answers_are_means_of_the_merges(study):
    comparisons, intervals, answers = (study[n] for n in ("comparisons", "intervals", "answers"))
    own = comparisons.query("base == 'first' and recipe == 'iso_c' and reference == 'base'")
    answer = answers.query("base == 'first' and recipe == 'iso_c' and reference == 'base'").iloc[0]
    assert answer["models"] == len(own) == 5
    assert answer["gain"] == pytest.approx(own["gain"].mean())
    assert answer["share"] == pytest.approx(100 * (own["gain"] > 0).mean())
    assert answer["share_below"] == pytest.approx(100 * (own["verdict"] == "below").mean())
    cell = intervals.query(
        "base == 'first' and recipe == 'iso_c' and reference == 'base' and n == 2"
    ).iloc[0]
    assert cell["gain"] == pytest.approx(own[own["n"] == 2]["gain"].mean())
    assert cell["draws_low"] < cell["gain"] < cell["draws_high"]
    assert cell["share_low"] <= cell["share"] <= cell["share_high"]
    mean = answers.query("base == 'average' and recipe == 'iso_c' and reference == 'base'").iloc[0]
    bases = answers.query("base != 'average' and recipe == 'iso_c' and reference == 'base'")
    assert mean["gain"] == pytest.approx(bases["gain"].mean())
    assert mean["questions_low"] < mean["gain"] < mean["questions_high"]
    widths = (bases["questions_high"] - bases["questions_low"]).mean()
    assert mean["questions_high"] - mean["questions_low"] < widths


def test_one_draw_and_all_draws_have_no_interval_over_draws(study):
    intervals = study["intervals"]
    single = intervals[(intervals["n"] == 4) | (intervals["n"] == 1)]
    assert len(single)
    columns = ["draws_low", "draws_high", "share_low", "share_high"]
    assert single[columns].isna().all(axis=None)


def test_draws_are_a_sample_of_all_subsets_of_the_pool(tmp_path):
    """Two draws of two out of six are two of fifteen subsets, though they show four names."""
    plan = simulate.study(tmp_path, pool=6, sizes={2: 2}, recipes=["iso_c"], tasks=TASKS, seed=1)
    intervals = intervals_of(plan)
    gains = scores.read(plan)[1].query("n == 2")["gain"].to_numpy()
    expected = stats.mean_over_draws([gains], [15], seed=0)
    assert intervals[["draws_low", "draws_high"]].iloc[0].tolist() == pytest.approx(expected)


def test_the_pool_is_the_studys_also_where_no_checkpoint_is_scored_alone(tmp_path):
    plan = simulate.study(tmp_path, pool=6, sizes={2: 2}, recipes=["iso_c"], tasks=TASKS, seed=1)
    columns = ["draws_low", "draws_high"]
    whole = intervals_of(plan)[columns]
    merges = [row for row in plan if row["n"] != 1]
    alone = intervals_of(merges)[columns]
    assert alone.to_numpy() == pytest.approx(whole.to_numpy())


def test_same_seed_same_numbers_and_order_of_the_plan_does_not_matter(plan, study):
    again = compare_study(gather(plan))
    assert list(again) == list(study)
    for name, frame in study.items():
        pd.testing.assert_frame_equal(frame, again[name])


def test_a_merge_without_outcomes_leaves_its_subset_out_for_all_methods(plan, tmp_path):
    """Each cell says how many of the planned merges it rests on, and all methods' say the same."""
    gone = [*plan[:-1], plan[-1] | {"items": str(tmp_path / "none.parquet")}]
    found = compare_study(gather(gone))
    comparisons, intervals, answers = (found[n] for n in ("comparisons", "intervals", "answers"))
    for frame in (comparisons, intervals):
        assert set(frame.loc[frame["n"] == plan[-1]["n"], "base"]) == {"first"}
    for base, counts in (("first", (5, 5)), ("second", (4, 5)), ("average", (9, 10))):
        rows = answers[answers["base"] == base]
        assert set(rows["recipe"]) == {"task_arithmetic", "iso_c"}
        assert set(zip(rows["models"], rows["planned"], strict=True)) == {counts}


def test_models_that_never_differ_have_no_interval(tmp_path):
    right = np.arange(150) % 2
    rows = [("base", 0, "identity", []), ("ann", 1, "identity", ["ann"])]
    rows += [("n02-01", 2, "ties", ["ann", "bob"])]
    plan = [
        dict(base="x", subset=s, n=n, draw=int(n == 2), members=m, recipe=r, suite="s", pool=2,
             items=str(items(tmp_path / f"{s}.parquet", right)))
        for s, n, r, m in rows
    ]  # fmt: skip
    found = compare_study(gather(plan))
    comparisons, intervals, answers = (found[n] for n in ("comparisons", "intervals", "answers"))
    assert (comparisons["gain"] == 0).all()
    assert comparisons[["low", "high", "width_to_unpaired"]].iloc[:, :2].isna().all(axis=None)
    assert (comparisons["p"] == 1).all()
    assert (answers["verdict"] == "not told apart").all()
    assert intervals["questions_low"].isna().all()


def test_other_questions_are_refused(tmp_path):
    a = items(tmp_path / "a.parquet", np.ones(150))
    b = items(tmp_path / "b.parquet", np.ones(140), {"piqa": 80, "boolq": 60})
    with pytest.raises(WildmergeError, match="on the same questions in the same order"):
        outcomes.read_outcomes([a, b])
    broken = np.ones(150)
    broken[7] = np.nan
    with pytest.raises(WildmergeError, match="holds 1 that are not"):
        outcomes.read_outcomes([a, items(tmp_path / "c.parquet", broken)])


def test_two_models_are_compared_by_hand(tmp_path):
    rng = np.random.default_rng(0)
    worse = rng.random(150) < 0.4
    better = worse | (rng.random(150) < 0.3)
    a, b = items(tmp_path / "a.parquet", better), items(tmp_path / "b.parquet", worse)
    table = comparing.compare_two(a, b).set_index("task")
    last = table.loc["mean over tasks"]
    by_task = [(better[:90].mean() - worse[:90].mean()), (better[90:].mean() - worse[90:].mean())]
    assert table["difference"].iloc[:2].tolist() == pytest.approx([100 * d for d in by_task])
    assert last["difference"] == pytest.approx(50 * sum(by_task))
    assert 0 < last["low"] < last["difference"] < last["high"]
    assert last["p"] < 1e-4
    told = comparing.report_two(a, b)
    assert "a is better on the mean over tasks" in told
    assert f"{last['difference']:+.2f}" in told
    with pytest.raises(WildmergeError, match=r"none\.parquet, found no file"):
        comparing.report_two(a, tmp_path / "none.parquet")


@pytest.mark.slow
def test_intervals_of_whole_simulated_studies_cover_their_truth(tmp_path):
    """From files to answers.csv: the mean gain of one recipe's only merge, over questions."""
    covered = []
    gain, churn = simulate.TRAITS["task_arithmetic"]
    for seed in range(600):
        plan = simulate.study(
            tmp_path / str(seed), pool=2, sizes={2: 1}, recipes=["task_arithmetic"], tasks=TASKS,
            seed=seed,
        )  # fmt: skip
        answers = compare_study(gather(plan), seed)["answers"]
        row = answers[answers["reference"] == "base"].iloc[0]
        truth = gain + np.mean([-1.0 / 4 - 0.5, -0.5]) * churn
        covered.append(row["questions_low"] <= truth <= row["questions_high"])
    assert 0.932 <= np.mean(covered) <= 0.968  # 600 studies: two standard errors are 1.8 points
