"""Figures on simulated studies: what is drawn where, gaps shown as gaps, files alike."""

import importlib

import matplotlib.colors
import matplotlib.pyplot as plt
import numpy as np
import pytest
import simulate
from drawing import PAPERS, inputs
from wildmerge import WildmergeError
from wildmerge.analysis import compare_study, gather, scores
from wildmerge.methods import METHODS
from wildmerge.reporting.looks import Looks
from wildmerge.reporting.numbers import signed
from wildmerge.reporting.plots import save
from wildmerge.study import catalogue, plan

POOL = {"first": ["ann", "bob", "cat"], "second": ["dan", "eve"]}


def figure(name):
    """The module of a figure."""
    return importlib.import_module(f"wildmerge.reporting.figures.{name}")


class Tables:
    """The tables of a simulated study."""

    def __init__(self, planned):
        self.scores, self.merges = scores.read(planned)
        vars(self).update(compare_study(gather(planned)))


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
    spec = {
        "sweeps": [
            {"recipe": "task_arithmetic", "parameters": {"combine": ["mean", "sum"],
                                                         "lambda": [0.1, 1.0, 10]}},
            {"recipe": "ties", "parameters": {"density": [0.1, 1.0], "lambda": [0.1, 1.0]}},
            {"recipe": "task_arithmetic_sb", "parameters": {"beta": [0, 0.2, 0.5]}},
        ]
    }  # fmt: skip
    points = plan.study_recipes(spec, PAPERS, "test")
    planned = simulate.ablation(tmp_path_factory.mktemp("sweep"), points, tasks={"piqa": 80})
    return Tables(planned), points


@pytest.fixture(scope="module")
def domains(tmp_path_factory):
    return Tables(simulate.homogeneous(tmp_path_factory.mktemp("domains"), recipes=["ties"]))


def line(ax, label):
    (found,) = [entry for entry in ax.get_lines() if entry.get_label() == label]
    return found


def test_accuracy_by_n_draws_means_and_standard_deviations(small):
    drawn = figure("accuracy_by_n").draw(inputs(merges=small.merges))
    assert len(drawn.axes) == 4  # two bases, two families
    ax = drawn.axes[0]
    rows = small.merges.query("base == 'first' and recipe == 'ties'").groupby("n")["accuracy"]
    assert line(ax, "TIES").get_xdata().tolist() == [2, 3, 5]
    assert line(ax, "TIES").get_ydata() == pytest.approx(100 * rows.mean().to_numpy())
    assert line(ax, "TIES").get_color() == METHODS["ties_hashed"].look.colour
    colour = pytest.approx(matplotlib.colors.to_rgb(METHODS["ties_hashed"].look.colour))
    band = [c for c in ax.collections if c.get_facecolor()[0][:3] == colour]
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
    drawn = figure("accuracy_by_n").draw(inputs(merges=merges))
    assert line(drawn.axes[0], "TIES").get_xdata().tolist() == [2, 3]
    assert len(figure("gain_by_norm").draw(inputs(merges=merges)).axes) == 2


@pytest.mark.parametrize("gone", [("expert-01",), ("expert-01", "expert-02", "expert-03")])
def test_figures_and_tables_are_made_of_what_there_is(tmp_path, gone):
    """A base that lost a checkpoint, and one that lost all of its merges."""
    bases, tasks = ["first", "second"], {"piqa": 60, "boolq": 40}
    planned = simulate.study(tmp_path, bases, 4, {2: 5, 3: 4, 4: 1}, ["ties", "iso_c"], tasks)
    planned = [
        row | {"missing": "it is gone"}
        if row["base"] == "second" and set(row["members"]) & set(gone)
        else row
        for row in planned
    ]
    found = Tables(planned)
    frames = {name: getattr(found, name) for name in (*vars(found),)}
    for name in ("gain_by_method", "accuracy_by_n", "gain_by_merge", "task_gains", "gain_by_norm",
                 "norm_by_n", "membership", "task_accuracy"):  # fmt: skip
        save(figure(name).draw(inputs(**frames)), tmp_path / "x.pdf", tmp_path / "x.png")
    merged = found.merges.query("base == 'second' and n > 1 and accuracy.notna()")
    assert merged.empty == (len(gone) == 3)
    cells = importlib.import_module("wildmerge.reporting.tables.significance").make(
        inputs(**frames)
    )
    assert ("(0 of 1)" in cells[2]) and ("of 5)" in cells[2])


