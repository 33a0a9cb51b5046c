"""Merging folders: files in, a model and its papers out, and what is refused."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pico
import pytest
import references
import torch
import yaml
from project import ROOT
from safetensors.torch import load_file, save_file
from wildmerge import WildmergeError
from wildmerge.merging import strategies, streaming as merging
from wildmerge.merging.recipe_yaml import mergekit_yaml
from wildmerge.methods import is_projection
from wildmerge.tensors import chunks, writer
from wildmerge.tensors.digest import Digest, folder_digest
from wildmerge.tensors.weights import LazyTensor, Weights

SHEET = yaml.safe_load((ROOT / "config/recipes.yaml").read_text())
SHEET = {name: recipe | {"name": name} for name, recipe in SHEET.items()}
# This project's own, and what is mergekit's.
RECIPES = {n: r for n, r in SHEET.items() if not r["merge_method"].startswith("mergekit/")}
FOREIGN = {n: r for n, r in SHEET.items() if n not in RECIPES}
TA = RECIPES["task_arithmetic"]


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """A base and three experts, (folder, {name: folder}); read only."""
    folder = tmp_path_factory.mktemp("checkpoints")
    base = pico.llama(folder / "base")
    return base, {f"e{i}": pico.expert(base, folder / f"e{i}", seed=i, scale=0.3) for i in range(3)}


@pytest.fixture
def own(tmp_path, family):
    """The same in a folder that the test may break."""
    base, experts = family
    copies = {name: shutil.copytree(path, tmp_path / name) for name, path in experts.items()}
    return shutil.copytree(base, tmp_path / "base"), copies


def tensors(folder):
    weights = Weights(folder)
    return {name: weights.read(name) for name in weights}


def change(folder, edit):
    """Apply `edit` to the dict of tensors of a single-file checkpoint."""
    path = Path(folder) / "model.safetensors"
    content = load_file(path)
    edit(content)
    save_file(content, path, metadata={"format": "pt"})


def refused(match, *arguments, **options):
    """The merge is refused in one paragraph, and leaves nothing."""
    output = arguments[-1]
    with pytest.raises(WildmergeError, match=match) as caught:
        merging.merge(*arguments, **options)
    assert "\n" not in str(caught.value)
    assert not output.exists()
    assert not [p for p in output.parent.iterdir() if output.name in p.name]


# --- What comes out -----------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_every_recipe_against_float64(recipe, family, tmp_path):
    base, experts = family
    summary = merging.merge(base, experts, recipe, tmp_path / "out", dtype="float32")
    found, start = tensors(tmp_path / "out"), tensors(base)
    members = [tensors(path) for path in experts.values()]
    total = 0.0
    for name, weight in start.items():
        expected = references.update(
            recipe["merge_method"],
            weight.double(),
            [member[name].double() for member in members],
            recipe["parameters"],
            is_projection(name, weight.shape),
            tensor=name,
            digests=[folder_digest(path) for path in experts.values()],
        )
        error = found[name].double() - weight.double() - torch.from_numpy(expected)
        norm = torch.from_numpy(expected).norm().item()
        # The result is rounded to float32 beside a base that may be much larger.
        rounding = 2**-23 * weight.double().norm().item()
        assert error.norm() <= 1e-5 * norm + rounding
        assert summary["tensors"][name]["norm"] == pytest.approx(norm, rel=1e-5)
        total += norm**2
    assert summary["norm"] == pytest.approx(total**0.5, rel=1e-5)


def test_the_norm_is_recorded_before_and_after_rounding(family, tmp_path):
    base, experts = family
    recipe = TA | {"parameters": {"combine": "mean", "lambda": 1e-4}}
    summary = merging.merge(base, experts, recipe, tmp_path / "out")
    start, found = tensors(base), tensors(tmp_path / "out")
    rounded = sum((found[n].double() - w.double()).square().sum().item() for n, w in start.items())
    assert summary["norm_rounded"] == pytest.approx(rounded**0.5)
    # An update this small does not survive bfloat16.
    assert summary["norm_rounded"] < 0.5 * summary["norm"]


def test_the_merge_is_a_model_like_its_base(family, tmp_path):
    import transformers

    base, experts = family
    merging.merge(base, experts, TA, tmp_path / "out", dtype="float16")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert model.dtype == torch.float16
    assert model.config.tie_word_embeddings
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out")("a b").input_ids
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {path.name for path in base.iterdir()}


@pytest.mark.parametrize("make", [pico.llama, pico.qwen3], ids=["llama", "qwen3"])
def test_an_untied_head_is_merged_like_any_tensor(make, tmp_path):
    base = make(tmp_path / "base", tied=False)
    expert = pico.expert(base, tmp_path / "expert", scale=0.3)
    merging.merge(base, {"expert": expert}, TA, tmp_path / "out")
    assert tensors(tmp_path / "out").keys() == tensors(base).keys()
    head = "lm_head.weight"
    assert torch.equal(tensors(tmp_path / "out")[head], tensors(expert)[head])


def test_shards_hold_the_same_as_one_file(family, tmp_path, monkeypatch):
    base, experts = family
    whole = merging.merge(base, experts, TA, tmp_path / "whole")
    monkeypatch.setattr(writer, "SHARD_BYTES", 20_000)
    sharded = merging.merge(base, experts, TA, tmp_path / "sharded")
    assert len(list((tmp_path / "sharded").glob("model-*-of-*.safetensors"))) > 2
    assert sharded["output_digest"] == whole["output_digest"]
    for name, tensor in tensors(tmp_path / "whole").items():
        assert torch.equal(tensor, tensors(tmp_path / "sharded")[name])
    # Others read it as well.
    index = json.loads((tmp_path / "sharded/model.safetensors.index.json").read_text())
    for name, shard in index["weight_map"].items():
        assert name in load_file(tmp_path / "sharded" / shard)
    # And so are sharded experts read.
    again = merging.merge(base, {"e": tmp_path / "sharded"}, TA, tmp_path / "again")
    assert again["output_digest"] == whole["output_digest"]


def test_digests(family, tmp_path):
    base, experts = family
    first = merging.merge(base, experts, RECIPES["tsv_m"], tmp_path / "one")
    second = merging.merge(base, experts, RECIPES["tsv_m"], tmp_path / "two")
    assert first["output_digest"] == second["output_digest"]
    digest = Digest()
    for name, tensor in reversed(tensors(tmp_path / "one").items()):
        digest.add(name, tensor)
    assert digest.hexdigest() == first["output_digest"]
    other = merging.merge(base, experts, TA, tmp_path / "other")
    assert other["output_digest"] != first["output_digest"]


def test_slices_of_a_tensor_are_the_tensor(family):
    base, _ = family
    folder, name = Weights(base), "model.embed_tokens.weight"
    whole, lazy = folder.read(name).view(-1), LazyTensor(folder, name)
    folder.announce(name)
    assert lazy.reshape(-1) is lazy
    for part in (slice(0, 5), slice(3, 1000), slice(1, 4)):
        assert torch.equal(lazy[part], whole[part])
    # Threads have memory of their own: both hold a slice before either looks at it.
    both = threading.Barrier(2)

    def taken(part):
        found = lazy[part]
        both.wait(timeout=60)
        return torch.equal(found, whole[part])

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(taken, [slice(0, 2000), slice(2000, 4000)])) == [True, True]
    assert folder.bytes_read == whole.nbytes + 2 * (5 + 997 + 3 + 4000)


def test_a_file_that_is_gone_is_told_by_the_reading(own):
    base, _ = own
    folder, name = Weights(base), "model.embed_tokens.weight"
    (base / "model.safetensors").unlink()
    folder.announce(name)
    with pytest.raises(WildmergeError, match="could not be read"):
        LazyTensor(folder, name)[0:5]


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_reading_by_slices_changes_no_bit(family, tmp_path, monkeypatch, name):
    base, experts = family
    # Several chunks a tensor, on two threads.
    monkeypatch.setattr(chunks.slices, "__defaults__", (1000,))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    taken, take = set(), LazyTensor.__getitem__

    def noted(self, part):
        taken.add((self.name, part.start))
        return take(self, part)

    monkeypatch.setattr(LazyTensor, "__getitem__", noted)
    lazy = merging.merge(base, experts, RECIPES[name], tmp_path / "lazy")
    twice = {"ties", "ties_sb"}  # and so kept in memory
    assert (("model.embed_tokens.weight", 3000) in taken) == (name not in twice)
    assert (("model.layers.0.mlp.up_proj.weight", 1000) in taken) == (name not in twice)
    monkeypatch.setattr(strategies.Direct, "reads_slices", lambda *_: False)
    whole = merging.merge(base, experts, RECIPES[name], tmp_path / "whole")
    assert lazy["output_digest"] == whole["output_digest"]
    assert lazy["bytes_read"] == whole["bytes_read"]


def test_summary_says_what_was_done(family, tmp_path):
    base, experts = family
    summary = merging.merge(base, experts, TA, tmp_path / "out")
    size = sum(entry.nbytes for entry in Weights(base).values())
    assert summary["members"] == list(experts)
    assert summary["merge_method"] == "task_arithmetic"
    assert summary["parameters"] == TA["parameters"]
    assert summary["bytes_read"] == 4 * size
    assert summary["bytes_written"] == size
    assert summary["dtype"] == "bfloat16"
    assert summary["warnings"] == []
    json.dumps(summary, allow_nan=False)


def test_rank_deficient_deltas_are_told(own, tmp_path):
    base, experts = own
    name = "model.layers.0.mlp.up_proj.weight"

    def low_rank(content):
        content[name] = tensors(base)[name].clone()
        content[name][0] += 1

    for folder in experts.values():
        change(folder, low_rank)
    summary = merging.merge(base, experts, RECIPES["iso_c"], tmp_path / "out")
    assert summary["warnings"] == [f"{name}: rank 1 of 32, the 31 null directions are left out"]


def test_other_methods_of_mergekit_by_one_entry(family, tmp_path):
    base, experts = family
    recipe = {
        "name": "dare",
        "label": "DARE",
        "merge_method": "mergekit/dare_linear",
        "parameters": {"weight": 1.0, "density": 1.0, "normalize": True},
        "version": 1,
    }
    found = merging.merge(base, experts, recipe, tmp_path / "dense")
    # Nothing dropped, it is Task Arithmetic.
    expected = merging.merge(base, experts, TA, tmp_path / "ta")
    assert found["output_digest"] == expected["output_digest"]
    recipe["parameters"] = {"weight": 1.0, "density": 0.5}
    first = merging.merge(base, experts, recipe, tmp_path / "one")
    second = merging.merge(base, experts, recipe, tmp_path / "two")
    assert first["output_digest"] == second["output_digest"]


@pytest.mark.parametrize("recipe", FOREIGN.values(), ids=FOREIGN)
def test_each_entry_of_mergekits_methods_merges(recipe, family, tmp_path):
    base, experts = family
    first = merging.merge(base, experts, recipe, tmp_path / "one")
    second = merging.merge(base, experts, recipe, tmp_path / "two")
    assert first["norm"] > 0
    assert first["output_digest"] == second["output_digest"]


# --- By hand ------------------------------------------------------------------------------------


def repeat(recipe, base, experts, folder, dtype="bfloat16", bounds=None):
    """Merge by mergekit and the YAML of a merge, into `theirs`."""
    import mergekit.config
    import mergekit.merge
    from wildmerge.merging import bridge

    bridge.register_methods()
    references = {name: str(path) for name, path in experts.items()} | {"base": str(base)}
    digests = {name: folder_digest(path) for name, path in experts.items()}
    text = mergekit_yaml(recipe, references, list(experts), dtype, None, digests, bounds)
    config = mergekit.config.MergeConfiguration.model_validate(yaml.safe_load(text))
    options = mergekit.merge.MergeOptions(quiet=True)
    mergekit.merge.run_merge(config, str(folder / "theirs"), options)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_yaml_repeats_the_merge(recipe, tmp_path):
    from wildmerge.merging import bridge

    bridge.register_methods()  # a second time changes nothing
    # Experts in float32 with entries that differ: of equal entries mergekit trims an arbitrary few.
    floats = pico.llama(tmp_path / "base", dtype=torch.float32)
    experts = {
        f"e{i}": pico.expert(floats, tmp_path / f"e{i}", seed=i, scale=100) for i in range(3)
    }
    merging.merge(floats, experts, recipe, tmp_path / "ours", dtype="float32")
    repeat(recipe, floats, experts, tmp_path, dtype="float32")
    ours, theirs = tensors(tmp_path / "ours"), tensors(tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert (tensor - theirs[name]).norm() <= 1e-5 * tensor.norm()


@pytest.mark.parametrize("name", ["ties", "ties_sb"])
def test_the_yaml_repeats_ties_among_equal_entries(name, family, tmp_path):
    """In bfloat16 most entries at TIES' threshold are equal; the same ones must stay."""
    base, experts = family
    summary = merging.merge(base, experts, RECIPES[name], tmp_path / "ours")
    repeat(RECIPES[name], base, experts, tmp_path)
    start, ours, theirs = (tensors(p) for p in (base, tmp_path / "ours", tmp_path / "theirs"))
    apart = sum((ours[n] - theirs[n]).double().square().sum().item() for n in start)
    size = sum((ours[n] - start[n]).double().square().sum().item() for n in start)
    assert apart == 0, f"{(apart / size) ** 0.5:.3f} of the update"
    assert folder_digest(tmp_path / "theirs") == summary["output_digest"]


