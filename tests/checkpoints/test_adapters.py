"""Adapters of every kind that peft offers: merged as peft merges them, or refused by name."""

import json
import shutil
from pathlib import Path

import peft
import pico
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from wildmerge import WildmergeError
from wildmerge.checkpoints import convert
from wildmerge.checkpoints.adapters import MERGED

ATTENTION = ["q_proj", "v_proj"]

# Name -> settings of an adapter that is merged; `kind` is peft's, LoRA where none is named.
MADE = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "rank_pattern": {"rank_pattern": {"v_proj": 2}},
    "alpha_pattern": {"alpha_pattern": {"layers.1.self_attn.v_proj": 32}},
    "one layer": {"layers_to_transform": [1]},
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "dora": {"use_dora": True},
    "dora, rslora": {"use_dora": True, "use_rslora": True},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
    "mica": {"init_lora_weights": "mica"},
    "fan_in_fan_out": {"fan_in_fan_out": True},
    "mlp": {"target_modules": ["down_proj", "up_proj"]},
    "by a pattern": {"target_modules": r".*layers\.0\..*(q|o)_proj"},
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "whole norms": {"modules_to_save": ["norm"]},
    "whole head": {"modules_to_save": ["lm_head"]},
    "loha": {"kind": "LOHA"},
    "lokr": {"kind": "LOKR"},
    "ia3": {"kind": "IA3", "target_modules": ["k_proj", "down_proj"],
            "feedforward_modules": ["down_proj"]},
    "oft": {"kind": "OFT", "oft_block_size": 8},
    "boft": {"kind": "BOFT", "boft_block_size": 4},
    "hra": {"kind": "HRA"},
}  # fmt: skip

# Settings of LoRA that are refused, and a part of what is said.
REFUSED = {
    "pissa_niter": ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4, by a decomposition by"),
    "corda": ({"init_lora_weights": "corda"}, "corda, by the covariance of data"),
    "loftq": ({"init_lora_weights": "loftq"}, "loftq, by quantisation"),
    "lora_ga": ({"init_lora_weights": "lora_ga"}, "lora_ga, by gradients"),
    "of tomorrow": ({"init_lora_weights": "zeta"}, "init_lora_weights: zeta"),
    "replicated layers": ({"layer_replication": [[0, 2], [1, 2]]}, "it uses layer_replication"),
    "parameters": ({"target_parameters": ["mlp.experts.down_proj"]}, "it uses target_parameters"),
    "after a phrase": ({"alora_invocation_tokens": [1, 2]}, "it uses alora_invocation_tokens"),
    "rows of tokens": ({"trainable_token_indices": [1]}, "it uses trainable_token_indices"),
    "an unknown key": ({"use_magic": True}, "it uses use_magic"),
    "no alpha": ({"lora_alpha": None}, "lacks lora_alpha"),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return pico.llama(tmp_path_factory.mktemp("base") / "base", tied=False)


def save_adapter(base: Path, folder: Path, kind="LORA", **settings) -> None:
    """Train nothing, but move every trained parameter; save as peft does."""
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings = {"target_modules": ATTENTION} | settings
    if kind == "LORA":
        settings = {"r": 4, "lora_alpha": 16} | settings
    config = peft.PEFT_TYPE_TO_CONFIG_MAPPING[kind](task_type="CAUSAL_LM", **settings)
    begun = getattr(config, "init_lora_weights", None)
    adapted = peft.get_peft_model(model, config)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    adapted.save_pretrained(folder)
    written = json.loads((folder / "adapter_config.json").read_text())
    if begun is not None:
        assert written["init_lora_weights"] == begun


def merged_by_peft(base: Path, folder: Path) -> dict[str, torch.Tensor]:
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return peft.PeftModel.from_pretrained(model, folder).merge_and_unload().state_dict()


def merged_here(base: Path, folder: Path, target: Path) -> dict[str, torch.Tensor]:
    convert({p.name: p for p in folder.iterdir()}, target, base, "who/it", shutil.copyfile)
    return load_file(target / "model.safetensors")


@pytest.mark.parametrize("name", MADE)
def test_an_adapter_is_merged_as_peft_merges_it(base, tmp_path, name):
    save_adapter(base, tmp_path / "adapter", **MADE[name])
    expected = merged_by_peft(base, tmp_path / "adapter")
    tensors = merged_here(base, tmp_path / "adapter", tmp_path / "whole")
    before = load_file(base / "model.safetensors")
    assert set(tensors) == set(before)
    changed = {n for n in tensors if not torch.equal(tensors[n].float(), before[n].float())}
    assert changed
    for tensor in tensors:
        torch.testing.assert_close(tensors[tensor].float(), expected[tensor], rtol=0, atol=1e-6)
        assert (tensors[tensor].dtype == torch.float32) >= (tensor in changed)
    said = json.loads((tmp_path / "whole" / "conversions.json").read_text())["conversions"]
    assert f"it names {base} as the model that it adapts" in said[-1]


def test_kinds_that_are_merged_are_all_in_the_table():
    assert {settings.get("kind", "LORA") for settings in MADE.values()} == set(MERGED)


@pytest.mark.parametrize("kind", sorted({kind.value for kind in peft.PeftType} - set(MERGED)))
def test_other_kinds_are_refused_by_name(base, tmp_path, kind):
    folder = tmp_path / "adapter"
    folder.mkdir()
    trained = {"base_model.model.model.layers.0.self_attn.q_proj.weights": torch.ones(4)}
    save_file(trained, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": kind}))
    with pytest.raises(WildmergeError, match=f"its kind is {kind}, and what is merged here is LO"):
        merged_here(base, folder, tmp_path / "whole")
    assert not (tmp_path / "whole").exists()


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_of_lora_is_refused(base, tmp_path, name):
    changes, told = REFUSED[name]
    save_adapter(base, tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(WildmergeError, match="An adapter of the base was expected in who/it") as e:
        merged_here(base, tmp_path / "adapter", tmp_path / "whole")
    assert told in str(e.value)
    assert not (tmp_path / "whole").exists()


def test_an_adapter_of_a_tied_head_is_refused(tmp_path):
    tied = pico.llama(tmp_path / "tied")
    save_adapter(tied, tmp_path / "adapter", target_modules=["embed_tokens"])
    with pytest.raises(WildmergeError, match="to which the base's head is tied"):
        merged_here(tied, tmp_path / "adapter", tmp_path / "whole")
