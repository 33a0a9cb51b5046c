"""The seven methods: by hand on 3 x 4 numbers, by their properties, against peers."""

import warnings

import numpy as np
import pytest
import references
import torch
from wildmerge.methods import METHODS, Identity, is_projection
from wildmerge.methods._rank import floor as noise_floor
from wildmerge.tensors import spectral

RECIPES = {
    "random_signs": {"combine": "mean", "lambda": 1.0, "seed": 0},
    "task_arithmetic": {"combine": "mean", "lambda": 1.0},
    "ties_hashed": {"combine": "mean", "density": 0.1, "lambda": 0.1},
    "model_stock": {},
    "tsv_m": {"combine": "sum", "lambda": 1.0, "rank": "all"},
    "iso_c": {"combine": "sum", "lambda": 1.0, "rank": "all"},
    "task_arithmetic_sb": {"combine": "mean", "lambda": 1.0, "beta": 0.2, "rank": "all"},
    "ties_sb": {"combine": "mean", "density": 0.1, "lambda": 0.1, "beta": 0.2},
}
# The other choice of `combine` too, and other numbers than the paper's.
CASES = (
    [*RECIPES.items()]
    + [
        (name, parameters | changed)
        for name, parameters in RECIPES.items()
        if parameters
        for changed in [
            {"combine": "mean" if parameters["combine"] == "sum" else "sum", "lambda": 0.7}
        ]
    ]
    + [
        ("ties_hashed", {"combine": "mean", "density": 1.0, "lambda": 1.0}),
        ("task_arithmetic_sb", {"combine": "sum", "lambda": 1.0, "beta": 0.0, "rank": "all"}),
        ("task_arithmetic_sb", {"combine": "sum", "lambda": 1.0, "beta": 1.0, "rank": "all"}),
        ("ties_sb", {"combine": "sum", "density": 0.3, "lambda": 1.0, "beta": 0.5}),
    ]
)

# Three by four; the task vectors are d1 and d2.
BASE = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]])
D1 = torch.tensor([[3.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 2, 0]])
D2 = torch.tensor([[1.0, 0, 0, 0], [0, -3, 0, 0], [0, 0, 2, 4]])


def update(method, base, experts, parameters=None, projection=True, digests=None, tensor=""):
    parameters = RECIPES[method] if parameters is None else parameters
    identity = Identity(tensor, digests or [str(i) for i in range(len(experts))])
    return METHODS[method](base, experts, parameters, projection=projection, identity=identity)


def family(shape, n, seed=0, scale=0.01):
    """A base and n experts whose task vectors have something in common."""
    generator = torch.Generator().manual_seed(seed)

    def noise():
        # Rounded from float64: torch draws float32 numbers from few enough to repeat some.
        return torch.randn(shape, generator=generator, dtype=torch.float64).float()

    base, common = noise(), 0.5 * noise()
    return base, [base + scale * (common + noise()) for _ in range(n)]


def relative_error(found, expected):
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


# --- By hand ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("combine", "expected"),
    [
        ("sum", [[4.0, 0, 0, 0], [0, -2, 0, 0], [0, 0, 4, 4]]),
        ("mean", [[2.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, 2, 2]]),
    ],
)
def test_task_arithmetic_by_hand(combine, expected):
    experts = [BASE + D1, BASE + D2]
    found = update("task_arithmetic", BASE, experts, {"combine": combine, "lambda": 0.5})
    assert torch.equal(found, 0.5 * torch.tensor(expected))