@pytest.mark.parametrize("name", ["ties", "ties_sb"])
def test_the_yaml_repeats_trimming_over_the_whole_model(name, family, tmp_path, monkeypatch):
    base, experts = family
    recipe = RECIPES[name]
    recipe = recipe | {"parameters": recipe["parameters"] | {"trim": "model", "seed": 1}}
    summary = merging.merge(base, experts, recipe, tmp_path / "ours")
    assert list(summary["bounds"]) == list(experts)
    repeat(recipe, base, experts, tmp_path, bounds=summary["bounds"])
    assert folder_digest(tmp_path / "theirs") == summary["output_digest"]
    # It is another merge than by tensors.
    by_tensors = merging.merge(base, experts, RECIPES[name], tmp_path / "by_tensors")
    assert "bounds" not in by_tensors
    assert by_tensors["output_digest"] != summary["output_digest"]


def test_large_tensors_of_ties_are_read_by_slices(family, tmp_path, monkeypatch):
    base, experts = family
    kept = merging.merge(base, experts, RECIPES["ties"], tmp_path / "kept")
    monkeypatch.setattr(strategies, "KEPT_BYTES", 0)
    again = merging.merge(base, experts, RECIPES["ties"], tmp_path / "again")
    assert again["output_digest"] == kept["output_digest"]
    assert again["bytes_read"] > 2 * kept["bytes_read"]


