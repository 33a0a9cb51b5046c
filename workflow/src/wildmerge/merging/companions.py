"""What makes a folder of weights a model: config, tokenizer, generation config."""

import json
import shutil
from pathlib import Path

from wildmerge import WildmergeError
from wildmerge.checkpoints import CHAT_TEMPLATES, CONFIG, GENERATION, TOKENIZER_FILES, TOKENIZERS

# What, beside weights and config.json, makes a folder a model that loads and tokenises.
_COPIED = (GENERATION, *TOKENIZER_FILES, *CHAT_TEMPLATES)


def check_companions(base: Path, where: str) -> None:
    """Raise WildmergeError if a base has no config or no tokenizer for its merges.

    Args:
        base: its folder.
        where: the merge in words, for the message.
    """
    if not (base / CONFIG).is_file():
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
    config = json.loads((base / CONFIG).read_text(encoding="utf-8"))
    # transformers 5 writes `dtype`, older ones `torch_dtype`; both read either.
    config["dtype" if "dtype" in config else "torch_dtype"] = dtype
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")
    for name in _COPIED:
        if (base / name).is_file():
            shutil.copy(base / name, folder / name)
