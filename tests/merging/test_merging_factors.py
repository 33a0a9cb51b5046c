"""Factorisations kept as files: merges with them are those without."""

import shutil

import pico
import pytest
import torch
from test_merging import RECIPES, tensors
from wildmerge import WildmergeError
from wildmerge.merging import precompute, shared, strategies, streaming as merging
from wildmerge.merging.shared import ExpertFactors, SharedUpdate, SumFactors
from wildmerge.methods import METHODS
from wildmerge.tensors import folder_digest, writer
from wildmerge.tensors.weights import Weights

SHARING = ["iso_c", "task_arithmetic_sb"]


def known(base, *experts):
    """The digests of weights by name, as verdicts give them."""
    folders = {"base": base} | {path.name: path for path in experts}
    return {name: folder_digest(path) for name, path in folders.items()}


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
        precompute.factorize_expert(base, path, folder / name, known(base, path))
    return {name: ExpertFactors(folder / name) for name in experts}


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
        shared=[of_experts[name] for name in members],
    )
    assert apart(base, tmp_path / "plain", tmp_path / "shared") < 1e-5


@pytest.mark.parametrize("rank", ["all", "signal"])
@pytest.mark.parametrize("combine", ["sum", "mean"])
@pytest.mark.parametrize("recipe", SHARING)
def test_sums_from_one_factorisation(recipe, combine, rank, family, tmp_path):
    base, experts = family
    recipe = RECIPES[recipe]
    changed = {"combine": combine, "lambda": -0.7, "rank": rank}
    recipe = recipe | {"parameters": recipe["parameters"] | changed}
    digests = known(base, *experts.values())
    precompute.factorize_sum(base, list(experts.values()), tmp_path / "sum", digests)
    plain = merging.merge(base, experts, recipe, tmp_path / "plain", dtype="float32")
    with_shared = merging.merge(
        base,
        experts,
        recipe,
        tmp_path / "shared",
        dtype="float32",
        shared=SumFactors(tmp_path / "sum", digests),
    )
    assert apart(base, tmp_path / "plain", tmp_path / "shared") < 1e-5
    assert with_shared["norm"] == pytest.approx(plain["norm"], rel=1e-5)


def test_experts_of_low_rank_keep_their_rank(tmp_path):
    base = pico.llama(tmp_path / "base", dtype=torch.float32)
    expert = pico.expert(base, tmp_path / "e", scale=0)
    from test_merging import change

    name = "model.layers.0.mlp.up_proj.weight"
    change(expert, lambda content: content[name][:2].add_(torch.randn(2, 32)))
    precompute.factorize_expert(base, expert, tmp_path / "factors", known(base, expert))
    found = ExpertFactors(tmp_path / "factors")
    with pytest.warns(UserWarning, match="rank 2 of 32, the 30 null directions"):
        values, vectors = found.leading(name, 16)
    assert values.shape == (2,)
    assert vectors.shape == (2, 32)
    with_shared = merging.merge(
        base,
        {"e": expert, "f": expert},
        RECIPES["tsv_m"],
        tmp_path / "out",
        dtype="float32",
        shared=[found, found],
    )
    assert any(f"{name}: rank 2" in warning for warning in with_shared["warnings"])


def test_factors_of_other_weights_are_refused(family, of_experts):
    base, experts = family
    folder, digests = of_experts["e0"].weights.folder, known(base, experts["e0"])
    assert ExpertFactors(folder, digests)
    with pytest.raises(WildmergeError, match="should have been made from weights with the digests"):
        ExpertFactors(folder, digests | {"e0": "1"})


def test_factors_read_less(family, of_experts, tmp_path):
    base, experts = family
    digests = known(base, *experts.values())
    precompute.factorize_sum(base, list(experts.values()), tmp_path / "sum", digests)
    plain = merging.merge(base, experts, RECIPES["iso_c"], tmp_path / "plain")
    with_shared = merging.merge(
        base,
        experts,
        RECIPES["iso_c"],
        tmp_path / "shared",
        shared=SumFactors(tmp_path / "sum"),
    )
    assert with_shared["bytes_read"] < plain["bytes_read"]


@pytest.mark.parametrize("recipe", ["task_arithmetic", "ties"])
@pytest.mark.parametrize(("combine", "scale"), [("sum", 0.3), ("mean", 1.7), ("mean", 10)])
def test_points_of_a_sweep_share_an_update(recipe, combine, scale, family, tmp_path):
    base, experts = family
    recipe = RECIPES[recipe]
    first = recipe | {"parameters": recipe["parameters"] | {"combine": combine}}
    point = recipe | {"parameters": first["parameters"] | {"lambda": scale}}
    update = tmp_path / "unscaled"
    digests = known(base, *experts.values())
    precompute.write_update(base, experts, first, update, digests)
    plain = merging.merge(
        base, experts, point, tmp_path / "plain", dtype="float32", digests=digests
    )
    told = digests | {shared.UPDATE: shared.unscaled_recipe(point, len(experts))}
    unscaled = SharedUpdate(update, told)
    with_shared = merging.merge(
        base, experts, point, tmp_path / "shared", dtype="float32", shared=unscaled
    )
    assert with_shared["output_digest"] == plain["output_digest"]
    assert with_shared["norm"] == plain["norm"] > 0
    # Base and an update, in place of base and four experts.
    assert with_shared["bytes_read"] == plain["bytes_read"] * 2 / 5


