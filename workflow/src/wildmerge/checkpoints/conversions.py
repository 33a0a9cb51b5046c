"""Make whatever a repository holds an ordinary checkpoint of its base's shapes.

What is done here changes no function that is measured: adapters are merged into the base, rows of
a padded vocabulary are cut or filled, a tied head is written out or left out, buffers and leftovers
are dropped. It is planned from headers alone (so a preflight can state it before a download), and
done once, behind the download, so that everything downstream sees one kind of checkpoint. What
cannot be done safely is left as it is: the verdict on the checkpoint then says why it is refused.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from wildmerge import WildmergeError
from wildmerge.files import atomic_folder, read_json
from wildmerge.tensors import DTYPE_NAMES, DTYPES, INDEX, SINGLE, Weights, Writer, read_header

from .adapters import Merger, is_adapter, plan_adapter
from .companions import ADAPTER, CONFIG, CONVERSIONS, GENERATION, TOKENIZER_FILES, TOKENIZERS
from .compatibility import (
    EMBEDDING,
    FLOATS,
    HEAD,
    TOKEN_ROWS,
    Headers,
    read_headers,
    whole_safetensors,
)

BUFFER = "rotary_emb.inv_freq"
_SLICE = 1 << 22  # elements of a tensor that are compared at once
_INDEXES = (".safetensors.index.json", ".bin.index.json")


@dataclass
class ConversionPlan:
    """What will be done to a checkpoint.

    Attributes:
        said: a sentence for each conversion.
        doubts: what of it the sheet has to admit.
        drop: tensors to leave out.
        rows: rows that embedding and head shall have, None to leave them.
        head_of_embedding: whether to write the tied head out.
        config: keys of config.json to change, None to remove one.
        tokenizer: whether to take the base's.
    """

    said: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    drop: set[str] = field(default_factory=set)
    rows: int | None = None
    head_of_embedding: bool = False
    config: dict = field(default_factory=dict)
    tokenizer: bool = False


def plan_conversions(base: Headers, expert: Headers, same_head: bool = True) -> ConversionPlan:
    """Plan the conversions of a checkpoint from its headers and the base's.

    Args:
        base: the base's headers.
        expert: the checkpoint's.
        same_head: whether a head that the tied base has not equals the embedding, which is seen in
            the weights only.
    """
    todo = ConversionPlan()
    _drop_buffers(expert, todo)
    _plan_rows(base, expert, todo)
    if HEAD in expert.tensors and HEAD not in base.tensors and same_head:
        todo.drop.add(HEAD)
        todo.config["tie_word_embeddings"] = True
        todo.said.append(f"{HEAD} was dropped: it equals the embedding, and the base's is tied")
    tied = expert.config.get("tie_word_embeddings", False)
    if HEAD in base.tensors and HEAD not in expert.tensors and tied:
        todo.head_of_embedding = True
        todo.config["tie_word_embeddings"] = False
        todo.said.append(f"{HEAD} was written out: it is tied to the embedding, the base's is not")
    if "quantization_config" in expert.config and all(
        dtype in FLOATS for dtype, _ in expert.tensors.values()
    ):
        todo.config["quantization_config"] = None
        todo.said.append("quantization_config was removed from config.json; nothing is quantised")
    if not expert.tokenizer:
        todo.tokenizer = True
        todo.said.append("the base's tokenizer was taken")
        todo.doubts.append("it came without a tokenizer, so what it was trained on is not known")
    return todo


def plan_base_conversions(base: Headers, same_head: bool) -> ConversionPlan:
    """Plan the conversions of a base: a tied head that was stored all the same is left out.

    Whoever saves a fine-tune of it with transformers leaves it out, too.
    """
    todo = ConversionPlan()
    _drop_buffers(base, todo)
    if HEAD in base.tensors and base.config.get("tie_word_embeddings") and same_head:
        todo.drop.add(HEAD)
        todo.said.append(f"{HEAD} was dropped: it is tied to the embedding and equals it")
    return todo


def _drop_buffers(headers: Headers, todo: ConversionPlan) -> None:
    if buffers := {name for name in headers.tensors if name.endswith(BUFFER)}:
        todo.drop |= buffers
        todo.said.append(f"{len(buffers)} rotary buffers were dropped; the config defines them")


def _plan_rows(base: Headers, expert: Headers, todo: ConversionPlan) -> None:
    if EMBEDDING not in base.tensors or EMBEDDING not in expert.tensors:
        return
    rows, wanted = expert.tensors[EMBEDDING][1][0], base.tensors[EMBEDDING][1][0]
    if rows == wanted or base.tokens is None or expert.tokens is None:
        return
    if any(expert.tokens.get(token) != row for token, row in base.tokens.items()):
        return
    if rows < wanted and max(base.tokens.values()) >= rows:
        return
    todo.rows = wanted
    todo.tokenizer = True
    todo.config["vocab_size"] = wanted
    if rows > wanted:
        todo.said.append(
            f"the vocabulary was cut from {rows} to the base's {wanted} rows; all tokens of the "
            "base stand in the same rows, and its tokenizer was taken"
        )
    else:
        todo.said.append(
            f"the vocabulary was filled from {rows} to the base's {wanted} rows by the base's own, "
            "which are padding; its tokenizer was taken"
        )


def headers_after(base: Headers, expert: Headers, todo: ConversionPlan) -> Headers:
    """The headers that a checkpoint will have after its conversions."""
    tensors = {name: info for name, info in expert.tensors.items() if name not in todo.drop}
    if todo.head_of_embedding and EMBEDDING in tensors:
        tensors[HEAD] = tensors[EMBEDDING]
    if todo.rows is not None:
        for name in TOKEN_ROWS:
            if name in tensors:
                dtype, shape = tensors[name]
                tensors[name] = dtype, (todo.rows, *shape[1:])
    return replace(
        expert,
        config=_changed(expert.config, todo.config),
        tensors=tensors,
        tokens=base.tokens if todo.tokenizer else expert.tokens,
        tokenizer=expert.tokenizer or todo.tokenizer,
    )


def _changed(config: dict, changes: dict) -> dict:
    return {k: v for k, v in (config | changes).items() if v is not None or k not in changes}


def convert(
    files: dict[str, Path],
    folder: str | Path,
    base: str | Path | None,
    where: str,
    link: Callable[[Path, Path], None],
) -> None:
    """Make the checkpoint folder out of files as they came, atomically.

    Args:
        files: name -> path of every file as it came.
        folder: the folder to make.
        base: the base's folder, None if this is a base.
        where: the source's name, for messages.
        link: how an unchanged file gets its place (source, target).

    Raises:
        WildmergeError: a file is truncated, it has no config, it is an adapter that cannot be
            merged, or it is a base without a tokenizer.
    """
    for name, path in files.items():
        if path.suffix == ".safetensors":
            with whole_safetensors(f"{where}, file {name}"):
                read_header(path)
    base = None if base is None else Path(base)
    with atomic_folder(folder) as part:
        came = part / ".came"  # the weights as they came
        came.mkdir()
        for name, path in files.items():
            small = path.suffix not in (".safetensors", ".bin") and not name.endswith(_INDEXES)
            link(path, (part if small else came) / name)
        doubts: list[str] = []
        said = _unpickle(came) + _write_index(came)
        try:
            weights = Weights(came)
        except WildmergeError as error:
            raise WildmergeError(
                f"Whole weights were expected in {where}, but its shards and its index do not fit: "
                f"{error} Or choose another revision or another checkpoint."
            ) from error
        if is_adapter(weights, (part / ADAPTER).exists()):
            if base is None:
                raise WildmergeError(
                    f"A base model was expected in {where}, but it is an adapter. Name the model "
                    "that it adapts as the base in config/models.tsv."
                )
            said += _merge_adapter(part, weights, base, where)
        else:
            headers, same_head = read_headers(part, weights), _head_is_embedding(weights)
            if base is None:
                todo = plan_base_conversions(headers, same_head)
                after = headers_after(headers, headers, todo)
            else:
                ours = read_headers(base)
                todo = plan_conversions(ours, headers, same_head)
                after = headers_after(ours, headers, todo)
            _carry_out(part, weights, base or part, todo, after)
            said, doubts = said + todo.said, todo.doubts
        (part / ADAPTER).unlink(missing_ok=True)
        shutil.rmtree(came)
        if not any((part / name).exists() for name in TOKENIZERS):
            raise WildmergeError(
                f"A tokenizer was expected in {where}, but it has none of "
                f"{', '.join(TOKENIZERS)}. Choose another revision or another base."
            )
        record = {"conversions": said, "doubts": doubts}
        _put(part / CONVERSIONS, json.dumps(record, indent=1) + "\n")


def _put(path: Path, text: str) -> None:
    # Never through a link into somebody's own folder.
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")


def _unpickle(folder: Path) -> list[str]:
    """Turn every .bin into a .safetensors beside the others; no code in it is run."""
    pickled = sorted(folder.glob("*.bin"))
    for path in pickled:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            tensors = {n: t.clone().contiguous() for n, t in state.items()}
        except Exception as error:  # whatever a pickle may raise
            raise WildmergeError(
                f"A plain dictionary of tensors was expected in {path.name}, but torch's "
                f"restricted unpickler refused it: {error}. Choose another checkpoint."
            ) from error
        save_file(tensors, path.with_suffix(".safetensors"))
        path.unlink()
    if pickled:
        (folder / "pytorch_model.bin.index.json").unlink(missing_ok=True)
        return [f"{len(pickled)} pickled file(s) were turned into safetensors"]
    return []


def _write_index(folder: Path) -> list[str]:
    """Index shards that came without one, so that every reader finds their tensors."""
    if (folder / SINGLE).exists() or (folder / INDEX).exists():
        return []
    placed = {}
    shards = sorted(folder.glob("*.safetensors"))
    for shard in shards:
        for name in read_header(shard):
            placed[name] = shard.name
    _put(folder / INDEX, json.dumps({"metadata": {}, "weight_map": placed}, indent=1) + "\n")
    return [f"an index was written for {len(shards)} file(s) that came without one"]


def _head_is_embedding(weights: Weights) -> bool:
    """Whether head and embedding are equal; read in slices, up to the first difference."""
    if HEAD not in weights or EMBEDDING not in weights:
        return False
    if (shape := weights[HEAD].shape) != weights[EMBEDDING].shape:
        return False
    size = torch.Size(shape).numel()
    spans = ((first, min(first + _SLICE, size)) for first in range(0, size, _SLICE))
    return all(
        torch.equal(
            weights.read_part(HEAD, *span).float(), weights.read_part(EMBEDDING, *span).float()
        )
        for span in spans
    )


def _stream(folder: Path, tensors: dict[str, tuple], read: Callable[[str], torch.Tensor]) -> None:
    """Write a model's weights to `folder`, one tensor in memory at a time.

    Args:
        folder: an empty folder.
        tensors: name -> (dtype, shape) of what read(name) gives.
        read: name -> the tensor.
    """
    writer = Writer(folder, tensors)
    for name in tensors:
        writer.write(name, read(name).contiguous())


def _carry_out(
    folder: Path, weights: Weights, base: Path, todo: ConversionPlan, after: Headers
) -> None:
    """Make the checkpoint of `folder` what was planned, from the weights as they came."""

    def read(name: str) -> torch.Tensor:
        tensor = weights.read(EMBEDDING if todo.head_of_embedding and name == HEAD else name)
        if todo.rows is None or name not in TOKEN_ROWS:
            return tensor
        rows, width = tensor.shape
        if rows >= todo.rows:
            return tensor[: todo.rows]
        rest = Weights(base).read_part(name, rows * width, todo.rows * width)
        return torch.cat([tensor, rest.view(-1, width).to(tensor.dtype)])

    if todo.drop or todo.head_of_embedding or todo.rows is not None:
        tensors = {n: (DTYPES[dtype], shape) for n, (dtype, shape) in after.tensors.items()}
        _stream(folder, tensors, read)
    else:
        for path in weights.folder.iterdir():
            os.replace(path, folder / path.name)
    if todo.config:
        _put(folder / CONFIG, json.dumps(after.config, indent=2) + "\n")
    if todo.tokenizer:
        _take_tokenizer(folder, base)


def _take_tokenizer(folder: Path, base: Path) -> None:
    for name in TOKENIZER_FILES:
        (folder / name).unlink(missing_ok=True)
        if (base / name).exists():
            shutil.copyfile(base / name, folder / name)


def _merge_adapter(folder: Path, adapter: Weights, base: Path, where: str) -> list[str]:
    ours, headers = Weights(base), read_headers(base)
    tensors = {name: (DTYPE_NAMES[e.dtype], e.shape) for name, e in adapter.items()}
    try:
        config = read_json(folder / ADAPTER)
        updates = plan_adapter(headers, tensors, config)
        merger = Merger(ours, base / CONFIG, adapter, updates, config)
        # Float32 is kept: rounding to 16 bits would be as large as many an adapter's update.
        written = {
            name: (torch.float32 if name in merger.changed else entry.dtype, entry.shape)
            for name, entry in ours.items()
        }
        _stream(folder, written, merger.read)
    except (OSError, ValueError, KeyError) as error:
        raise WildmergeError(
            f"An adapter of the base was expected in {where}, but it cannot be merged: "
            f"{error}. Choose a merged checkpoint, or merge it yourself and name it `dir:path`."
        ) from error
    for name in (CONFIG, GENERATION):
        (folder / name).unlink(missing_ok=True)
        if (base / name).exists():
            shutil.copyfile(base / name, folder / name)
    kind = config.get("peft_type", "LORA")
    said = (
        f"an adapter ({kind}) was merged into the base, in float32: {len(merger.changed)} tensors"
    )
    if trained_on := config.get("base_model_name_or_path"):
        said += f"; it names {trained_on} as the model that it adapts"
    if not any((folder / name).exists() for name in TOKENIZERS):
        _take_tokenizer(folder, base)
        said += "; the base's tokenizer was taken"
    return [said]
