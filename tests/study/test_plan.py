"""A study as data: draws, names, plans, and the errors of a wrong sheet."""

from collections import Counter
from math import comb

import pytest
from wildmerge import WildmergeError
from wildmerge.study.plan import draws, draws_without, plan, study_recipes

RECIPES = {
    "ties": {"merge_method": "ties_hashed", "parameters": {"density": 0.1, "lambda": 0.1}},
    "tsv_m": {"merge_method": "tsv_m", "parameters": {"combine": "sum"}},
    "model_stock": {"merge_method": "model_stock"},
}
MODELS = [
    {"base": "llama", "model": "base", "pool": "", "domain": ""},
    *(
        {"base": "llama", "model": m, "pool": "wild", "domain": d}
        for m, d in zip("abcd", ["math", "math", "medical", "code"], strict=True)
    ),
    {"base": "llama", "model": "e", "pool": "other;wild2", "domain": "math"},
]
STUDY = {
    "bases": ["llama"],
    "pool": "wild",
    "sizes": [2, 4],
    "draws": 3,
    "recipes": ["ties", "tsv_m"],
    "suites": ["s"],
}


def test_draws_are_distinct_nested_and_whatever_the_order_of_the_pool():
    members = list("abcdefghijkl")
    fifteen = draws(members, 6, 15, seed=0)
    assert len(set(fifteen)) == 15
    assert all(len(set(subset)) == 6 for subset in fifteen)
    assert draws(members, 6, 20, seed=0)[:15] == fifteen
    assert draws(members[::-1], 6, 15, seed=0) == fifteen
    assert draws(members, 6, 15, seed=1) != fifteen


def test_draws_end_where_the_subsets_end():
    assert draws("abc", 3, 15, seed=0) == [("a", "b", "c")]
    assert sorted(draws("abcd", 2, 99, seed=0)) == sorted(set(draws("abcd", 2, 99, seed=5)))
    assert len(draws("abcd", 2, 99, seed=0)) == comb(4, 2)


def test_draws_are_uniform():
    # 4,000 first draws over the 10 pairs of five: each is expected 400 times, sd 19.
    counts = Counter(draws("abcde", 2, 1, seed)[0] for seed in range(4000))
    assert len(counts) == 10
    assert all(abs(count - 400) < 5 * 19 for count in counts.values())


def test_plan_counts_base_singles_and_merges_on_shared_subsets():
    rows = plan(STUDY, MODELS, RECIPES, "study")
    assert Counter(row.n for row in rows) == {0: 1, 1: 4, 2: 3 * 2, 4: 1 * 2}
    by_recipe = {
        recipe: [(r.subset, r.members) for r in rows if r.recipe == recipe]
        for recipe in STUDY["recipes"]
    }
    assert by_recipe["ties"] == by_recipe["tsv_m"]
    assert [subset for subset, _ in by_recipe["ties"]] == ["n02-01", "n02-02", "n02-03", "n04-01"]


def test_draws_without_some_members_keep_those_that_never_held_them():
    """With the number that they have among the draws of all, however many are drawn."""
    members = list("abcdefghijkl")
    for n in (2, 5, 7):
        every = {subset: i for i, subset in enumerate(draws(members, n, 40, seed=0), 1)}
        found = draws_without({"c", "k"}, members, n, 15, seed=0)
        assert len(found) == 15
        assert not any({"c", "k"} & set(subset) for subset in found)
        kept = [(subset, i) for subset, i in found.items() if i]
        assert all(every[subset] == i for subset, i in kept if subset in every)
        # No draw of all that could stay is drawn anew under another name.
        assert all(i for subset, i in found.items() if every.get(subset, 99) <= 15)
        more = draws_without({"c", "k"}, members, n, 20, seed=0)
        assert list(more)[:15] == list(found)
        assert all(more[subset] == i for subset, i in kept)
    assert len(draws_without({"c", "k"}, members, 10, 15, seed=0)) == 1
    assert draws_without({"c", "k"}, members, 11, 15, seed=0) == {}