def test_a_base_without_a_task_says_so(small):
    scored = small.scores
    scored = scored[(scored["base"] == "first") | (scored["task"] == "piqa")]
    drawn = figure("task_accuracy").draw(inputs(scores=scored))
    told = [text.get_text() for ax in drawn.axes for text in ax.texts]
    assert told == ["not measured"]
    drawn = figure("task_gains").draw(inputs(scores=scored))
    cells = [text.get_text() for text in drawn.axes[1].texts]
    recipes = scored["recipe"].nunique() - 1
    assert cells.count("–") == recipes
    assert not any("nan" in text for text in cells)


def test_task_gains_are_means_over_merges(small):
    rows = small.scores[small.scores["base"] == "first"]
    gains = figure("task_gains").gains(rows, ["piqa", "boolq"], Looks(PAPERS))
    rows = small.merges.query("base == 'first' and recipe == 'iso_c'")
    assert gains.loc["iso_c", "mean"] == pytest.approx(rows["gain"].mean())
    assert [PAPERS[recipe]["merge_method"] for recipe in gains.index] == list(METHODS)


def test_norms_by_n(small):
    ax = figure("norm_by_n").draw(inputs(merges=small.merges)).axes[0]
    norm = small.merges.query("recipe == 'tsv_m'")["norm"].iloc[0]
    assert line(ax, "TSV-M").get_ydata() == pytest.approx([norm] * 3)


def test_forest_counts_verdicts_and_names_few_merges(small):
    drawn = figure("gain_by_merge").draw(inputs(comparisons=small.comparisons))
    assert len(drawn.axes) == 2 * len(METHODS)
    ax = drawn.axes[0]
    assert ax.get_yticklabels()[0].get_text() == "n02-01"
    own = small.comparisons.query("base == 'first' and reference == 'base' and n > 1")
    own = own[own["recipe"] == "task_arithmetic"]
    above = (own["verdict"] == "above").sum()
    assert f"{above} above" in ax.get_xlabel()
    assert f"of {len(own)}" in ax.get_xlabel()


def test_answers_are_drawn_for_each_base_and_their_mean(small):
    drawn = figure("gain_by_method").draw(inputs(answers=small.answers))
    titles = [ax.get_title(loc="left") for ax in drawn.axes]
    assert titles == ["first", "second", "Mean over bases"]
    marks = [entry for entry in drawn.axes[0].get_lines() if entry.get_marker() == "o"]
    row = small.answers.query("base == 'first' and recipe == 'task_arithmetic'").iloc[0]
    assert marks[0].get_xdata()[0] == pytest.approx(row["gain"])


def test_membership_says_when_draws_are_too_few(small):
    few = small.merges[small.merges["n"] != 3]
    told = [
        t.get_text() for ax in figure("membership").draw(inputs(merges=few)).axes for t in ax.texts
    ]
    assert set(told) == {"too few draws to compare the checkpoints"}


def test_membership_is_drawn_for_every_method(tmp_path):
    planned = simulate.study(
        tmp_path, pool=4, sizes={2: 6, 3: 4}, tasks={"piqa": 50}, recipes=["ties", "iso_c"]
    )
    merges = scores.read(planned)[1]
    names, recipes, effect, clear = figure("membership").effects(merges, Looks(PAPERS))
    assert names == [f"expert-0{i}" for i in (1, 2, 3, 4)]
    assert recipes == ["ties", "iso_c"]
    assert effect.sum(0) == pytest.approx([0, 0])  # relative to the average checkpoint
    assert clear.shape == effect.shape
    assert len(figure("membership").draw(inputs(merges=merges)).axes[0].texts) == 8