def test_ties_by_hand():
    # A density of .17 keeps two of twelve entries: 3 and 2 of d1, 4 and -3 of d2. No position is
    # shared; the elected sign is that of the one that is there.
    experts = [BASE + D1, BASE + D2]
    kept = torch.tensor([[3.0, 0, 0, 0], [0, -3, 0, 0], [0, 0, 2, 4]])
    parameters = {"combine": "mean", "density": 0.17, "lambda": 1.0}
    assert torch.equal(update("ties_hashed", BASE, experts, parameters), kept)
    # Of all entries: at (1, 1) 1 and -3 elect the minus; at (2, 2) both 2 agree.
    parameters = {"combine": "mean", "density": 1.0, "lambda": 1.0}
    expected = torch.tensor([[2.0, 0, 0, 0], [0, -3, 0, 0], [0, 0, 2, 4]])
    assert torch.equal(update("ties_hashed", BASE, experts, parameters), expected)
    parameters["combine"] = "sum"
    expected = torch.tensor([[4.0, 0, 0, 0], [0, -3, 0, 0], [0, 0, 4, 4]])
    assert torch.equal(update("ties_hashed", BASE, experts, parameters), expected)


def test_model_stock_by_hand():
    # cos(d1, d2) = (3 - 3 + 4) / (sqrt 14 sqrt 30); t = 2 cos / (1 + cos).
    cosine = 4 / float(np.sqrt(14 * 30))
    expected = 2 * cosine / (1 + cosine) * (D1 + D2) / 2
    assert torch.allclose(update("model_stock", BASE, [BASE + D1, BASE + D2]), expected)


def test_model_stock_keeps_the_base_where_experts_are_opposed():
    assert not update("model_stock", BASE, [BASE + D1, BASE - D1]).any()


def test_iso_c_by_hand():
    # The sum has the singular values 4, 2 and sqrt 32: their mean in every direction.
    mean = float(4 + 2 + np.sqrt(32)) / 3
    half = float(np.sqrt(0.5))
    expected = mean * torch.tensor([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, half, half]])
    assert torch.allclose(update("iso_c", BASE, [BASE + D1, BASE + D2]), expected, atol=1e-5)


def test_subspace_boosting_by_hand():
    # The singular values of d1 are 3, 2, 1: their shares 1/2, 5/6, 1. A threshold of .6 is reached
    # at the second, so that 1 becomes 2; one of .5 at the first.
    parameters = {"combine": "sum", "lambda": 1.0, "beta": 0.6}
    expected = torch.tensor([[3.0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]])
    found = update("task_arithmetic_sb", BASE, [BASE + D1], parameters)
    assert torch.allclose(found, expected, atol=1e-5)
    found = update("task_arithmetic_sb", BASE, [BASE + D1], parameters | {"beta": 0.4})
    assert torch.allclose(found, 3 * (D1 > 0).float(), atol=1e-5)


@pytest.mark.filterwarnings("ignore::wildmerge.tensors.spectral.SpectralWarning")
def test_tsv_m_by_hand():
    # One direction each (3 / 2 experts): 3 e1 e1^T and 5 e2 e2^T, orthogonal already.
    d2 = torch.tensor([[0.0, 0, 0, 0], [0, 5, 0, 0], [0, 0, 2, 0]])
    expected = torch.tensor([[3.0, 0, 0, 0], [0, 5, 0, 0], [0, 0, 0, 0]])
    found = update("tsv_m", BASE, [BASE + D1, BASE + d2])
    assert torch.allclose(found, expected, atol=1e-5)
    # Directions e1 and (e1 + e2) / sqrt 2 on the left and e1, e2 on the right: the closest
    # orthonormal pair on the left is (c, -s), (s, c) with the angle pi / 8.
    d2 = torch.zeros(3, 4)
    d2[:2, 1] = 5 * float(np.sqrt(0.5))
    c, s = float(np.cos(np.pi / 8)), float(np.sin(np.pi / 8))
    expected = torch.tensor([[3 * c, 5 * s, 0, 0], [-3 * s, 5 * c, 0, 0], [0, 0, 0, 0]])
    found = update("tsv_m", BASE, [BASE + D1, BASE + d2])
    assert torch.allclose(found, expected, atol=1e-5)