def test_a_study_drawn_again_shares_the_draws_that_agree():
    before = {r.subset: r.members for r in plan(STUDY, MODELS, RECIPES, "s") if r.is_merge}
    assert any("b" in members for members in before.values())
    more = plan(STUDY | {"draws": 99}, MODELS, RECIPES, "s")
    known = {r.subset: r.members for r in more if r.is_merge}
    rows = plan(STUDY | {"without": ["llama/b"]}, MODELS, RECIPES, "s")
    after = {r.subset: r.members for r in rows if r.is_merge}
    assert not any("b" in r.members for r in rows)
    assert [r.n for r in rows if r.is_merge and r.recipe == "ties"] == [2, 2, 2]  # of four none
    shared = before.keys() & after.keys()
    assert shared and set(before.values()) & set(after.values()) == {after[n] for n in shared}
    # One name, one meaning, also where the study is drawn further.
    assert all(known[name] == after[name] for name in known.keys() & after.keys())
    assert all(name.startswith("w") for name in after.keys() - known.keys())


def test_a_draw_is_named_by_what_differs_from_the_usual():
    rows = plan(STUDY | {"seed": 3, "recipes": ["ties"]}, MODELS, RECIPES, "study")
    assert "s3-n04-01" in {row.subset for row in rows}
    other = [row | {"pool": "mine" if row["pool"] else ""} for row in MODELS]
    rows = plan(STUDY | {"pool": "mine", "sizes": [4]}, other, RECIPES, "study")
    assert "mine-n04-01" in {row.subset for row in rows}


def test_groups_take_all_checkpoints_of_their_domains():
    study = {
        "bases": ["llama"],
        "pool": "wild",
        "recipes": ["ties"],
        "suites": ["s", "t"],
        "groups": {
            "sums": {"domains": ["math"], "suites": ["s"]},
            "sums-medical": {"domains": ["math", "medical"]},
        },
    }
    rows = [row for row in plan(study, MODELS, RECIPES, "study") if row.is_merge]
    assert [(row.subset, row.members, row.suite) for row in rows] == [
        ("sums", ("a", "b"), "s"),
        ("sums-medical", ("a", "b", "c"), "s"),
        ("sums-medical", ("a", "b", "c"), "t"),
    ]


def test_sweeps_are_named_by_what_differs_and_share_the_default_point():
    study = {
        "recipes": ["ties"],
        "sweeps": [
            {"recipe": "ties", "parameters": {"density": [0.1, 0.3], "lambda": [0.1, 1]}},
            {"recipe": "tsv_m", "parameters": {"combine": ["sum", "mean"]}},
        ],
    }
    found = study_recipes(study, RECIPES, "study")
    assert list(found) == [
        "ties",
        "ties-lambda1",
        "ties-density0.3",
        "ties-density0.3-lambda1",
        "tsv_m",
        "tsv_m-combine_mean",
    ]
    assert found["ties-density0.3"]["parameters"] == {"density": 0.3, "lambda": 0.1}
    assert found["ties"]["name"] == "ties"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"bases": ["lama"]}, "a base of config/models.tsv was expected, found 'lama'"),
        ({"recipes": ["dare"]}, "a recipe of config/recipes.yaml was expected, found 'dare'"),
        ({"sizes": [2, 5]}, "sizes up to 4 were expected"),
        ({"pool": "wilde"}, "checkpoints of llama in pool 'wilde' were expected"),
        (
            {"models": ["a", "x"]},
            "a checkpoint of llama in config/models.tsv was expected, found 'x'",
        ),
        ({"without": ["llama/x"]}, "found llama/x. Of llama it has a, b, c, d"),
        ({"sizes": [4], "without": ["llama/a"]}, "sizes up to 3 were expected"),
        ({"without": ["qwen/a"]}, "found qwen/a. Its bases are llama"),
        ({"groups": {"g": {"domains": ["code"]}}}, "at least two checkpoints of llama"),
        (
            {"sweeps": [{"recipe": "ties", "parameters": {"beta": [1]}}]},
            "a parameter of the recipe was expected (density, lambda), found 'beta'",
        ),
    ],
)
def test_a_plan_that_cannot_be_says_what_and_where(change, expected):
    with pytest.raises(WildmergeError) as error:
        plan(STUDY | change, MODELS, RECIPES, "config/studies/mine.yaml")
    assert expected in str(error.value)
    assert str(error.value).startswith("config/studies/mine.yaml")
