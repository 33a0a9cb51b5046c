"""Merge checkpoints of one base by a recipe, tensor by tensor.

    python -m wildmerge.merging mergekit.yaml OUT

repeats a merge by hand from the YAML beside it: it makes this package's methods known to mergekit
and hands over to mergekit's own command line, whose options it takes.
"""

import json
import logging
import math
import resource
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import torch
import yaml

from wildmerge import WildmergeError, __version__
from wildmerge.checkpoints.companions import (
    CHAT_TEMPLATES,
    GENERATION,
    TOKENIZER_FILES,
    TOKENIZERS,
)
from wildmerge.files import atomic_folder, full_disk, require_space
from wildmerge.merging.factors import Factors
from wildmerge.methods import METHODS, arguments, is_projection, tsv_m
from wildmerge.methods.recipes import MERGEKIT, check
from wildmerge.tensors.chunks import in_parallel, slices
from wildmerge.tensors.spectral import SpectralWarning
from wildmerge.tensors.weights import DTYPE_NAMES, Digest, LazyTensor, Weights, Writer

log = logging.getLogger(__name__)

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}

# The next tensors are read while the present ones are merged, as long as both together take no
# more than this: the embeddings of a large model are read alone.
READ_AHEAD_BYTES = 4 * 10**9

# Buffers up to this size are kept from tensor to tensor; the embeddings' are given back.
REUSED_BYTES = 1 << 28

# Seconds between two lines of progress.
PROGRESS = 5

# What, beside weights and config.json, makes a folder a model that loads and tokenises.
COMPANIONS = (GENERATION, *TOKENIZER_FILES, *CHAT_TEMPLATES)


def merge(
    base: Path,
    experts: dict[str, Path],
    recipe: dict,
    output: Path,
    *,
    dtype: str = "bfloat16",
    device: str | None = None,
    factors: Sequence[Factors] = (),
    unscaled: Factors | None = None,
) -> dict:
    """Merge experts into their base and write the model.

    Tensors are read, merged in float32 and written one after another; reading the next and
    writing the last go on meanwhile. The result is rounded once, to `dtype`. Config, tokenizer
    and generation config are the base's.

    Args:
        base: folder of the base, W_0.
        experts: name -> folder of the checkpoints W_i, of the base's tensors and shapes.
        recipe: an entry of recipes.yaml, with its `name`.
        output: the folder to write; it appears under this name when it is whole.
        dtype: `bfloat16`, `float16` or `float32`, of the weights written.
        device: where the arithmetic is done; by default the first GPU, or the CPU if there is none.
        factors: factorisations made already: for tsv_m one of each expert, in order; for iso_c and
            task_arithmetic_sb one of the sum of their task vectors. Without them the merge
            factorises by itself.
        unscaled: the update without its scale, made already, for a method that has one. The result
            is the same to the bit.

    Returns:
        The content of summary.json that the merge itself knows: method, digest of the output, L2
        norm of the update before and after rounding, seconds, bytes, versions and the like.

    Raises:
        WildmergeError: the recipe is not allowed, a file is missing or broken, an expert has other
            tensors or shapes, a number is not finite, or the disk is full.
    """
    started = time.monotonic()
    where = f"Merge of {', '.join(experts)} by {recipe['name']}"
    check(recipe)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    method = _method(recipe, where)
    if factors and len(factors) != (1 if method.from_sum else len(experts)):
        raise ValueError(f"{len(factors)} factors for {len(experts)} experts")
    if len(experts) < method.fewest:
        raise WildmergeError(
            f"{where}: {recipe['merge_method']} is defined for at least {method.fewest} experts, "
            f"found {len(experts)}. Merge more of them, or use another recipe."
        )
    inputs = [Weights(base), *(Weights(folder) for folder in experts.values())]
    _check_shapes(inputs, where)
    _check_companions(Path(base), where)
    shapes = {name: inputs[0][name] for name in sorted(inputs[0])}
    update = _Update(method, recipe, len(experts), factors, unscaled, device)
    needed = {name: update.sources(name, entry, inputs) for name, entry in shapes.items()}
    lazy = {name for name, entry in shapes.items() if update.reads_once(entry)}
    made = [*factors, *([unscaled] if unscaled else [])]
    # Buffers that are no floating-point numbers are kept as they are.
    dtypes = {n: DTYPES[dtype] if e.dtype.is_floating_point else e.dtype for n, e in shapes.items()}
    progress = _Progress(where, sum(w[n].nbytes for n, sources in needed.items() for w in sources))
    digest, tensors, notes = Digest(), {}, []

    with atomic_folder(output) as folder, full_disk(where, output):
        writer = Writer(folder, {n: (dtypes[n], e.shape) for n, e in shapes.items()})
        require_space(writer.nbytes, folder, where)
        with ThreadPoolExecutor(1) as io:
            written = None
            for name, (start, *members) in _read_ahead(needed, lazy):
                start = start.to(device)
                if name not in lazy:
                    members = [member.to(device) for member in members]
                if start.is_floating_point():
                    with warnings.catch_warnings(record=True) as caught:
                        warnings.simplefilter("always", SpectralWarning)
                        change = update(name, start, members)
                    notes += [f"{name}: {warning.message}" for warning in caught]
                    merged, norm, norm_rounded = _round(start, change, dtypes[name])
                    if not math.isfinite(norm_rounded):
                        raise _not_finite(name, inputs, list(experts), where, dtype)
                    tensors[name] = {"norm": norm, "norm_rounded": norm_rounded}
                    del change
                else:
                    merged = _same(name, start, members, where)
                if written:
                    written.result()
                written = io.submit(_write, writer, digest, name, merged.cpu())
                progress.add(sum(w[name].nbytes for w in needed[name]))
                del start, members, merged
            written.result()
        _write_companions(Path(base), folder, dtype)

    return {
        "members": list(experts),
        "merge_method": recipe["merge_method"],
        "parameters": recipe["parameters"],
        "version": recipe["version"],
        "output_digest": digest.hexdigest(),
        "norm": math.hypot(*(t["norm"] for t in tensors.values())),
        "norm_rounded": math.hypot(*(t["norm_rounded"] for t in tensors.values())),
        "tensors": tensors,
        "warnings": notes,
        "seconds": time.monotonic() - started,
        "bytes_read": sum(w.bytes_read for w in [*inputs, *(found.weights for found in made)]),
        "bytes_written": writer.nbytes,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "versions": {
            "wildmerge": __version__,
            "torch": torch.__version__,
            "mergekit": version("mergekit"),
        },
        "device": device.type,
        "dtype": dtype,
        "threads": torch.get_num_threads(),
    }


