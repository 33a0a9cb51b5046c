"""Factorisations kept as files: merges with them are those without."""

import ast
import re

import pico
import pytest
import torch
from project import ROOT
from test_merging import RECIPES, tensors
from wildmerge import WildmergeError
from wildmerge.merging import factors
from wildmerge.merging import merge as merging
from wildmerge.methods import METHODS

DIGESTS = {"base": "b", "e0": "0"}
SHARING = ["iso_c", "task_arithmetic_sb"]


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    base = pico.llama(folder / "base", dtype=torch.float32)
    experts = {f"e{i}": pico.expert(base, folder / f"e{i}", seed=i, scale=0.3) for i in range(4)}
    return base, experts


@pytest.fixture(scope="module")
def of_experts(family, tmp_path_factory):
    base, experts = family
    folder = tmp_path_factory.mktemp("factors")
    for name, path in experts.items():
        factors.factorize_expert(base, path, folder / name, DIGESTS)
    return {name: factors.Factors(folder / name) for name in experts}


def apart(base, one, other):
    """The largest relative difference of two merges' updates."""
    start, one, other = tensors(base), tensors(one), tensors(other)
    return max(
        ((one[n] - other[n]).norm() / (one[n] - weight).norm()).item()
        for n, weight in start.items()
    )


@pytest.mark.parametrize("n", [2, 3, 4])
def test_tsv_m_from_the_experts_factors(n, family, of_experts, tmp_path):
    base, experts = family
    members = dict(list(experts.items())[:n])
    recipe = RECIPES["tsv_m"]
    merging.merge(base, members, recipe, tmp_path / "plain", dtype="float32")
    merging.merge(
        base,
        members,
        recipe,
        tmp_path / "shared",
        dtype="float32",
        factors=[of_experts[name] for name in members],
    )
    assert apart(base, tmp_path / "plain", tmp_path / "shared") < 1e-5


@pytest.mark.parametrize("combine", ["sum", "mean"])
@pytest.mark.parametrize("recipe", SHARING)
def test_sums_from_one_factorisation(recipe, combine, family, tmp_path):
    base, experts = family
    recipe = RECIPES[recipe]
    recipe = recipe | {"parameters": recipe["parameters"] | {"combine": combine, "lambda": -0.7}}
    factors.factorize_sum(base, list(experts.values()), tmp_path / "sum", DIGESTS)
    plain = merging.merge(base, experts, recipe, tmp_path / "plain", dtype="float32")
    shared = merging.merge(
        base,
        experts,
        recipe,
        tmp_path / "shared",
        dtype="float32",
        factors=[factors.Factors(tmp_path / "sum", DIGESTS)],
    )
    assert apart(base, tmp_path / "plain", tmp_path / "shared") < 1e-5
    assert shared["norm"] == pytest.approx(plain["norm"], rel=1e-5)


def test_experts_of_low_rank_keep_their_rank(tmp_path):
    base = pico.llama(tmp_path / "base", dtype=torch.float32)
    expert = pico.expert(base, tmp_path / "e", scale=0)
    from test_merging import change

    name = "model.layers.0.mlp.up_proj.weight"
    change(expert, lambda content: content[name][:2].add_(torch.randn(2, 32)))
    factors.factorize_expert(base, expert, tmp_path / "factors", DIGESTS)
    found = factors.Factors(tmp_path / "factors")
    with pytest.warns(UserWarning, match="rank 2 of 32, the 30 null directions"):
        values, vectors = found.leading(name, 16)
    assert values.shape == (2,)
    assert vectors.shape == (2, 32)
    shared = merging.merge(
        base,
        {"e": expert, "f": expert},
        RECIPES["tsv_m"],
        tmp_path / "out",
        dtype="float32",
        factors=[found, found],
    )
    assert any(f"{name}: rank 2" in warning for warning in shared["warnings"])


def test_factors_of_other_weights_are_refused(of_experts):
    folder = of_experts["e0"].weights.folder
    assert factors.Factors(folder, DIGESTS)
    with pytest.raises(WildmergeError, match="should have been made from weights with the digests"):
        factors.Factors(folder, DIGESTS | {"e0": "1"})


def test_factors_read_less(family, of_experts, tmp_path):
    base, experts = family
    factors.factorize_sum(base, list(experts.values()), tmp_path / "sum", DIGESTS)
    plain = merging.merge(base, experts, RECIPES["iso_c"], tmp_path / "plain")
    shared = merging.merge(
        base,
        experts,
        RECIPES["iso_c"],
        tmp_path / "shared",
        factors=[factors.Factors(tmp_path / "sum")],
    )
    assert shared["bytes_read"] < plain["bytes_read"]


@pytest.mark.parametrize("recipe", ["task_arithmetic", "ties"])
@pytest.mark.parametrize(("combine", "scale"), [("sum", 0.3), ("mean", 1.7), ("mean", 10)])
def test_points_of_a_sweep_share_an_update(recipe, combine, scale, family, tmp_path):
    base, experts = family
    recipe = RECIPES[recipe]
    first = recipe | {"parameters": recipe["parameters"] | {"combine": combine}}
    point = recipe | {"parameters": first["parameters"] | {"lambda": scale}}
    update = tmp_path / "unscaled"
    factors.write_update(base, list(experts.values()), first, update, DIGESTS)
    plain = merging.merge(base, experts, point, tmp_path / "plain", dtype="float32")
    told = DIGESTS | {factors.UPDATE: factors.unscaled(point, len(experts))}
    unscaled = factors.Factors(update, told)
    shared = merging.merge(
        base, experts, point, tmp_path / "shared", dtype="float32", unscaled=unscaled
    )
    assert shared["output_digest"] == plain["output_digest"]
    assert shared["norm"] == plain["norm"] > 0
    # Base and an update, in place of base and four experts.
    assert shared["bytes_read"] == plain["bytes_read"] * 2 / 5


def test_an_update_of_other_weights_or_another_density_is_refused(family, tmp_path):
    base, experts = family
    recipe = RECIPES["ties"]
    factors.write_update(base, list(experts.values()), recipe, tmp_path / "unscaled", DIGESTS)
    own = {factors.UPDATE: factors.unscaled(recipe, len(experts))}
    assert factors.Factors(tmp_path / "unscaled", DIGESTS | own)
    denser = recipe | {"parameters": recipe["parameters"] | {"density": 0.5}}
    other = {factors.UPDATE: factors.unscaled(denser, len(experts))}
    for wrong in ({"base": "other"} | own, DIGESTS | other):
        with pytest.raises(WildmergeError, match="made again"):
            factors.Factors(tmp_path / "unscaled", wrong)


def test_the_workflow_shares_what_the_methods_call_scales():
    """common.smk lists which parameters are but a factor, since it may not import torch."""
    text = (ROOT / "workflow/rules/common.smk").read_text()
    scales = ast.literal_eval(re.search(r"^SCALES = (.*)$", text, re.M)[1])
    assert {name for name, method in METHODS.items() if method.unscaled} == set(scales)
    for name, own in scales.items():
        parameters = {"combine": "mean", "density": 0.2, "lambda": 0.7}
        parameters = {k: v for k, v in parameters.items() if k in RECIPES[name]["parameters"]}
        changed = {"combine": "sum", "density": 0.3, "lambda": 0.9}
        for key in parameters:
            before, _ = METHODS[name].unscaled(parameters, 3)
            after, _ = METHODS[name].unscaled(parameters | {key: changed[key]}, 3)
            assert (before == after) == (key in own)