# --- Against peers ------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 5, 12])
@pytest.mark.parametrize("shape", [(40, 64), (64, 40), (48, 48), (1000,)], ids=str)
@pytest.mark.parametrize(("method", "parameters"), CASES)
def test_against_float64(method, parameters, shape, n):
    base, experts = family(shape, n)
    projection = len(shape) == 2
    found = update(method, base, experts, parameters, projection)
    expected = references.update(method, base, experts, parameters, projection)
    assert found.dtype == torch.float32
    assert found.shape == base.shape
    assert relative_error(found, expected) < 1e-5


@pytest.mark.parametrize("n", [2, 3, 12])
@pytest.mark.parametrize("shape", [(40, 64), (300_000,)], ids=str)
@pytest.mark.parametrize(
    ("method", "combine"),
    [
        ("task_arithmetic", "sum"),
        ("task_arithmetic", "mean"),
        ("ties_hashed", "sum"),
        ("ties_hashed", "mean"),
        ("model_stock", None),
    ],
)
def test_against_mergekit(method, combine, shape, n):
    from mergekit.merge_methods import merge_tensors

    # The base is small: next to a large one the task vectors' entries are multiples of its last
    # bit, many of them equal, and mergekit trims an arbitrary choice of equals.
    base, experts = family(shape, n, scale=10)
    parameters = RECIPES[method] | ({"combine": combine} if combine else {})
    found = update(method, base, experts, parameters)
    if method == "ties_hashed":
        peers, native = "ties", {"weight": 1.0, "normalize": combine == "mean"}
        native |= {key: parameters[key] for key in ("density", "lambda")}
    else:
        peers, native = method, METHODS[method].mergekit(parameters)
    peer = merge_tensors([base, *experts], peers, parameters=native, base_index=0)
    assert relative_error(base + found, peer) < 1e-5
    assert relative_error(found, peer.double() - base.double()) < 1e-5