def test_an_update_knows_the_bounds_of_the_whole_model(family, tmp_path):
    base, experts = family
    recipe = RECIPES["ties"]
    recipe = recipe | {"parameters": recipe["parameters"] | {"trim": "model"}}
    digests = known(base, *experts.values())
    plain = merging.merge(base, experts, recipe, tmp_path / "plain", digests=digests)
    precompute.write_update(base, experts, recipe, tmp_path / "update", digests)
    update = SharedUpdate(tmp_path / "update")
    with_shared = merging.merge(base, experts, recipe, tmp_path / "shared", shared=update)
    assert with_shared["output_digest"] == plain["output_digest"]
    assert with_shared["bounds"] == plain["bounds"]


def test_an_update_of_other_weights_or_another_density_is_refused(family, tmp_path):
    base, experts = family
    recipe = RECIPES["ties"]
    digests = known(base, *experts.values())
    precompute.write_update(base, experts, recipe, tmp_path / "unscaled", digests)
    own = {shared.UPDATE: shared.unscaled_recipe(recipe, len(experts))}
    assert SharedUpdate(tmp_path / "unscaled", digests | own)
    denser = recipe | {"parameters": recipe["parameters"] | {"density": 0.5}}
    other = {shared.UPDATE: shared.unscaled_recipe(denser, len(experts))}
    for wrong in ({"base": "other"} | own, digests | other):
        with pytest.raises(WildmergeError, match="made again"):
            SharedUpdate(tmp_path / "unscaled", wrong)


@pytest.mark.parametrize(
    ("recipe", "kind"),
    [
        ("task_arithmetic", strategies.Direct),
        ("tsv_m", strategies.FromExpertFactors),
        ("iso_c", strategies.FromSumFactors),
        ("ties", strategies.FromUpdate),
        ("mergekit/sce", strategies.FromMergekit),
    ],
)
def test_each_way_to_an_update(recipe, kind, family, of_experts, tmp_path):
    base, experts = family
    recipe = RECIPES.get(recipe, {"merge_method": recipe, "parameters": {"select_topk": 0.1}})
    inputs = [Weights(path) for path in [base, *experts.values()]]
    given = None
    if kind is strategies.FromExpertFactors:
        given = list(of_experts.values())
    elif kind is strategies.FromSumFactors:
        digests = known(base, *experts.values())
        precompute.factorize_sum(base, list(experts.values()), tmp_path / "sum", digests)
        given = SumFactors(tmp_path / "sum")
    elif kind is strategies.FromUpdate:
        digests = known(base, *experts.values())
        precompute.write_update(base, experts, recipe, tmp_path / "up", digests)
        given = SharedUpdate(tmp_path / "up")
    cpu = torch.device("cpu")
    chosen = strategies.choose_strategy(recipe, inputs, given, cpu, "here")
    assert type(chosen) is kind
    projection, norm = "model.layers.0.mlp.up_proj.weight", "model.norm.weight"
    read = {name: len(chosen.sources(name)) for name in (projection, norm)}
    fewer = {strategies.FromSumFactors: (1, 5), strategies.FromUpdate: (2, 2)}
    assert (read[projection], read[norm]) == fewer.get(kind, (5, 5))
    whole = kind in (strategies.FromUpdate, strategies.FromMergekit)
    assert chosen.reads_slices(norm) == (not whole)
    if kind in fewer or kind is strategies.FromExpertFactors:
        wrong = inputs[:3] if kind is strategies.FromExpertFactors else inputs
        other = recipe if kind is strategies.FromExpertFactors else RECIPES["model_stock"]
        with pytest.raises(ValueError, match="does not fit"):
            strategies.choose_strategy(other, wrong, given, cpu, "here")


def test_a_scale_is_no_more_than_a_factor():
    """Merges share an update where they differ in what a method calls its scale, and only there."""
    scaled = {name for name, method in METHODS.items() if method.scale}
    assert scaled == {"task_arithmetic", "ties_hashed", "random_signs"}
    for method in METHODS.values():
        if method.unscaled is None:
            continue
        parameters = {"combine": "mean", "density": 0.2, "lambda": 0.7}
        parameters = {k: v for k, v in parameters.items() if k in method.parameters}
        changed = {"combine": "sum", "density": 0.3, "lambda": 0.9}
        for key in parameters:
            before, _ = method.unscaled(parameters, 3)
            after, _ = method.unscaled(parameters | {key: changed[key]}, 3)
            assert (before == after) == (key in method.scale)


@pytest.mark.parametrize("work", ["merge", "factorize_expert", "factorize_sum", "write_update"])
@pytest.mark.parametrize("late", [False, True])
def test_weights_with_another_digest_are_not_read(work, late, family, tmp_path, monkeypatch):
    """Changed since they were measured, or, `late`, while they are read."""
    base = family[0]
    expert = shutil.copytree(family[1]["e0"], tmp_path / "e0")
    output, digests = tmp_path / "out", known(base, expert)
    if late:
        whole = writer.Writer.write

        def write(self, name, tensor):
            (expert / "model.safetensors").touch()
            whole(self, name, tensor)

        monkeypatch.setattr(writer.Writer, "write", write)
    else:
        shutil.copy(family[1]["e1"] / "model.safetensors", expert)
    ways = {
        "merge": lambda: merging.merge(
            base, {"e0": expert}, RECIPES["ties"], output, digests=digests
        ),
        "factorize_expert": lambda: precompute.factorize_expert(base, expert, output, digests),
        "factorize_sum": lambda: precompute.factorize_sum(base, [expert], output, digests),
        "write_update": lambda: precompute.write_update(
            base, {"e0": expert}, RECIPES["ties"], output, digests
        ),
    }
    said = "written or replaced" if late else f"e0 should have the digest {digests['e0']}"
    with pytest.raises(WildmergeError, match=said):
        ways[work]()
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]