def test_sweeps_are_drawn_at_their_parameters(sweep):
    tables, recipes = sweep
    given = inputs(recipes, merges=tables.merges, comparisons=tables.comparisons)
    ax = figure("lambda_sweep").draw(given).axes[0]
    for label in ("mean of the task vectors", "sum, not normalised"):
        assert line(ax, label).get_xdata().tolist() == [0.1, 1, 10]
    accuracy = tables.merges.set_index("recipe")["accuracy"]
    assert line(ax, "mean of the task vectors").get_ydata()[1] == pytest.approx(
        100 * accuracy["task_arithmetic"]  # the recipe's own point stands among the sweep's
    )
    ax = figure("density_sweep").draw(given).axes[0]
    assert line(ax, "lambda 0.1 (the recipe's)").get_xdata().tolist() == [10, 100]
    ax = figure("beta_sweep").draw(given).axes[0]
    assert line(ax, "TA + SB").get_xdata().tolist() == [0, 0.2, 0.5]
    ax = figure("ties_grid").draw(given).axes[0]
    marks = [e for e in ax.get_lines() if e.get_linestyle() == "None" and len(e.get_xdata())]
    assert len(marks) == 4


def test_a_sweep_figure_of_a_study_without_the_sweep_is_refused(sweep):
    tables, recipes = sweep
    without = tables.merges[~tables.merges["recipe"].str.startswith("ties")]
    with pytest.raises(WildmergeError, match="recipe ties needs merges by it"):
        figure("ties_grid").draw(inputs(recipes, merges=without, comparisons=tables.comparisons))


def test_homogeneous_merges_stand_side_by_side(domains):
    groups = {"medical": {}, "math": {}, "medical-math": {}}
    study = {"suites": ["medical", "math"], "groups": groups}
    drawn = figure("homogeneous").draw(
        inputs(study=study, merges=domains.merges, comparisons=domains.comparisons)
    )
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
    drawn = figure(name).draw(inputs(similarities=similarities, checkpoints=POOL))
    panels = [ax for ax in drawn.axes if ax.get_title(loc="left")]
    shown = [[t.get_text() for t in ax.texts if t.get_text()] for ax in panels]
    assert [len(texts) for texts in shown] == [6, 2]  # nothing on the diagonal
    assert [t.get_text() for t in panels[0].get_yticklabels()] == ["ann  1", "bob  2", "cat  3"]
    assert not any("nan" in t.get_text() for ax in panels for t in ax.texts)


