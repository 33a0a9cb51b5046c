"""Can a checkpoint be merged with its base? What its headers, config and tokenizer tell.

Nothing here needs the weights, so the same questions are asked before a download (from the hub's
headers) and after it (from the folder).
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wildmerge import WildmergeError
from wildmerge.tensors import DTYPE_NAMES, Weights

from .companions import CONFIG, TOKENIZERS

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
TOKEN_ROWS = (EMBEDDING, HEAD)  # the tensors with a row for every token
FLOATS = ("BF16", "F16", "F32", "F64")

# What changes the function that the same weights compute. The vocabulary and the tied head are
# looked at apart; lengths, dropout, token ids and caches change nothing that is measured here.
FUNCTION_KEYS = (
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "rms_norm_eps",
    "rope_parameters",
    "attention_bias",
    "mlp_bias",
    "sliding_window",
    "layer_types",
)


@dataclass
class Headers:
    """A checkpoint without its weights.

    Attributes:
        config: its config.json.
        tensors: name -> (dtype as safetensors names it, shape).
        tokens: token -> row of the embedding; None where it was not read.
        tokenizer: whether there is one at all.
    """

    config: dict
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]
    tokens: dict[str, int] | None = None
    tokenizer: bool = True


@dataclass
class Findings:
    """What speaks against merging: `refusals` make it impossible, `doubts` can be overridden.

    `warnings` only inform. All are sentences for people.
    """

    refusals: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_tokens(tokenizer_json: bytes, where: str) -> dict[str, int]:
    """The vocabulary of a `tokenizer.json`, token -> row, added tokens included.

    Args:
        tokenizer_json: the file's bytes.
        where: the checkpoint, for the message.

    Raises:
        WildmergeError: the file is of another kind.
    """
    try:
        content = json.loads(tokenizer_json)
        vocabulary = content["model"]["vocab"]
        if isinstance(vocabulary, list):  # a unigram model lists [token, score]
            vocabulary = {token: row for row, (token, _) in enumerate(vocabulary)}
        return vocabulary | {token["content"]: token["id"] for token in content["added_tokens"]}
    except (ValueError, KeyError, TypeError) as error:
        raise WildmergeError(
            f"A tokenizer with a vocabulary was expected in {where}, file tokenizer.json, but it "
            f"cannot be read: {error!r}. Choose another revision or another checkpoint."
        ) from error


@contextmanager
def whole_safetensors(where: str) -> Iterator[None]:
    """Turn the ValueError of a header that cannot be read into a WildmergeError about `where`."""
    try:
        yield
    except ValueError as error:
        raise WildmergeError(
            f"A whole safetensors file was expected at {where}, but it is truncated or something "
            f"else: {error}. Choose another checkpoint or another revision of it."
        ) from error


def read_headers(folder: str | Path, weights: Weights | None = None) -> Headers:
    """Read the headers of a checkpoint folder.

    Args:
        folder: the checkpoint's.
        weights: its weights, where they lie elsewhere.

    Raises:
        WildmergeError: its weights or config.json are missing or damaged.
    """
    folder = Path(folder)
    weights = Weights(folder) if weights is None else weights
    tokenizer = folder / "tokenizer.json"
    return Headers(
        config=read_config(folder),
        tensors={name: (DTYPE_NAMES[e.dtype], e.shape) for name, e in weights.items()},
        tokens=read_tokens(tokenizer.read_bytes(), str(folder)) if tokenizer.exists() else None,
        tokenizer=any((folder / name).exists() for name in TOKENIZERS),
    )


def parse_config(text: bytes, where: str) -> dict:
    """Read a JSON object; raise WildmergeError if `where` holds something else."""
    try:
        config = json.loads(text)
        if not isinstance(config, dict):
            raise ValueError("it holds no object")
        return config
    except ValueError as error:
        raise WildmergeError(
            f"A JSON object was expected in {where}, but it cannot be read: {error}. Choose "
            "another revision or another checkpoint."
        ) from error


def read_config(folder: str | Path) -> dict:
    """Read config.json of a checkpoint folder; raise WildmergeError if there is none."""
    path = Path(folder) / CONFIG
    if not path.exists():
        raise WildmergeError(
            f"A model's config.json was expected at {path}, but there is none. Choose another "
            "checkpoint, or delete the folder, so that it is made again."
        )
    return parse_config(path.read_bytes(), str(path))


def function_of(config: dict) -> dict:
    """The part of a config that changes the function, with transformers' defaults filled in.

    So `rope_theta` beside `rope_scaling` and the newer `rope_parameters` compare as equal.

    Raises:
        ValueError: in words, if transformers refuses the config.
    """
    from transformers import AutoConfig

    try:
        full = AutoConfig.for_model(**config).to_dict()
    except Exception as error:  # its validators raise many kinds
        raise ValueError(f"transformers refuses its config.json: {error}") from error
    # A sliding window that is switched off, and extras of other tools, must not be compared.
    function = {key: full.get(key) for key in FUNCTION_KEYS}
    if not full.get("use_sliding_window", True):
        function["sliding_window"] = None
    if function["head_dim"] is None:
        function["head_dim"] = full["hidden_size"] // full["num_attention_heads"]
    function["attention_bias"] = bool(function["attention_bias"])
    function["mlp_bias"] = bool(function["mlp_bias"])
    return function


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, float) or isinstance(other, float):
        # GGUF keeps float32, so 1e-5 comes back as 9.999999747e-06.
        return None not in (one, other) and math.isclose(one, other, rel_tol=1e-6)
    return one == other


def _named(names: Iterable[str], shown: int = 3) -> str:
    ordered = sorted(names)
    rest = f" and {len(ordered) - shown} more" if len(ordered) > shown else ""
    return ", ".join(ordered[:shown]) + rest


def find_differences(base: Headers, expert: Headers) -> Findings:
    """Say what stands between a checkpoint and a merge with its base."""
    findings = Findings()
    if not expert.tokenizer:
        findings.doubts.append("it has no tokenizer")
    kind, wanted = expert.config.get("model_type"), base.config.get("model_type")
    if kind != wanted:
        findings.refusals.append(f"its architecture is {kind}, the base's is {wanted}")
        return findings
    try:
        theirs = function_of(expert.config)
    except ValueError as error:
        findings.refusals.append(str(error))
        return findings
    ours = function_of(base.config)
    for key in FUNCTION_KEYS:
        if not _same(theirs[key], ours[key]):
            findings.doubts.append(
                f"config.json: {key} is {theirs[key]}, the base has {ours[key]}; the same weights "
                "compute another function, and a merge has the base's"
            )
    if base.tokens and expert.tokens:
        moved = [token for token, row in base.tokens.items() if expert.tokens.get(token) != row]
        if moved:
            findings.warnings.append(
                f"{len(moved)} tokens of the base have other rows or none in its tokenizer "
                f"({_named(moved)}); the questions are put to every model in the base's tokens"
            )
    if odd := {name for name, (dtype, _) in expert.tensors.items() if dtype not in FLOATS}:
        dtypes = sorted({expert.tensors[name][0] for name in odd})
        findings.refusals.append(f"its weights are quantised: {_named(odd)} ({', '.join(dtypes)})")
    if empty := {name for name, (_, shape) in expert.tensors.items() if 0 in shape}:
        findings.refusals.append(f"{len(empty)} tensor(s) hold no element: {_named(empty)}")
    if missing := base.tensors.keys() - expert.tensors.keys():
        findings.refusals.append(
            f"it lacks {len(missing)} tensor(s) of the base: {_named(missing)}"
        )
    if extra := expert.tensors.keys() - base.tensors.keys():
        findings.refusals.append(
            f"it has {len(extra)} tensor(s) that the base has not: {_named(extra)}"
        )
    shapes = {
        name: (expert.tensors[name][1], base.tensors[name][1])
        for name in base.tensors.keys() & expert.tensors.keys()
        if expert.tensors[name][1] != base.tensors[name][1]
    }
    for name in sorted(shapes)[:3]:
        findings.refusals.append(
            f"{name} has shape {list(shapes[name][0])}, the base's has {list(shapes[name][1])}"
        )
    if len(shapes) > 3:
        findings.refusals.append(f"and {len(shapes) - 3} more tensors have other shapes")
    return findings