def test_the_order_of_the_experts_is_of_no_account_to_ties(family, tmp_path):
    base, experts = family
    first = merging.merge(base, experts, RECIPES["ties"], tmp_path / "first")
    turned = dict(reversed(experts.items()))
    second = merging.merge(base, turned, RECIPES["ties"], tmp_path / "second")
    assert first["output_digest"] == second["output_digest"]


@pytest.mark.slow
def test_the_command_by_hand(family, tmp_path):
    base, experts = family
    recipe = RECIPES["iso_c"]
    summary = merging.merge(base, experts, recipe, tmp_path / "ours")
    references = {name: str(path) for name, path in experts.items()} | {"base": str(base)}
    text = mergekit_yaml(recipe, references, list(experts), "bfloat16")
    assert text.startswith("# By hand, in this folder: wildmerge merge mergekit.yaml OUT\n")
    (tmp_path / "mergekit.yaml").write_text(text)
    by_hand = "import sys; from wildmerge.merging.recipe_yaml import merge_by_yaml as merge; "
    subprocess.run(
        [sys.executable, "-c", f"{by_hand}merge(sys.argv[1:])", "mergekit.yaml", "theirs"],
        cwd=tmp_path,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        check=True,
        capture_output=True,
    )
    assert folder_digest(tmp_path / "theirs") == summary["output_digest"]


