"""Tidy tables from score files, and Tables 1-3 from the tidy tables."""

import itertools
import json
from pathlib import Path

import pandas as pd
import pytest
import simulate
from drawing import PAPERS
from project import ROOT
from wildmerge import WildmergeError
from wildmerge.analysis import FRAMES, gather, scores
from wildmerge.reporting import layout as tables, sections
from wildmerge.reporting.looks import Looks

PUBLISHED = ROOT / "config/published"
LOOKS = Looks(PAPERS)


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return simulate.study(
        tmp_path_factory.mktemp("study"),
        bases=["first", "second"],
        pool=4,
        sizes={2: 3, 4: 1},
        recipes=["ties", "iso_c"],
        tasks={"piqa": 40, "boolq": 60},
    )


def edited(plan, tmp_path, index, change):
    """The plan with one score file changed by `change(score)`."""
    score = json.loads(Path(plan[index]["scores"]).read_text())
    change(score)
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(score))
    return [row | {"scores": str(path)} if i == index else row for i, row in enumerate(plan)]


def test_tidy_tables_hold_every_model_and_task(plan):
    tidy, merges = scores.read(plan)
    assert list(tidy) == scores.SCORES
    assert list(merges) == scores.MERGES
    assert len(merges) == 2 * (1 + 4 + 2 * (3 + 1))
    assert len(tidy) == 2 * len(merges)
    assert (
        merges["accuracy"].tolist()
        == tidy.groupby(scores.MODEL, sort=False)["value"].mean().tolist()
    )
    row = merges.iloc[6]
    assert row["base_accuracy"] == merges["accuracy"].iloc[0]
    assert row["gain"] == pytest.approx(100 * (row["accuracy"] - merges["accuracy"].iloc[0]))
    assert row["best_accuracy"] == merges["accuracy"].iloc[1:5].max()
    assert row["gain_over_best"] - row["gain"] == pytest.approx(
        100 * (row["base_accuracy"] - row["best_accuracy"])
    )
    assert row["merge_seconds"] == 4.2
    assert merges["norm"].iloc[0] == 0
    assert merges["norm"].iloc[1:5].isna().all()


def test_tables_survive_the_way_through_csv(plan, tmp_path):
    for frame in scores.read(plan):
        frame.to_csv(tmp_path / "table.csv", index=False)
        back = scores.read_table(tmp_path / "table.csv")
        pd.testing.assert_frame_equal(frame, back, check_dtype=False)
        assert back["members"].iloc[0] == ""


def test_a_merge_that_diverged_is_marked(plan, tmp_path):
    def diverge(score):
        score["tasks"]["boolq"] |= {"diverged": True}

    merges = scores.read(edited(plan, tmp_path, 6, diverge))[1]
    assert merges["diverged"].tolist() == ["boolq" if i == 6 else "" for i in range(len(plan))]
    merges.to_csv(tmp_path / "merges.csv", index=False)
    back = scores.read_table(tmp_path / "merges.csv")
    none = pd.DataFrame(columns=FRAMES["comparisons"])
    page = sections.every_merge("it", back, none, LOOKS)
    assert page.count("diverged on boolq") == 1


def test_a_merge_without_scores_leaves_its_subset_out(plan, tmp_path):
    gone = [*plan[:-1], plan[-1] | {"scores": str(tmp_path / "none.json")}]
    assert [row["recipe"] for row in plan[-2:]] == ["ties", "iso_c"]
    tidy, merges = scores.read(gone)
    assert len(merges) == len(plan)
    assert merges["left_out"].tolist()[-3:] == ["", "its subset lacks iso_c", "not measured"]
    numbers = merges[["accuracy", "gain", "gain_over_best", "norm", "norm_rounded"]]
    assert numbers.iloc[-2:].isna().all(axis=None) and numbers.iloc[-3].notna().all()
    assert merges["evaluate_seconds"].iloc[-2] == 12.5  # was spent all the same
    assert len(tidy) == 2 * (len(plan) - 2)
    cells = tables.success(merges, "gain", LOOKS).set_index(["base", "recipe", "n"])
    for recipe in ("ties", "iso_c"):
        assert cells.loc[("second", recipe, 4), ["combinations", "planned"]].tolist() == [0, 1]
        assert pd.isna(cells.loc[("second", recipe, 4), "gain"])
        assert ("average", recipe, 4) not in cells.index
        assert cells.loc[("first", recipe, 4), ["combinations", "planned"]].tolist() == [1, 1]
    laid = tables.layout(cells.reset_index(), {}, LOOKS, small=lambda _: ())
    assert tables.to_html(laid, "Base, %").count("– (0 of 1)") == 2