def mergekit_yaml(recipe: dict, references: dict[str, str], members: Sequence[str], dtype: str):
    """The mergekit configuration that repeats a merge by hand.

    Args:
        recipe: an entry of recipes.yaml.
        references: member -> what mergekit shall load (`repo@revision` or a path); the key `base`
            names the base.
        members: the experts, in order.
        dtype: of the weights written.

    Returns:
        YAML text.
    """
    name = recipe["merge_method"]
    native = name.startswith(MERGEKIT) or METHODS[name].mergekit
    if name.startswith(MERGEKIT):
        parameters = recipe["parameters"]
    elif METHODS[name].mergekit:
        parameters = METHODS[name].mergekit(recipe["parameters"])
    else:
        parameters = recipe["parameters"]
    command = "mergekit-yaml" if native else "python -m wildmerge.merging"
    config = {
        "merge_method": name.removeprefix(MERGEKIT),
        "base_model": references["base"],
        "models": [{"model": references[member]} for member in members],
        **({"parameters": parameters} if parameters else {}),
        "dtype": "float32",
        "out_dtype": dtype,
    }
    head = f"# By hand: {command} mergekit.yaml OUT" + (
        "" if native else "  (with workflow/scripts on PYTHONPATH)"
    )
    return f"{head}\n{yaml.safe_dump(config, sort_keys=False)}"


def _method(recipe: dict, where: str):
    name = recipe["merge_method"]
    if not name.startswith(MERGEKIT):
        return METHODS[name]
    from wildmerge.merging.bridge import Foreign

    return Foreign(name.removeprefix(MERGEKIT), recipe["parameters"], where)