def test_the_yaml_names_repo_and_revision():
    given = {"base": "a/b@0123", "x": "c/d@4567"}, ["x"], "float16"
    text = mergekit_yaml(TA, *given)
    config = yaml.safe_load(text)
    assert config["base_model"] == "a/b@0123"
    assert config["models"] == [{"model": "c/d@4567"}]
    assert config["parameters"] == {"weight": 1.0, "normalize": True, "lambda": 1.0}
    assert (config["dtype"], config["out_dtype"]) == ("float32", "float16")
    head = "# By hand, in this folder: mergekit-yaml mergekit.yaml OUT\nmerge_method: "
    assert text.startswith(f"{head}task_arithmetic\n")
    # TIES' choice among equal entries is this project's own, and depends on the weights.
    text = mergekit_yaml(RECIPES["ties"], *given, digests={"x": "89ab"})
    config = yaml.safe_load(text)
    assert config["merge_method"] == "ties_hashed"
    assert config["models"] == [{"model": "c/d@4567", "parameters": {"digest": "89ab"}}]
    assert text.startswith("# By hand, in this folder: wildmerge merge mergekit.yaml OUT\n")
    # What was converted is a folder here: the YAML says of what.
    made = mergekit_yaml(
        TA,
        {"base": "a/b@0123", "x": "checkpoints/x"},
        ["x"],
        "float16",
        {"base": "a/b@0123", "x": "c/d@4567"},
    )
    assert made.splitlines()[1] == "# checkpoints/x is c/d@4567"
    assert "a/b@0123 is" not in made