def test_a_method_with_no_merge_of_a_base_leaves_nothing_else_out(plan):
    """It is compared nowhere; a study of one subset, as the ablation, would be empty otherwise."""
    gone = [
        row | {"missing": "out of memory"}
        if row["base"] == "first" and row["recipe"] == "iso_c"
        else row
        for row in plan
    ]
    merges = scores.read(gone)[1]
    assert (merges["left_out"] == "out of memory").sum() == 4
    assert merges["gain"].isna().sum() == 4


def test_what_a_study_goes_on_without_counts_nowhere_though_its_scores_lie_there(plan):
    gone = [
        row | {"missing": "it holds expert-01"} if "expert-01" in row["members"] else row
        for row in plan
    ]
    tidy, merges = scores.read(gone)
    assert not tidy["members"].str.contains("expert-01").any()
    assert "expert-01" not in set(merges["best_model"])
    assert merges.loc[merges["left_out"] != "", "evaluate_seconds"].isna().all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda s: s["tasks"]["piqa"].update(value=float("nan")),
            "piqa should be a number from 0 to 1",
        ),
        (lambda s: s["tasks"]["piqa"].update(value=1.5), "piqa should be a number from 0 to 1"),
        (lambda s: s["tasks"].pop("piqa"), "mean of its tasks"),
        (lambda s: s.update(accuracy=float("nan")), "mean of its tasks"),
        (lambda s: s.update(recipe="tsv_m"), "its recipe is 'tsv_m'"),
        (lambda s: s["tasks"]["piqa"].update(questions=7), "on the same questions"),
    ],
)
def test_scores_that_cannot_be_right_are_refused(plan, tmp_path, change, says):
    with pytest.raises(WildmergeError, match=says):
        scores.read(edited(plan, tmp_path, 3, change))


@pytest.mark.parametrize(
    ("kind", "change", "name"),
    [
        ("scores", {"model_digest": "0" * 64}, "first/n02-01/ties"),
        ("summary", {"output_digest": "0" * 64}, "first/n02-01/ties"),
        ("summary", {"inputs": {"base": "0" * 64}}, "first/base"),
    ],
)
def test_files_of_other_weights_under_one_name_are_in_no_table(plan, tmp_path, kind, change, name):
    row = next(row for row in plan if row["summary"])
    other = tmp_path / "other.json"
    other.write_text(json.dumps(json.loads(Path(row[kind]).read_text()) | change))
    wrong = [row | {kind: str(other)} if each is row else each for each in plan]
    for made in (scores.read, gather):
        with pytest.raises(WildmergeError, match=f"expected under the name {name}, but .*other"):
            made(wrong)


def test_gains_are_worked_out_by_hand():
    rows = [
        ("base", 0, "identity", 0.50),
        ("a", 1, "identity", 0.48),
        ("b", 1, "identity", 0.52),
        ("n02-01", 2, "ties", 0.53),
        ("n02-02", 2, "ties", 0.49),
        ("n02-03", 2, "ties", 0.50),
    ]
    blank = dict.fromkeys(scores.MERGES)
    merges = scores.with_gains(
        pd.DataFrame(
            [
                blank | {"base": "x", "suite": "s", "subset": s, "n": n, "recipe": r, "accuracy": a}
                for s, n, r, a in rows
            ]
        )
    )
    assert merges["best_model"].unique().tolist() == ["b"]
    assert merges["gain"].round(9).tolist() == [0, -2, 2, 3, -1, 0]
    assert merges["gain_over_best"].round(9).tolist() == [-2, -4, 0, 1, -3, -2]
    cells = tables.success(merges, "gain", LOOKS).set_index(["recipe", "n"])
    assert cells.loc[("ties", 1), ["combinations", "share"]].tolist() == [2, 50]
    assert cells.loc[("ties", 2), "share"] == pytest.approx(100 / 3)  # equal is not above
    assert cells.loc[("ties", 2), "gain"] == pytest.approx(2 / 3)
    assert tables.cell(100 / 3, 2 / 3) == "33 / +0.67"
    assert tables.cell(float("nan"), float("nan")) == "–"