class _Update:
    """The update of one tensor after another, with what others have computed of it already."""

    def __init__(self, method, recipe, experts: int, factors, unscaled, device):
        self.method, self.experts, self.factors, self.device = method, experts, factors, device
        self.unscaled = unscaled
        if unscaled:
            _, self.scale = method.unscaled(recipe["parameters"], experts)
        self.foreign = recipe["merge_method"].startswith(MERGEKIT)
        self.parameters = recipe["parameters"]
        self.from_sum = bool(factors) and method.from_sum

    def sources(self, name: str, entry, inputs: Sequence[Weights]) -> Sequence[Weights]:
        """Where the tensors come from: of base and experts, or what replaces these."""
        if self.unscaled and entry.dtype.is_floating_point:
            return [inputs[0], self.unscaled.weights]
        return inputs[:1] if self.from_sum and is_projection(name, entry.shape) else inputs

    def reads_once(self, entry) -> bool:
        """Whether the experts' tensors can be read slice by slice, where they are computed with.

        On a GPU they are better sent as a whole.
        """
        whole = self.device.type != "cpu" or self.foreign or self.unscaled
        return not whole and entry.dtype.is_floating_point and self.method.once

    def __call__(self, name: str, base: torch.Tensor, experts: list[torch.Tensor]) -> torch.Tensor:
        """The update, float32; NaN where the arithmetic did not come to an end.

        experts: the tensors of `sources` after the base's; a LazyTensor each if `reads_once`.
        """
        if self.unscaled:
            return experts[0] * self.scale
        if self.foreign:
            return self.method.merged(name, base, experts).sub_(base)
        projection = is_projection(name, base.shape)
        try:
            if not (projection and self.factors):
                return self.method(base, experts, self.parameters, projection=projection)
            if self.from_sum:
                found = self.factors[0].whole(name, base.shape[0] > base.shape[1], self.device)
                return self.from_sum(found, self.experts, **arguments(self.parameters))
            kept = tsv_m.share(base.shape, self.experts)
            found = [factors.leading(name, kept, self.device) for factors in self.factors]
            return tsv_m.update(base, experts, factors=found, **arguments(self.parameters))
        except torch.linalg.LinAlgError:
            return torch.full_like(base, math.nan, dtype=torch.float32)


def _round(base: torch.Tensor, update: torch.Tensor, dtype: torch.dtype):
    """Round base + update once.

    Returns the tensor written, and the L2 norms of the update as it was computed and as it stands
    in the rounded result.
    """
    merged = torch.empty(base.shape, dtype=dtype, device=base.device)
    origin, delta, result = base.reshape(-1), update.reshape(-1), merged.view(-1)

    def chunk(part: slice) -> tuple[float, float]:
        start = origin[part].float()
        sums = start + delta[part]
        result[part] = sums
        rounded = sums.copy_(result[part]).sub_(start)
        return _square(delta[part]), _square(rounded)

    squares = in_parallel(chunk, slices(base.numel()))
    exact, rounded = (math.sqrt(math.fsum(column)) for column in zip(*squares, strict=True))
    return merged, exact, rounded


def _square(vector: torch.Tensor) -> float:
    """Squared L2 norm of a flat float32 tensor: rows of 256 in float32, their sum in float64."""
    end = len(vector) // 256 * 256
    rows, rest = vector[:end].view(-1, 256), vector[end:]
    found = sum(torch.linalg.vecdot(x, x).double().sum().item() for x in (rows, rest))
    return found if math.isfinite(found) else vector.double().square().sum().item()


def _same(name: str, base: torch.Tensor, experts: list[torch.Tensor], where: str) -> torch.Tensor:
    if all(torch.equal(base, expert) for expert in experts):
        return base.clone()
    raise WildmergeError(
        f"{where}: {name} holds {DTYPE_NAMES[base.dtype]} numbers, which cannot be merged, and "
        "they differ between the base and an expert. Leave that expert out."
    )


def _check_shapes(inputs: Sequence[Weights], where: str) -> None:
    base = inputs[0]
    for expert in inputs[1:]:
        for name, entry in base.items():
            if name not in expert:
                raise WildmergeError(
                    f"{where}: tensor {name} of the base {base.folder} is missing in "
                    f"{expert.folder}. It is no fine-tuned copy of this base: leave it out."
                )
            if expert[name].shape != entry.shape:
                raise WildmergeError(
                    f"{where}: tensor {name} should have the base's shape {list(entry.shape)}, but "
                    f"has {list(expert[name].shape)} in {expert[name].file}. It is no fine-tuned "
                    "copy of this base: leave it out."
                )
        if extra := sorted(set(expert) - set(base)):
            raise WildmergeError(
                f"{where}: {expert.folder} has {len(extra)} tensor(s) which the base "
                f"{base.folder} has not, such as {extra[0]}. It is no fine-tuned copy of this "
                "base: leave it out."
            )


