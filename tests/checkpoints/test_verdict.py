"""Task vectors: numbers by hand, peers as oracles, and what speaks against a checkpoint."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import admit as admit_script
import families as families_script
import numpy as np
import pico
import pytest
import torch
from project import SOURCE
from safetensors.torch import load_file, save_file
from wildmerge import WildmergeError
from wildmerge.checkpoints import similarity as products, verdict as deltas
from wildmerge.checkpoints.compatibility import EMBEDDING
from wildmerge.checkpoints.similarity import gram_matrices
from wildmerge.checkpoints.verdict import ancestry, measure, sampled_rank
from wildmerge.merging import merge

ROW = {"base": "pico", "model": "it", "repo": "who/it", "revision": "0" * 40}
QUERY = "model.layers.0.self_attn.q_proj.weight"
SINGLE = "model.safetensors"


@pytest.fixture(scope="module")
def family(tmp_path_factory) -> tuple[Path, dict[str, Path]]:
    """A pico Qwen3 and five experts of it. Read only."""
    folder = tmp_path_factory.mktemp("family")
    base = pico.qwen3(folder / "base", initializer_range=0.2)
    scales = {"ann": 0.02, "bob": 0.03, "cat": 0.05, "dan": 0.03, "eve": 0.02}
    experts = {
        name: pico.expert(base, folder / name, seed=i, scale=scale)
        for i, (name, scale) in enumerate(scales.items())
    }
    return base, experts


def changed(expert: Path, folder: Path, change) -> Path:
    """A copy of a checkpoint whose tensors went through `change`."""
    shutil.copytree(expert, folder)
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file(tensors, folder / SINGLE)
    return folder


def dense(base: Path, expert: Path) -> dict[str, np.ndarray]:
    """All deltas at once in float64, flat, by name."""
    ours, theirs = load_file(base / SINGLE), load_file(expert / SINGLE)
    return {n: (theirs[n].double() - ours[n].double()).flatten().numpy() for n in sorted(ours)}


# --- Measures ------------------------------------------------------------------------------------


def test_squares_by_hand(monkeypatch):
    base = torch.tensor([1.0, 2.0, 2.0, 4.0], dtype=torch.bfloat16)
    expert = torch.tensor([1.0, 5.0, 2.0, 0.0], dtype=torch.float32)
    for size in (1, 3, 4):  # the last slice is shorter than the others
        monkeypatch.setattr(deltas, "SLICE", size)
        assert deltas._squares(base, expert) == (9 + 16, 1 + 4 + 4 + 16)


def test_float64_sums_keep_small_deltas():
    base = torch.full((1 << 21,), 100.0)
    expert = base + 2.0**-10
    delta, _ = deltas._squares(base, expert)
    assert delta == pytest.approx((1 << 21) * 2.0**-20, rel=1e-12)


def test_measure(family):
    base, experts = family
    verdict = measure(base, experts["cat"], ROW)
    assert verdict["compatible"] and verdict["reasons"] == []
    expected = dense(base, experts["cat"])
    assert verdict["tensors"].keys() == expected.keys()
    for name, delta in expected.items():
        assert verdict["tensors"][name]["norm"] == pytest.approx(np.linalg.norm(delta), rel=1e-12)
    whole = np.concatenate(list(expected.values()))
    assert verdict["norm"] == pytest.approx(np.linalg.norm(whole), rel=1e-12)
    assert verdict["relative_norm"] == pytest.approx(0.05, rel=0.1)
    assert verdict["base_digest"] == measure(base, experts["ann"], ROW)["base_digest"]
    assert json.loads(json.dumps(verdict, allow_nan=False)) == verdict
    assert {key: verdict[key] for key in ROW} == ROW


def test_shards_do_not_change_the_digest(family, tmp_path):
    base, experts = family
    whole = measure(base, experts["ann"], ROW)["digest"]
    shutil.copytree(experts["ann"], tmp_path / "cut")
    tensors = load_file(tmp_path / "cut" / SINGLE)
    (tmp_path / "cut" / SINGLE).unlink()
    placed = {n: f"shard-{i % 3}.safetensors" for i, n in enumerate(tensors)}
    for shard in set(placed.values()):
        save_file(
            {n: t for n, t in tensors.items() if placed[n] == shard}, tmp_path / "cut" / shard
        )
    index = {"weight_map": placed}
    (tmp_path / "cut/model.safetensors.index.json").write_text(json.dumps(index))
    assert measure(base, tmp_path / "cut", ROW)["digest"] == whole


@pytest.mark.parametrize("shape", [(300, 40), (40, 300), (40, 40)])
def test_the_rank_of_a_delta(shape):
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(shape, generator=generator)
    up = torch.randn(shape[0], 5, generator=generator)
    down = torch.randn(5, shape[1], generator=generator)
    assert sampled_rank(base, base + up @ down) == 5
    assert sampled_rank(base, base + torch.randn(shape, generator=generator)) == 40
    assert sampled_rank(base, base) == 0


# --- Verdicts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_inf(family, tmp_path, value):
    base, experts = family

    def spoil(tensors):
        tensors[QUERY][3, 4] = value

    verdict = measure(base, changed(experts["ann"], tmp_path / "it", spoil), ROW)
    assert verdict["reasons"] == [f"NaN or Inf in 1 tensor(s): {QUERY}"]
    assert not verdict["compatible"] and not verdict["overridable"]
    assert verdict["norm"] is None and verdict["tensors"][QUERY]["norm"] is None
    with pytest.raises(WildmergeError, match=f"base's tensor {QUERY}, found NaN"):
        measure(tmp_path / "it", experts["ann"], ROW)


def test_a_copy_of_the_base(family):
    base, _ = family
    verdict = measure(base, base, ROW)
    assert verdict["reasons"] == ["every weight equals the base's: it is a copy, not a fine-tune"]
    assert verdict["overridable"] and verdict["norm"] == 0
    assert verdict["digest"] == verdict["base_digest"]


def test_another_model_of_the_same_shapes(family, tmp_path):
    base, _ = family
    verdict = measure(base, pico.qwen3(tmp_path / "other", seed=7, initializer_range=0.2), ROW)
    assert verdict["overridable"] and "is no fine-tune" in verdict["reasons"][0]


def test_a_large_delta_is_only_mentioned(family, tmp_path):
    base, _ = family
    verdict = measure(base, pico.expert(base, tmp_path / "far", scale=0.2), ROW)
    assert verdict["compatible"] and "much for a fine-tune" in verdict["warnings"][0]


def test_a_checkpoint_that_cannot_be_read_is_refused(family, tmp_path):
    base, experts = family
    shutil.copytree(experts["ann"], tmp_path / "it")
    data = (tmp_path / "it" / SINGLE).read_bytes()
    (tmp_path / "it" / SINGLE).write_bytes(data[:-10])
    verdict = measure(base, tmp_path / "it", ROW)
    assert not verdict["compatible"] and not verdict["overridable"]
    assert "whole safetensors file" in verdict["reasons"][0]


def test_low_rank_deltas_are_mentioned(family, tmp_path):
    base, _ = family

    def adapt(tensors):
        for name in tensors:
            tensors[name] = tensors[name].float()
        tensors[QUERY] += torch.outer(torch.arange(32.0), torch.ones(32))

    verdict = measure(base, changed(base, tmp_path / "it", adapt), ROW)
    assert verdict["tensors"][QUERY]["rank"] == 1
    assert "the deltas of 1 of 1 changed matrices have rank 1 to 1" in verdict["warnings"][0]


def test_the_gate():
    good = {**ROW, "compatible": True, "overridable": False, "reasons": []}
    assert admit_script.admit(good, "") == good
    doubtful = {**ROW, "compatible": False, "overridable": True, "reasons": ["rope differs"]}
    with pytest.raises(WildmergeError, match=r"pico/it \(who/it\) cannot: rope differs.*`admit`"):
        admit_script.admit(doubtful, "")
    assert admit_script.admit(doubtful, "it is meant")["admitted_because"] == "it is meant"
    hopeless = doubtful | {"overridable": False, "reasons": ["NaN"]}
    with pytest.raises(WildmergeError, match="No reason can change that"):
        admit_script.admit(hopeless, "it is meant")


# --- Families ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def verdicts(family, tmp_path_factory) -> list[dict]:
    """Of the family, of a copy of bob, and of a child of another ancestor of the same shapes."""
    base, experts = family
    folder = tmp_path_factory.mktemp("strangers")
    elder = pico.expert(base, folder / "elder", seed=99, scale=0.3)
    members = experts | {
        "bert": experts["bob"],
        "stranger": pico.expert(elder, folder / "stranger", seed=98, scale=0.02),
    }
    return [measure(base, path, ROW | {"model": name}) for name, path in members.items()]


def test_a_child_of_another_ancestor_stands_out(verdicts):
    scores = ancestry(verdicts)
    assert scores.pop("stranger") > 2 * deltas.STRANGER
    assert max(scores.values()) < 0.7 * deltas.STRANGER
    assert ancestry(verdicts[:2]) == {}


def test_a_large_fine_tune_that_left_something_alone_does_not(family, verdicts, tmp_path):
    base, _ = family

    def train(tensors):
        for name in tensors:
            if tensors[name].ndim == 2 and name != EMBEDDING:
                tensors[name] *= 1.3

    verdict = measure(base, changed(base, tmp_path / "it", train), ROW)
    assert ancestry([*verdicts[:5], verdict])["it"] < deltas.STRANGER


def test_families_are_told_and_stop_the_study(verdicts, tmp_path, capsys):
    for verdict in verdicts:
        (tmp_path / f"{verdict['model']}.json").write_text(json.dumps(verdict))
    paths = [str(tmp_path / f"{verdict['model']}.json") for verdict in verdicts]
    output = tmp_path / "checkpoints.csv"
    with pytest.raises(WildmergeError, match="2 of 7 are in doubt: pico/bert, pico/stranger"):
        families_script.main(paths, {}, output, refuse_copies=True)
    said = capsys.readouterr().out
    assert "pico/bert (who/it): it has the same weights as bob." in said
    assert "its ancestor is probably not pico" in said
    families_script.main(paths, {"pico/bert": "twice", "pico/stranger": "on purpose"}, output)
    assert "Admitted: on purpose" in capsys.readouterr().out
    lines = output.read_text().splitlines()
    assert len(lines) == 8 and all(",True," in line for line in lines[1:])


def test_two_names_for_the_same_weights_are_a_line_of_the_table(verdicts, tmp_path, capsys):
    for verdict in verdicts:
        (tmp_path / f"{verdict['model']}.json").write_text(json.dumps(verdict))
    paths = [str(tmp_path / f"{v['model']}.json") for v in verdicts if v["model"] != "stranger"]
    families_script.main(paths, {}, tmp_path / "checkpoints.csv")
    assert "pico/bert (who/it): it has the same weights as bob." in capsys.readouterr().out
    lines = (tmp_path / "checkpoints.csv").read_text().splitlines()
    assert sum("it has the same weights as" in line and ",True," in line for line in lines) == 1


def test_what_cannot_be_merged_stays_refused(verdicts):
    broken = verdicts[0] | {"compatible": False, "reasons": ["NaN"], "overridable": False}
    rows = deltas.families([broken], {("pico", broken["model"]): "please"})
    assert not rows[0]["usable"]


# --- Products ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_similarity_against_all_at_once(family, monkeypatch, size):
    base, experts = family
    monkeypatch.setattr(products, "SLICE", size)
    found = gram_matrices(base, experts)
    all_deltas = [dense(base, path) for path in experts.values()]
    assert list(found["names"]) == sorted(all_deltas[0])
    assert list(found["models"]) == list(experts)
    for t, name in enumerate(found["names"]):
        rows = np.stack([d[name] for d in all_deltas])
        size = np.linalg.norm(rows, axis=1).max() ** 2
        np.testing.assert_allclose(found["gram"][t], rows @ rows.T, atol=1e-6 * size)
    assert found.keys() == {"names", "models", "gram"}


def test_similarity_refuses_other_shapes_and_nan(family, tmp_path):
    base, experts = family
    other = pico.qwen3(tmp_path / "other", intermediate_size=64)
    with pytest.raises(WildmergeError, match="other names or shapes"):
        gram_matrices(base, {"ann": experts["ann"], "other": other})

    def spoil(tensors):
        tensors[QUERY][0, 0] = float("nan")

    broken = changed(experts["ann"], tmp_path / "it", spoil)
    with pytest.raises(WildmergeError, match="found NaN or Inf in it"):
        gram_matrices(base, {"bob": experts["bob"], "it": broken})


MEMORY = """
import resource, sys, torch
from wildmerge.checkpoints.similarity import gram_matrices
torch.set_num_threads(1)
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
gram_matrices(sys.argv[1], {str(i): path for i, path in enumerate(sys.argv[2:])})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start)
"""


@pytest.mark.slow
def test_one_pass_over_twelve_experts_needs_the_memory_of_slices(tmp_path):
    base = pico.llama(tmp_path / "base", vocab=300, hidden_size=512, intermediate_size=4096)
    experts = [pico.expert(base, tmp_path / f"{i}", seed=i) for i in range(12)]
    size = (base / SINGLE).stat().st_size
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, base, *experts],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
    )
    # 13 slices as they are stored, and chunks of them in float32; 13 models are 13 sizes.
    assert int(done.stdout) * 1024 < 13 * products.SLICE * 2 * 4 < 13 * size / 3


def test_a_tensor_without_elements_is_told_before_any_arithmetic(tmp_path, pico_family):
    folders = [pico_family[0], pico_family[1]["ann"]]
    for i, source in enumerate(folders):
        folders[i] = shutil.copytree(source, tmp_path / source.name)
        tensors = load_file(folders[i] / "model.safetensors") | {"empty": torch.zeros(0, 4)}
        save_file(tensors, folders[i] / "model.safetensors", {"format": "pt"})
    row = {"base": "pico", "model": "ann", "repo": "dir:ann", "revision": ""}
    verdict = deltas.measure(*folders, row)
    assert not verdict["compatible"] and not verdict["overridable"]
    assert "1 tensor(s) hold no element: empty" in verdict["reasons"]
    recipe = {"name": "iso_c", "merge_method": "iso_c", "version": 1}
    recipe |= {"parameters": {"combine": "sum", "lambda": 1.0}}
    with pytest.raises(WildmergeError, match=r"empty has shape \[0, 4\]. Save the base without"):
        merge(folders[0], {"ann": folders[1]}, recipe, tmp_path / "out")
