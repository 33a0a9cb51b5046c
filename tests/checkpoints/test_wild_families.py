"""What comes out of the wild is merged like anything else: each kind, by each recipe of the paper.

Families of Llama and Qwen3, tied and untied, with padded vocabularies; their experts come as an
adapter, with extra or missing rows, with another head, in float32, in shards without an index.
"""

import json
from pathlib import Path

import pico
import pytest
import torch
import transformers
import yaml
from lm_eval.api.instance import Instance
from project import ROOT, STUDY
from safetensors.torch import load_file, save_file
from wildmerge.checkpoints.compatibility import EMBEDDING, HEAD
from wildmerge.checkpoints.verdict import measure
from wildmerge.evaluation import scoring as evaluation
from wildmerge.merging.streaming import merge
from wildmerge.sources.fetch import fetch_checkpoint

PAIRS = [("the cat", " sat"), ("the cat", " sat down"), ("a", " b"), ("", "the cat")]
SINGLE = "model.safetensors"
QUERY = "model.layers.0.self_attn.q_proj"
BASES = {
    "llama-tied": lambda folder: pico.llama(folder),
    "llama-untied": lambda folder: pico.llama(folder, tied=False),
    "qwen3-tied-padded": lambda folder: pico.qwen3(folder, vocab=272),
    "qwen3-untied-padded": lambda folder: pico.qwen3(folder, vocab=272, tied=False),
}


def load(folder: Path) -> dict[str, torch.Tensor]:
    return {
        n: t for file in sorted(folder.glob("*.safetensors")) for n, t in load_file(file).items()
    }


def rewrite(folder: Path, tensors: dict[str, torch.Tensor], **config) -> None:
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / SINGLE)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))


def sources(base: Path, folder: Path) -> dict[str, tuple[Path, dict[str, torch.Tensor]]]:
    """Experts as the wild has them: name -> (folder, the tensors that they mean)."""
    found = {}

    def expert(name: str, seed: int):
        path = pico.expert(base, folder / name, seed=seed, scale=0.1)
        return path, load(path)

    path, tensors = expert("float32", 1)
    meant = {n: t.float() + 1e-5 for n, t in tensors.items()}
    rewrite(path, meant)
    found["float32"] = path, meant

    path, tensors = expert("extra-rows", 2)
    more = torch.ones(64, 32, dtype=torch.bfloat16)
    rows = {n: torch.cat([tensors[n], more]) for n in (EMBEDDING, HEAD) if n in tensors}
    rewrite(path, tensors | rows, vocab_size=len(rows[EMBEDDING]))
    found["extra-rows"] = path, tensors

    path, tensors = expert("other-head", 3)
    if HEAD in tensors:
        del tensors[HEAD]
        rewrite(path, tensors, tie_word_embeddings=True)
    else:
        rewrite(path, tensors | {HEAD: tensors[EMBEDDING].clone()}, tie_word_embeddings=False)
    own = {HEAD: tensors[EMBEDDING]} if HEAD in load(base) else {}
    found["other-head"] = path, tensors | own

    path, tensors = expert("shards", 4)
    names = sorted(tensors)
    for i in (1, 2):
        part = {n: tensors[n] for n in names[i - 1 :: 2]}
        save_file(part, path / f"model-0000{i}-of-00002.safetensors")
    (path / SINGLE).unlink()
    found["shards"] = path, tensors

    torch.manual_seed(5)
    path, tensors = folder / "adapter", load(base)
    path.mkdir()
    down, up = torch.randn(2, 32), 0.02 * torch.randn(32, 2)
    stem = f"base_model.model.{QUERY}"
    save_file(
        {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up},
        path / "adapter_model.safetensors",
    )
    (path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 4}))
    merged = tensors[f"{QUERY}.weight"].float() + 2 * up @ down
    found["adapter"] = path, tensors | {f"{QUERY}.weight": merged}

    if "padded" in base.name:
        path, tensors = expert("missing-rows", 6)
        kept = {n: tensors[n][:257] for n in (EMBEDDING, HEAD) if n in tensors}
        rewrite(path, tensors | kept, vocab_size=257)
        ours = load(base)
        filled = {n: torch.cat([kept[n], ours[n][257:]]) for n in kept}
        found["missing-rows"] = path, tensors | filled
    return found


@pytest.mark.parametrize("kind", BASES)
def test_every_kind_by_every_recipe(kind, tmp_path):
    fetch_checkpoint(f"dir:{BASES[kind](tmp_path / kind)}", "", tmp_path / "base")
    base, weights = tmp_path / "base", load(tmp_path / "base")
    experts, meant = {}, {}
    for name, (source, tensors) in sources(tmp_path / kind, tmp_path / "sources").items():
        experts[name], meant[name] = tmp_path / "fetched" / name, tensors
        fetch_checkpoint(f"dir:{source}", "", experts[name], base)
        row = {"base": kind, "model": name, "repo": "dir:x", "revision": ""}
        verdict = measure(base, experts[name], row)
        assert verdict["compatible"], (name, verdict["reasons"])
        found = load(experts[name])
        assert found.keys() == weights.keys()
        for tensor in found:
            torch.testing.assert_close(found[tensor], tensors[tensor], rtol=1e-6, atol=1e-7)

    recipes = yaml.safe_load((ROOT / "config/recipes.yaml").read_text())
    for recipe in STUDY["recipes"]:
        output = tmp_path / recipe
        merge(base, experts, recipes[recipe] | {"name": recipe}, output, dtype="float32")
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            output, dtype=torch.float32, output_loading_info=True
        )
        assert not info["missing_keys"] and not info["unexpected_keys"], (recipe, info)
        with torch.no_grad():
            logits = model(torch.tensor([[1, 2, 3]])).logits
        assert logits.isfinite().all() and logits.shape[-1] == len(weights[EMBEDDING])
    scored = [
        evaluation.load_model(
            backend, tmp_path / "task_arithmetic", "float32", None, 4, "cpu"
        ).loglikelihood([Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(PAIRS)])
        for backend in ("shared-prefix", "hf")
    ]
    for (ours, greedy), (theirs, as_greedy) in zip(*scored, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
        assert greedy == as_greedy
    mean = load(tmp_path / "task_arithmetic")
    for name, weight in weights.items():
        deltas = [tensors[name].double() - weight.double() for tensors in meant.values()]
        expected = weight.double() + sum(deltas) / len(deltas)
        torch.testing.assert_close(mean[name].double(), expected, rtol=1e-5, atol=1e-6)
