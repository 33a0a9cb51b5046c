"""Figures on simulated studies: what is drawn where, gaps shown as gaps, files alike."""

import importlib
import itertools

import matplotlib.colors
import matplotlib.pyplot as plt
import numpy as np
import pytest
import simulate
import yaml
from project import ROOT, SOURCE
from wildmerge import WildmergeError
from wildmerge.analysis import compare, scores
from wildmerge.reporting import looks as style
from wildmerge.study import plan

DRAWN = [
    path
    for kind in ("figures", "tables")
    for path in (SOURCE / "wildmerge/reporting" / kind).glob("[a-z]*.py")
]
POOL = {"first": ["ann", "bob", "cat"], "second": ["dan", "eve"]}


def figure(name):
    """The module of a figure."""
    return importlib.import_module(f"wildmerge.reporting.figures.{name}")


class Tables:
    """The tables of a simulated study."""

    def __init__(self, planned):
        self.scores, self.merges = scores.read(planned)
        self.comparisons, self.intervals, self.answers = compare.study(planned, seed=0)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    tasks = {"piqa": 60, "boolq": 40}
    sizes = {2: 5, 3: 4, 5: 1}
    folder = tmp_path_factory.mktemp("small")
    return Tables(simulate.study(folder, ["first", "second"], 5, sizes, tasks=tasks))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    recipes = yaml.safe_load((ROOT / "config/recipes.yaml").read_text())
    spec = {
        "sweeps": [
            {"recipe": "task_arithmetic", "parameters": {"combine": ["mean", "sum"],
                                                         "lambda": [0.1, 1.0, 10]}},
            {"recipe": "ties", "parameters": {"density": [0.1, 1.0], "lambda": [0.1, 1.0]}},
            {"recipe": "task_arithmetic_sb", "parameters": {"beta": [0, 0.2, 0.5]}},
        ]
    }  # fmt: skip
    points = plan.study_recipes(spec, recipes, "test")
    planned = simulate.ablation(tmp_path_factory.mktemp("sweep"), points, tasks={"piqa": 80})
    return Tables(planned), recipes | points


@pytest.fixture(scope="module")
def domains(tmp_path_factory):
    return Tables(simulate.homogeneous(tmp_path_factory.mktemp("domains"), recipes=["ties"]))


def line(ax, label):
    (found,) = [entry for entry in ax.get_lines() if entry.get_label() == label]
    return found


def test_accuracy_by_n_draws_means_and_standard_deviations(small):
    drawn = figure("accuracy_by_n").draw(small.merges)
    assert len(drawn.axes) == 4  # two bases, two families
    ax = drawn.axes[0]
    rows = small.merges.query("base == 'first' and recipe == 'ties'").groupby("n")["accuracy"]
    assert line(ax, "TIES").get_xdata().tolist() == [2, 3, 5]
    assert line(ax, "TIES").get_ydata() == pytest.approx(100 * rows.mean().to_numpy())
    assert line(ax, "TIES").get_color() == style.METHODS["ties"].colour
    band = [c for c in ax.collections if c.get_facecolor()[0][:3] ==
            pytest.approx(matplotlib.colors.to_rgb(style.METHODS["ties"].colour))]  # fmt: skip
    top = band[0].get_paths()[0].vertices
    at_two = top[top[:, 0] == 2][:, 1]
    assert at_two.max() == pytest.approx(100 * (rows.mean()[2] + rows.std()[2]))
    assert top[:, 0].max() == 3  # one draw of five, no band there
    base = small.merges.query("base == 'first' and subset == 'base'")["accuracy"].iloc[0]
    assert line(ax, "base").get_ydata()[0] == pytest.approx(100 * base)


def test_a_merge_without_scores_leaves_a_gap(small):
    merges = small.merges.copy()
    gone = (merges["recipe"] == "ties") & (merges["n"] == 5)
    merges.loc[gone, ["accuracy", "gain"]] = np.nan
    drawn = figure("accuracy_by_n").draw(merges)
    assert line(drawn.axes[0], "TIES").get_xdata().tolist() == [2, 3]
    assert len(figure("gain_by_norm").draw(merges).axes) == 2