def test_files_are_the_same_every_time_and_embed_their_fonts(small, tmp_path):
    for folder in ("one", "two"):
        drawn = figure("norm_by_n").draw(inputs(merges=small.merges))
        save(drawn, tmp_path / folder / "a.pdf", tmp_path / folder / "a.png")
    for name in ("a.pdf", "a.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert b"/FontFile2" in (tmp_path / "one/a.pdf").read_bytes()


def test_methods_look_different_in_colour_and_in_grey():
    looks = [method.look for method in METHODS.values()]
    assert len({look.colour for look in looks}) == len({look.marker for look in looks}) == 7
    assert signed(-0.001) == "0.00"
    assert signed(float("nan")) == "–"


def test_labels_are_those_of_the_recipes_and_say_what_a_sweep_changes():
    recipes = PAPERS | {"low": PAPERS["ties"] | {"label": "TIES, low"}}
    sweeps = [
        {"recipe": "ties", "parameters": {"density": [0.3], "lambda": [1.0, 0.1]}},
        {"recipe": "task_arithmetic", "parameters": {"combine": ["sum"]}},
    ]
    names = ["low", "dare_ties", "breadcrumbs", "iso_c"]
    looks = Looks(plan.study_recipes({"recipes": names, "sweeps": sweeps}, recipes, "test"))
    assert looks.label("dare_ties") == "DARE-TIES"
    assert looks.label("low") == "TIES, low"
    assert looks.label("ties-density0.3-lambda1") == "TIES (density 0.3, lambda 1)"
    assert looks.label("ties") == "TIES"  # no point of the sweep: known from those that vary it
    assert looks.label("task_arithmetic-combine_sum") == "TA (combine sum)"
    point = looks.of("task_arithmetic-combine_sum")
    assert (point.dash, point.hollow) == (":", True)
    with pytest.raises(WildmergeError, match="A recipe of the study was expected, found 'zeta'"):
        looks.label("zeta")
    ordered = looks.order([*names, "identity", "ties-density0.3", "ties-density0.3-lambda1"])
    assert ordered == [
        "low",
        "ties-density0.3-lambda1",
        "ties-density0.3",
        "iso_c",
        "dare_ties",
        "breadcrumbs",
    ]
    assert looks.families(ordered)["other"] == ["dare_ties", "breadcrumbs"]


def test_no_two_recipes_of_a_study_look_alike():
    many = {f"other{i}": PAPERS["dare_ties"] for i in range(40)}
    recipes = PAPERS | {"low": PAPERS["ties"]} | many
    grid = {"density": [i / 20 for i in range(1, 11)], "lambda": [0.1, 0.2, 0.5, 1, 2, 3]}
    sweeps = [{"recipe": name, "parameters": grid} for name in ("ties", "low", "dare_ties")]
    study = {"recipes": [*recipes], "sweeps": sweeps}
    recipes = plan.study_recipes(study, recipes, "test")
    looks = Looks(recipes)
    drawn = [looks.of(recipe) for recipe in recipes]
    seen = [(look.colour, look.marker, look.dash) for look in drawn]
    assert len(recipes) > 200
    assert len(set(seen)) == len(seen)
    assert looks.of("ties") == METHODS["ties_hashed"].look
    assert looks.of("low") != METHODS["ties_hashed"].look  # the method's look is taken


@pytest.mark.parametrize("kind", catalogue.KINDS)
def test_every_figure_and_table_declares_what_it_takes(kind):
    assert len(catalogue.names(kind)) >= 3
    for name in catalogue.names(kind):
        declared = catalogue.declaration(kind, name)
        module = importlib.import_module(f"wildmerge.reporting.{kind}.{name}")
        assert declared.inputs == module.INPUTS
        assert declared.caption == " ".join(module.CAPTION.split())


def test_an_input_that_is_not_declared_is_not_there(small):
    with pytest.raises(WildmergeError, match=r"answers\.csv was expected among the inputs"):
        figure("gain_by_method").draw(inputs(merges=small.merges))


def test_nested_intervals_show_every_population_that_is_known(small):
    drawn = figure("nested_intervals").draw(inputs(answers=small.answers))
    assert len(drawn.axes) == 3  # two bases and their mean
    rows = small.answers.query("base == 'first' and reference == 'base'")
    known = rows[["questions_low", "both_low", "checkpoints_low"]].notna().sum().sum()
    assert len(drawn.axes[0].collections) == known
    mean = small.answers.query("base == 'average' and reference == 'base'")
    assert len(drawn.axes[2].collections) == mean[["questions_low", "bases_low"]].size


def test_the_matrix_of_methods_has_every_pair_twice(small):
    module = figure("method_matrix")
    drawn = module.draw(inputs(methods=small.methods))
    assert len(drawn.axes) == 2
    pairs = small.methods.query("base == 'first' and n == 'all' and contrast == ''")
    recipes = Looks(PAPERS).order([*pairs["a"], *pairs["b"]])
    values, texts = module.matrix(pairs, recipes)
    assert np.nan_to_num(values + values.T) == pytest.approx(np.zeros_like(values))
    told = [text for row in texts for text in row if text]
    assert len(told) == len(recipes) * (len(recipes) - 1)
    assert (
        sum(text.endswith("*") for text in told)
        == 2 * pairs["verdict"].isin(["above", "below"]).sum()
    )


def test_the_power_curve_stands_over_what_was_seen(small):
    ax = (
        figure("power_curve")
        .draw(inputs(comparisons=small.comparisons, scores=small.scores))
        .axes[0]
    )
    own = small.comparisons.query("base == 'first' and reference == 'base' and n > 1")
    alone, corrected = line(ax, "seen, alone"), line(ax, "seen, corrected")
    assert (corrected.get_ydata()[1:] > alone.get_ydata()[1:]).all()
    churn = own["differing"].median()  # of 100 questions
    seen = np.interp(churn, alone.get_xdata(), alone.get_ydata())
    assert seen == pytest.approx(own.loc[own["differing"] == churn, "mde"].median(), rel=0.2)


def test_shares_stand_on_what_they_would_be_without_a_gain(small):
    drawn = figure("share_band").draw(inputs(answers=small.answers))
    assert len(drawn.axes) == 2
    rows = small.answers.query("base == 'first' and reference == 'base'")
    bands = sorted((bar.get_x(), bar.get_width()) for bar in drawn.axes[0].patches)
    assert bands == sorted(
        zip(rows["share_null_low"], rows["share_null_high"] - rows["share_null_low"], strict=True)
    )