@pytest.mark.parametrize("method", RECIPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_experts_are_merged_in_float32(method, dtype):
    base, experts = family((40, 64), 4, scale=0.1)
    base, experts = base.to(dtype), [expert.to(dtype) for expert in experts]
    found = update(method, base, experts)
    full = update(method, base.float(), [expert.float() for expert in experts])
    assert torch.equal(found, full)


# --- Properties ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", RECIPES)
def test_the_order_of_the_experts_changes_nothing(method):
    base, experts = family((40, 64), 5)
    turned = update(method, base, experts[::-1], digests=list("43210"))
    assert relative_error(turned, update(method, base, experts)) < 1e-5


@pytest.mark.parametrize("projection", [True, False])
@pytest.mark.parametrize("method", RECIPES)
def test_experts_that_changed_nothing_leave_the_base(method, projection):
    base, _ = family((12, 16), 0)
    assert not update(method, base, [base, base], projection=projection).any()


@pytest.mark.parametrize("projection", [True, False])
@pytest.mark.parametrize("method", [m for m in RECIPES if m != "model_stock"])
def test_lambda_scales_the_update(method, projection):
    base, experts = family((40, 64), 3)
    parameters = RECIPES[method]
    once = update(method, base, experts, parameters | {"lambda": 1.0}, projection)
    assert not update(method, base, experts, parameters | {"lambda": 0.0}, projection).any()
    thrice = update(method, base, experts, parameters | {"lambda": -3.0}, projection)
    assert relative_error(thrice, -3 * once) < 1e-5


@pytest.mark.parametrize("method", ["task_arithmetic", "tsv_m"])
def test_one_expert_is_itself(method):
    base, [expert] = family((40, 64), 1)
    assert relative_error(update(method, base, [expert]), expert - base) < 1e-5


def test_boosting_everything_or_nothing():
    base, experts = family((40, 64), 3)
    plain = update("task_arithmetic", base, experts)
    parameters = RECIPES["task_arithmetic_sb"]
    found = update("task_arithmetic_sb", base, experts, parameters | {"beta": 1.0})
    assert relative_error(found, plain) < 1e-5
    found = update("task_arithmetic_sb", base, experts, parameters | {"beta": 0.0})
    largest = torch.linalg.matrix_norm(plain, 2)
    assert torch.allclose(torch.linalg.svdvals(found), largest.expand(40), rtol=1e-4)


def test_iso_c_norm_is_mean_singular_value_times_root_of_rank():
    base, experts = family((40, 64), 3)
    singular = torch.linalg.svdvals((sum(experts) - 3 * base).double())
    found = update("iso_c", base, experts)
    assert found.norm().item() == pytest.approx(singular.mean().item() * np.sqrt(40), rel=1e-5)


@pytest.mark.parametrize("method", RECIPES)
def test_the_same_bits_again(method):
    base, experts = family((40, 64), 5)
    assert torch.equal(update(method, base, experts), update(method, base, experts))


def test_tsv_m_leaves_out_directions_below_the_rank_tolerance():
    # A merged adapter of rank 2 in bfloat16: rounding has filled its null space with noise.
    base, _ = family((40, 64), 0)
    generator = torch.Generator().manual_seed(1)
    left, right = torch.randn(40, 2, generator=generator), torch.randn(2, 64, generator=generator)
    expert = (base + left @ right).bfloat16().float()
    delta = expert - base
    parameters = RECIPES["tsv_m"] | {"rank_tolerance": 0.05}
    u, s, vt = np.linalg.svd(delta.numpy())
    found = update("tsv_m", base, [expert], parameters)
    assert relative_error(found, (u[:, :2] * s[:2]) @ vt[:2]) < 1e-5
    assert torch.linalg.matrix_rank(update("tsv_m", base, [expert]), rtol=1e-5) == 40


@pytest.mark.parametrize("method", ["tsv_m", "iso_c", "task_arithmetic_sb"])
def test_rank_deficient_updates_keep_their_range(method):
    # Null directions are arbitrary: they get nothing, and the warning says so.
    base = torch.zeros(40, 64)
    generator = torch.Generator().manual_seed(1)
    deltas = [
        torch.randn(40, 3, generator=generator) @ torch.randn(3, 64, generator=generator)
        for _ in range(2)
    ]
    with pytest.warns(spectral.SpectralWarning, match="null directions are left out"):
        found = update(method, base, deltas)
    assert torch.linalg.matrix_rank(found, rtol=1e-5) == 6
    u, s, vt = np.linalg.svd(sum(deltas).double().numpy())
    # The definitions in float64, restricted to the range.
    if method == "iso_c":
        expected = s[:6].sum() / 40 * u[:, :6] @ vt[:6]
    elif method == "task_arithmetic_sb":
        share = np.cumsum(s[:6]) / s[:6].sum()
        raised = np.maximum(s[:6], s[int((share < 0.2).sum())])
        expected = (u[:, :6] * raised) @ vt[:6] / 2  # of the mean
    else:
        parts = [np.linalg.svd(delta.double().numpy()) for delta in deltas]
        left = np.concatenate([p[0][:, :3] for p in parts], 1)
        right = np.concatenate([p[2][:3] for p in parts])
        values = np.concatenate([p[1][:3] for p in parts])
        (a, _, b), (c, _, d) = (np.linalg.svd(m, full_matrices=False) for m in (left, right))
        expected = (a @ b * values) @ (c @ d)
    assert relative_error(found, expected) < 1e-5


RANKED = ["iso_c", "task_arithmetic_sb", "tsv_m"]


def adapters(shape, size, generator):
    """A base in bfloat16 and four merged adapters of rank 16: in float32, and in bfloat16."""
    rows = torch.exp(0.5 * torch.randn(shape[0], 1, generator=generator))
    base = (0.05 * rows * torch.randn(shape, generator=generator)).bfloat16()
    exact = []
    for _ in range(4):
        down = torch.randn(16, shape[1], generator=generator)
        product = torch.randn(shape[0], 16, generator=generator) @ down
        exact.append(base.float() + product * (size * base.float().norm() / product.norm()))
    return base, exact, [expert.bfloat16() for expert in exact]


@pytest.mark.parametrize("method", RANKED)
@pytest.mark.parametrize("shape", [(256, 256), (512, 192), (192, 512)], ids=str)
@pytest.mark.parametrize("size", [0.1, 0.03])  # of the base's norm
def test_an_adapter_and_its_merge_in_bfloat16_give_one_update(method, shape, size):
    base, exact, rounded = adapters(shape, size, torch.Generator().manual_seed(0))
    found = {}
    for rank in ("signal", "all"):
        parameters = RECIPES[method] | {"rank": rank}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", spectral.SpectralWarning)
            one = update(method, base, exact, parameters).double()
            other = update(method, base, rounded, parameters).double()
        found[rank] = (
            (other.norm() / one.norm()).item(),
            (torch.sum(one * other) / one.norm() / other.norm()).item(),
        )
    ratio, cosine = found["signal"]
    assert 0.95 < ratio < 1.05 and cosine > 0.95
    # What it is for: where all count, the noise is raised with the rest.
    ratio, cosine = found["all"]
    assert cosine < 0.95


@pytest.mark.parametrize("method", RANKED)
def test_without_rounding_noise_both_rules_agree(method):
    # Updates of full rank, far above what rounding to float32 adds.
    base, experts = family((60, 90), 3, scale=1.0)
    both = [update(method, base, experts, RECIPES[method] | {"rank": r}) for r in ("signal", "all")]
    assert relative_error(both[0], both[1].double().numpy()) < 1e-5


def test_the_noise_floor_is_the_largest_singular_value_that_rounding_has():
    for seed, shape in enumerate([(300, 300), (600, 200)]):
        base, exact, rounded = adapters(shape, 0.1, torch.Generator().manual_seed(seed))
        errors = [r.float() - e for r, e in zip(rounded, exact, strict=True)]
        largest = torch.linalg.matrix_norm(sum(errors), 2).item()
        least = noise_floor("signal", base, rounded)
        assert 1 < least / largest < 2.5
        # What was widened is as coarse as before; what was not is exact.
        assert noise_floor("signal", base, [r.float() for r in rounded]) == least
        assert noise_floor("signal", base, exact) < 1e-4 * least
        assert noise_floor("all", base, rounded) == 0


@pytest.mark.parametrize("method", ["iso_c", "task_arithmetic_sb", "tsv_m"])
@pytest.mark.parametrize("shape", [(600, 700), (700, 600), (600, 600)], ids=str)
def test_large_matrices_against_float64(method, shape, monkeypatch):
    # What is done for a side beyond a thousand, in sizes that a test can wait for.
    monkeypatch.setattr(spectral, "_SMALL", 500)
    base, experts = family(shape, 2)
    expected = references.update(method, base, experts, RECIPES[method])
    assert relative_error(update(method, base, experts), expected) < 1e-5


@pytest.mark.parametrize("condition", [1e4, 1e5, 1e7])
@pytest.mark.parametrize("shape", [(48, 48), (40, 64)], ids=str)
def test_polar_factor_of_an_ill_conditioned_matrix(shape, condition):
    generator = torch.Generator().manual_seed(1)
    u, _, vt = np.linalg.svd(torch.randn(shape, generator=generator).double().numpy(), False)
    s = np.logspace(0, -np.log10(condition), min(shape))
    matrix = torch.from_numpy((u * s) @ vt).float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", spectral.SpectralWarning)
        found = spectral.polar(matrix)
    # Rounding the matrix to float32 alone moves its polar factor by this much, and what is below
    # the rank tolerance is left out.
    u, s, vt = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    rank = int((s > spectral.RANK_TOLERANCE * s[0]).sum())
    assert relative_error(found, u[:, :rank] @ vt[:rank]) < (1e-5 if condition < 1e6 else 1e-3)


@pytest.mark.parametrize("condition", [3, 30, 100, 300, 3000])
@pytest.mark.parametrize("spectrum", ["falling", "two values", "few strong"])
def test_polar_factor_to_the_last_product(spectrum, condition):
    # Of two values, half of each, round-off of float32 would be many times that of few strong ones.
    generator = torch.Generator().manual_seed(2)
    left, _ = np.linalg.qr(torch.randn(200, 200, generator=generator).double().numpy())
    right, _ = np.linalg.qr(torch.randn(600, 200, generator=generator).double().numpy())
    s = {
        "falling": np.logspace(0, -np.log10(condition), 200),
        "two values": np.repeat([1, 1 / condition], 100),
        "few strong": np.repeat([1, 1 / condition], [5, 195]),
    }[spectrum]
    matrix = torch.from_numpy((left * s) @ right.T).float()
    u, _, vt = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    assert relative_error(spectral.polar(matrix), u @ vt) < 5e-6


def test_random_signs_are_drawn_by_seed_tensor_and_expert():
    base, [expert] = family((40, 64), 1)
    found = {
        tuple(bool(update("random_signs", base, [expert], p, digests=[d], tensor=t).sum() > 0)
              for t in "abcdefghijklmnop")
        for d in "xy" for p in [{"combine": "sum", "lambda": 1.0, "seed": s} for s in (0, 1)]
    }  # fmt: skip
    # Sixteen tensors' signs of two experts by two seeds: all different, none all the same.
    assert len(found) == 4
    assert all(0 < sum(signs) < 16 for signs in found)


# --- Which tensors ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("model.layers.0.self_attn.q_proj.weight", (8, 8), True),
        ("model.layers.11.mlp.down_proj.weight", (8, 24), True),
        ("model.layers.0.self_attn.q_proj.bias", (8,), False),
        ("model.layers.0.input_layernorm.weight", (8,), False),
        ("model.embed_tokens.weight", (100, 8), False),
        ("lm_head.weight", (100, 8), False),
        ("transformer.wte.weight", (100, 8), False),
        ("tok_embeddings.weight", (100, 8), False),
        ("output.weight", (100, 8), False),
        ("shared.weight", (100, 8), False),
        ("model.layers.0.mlp.gate.weight", (4, 8), False),
        ("model.layers.0.mlp.shared_expert_gate.weight", (1, 8), False),
        ("model.layers.0.mlp.gate_proj.weight", (24, 8), True),
        ("encoder.block.0.layer.0.SelfAttention.o.weight", (8, 8), True),
    ],
)
def test_subspace_methods_act_on_projections(name, shape, expected):
    assert is_projection(name, shape) == expected


@pytest.mark.parametrize(
    "kind",
    [
        "llama",
        "qwen3",
        "qwen3_moe",
        "mixtral",
        "gpt2",
        "gemma3_text",
        "olmoe",
        "gpt_neox",
        "phimoe",
    ],
)
def test_names_say_what_the_modules_are(kind):
    # The names are all that a file of weights has; here they are held against the modules.
    import transformers

    with torch.device("meta"):
        config = transformers.AutoConfig.for_model(kind)
        model = transformers.AutoModelForCausalLM.from_config(config)
    vocabulary = {model.get_input_embeddings(), model.get_output_embeddings()}
    seen = set()
    for path, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if weight is None or weight.ndim != 2:
            continue
        routes = "router" in type(module).__name__.lower()
        expected = module not in vocabulary and not routes
        expected &= not isinstance(module, torch.nn.Embedding)
        assert is_projection(f"{path}.weight", weight.shape) == expected, path
        seen.add(expected)
    assert seen == {True, False}