def test_a_base_without_a_task_says_so(small):
    scored = small.scores
    scored = scored[(scored["base"] == "first") | (scored["task"] == "piqa")]
    drawn = figure("task_accuracy").draw(scored)
    told = [text.get_text() for ax in drawn.axes for text in ax.texts]
    assert told == ["not measured"]
    drawn = figure("task_gains").draw(scored)
    cells = [text.get_text() for text in drawn.axes[1].texts]
    recipes = scored["recipe"].nunique() - 1
    assert cells.count("–") == recipes
    assert not any("nan" in text for text in cells)


def test_task_gains_are_means_over_merges(small):
    rows = small.scores[small.scores["base"] == "first"]
    gains = figure("task_gains").gains(rows, ["piqa", "boolq"])
    rows = small.merges.query("base == 'first' and recipe == 'iso_c'")
    assert gains.loc["iso_c", "mean"] == pytest.approx(rows["gain"].mean())
    assert list(gains.index) == list(style.METHODS)


def test_norms_by_n(small):
    ax = figure("norm_by_n").draw(small.merges).axes[0]
    norm = small.merges.query("recipe == 'tsv_m'")["norm"].iloc[0]
    assert line(ax, "TSV-M").get_ydata() == pytest.approx([norm] * 3)


def test_forest_counts_verdicts_and_names_few_merges(small):
    drawn = figure("gain_by_merge").draw(small.comparisons)
    assert len(drawn.axes) == 2 * len(style.METHODS)
    ax = drawn.axes[0]
    assert ax.get_yticklabels()[0].get_text() == "n02-01"
    own = small.comparisons.query("base == 'first' and reference == 'base' and n > 1")
    own = own[own["recipe"] == "task_arithmetic"]
    above = (own["verdict"] == "above").sum()
    assert f"{above} above" in ax.get_xlabel()
    assert f"of {len(own)}" in ax.get_xlabel()


def test_answers_are_drawn_for_each_base_and_their_mean(small):
    drawn = figure("gain_by_method").draw(small.answers)
    titles = [ax.get_title(loc="left") for ax in drawn.axes]
    assert titles == ["first", "second", "Mean over bases"]
    marks = [entry for entry in drawn.axes[0].get_lines() if entry.get_marker() == "o"]
    row = small.answers.query("base == 'first' and recipe == 'task_arithmetic'").iloc[0]
    assert marks[0].get_xdata()[0] == pytest.approx(row["gain"])


def test_membership_says_when_draws_are_too_few(small):
    few = small.merges[small.merges["n"] != 3]
    told = [t.get_text() for ax in figure("membership").draw(few).axes for t in ax.texts]
    assert set(told) == {"too few draws to tell the checkpoints apart"}


def test_membership_is_drawn_for_every_method(tmp_path):
    planned = simulate.study(
        tmp_path, pool=4, sizes={2: 6, 3: 4}, tasks={"piqa": 50}, recipes=["ties", "iso_c"]
    )
    merges = scores.read(planned)[1]
    names, recipes, effect, clear = figure("membership").effects(merges)
    assert names == [f"expert-0{i}" for i in (1, 2, 3, 4)]
    assert recipes == ["ties", "iso_c"]
    assert effect.sum(0) == pytest.approx([0, 0])  # relative to the average checkpoint
    assert clear.shape == effect.shape
    assert len(figure("membership").draw(merges).axes[0].texts) == 8


def test_sweeps_are_drawn_at_their_parameters(sweep):
    tables, recipes = sweep
    ax = figure("lambda_sweep").draw(tables.merges, tables.comparisons, recipes).axes[0]
    for label in ("mean of the task vectors", "sum, not normalised"):
        assert line(ax, label).get_xdata().tolist() == [0.1, 1, 10]
    accuracy = tables.merges.set_index("recipe")["accuracy"]
    assert line(ax, "mean of the task vectors").get_ydata()[1] == pytest.approx(
        100 * accuracy["task_arithmetic"]  # the recipe's own point stands among the sweep's
    )
    ax = figure("density_sweep").draw(tables.merges, tables.comparisons, recipes).axes[0]
    assert line(ax, "lambda 0.1 (the recipe's)").get_xdata().tolist() == [10, 100]
    ax = figure("beta_sweep").draw(tables.merges, tables.comparisons, recipes).axes[0]
    assert line(ax, "TA + SB").get_xdata().tolist() == [0, 0.2, 0.5]
    ax = figure("ties_grid").draw(tables.merges, tables.comparisons, recipes).axes[0]
    marks = [e for e in ax.get_lines() if e.get_linestyle() == "None" and len(e.get_xdata())]
    assert len(marks) == 4


