"""Real checkpoints of a few thousand parameters, made on the fly.

Each is an ordinary transformers folder (config, safetensors, tokenizer) that mergekit and lm-eval
take like any other. They know nothing: they are for testing the machinery.
"""

from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


def _tokenizer(vocab: int) -> transformers.PreTrainedTokenizerFast:
    # Bytes as tokens: any text can be encoded, nothing has to be trained.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = {token: i for i, token in enumerate(["<|end|>", *alphabet])}
    assert len(tokens) <= vocab, f"vocab {vocab} holds no 257 tokens"
    tokenizer = Tokenizer(models.BPE(vocab=tokens, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>"
    )


def _save(model, folder: Path, vocab: int, dtype) -> Path:
    model.to(dtype).save_pretrained(folder)
    _tokenizer(vocab).save_pretrained(folder)
    return Path(folder)


def llama(folder, seed=0, tied=True, vocab=257, dtype=torch.bfloat16, **changes) -> Path:
    """Save a two-layer Llama with random weights; return its folder."""
    config = transformers.LlamaConfig(
        **(SIZES | {"vocab_size": vocab, "tie_word_embeddings": tied} | changes),
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(seed)
    return _save(transformers.LlamaForCausalLM(config), Path(folder), vocab, dtype)


def qwen3(folder, seed=0, tied=True, vocab=257, dtype=torch.bfloat16, **changes) -> Path:
    """Save a two-layer Qwen3 with random weights; return its folder."""
    config = transformers.Qwen3Config(
        **(SIZES | {"vocab_size": vocab, "tie_word_embeddings": tied, "head_dim": 8} | changes),
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(seed)
    return _save(transformers.Qwen3ForCausalLM(config), Path(folder), vocab, dtype)


def expert(base, folder, seed=1, scale=0.05) -> Path:
    """Save a copy of the checkpoint `base` whose every weight moved by noise of size `scale`.

    `scale` is relative to the standard deviation of each tensor (or to 1 where that is zero).
    """
    base, folder = Path(base), Path(folder)
    folder.mkdir(parents=True)
    for file in base.iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    generator = torch.Generator().manual_seed(seed)
    moved = {}
    for name, tensor in load_file(base / "model.safetensors").items():
        spread = tensor.float().std().item() or 1.0
        noise = torch.randn(tensor.shape, generator=generator) * spread * scale
        moved[name] = (tensor.float() + noise).to(tensor.dtype)
    save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