def _not_finite(name: str, inputs: Sequence[Weights], members: list[str], where: str, dtype: str):
    """The error for a tensor that came out with NaN or Inf: whose fault it is."""
    for owner, weights in zip(["the base", *members], inputs, strict=True):
        if not weights.read(name).isfinite().all():
            return WildmergeError(
                f"{where}: finite numbers were expected in {name}, found NaN or Inf in that tensor "
                f"of {owner} ({weights[name].file}). Leave that checkpoint out, or mend it."
            )
    return WildmergeError(
        f"{where}: all inputs of {name} are finite, but the merged tensor is not: it overflows "
        f"{dtype}, or its factorisation failed. Use `merge_dtype: bfloat16` or a smaller lambda."
    )


def _read_ahead(needed: dict[str, Sequence[Weights]], lazy: set[str]) -> Iterator:
    """(name, its tensors in the folders that are needed) in order, the next read meanwhile.

    The tensors are valid until the next ones are asked for: their memory is used again. Of the
    names in `lazy` only the first tensor is read, the others come as LazyTensor.
    """
    # Two sets of buffers in turn: one is filled while the other is merged.
    buffers: tuple[dict, dict] = ({}, {})

    def whole(name):
        return needed[name][:1] if name in lazy else needed[name]

    def read(name, turn):
        tensors = [weights.read(name, memory(weights, name, turn)) for weights in whole(name)]
        rest = needed[name][len(tensors) :]
        return [*tensors, *(LazyTensor(weights, name) for weights in rest)]

    def memory(weights, name, turn):
        nbytes = weights[name].nbytes
        if nbytes > REUSED_BYTES:
            return None
        kept = buffers[turn].get(id(weights))
        if kept is None or len(kept) < nbytes:
            kept = buffers[turn][id(weights)] = torch.empty(nbytes, dtype=torch.uint8)
        return kept

    def nbytes(name):
        return sum(weights[name].nbytes for weights in whole(name))

    names = list(needed)
    with ThreadPoolExecutor(1) as pool:
        ahead = None
        for i, name in enumerate(names):
            tensors = ahead.result() if ahead else read(name, i % 2)
            after = names[i + 1] if i + 1 < len(names) else None
            ahead = None
            if after and nbytes(name) + nbytes(after) <= READ_AHEAD_BYTES:
                ahead = pool.submit(read, after, (i + 1) % 2)
            yield name, tensors
            del tensors


def _write(writer: Writer, digest: Digest, name: str, tensor: torch.Tensor) -> None:
    writer.write(name, tensor)
    digest.add(name, tensor)


def _check_companions(base: Path, where: str) -> None:
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


def _write_companions(base: Path, folder: Path, dtype: str) -> None:
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    # transformers 5 writes `dtype`, older ones `torch_dtype`; both read either.
    config["dtype" if "dtype" in config else "torch_dtype"] = dtype
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    for name in COMPANIONS:
        if (base / name).is_file():
            shutil.copy(base / name, folder / name)


class _Progress:
    """A line in the log every few seconds: how much is read, how fast, how long it will take."""

    def __init__(self, where: str, total: int):
        self.where, self.total, self.done = where, total, 0
        self.start = self.last = time.monotonic()

    def add(self, nbytes: int) -> None:
        self.done += nbytes
        now = time.monotonic()
        if now - self.last >= PROGRESS or self.done == self.total:
            self.last = now
            speed = self.done / (now - self.start)
            log.info(
                "%s: %.2f of %.2f GB, %.2f GB/s, %.0f s left",
                self.where,
                self.done / 1e9,
                self.total / 1e9,
                speed / 1e9,
                (self.total - self.done) / speed,
            )


def _by_hand() -> None:
    from mergekit.scripts.run_yaml import main

    from wildmerge.merging import bridge

    bridge.register()
    main()


if __name__ == "__main__":
    _by_hand()
