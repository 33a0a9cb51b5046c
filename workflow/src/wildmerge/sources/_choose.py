"""Which files of a repository make a checkpoint."""

import json
import re
from collections.abc import Callable

from wildmerge import WildmergeError
from wildmerge.checkpoints import SMALL_FILES
from wildmerge.files import check_name
from wildmerge.tensors import INDEX, SINGLE

_SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)\.(safetensors|bin)")
_PICKLED_INDEX = "pytorch_model.bin.index.json"


def choose_files(
    names: set[str], where: str, read: Callable[[str], bytes], pickles: bool
) -> list[str]:
    """Choose the files of a repository that make a checkpoint, and no others.

    Args:
        names: its files; only those at the top count (`original/` holds a second copy).
        where: the source, for messages.
        read: name -> the bytes of a small file.
        pickles: whether pickled weights may be taken if there are no others.

    Returns:
        The names: config, tokenizer and the weights, safetensors if there are any.

    Raises:
        WildmergeError: there are no weights that can be used; it says what there is.
    """
    small = [name for name in SMALL_FILES if name in names]
    top = {name for name in names if "/" not in name}
    tensors = {n for n in top if n.endswith(".safetensors") and not n.startswith("consolidated")}
    adapters = {n for n in tensors if n.startswith("adapter_")}
    pickled = {n for n in top if n.startswith(("pytorch_model", "adapter_model"))}
    pickled = {n for n in pickled if n.endswith(".bin")}
    if SINGLE in tensors:
        weights = [SINGLE]
    elif INDEX in names:
        weights = [INDEX, *_placed(read(INDEX), INDEX, where)]
    elif tensors - adapters:
        weights = _all_shards(tensors - adapters, where)
    elif "adapter_model.safetensors" in tensors:
        weights = ["adapter_model.safetensors"]
    elif pickled and pickles:
        if _PICKLED_INDEX in names:
            weights = [_PICKLED_INDEX, *_placed(read(_PICKLED_INDEX), _PICKLED_INDEX, where)]
        else:
            weights = _all_shards(pickled, where)
    elif pickled:
        raise WildmergeError(
            f"Safetensors were expected in {where}, but it holds pickled weights only "
            f"({', '.join(sorted(pickled)[:3])}), and pickles can carry code. If you want it all "
            "the same, say why in the column `admit` of its row, with the word `pickle`: torch's "
            "restricted unpickler, which runs no code, then reads it."
        )
    else:
        gguf = sorted(name for name in top if name.endswith(".gguf"))
        there = f"GGUF files only ({', '.join(gguf[:3])})" if gguf else "no weights at all"
        raise WildmergeError(
            f"Safetensors were expected in {where}, but it holds {there}. Quantised weights have "
            "lost what a task vector is made of: choose the repository that they were made from."
        )
    for name in weights:
        check_name(name, where)
        if "/" in name:
            raise WildmergeError(
                f"All weights were expected at the top of {where}, but its index names {name}, in "
                "a sub-folder. Choose another revision or another checkpoint, or put the files "
                "side by side into a folder of your own and name it `dir:path`."
            )
    if missing := [name for name in weights if name not in names]:
        raise WildmergeError(
            f"All shards that its index names were expected in {where}, but {missing[0]} is not "
            f"there ({len(missing)} missing). Choose another revision or another checkpoint."
        )
    return small + weights


def _placed(index: bytes, name: str, where: str) -> list[str]:
    try:
        names = set(json.loads(index)["weight_map"].values())
        if not all(isinstance(name, str) for name in names):
            raise ValueError("a shard's name is no text")
        return sorted(names)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WildmergeError(
            f"A JSON object with a `weight_map` was expected in {where}, file {name}, but it "
            f"cannot be read: {error!r}. Choose another revision or another checkpoint."
        ) from error


def _all_shards(names: set[str], where: str) -> list[str]:
    """All shards of a set without an index; their own names say how many there should be."""
    for name in names:
        check_name(name, where)
        if match := _SHARD.fullmatch(name):
            stem, width, count, suffix = match[1], len(match[2]), match[3], match[4]
            for i in range(1, int(count) + 1):
                if (shard := f"{stem}-{i:0{width}}-of-{count}.{suffix}") not in names:
                    raise WildmergeError(
                        f"{int(count)} shards were expected in {where}, but {shard} is not there. "
                        "Choose another revision or another checkpoint."
                    )
    return sorted(names)