# --- What is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "match"),
    [
        ("model_stock", {"lambda": 1.0}, "'lambda' was unexpected"),
        ("task_arithmetic", {"density": 0.1}, "'density' was unexpected"),
        ("task_arithmetic", {"weight": 1.0}, "'weight' was unexpected"),
        ("task_arithmetic", {"combine": "median"}, "'median' is not one of"),
        ("task_arithmetic", {"lambda": "1.0"}, "a number was expected, found the text"),
        ("ties", {"density": 0}, "0 is less than or equal to the minimum"),
        ("ties", {"density": 10}, "10 is greater than the maximum"),
        ("ties_sb", {"beta": 1.5}, "1.5 is greater than the maximum"),
        ("iso_c", {"beta": 0.2}, "'beta' was unexpected"),
    ],
)
def test_parameters_the_method_has_not(name, changes, match, family, tmp_path):
    recipe = RECIPES[name] | {"parameters": RECIPES[name]["parameters"] | changes}
    refused(match, *family, recipe, tmp_path / "out")


def test_parameters_left_out(family, tmp_path):
    recipe = RECIPES["ties"] | {"parameters": {"combine": "mean", "density": 0.1}}
    refused("'lambda' is a required property", *family, recipe, tmp_path / "out")


@pytest.mark.parametrize(
    ("method", "parameters", "match"),
    [
        ("nonsense", {}, "names no method of mergekit"),
        ("dare_ties", {"weight": 1.0, "gamma": 0.1}, "no parameter `gamma`"),
        ("dare_ties", {"density": 0.1}, "needs the parameter `weight`"),
        ("dare_ties", {"weight": "much"}, "takes a float as weight, found .much."),
    ],
)
def test_parameters_of_mergekits_methods(method, parameters, match, family, tmp_path):
    recipe = TA | {"merge_method": f"mergekit/{method}", "parameters": parameters}
    refused(match, *family, recipe, tmp_path / "out")


def test_a_yaml_by_hand_is_checked_as_well(family):
    from mergekit.merge_methods import merge_tensors
    from wildmerge.merging import bridge

    bridge.register_methods()
    parameters = {"combine": "mean", "lambda": 1.0, "beta": 7.0}
    with pytest.raises(WildmergeError, match="beta"):
        merge_tensors(
            [torch.zeros(2, 2)] * 2, "task_arithmetic_sb", parameters=parameters, base_index=0
        )


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({}, "a `digest` was expected beside each model"),
        ({"digest": ["a", ""]}, "a `digest` was expected beside each model"),
        ({"digest": ["a", "b"], "trim": "model"}, "a `bound` .* was expected"),
        ({"digest": ["a", "b"], "trim": "model", "bound": ["3a83126f-00000000", "0.1"]}, "'0.1'"),
        ({"digest": ["a", "b"], "seed": 0.5}, "integer"),
    ],
)
def test_a_yaml_of_ties_says_whose_the_weights_are(given, match):
    from mergekit.merge_methods import merge_tensors
    from wildmerge.merging import bridge

    bridge.register_methods()
    parameters = {"combine": "mean", "lambda": 1.0, "density": 0.1} | given
    with pytest.raises((WildmergeError, ValueError), match=match):
        merge_tensors([torch.zeros(2, 2)] * 3, "ties_hashed", parameters=parameters, base_index=0)


