"""What makes a folder of weights a model: config, tokenizer, generation config."""

import json
import shutil
from pathlib import Path

from wildmerge import WildmergeError

# What, beside weights and config.json, makes a folder a model that loads and tokenises.
COMPANIONS = (
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template*",
)
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def check_companions(base: Path, where: str) -> None:
    """Raise WildmergeError if a base has no config or no tokenizer for its merges.

    Args:
        base: its folder.
        where: the merge in words, for the message.
    """
    if not (base / "config.json").is_file():
        raise WildmergeError(
            f"{where}: the base {base} has no config.json, without which no model loads. Delete "
            "that folder, so that it is made again."
        )
    if not any((base / name).is_file() for name in TOKENIZERS):
        raise WildmergeError(
            f"{where}: the base {base} has no tokenizer ({', '.join(TOKENIZERS)}), so the merge "
            "could not be evaluated. Delete that folder, so that it is made again, or name a base "
            "that has one."
        )


def write_companions(base: Path, folder: Path, dtype: str) -> None:
    """Copy a base's companions to a merge, and its config with the merge's dtype.

    Args:
        base: the base's folder.
        folder: the merge's.
        dtype: of the merge's weights, by torch's name of it.
    """
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    # transformers 5 writes `dtype`, older ones `torch_dtype`; both read either.
    config["dtype" if "dtype" in config else "torch_dtype"] = dtype
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    for pattern in COMPANIONS:
        for file in base.glob(pattern):
            if file.is_file():
                shutil.copy(file, folder / file.name)
