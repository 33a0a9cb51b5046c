"""The planned contrasts of a study: recipes that are alike but for one choice."""

from project import ROOT
from wildmerge.study import Needs, paths, sheets
from wildmerge.study.contrasts import contrasts


def of_study(name):
    loaded = sheets.load(ROOT / "config", ROOT / "workflow/schemas")
    found = Needs(loaded, paths.Scratch()).declared(name)["contrasts"]
    return {entry["name"]: (entry["a"], entry["b"]) for entry in found}


def test_the_papers_study_contrasts_boosted_with_plain():
    assert of_study("wild") == {
        "boosted against plain": (["task_arithmetic_sb", "ties_sb"], ["task_arithmetic", "ties"])
    }


def test_sum_and_mean_are_contrasted_where_nothing_else_differs():
    found = of_study("combine")["sum against mean"]
    assert len(found[0]) == len(found[1]) == 4
    assert not {*found[0]} & {*found[1]}


def test_other_parameters_make_no_contrast():
    plain = {"merge_method": "task_arithmetic", "parameters": {"combine": "mean", "lambda": 1.0}}
    other = {"merge_method": "task_arithmetic", "parameters": {"combine": "sum", "lambda": 0.5}}
    boosted = {"combine": "mean", "lambda": 0.5, "beta": 0.2}
    recipes = {"a": plain, "b": other}
    recipes["c"] = {"merge_method": "task_arithmetic_sb", "parameters": boosted}
    assert contrasts(recipes) == []