def test_too_few_experts(family, tmp_path):
    base, experts = family
    refused(
        "at least 2 experts, found 1",
        base,
        {"e0": experts["e0"]},
        RECIPES["model_stock"],
        tmp_path / "out",
    )


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite(bad, recipe, own, tmp_path):
    base, experts = own
    name = "model.layers.1.mlp.up_proj.weight"
    change(experts["e1"], lambda content: content[name][3].fill_(bad))
    refused(
        rf"found NaN or Inf in that tensor of e1 .*{name}|{name}.* of e1",
        base,
        experts,
        recipe,
        tmp_path / "out",
    )


def test_overflow_of_float16(family, tmp_path):
    recipe = TA | {"parameters": {"combine": "sum", "lambda": 1e6}}
    refused("overflows float16", *family, recipe, tmp_path / "out", dtype="float16")


def test_truncated_shard(own, tmp_path):
    base, experts = own
    path = experts["e2"] / "model.safetensors"
    os.truncate(path, path.stat().st_size - 100)
    refused(f"{path}.*truncated", base, experts, TA, tmp_path / "out")


def test_a_file_that_breaks_while_it_is_read(own, tmp_path, monkeypatch):
    base, experts = own
    path = experts["e2"] / "model.safetensors"
    check = merging.check_shapes

    def then_truncate(*arguments):
        check(*arguments)
        os.truncate(path, 30_000)

    monkeypatch.setattr(merging, "check_shapes", then_truncate)
    refused(f"Tensor .* could not be read from {path}", base, experts, TA, tmp_path / "out")


def test_no_checkpoint_there(own, tmp_path):
    base, experts = own
    shutil.rmtree(experts["e0"])
    refused(f"{experts['e0']}.*missing", base, experts, TA, tmp_path / "out")


def test_other_shapes(own, tmp_path):
    base, experts = own
    name = "model.norm.weight"
    change(experts["e1"], lambda content: content.update({name: torch.ones(33)}))
    refused(
        rf"{name} should have the base's shape \[32\], but has \[33\]",
        base,
        experts,
        TA,
        tmp_path / "out",
    )


def test_missing_and_foreign_tensors(own, tmp_path):
    base, experts = own
    name = "model.norm.weight"
    change(experts["e1"], lambda content: content.update(other=content.pop(name)))
    refused(f"{name} of the base .* is missing in", base, experts, TA, tmp_path / "out")
    change(experts["e1"], lambda content: content.update({name: content["other"].clone()}))
    refused(
        "1 tensor.s. which the base .* has not, such as other", base, experts, TA, tmp_path / "out"
    )


def test_integer_buffers_are_copied_or_refused(own, tmp_path):
    base, experts = own
    for folder in [base, *experts.values()]:
        change(folder, lambda content: content.update(positions=torch.arange(3)))
    merging.merge(base, experts, TA, tmp_path / "out")
    assert torch.equal(tensors(tmp_path / "out")["positions"], torch.arange(3))
    change(experts["e1"], lambda content: content["positions"].add_(1))
    shutil.rmtree(tmp_path / "out")
    refused("positions holds I64 numbers", base, experts, TA, tmp_path / "out")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_base_without_its_papers(name, own, tmp_path):
    base, experts = own
    (base / name).unlink()
    refused(name.split(".")[0], base, experts, TA, tmp_path / "out")


def test_a_disk_too_small_is_found_at_once(family, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    monkeypatch.setattr(Weights, "read", None)  # nothing is read before
    refused(
        "0.00 GB are to be written, but the disk of .* has 0.00 GB left",
        *family,
        TA,
        tmp_path / "out",
    )


def test_a_disk_that_fills_up(family, tmp_path, monkeypatch):
    write, calls = os.pwrite, []

    def pwrite(*arguments):
        calls.append(threading.current_thread())
        if len(calls) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(*arguments)

    monkeypatch.setattr(os, "pwrite", pwrite)
    refused("the disk of .* is full", *family, TA, tmp_path / "out")


def test_an_earlier_merge_stays_until_the_new_one_is_whole(own, tmp_path):
    base, experts = own
    before = merging.merge(base, experts, TA, tmp_path / "out")
    change(experts["e1"], lambda content: content["model.norm.weight"].fill_(float("nan")))
    with pytest.raises(WildmergeError):
        merging.merge(base, experts, TA, tmp_path / "out")
    assert folder_digest(tmp_path / "out") == before["output_digest"]