def test_a_sweep_figure_of_a_study_without_the_sweep_is_refused(sweep):
    tables, recipes = sweep
    without = tables.merges[~tables.merges["recipe"].str.startswith("ties")]
    with pytest.raises(WildmergeError, match="recipe ties needs merges by it"):
        figure("ties_grid").draw(without, tables.comparisons, recipes)


def test_homogeneous_merges_stand_side_by_side(domains):
    groups = {"medical": {}, "math": {}, "medical-math": {}}
    study = {"suites": ["medical", "math"], "groups": groups}
    drawn = figure("homogeneous").draw(domains.merges, domains.comparisons, study)
    assert len(drawn.axes) == 2
    labels = drawn.axes[0].get_legend_handles_labels()[1]
    assert "medical experts merged (n = 3)" in labels
    assert "medical-math experts merged (n = 6)" in labels
    assert not any(label.startswith("math ") for label in labels)


def test_cosines_and_signs_are_counted_by_tensor():
    gram = np.array([[[4.0, 2, 0], [2, 1, 0], [0, 0, 0]], [[1, -1, 0], [-1, 4, 2], [0, 2, 1]]])
    cosine = figure("cosines").cosines(gram.sum(0))
    assert cosine[0, 1] == pytest.approx(1 / 5)
    assert cosine[0, 2] == 0
    assert figure("cosines").cosines(gram[0])[2].tolist() == [0, 0, 0]  # a tensor left alone
    positive, negative = figure("signs").counts(gram)
    assert positive.tolist() == [[2, 1, 0], [1, 2, 1], [0, 1, 1]]
    assert negative.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("name", ["cosines", "signs"])
def test_diagnostics_show_the_studys_own_checkpoints(name):
    similarities = {base: simulate.similarity([*models, "other"]) for base, models in POOL.items()}
    drawn = figure(name).draw(similarities, POOL)
    panels = [ax for ax in drawn.axes if ax.get_title(loc="left")]
    assert [len(ax.texts) for ax in panels] == [9, 4]
    assert [t.get_text() for t in panels[0].get_yticklabels()] == ["ann  1", "bob  2", "cat  3"]
    assert not any("nan" in t.get_text() for ax in panels for t in ax.texts)


def test_files_are_the_same_every_time_and_embed_their_fonts(small, tmp_path):
    for folder in ("one", "two"):
        drawn = figure("norm_by_n").draw(small.merges)
        style.save(drawn, tmp_path / folder / "a.pdf", tmp_path / folder / "a.png")
    for name in ("a.pdf", "a.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert b"/FontFile2" in (tmp_path / "one/a.pdf").read_bytes()


def test_methods_look_different_in_colour_and_in_grey():
    looks = list(style.METHODS.values())
    assert len({look.colour for look in looks}) == len({look.marker for look in looks}) == 7
    assert sorted(itertools.chain(*style.FAMILIES.values())) == sorted(style.METHODS)
    names = ["ties-density0.3", "zeta", "ties", "identity", "task_arithmetic", "dare"]
    assert style.order(names) == ["task_arithmetic", "ties", "ties-density0.3", "dare", "zeta"]
    assert style.method("ties-density0.3-lambda1").label == "TIES (density 0.3, lambda 1)"
    varied = style.method("task_arithmetic-combine_sum")
    assert varied.label == "TA (combine sum)"
    assert (varied.dash, varied.hollow) == (":", True)  # told from its recipe in the same panel
    assert style.signed(-0.001) == "0.00"
    assert style.signed(float("nan")) == "–"


def test_every_figure_and_table_has_a_caption():
    names = [path.stem for path in DRAWN]
    captions = {path.stem for path in (ROOT / "workflow/report").glob("*.rst")}
    assert set(names) <= captions