def published(number):
    return pd.read_csv(PUBLISHED / f"table{number}.csv")


@pytest.mark.parametrize(("number", "rows"), [(1, 105), (2, 35), (3, 140)])
def test_published_tables_are_whole(number, rows):
    table = published(number)
    assert len(table) == rows
    assert not table.isna().any(axis=None)
    assert not table.duplicated(["base", "recipe", "n"]).any()
    # A share is a number of models out of k, printed without digits, .66 once cut for .67.
    rows = table[table["base"] != "average"]
    models = rows["share"] * rows["combinations"] / 100
    assert ((models - models.round()).abs() <= rows["combinations"] / 100).all()


def test_published_averages_are_averages_but_for_the_slips():
    """The slips that config/published/README.md lists are all there are."""
    slips = set()
    for number in (1, 2, 3):
        table = published(number)
        ours = table[table["base"] != "average"].groupby(["recipe", "n"])[["share", "gain"]].mean()
        print_ = table[table["base"] == "average"].set_index(["recipe", "n"])
        off = (ours - print_[["share", "gain"]]).abs()
        assert (off["share"] <= 0.75).all()  # a mean of rounded shares, rounded
        slips |= {(number, *key) for key in off.index[off["gain"] > 0.0101]}
    assert slips == {
        *((2, "task_arithmetic", n) for n in (1, 2, 4, 6, 8, 10, 12)),
        (3, "task_arithmetic_sb", 2),
        (3, "task_arithmetic_sb", 4),
        (3, "tsv_m", 8),
        (3, "iso_c", 4),
    }


def test_aggregation_reproduces_the_papers_averages_from_its_own_rows():
    """Merges that have Table 1's gains, fed through `success`, give Table 1's average block."""
    table = published(1)
    rows = table[table["base"] != "average"]
    recipes = rows["recipe"].unique()
    merges = []
    for r in rows.itertuples():
        if r.n == 1 and r.recipe != recipes[0]:
            continue  # the single checkpoints are the same for every method
        above = round(r.share * r.combinations / 100)
        # Any gains with that mean and that many above zero.
        high, low = (abs(r.gain) + 1, -abs(r.gain) - 1)
        gains = [high] * above + [low] * (r.combinations - above)
        side = high if r.gain * r.combinations > sum(gains) else low
        if above in (0, r.combinations):
            gains = [r.gain] * r.combinations
        else:
            index = gains.index(side)
            gains[index] += r.gain * r.combinations - sum(gains)
        recipe = "identity" if r.n == 1 else r.recipe
        merges += [
            {"base": r.base, "suite": "paper", "recipe": recipe, "n": r.n, "gain": g} for g in gains
        ]
    cells = tables.success(pd.DataFrame(merges), "gain", LOOKS)
    cells = tables.beside_published(cells, [published(1)])
    assert len(cells) == len(table)
    assert (cells["share"] - cells["published_share"]).abs().max() < 1
    assert (cells["gain"] - cells["published_gain"]).abs().max() < 0.0101


def test_published_numbers_stand_beside_their_own_kind_only():
    keys = itertools.product(["llama-3.2-3b", "other"], ["paper", "demo"])
    cells = pd.DataFrame(
        [
            {"base": b, "suite": s, "recipe": "ties", "n": 4, "combinations": 15, "share": 50.0,
             "gain": 0.1, "planned": 15}
            for b, s in keys
        ]
    )  # fmt: skip
    cells = tables.beside_published(cells, [published(1)])
    shown = cells.dropna(subset="published_gain")
    assert shown[["base", "suite"]].values.tolist() == [["llama-3.2-3b", "paper"]]
    assert shown["published_share"].tolist() == [60]
    laid = tables.layout(cells, {("other", "demo"): 0.5}, LOOKS)
    assert laid[0] == ["n = 4 (15)"]
    page, tex = tables.to_html(laid, "Base, %"), tables.to_latex(laid, "Base, %")
    for text in (page, tex):
        assert "nan" not in text.lower()
        assert "60 / " in text
    assert page.count("<tr") == page.count("</tr>") == 5
