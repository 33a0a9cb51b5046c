"""Judge a checkpoint before it is downloaded, from what costs kilobytes.

Its config.json, the headers of its safetensors files, and its tokenizer where the vocabularies
differ. What only the weights can tell (NaN, a copy of the base, another ancestor) is left to the
verdict after the download.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from wildmerge import WildmergeError
from wildmerge.tensors import INDEX, parse_header

from .adapters import is_adapter, plan_adapter
from .companions import ADAPTER, CONFIG, TOKENIZERS
from .compatibility import (
    EMBEDDING,
    HEAD,
    Headers,
    find_differences,
    parse_config,
    read_tokens,
    whole_safetensors,
)
from .conversions import (
    headers_after,
    plan_base_conversions,
    plan_conversions,
)

USABLE, CONVERTED, ADMITTED, UNUSABLE = "usable", "with conversion", "admitted", "UNUSABLE"


@dataclass(frozen=True)
class Preview:
    """What is seen of a checkpoint before its download.

    Attributes:
        names: its files, as they were chosen.
        headers: its config and the headers of its weights; the tokens are not read yet.
        read_tokens: reads its tokens, token -> row; None where it has no tokenizer.json.
    """

    names: list[str]
    headers: Headers
    read_tokens: Callable[[], dict[str, int]] | None

    def with_tokens(self) -> Headers:
        """The headers with the tokens, which are worth their megabytes only now and then."""
        return replace(self.headers, tokens=self.read_tokens() if self.read_tokens else None)


def preview_checkpoint(
    sizes: dict[str, int],
    read: Callable[[str, int, int], bytes],
    names: Iterable[str],
    where: str,
    is_base: bool,
) -> Preview:
    """Look at a checkpoint through reads of parts of its files.

    Args:
        sizes: bytes of its files.
        read: (name, first, last) -> the bytes [first, last) of a file.
        names: the files that make the checkpoint.
        where: for messages.
        is_base: whether it is a base; then the headers are those after its conversions.

    Raises:
        WildmergeError: a file is missing, truncated, or of another kind.
    """
    names = list(names)

    def whole(name: str) -> bytes:
        return read(name, 0, sizes[name])

    def parsed(name: str) -> dict:
        return parse_config(whole(name), f"{where}, file {name}")

    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name in names:
        if name.endswith(".safetensors"):
            with whole_safetensors(f"{where}, file {name}"):
                places = parse_header(partial(read, name), sizes[name])
            tensors |= {tensor: (place.dtype, place.shape) for tensor, place in places.items()}
    if INDEX in names and (lost := set(parsed(INDEX)["weight_map"]) - set(tensors)):
        raise WildmergeError(
            f"All tensors of its index were expected in the shards of {where}, but {min(lost)} is "
            f"in none ({len(lost)} missing). Choose another revision or another checkpoint."
        )
    config = ADAPTER if is_adapter(tensors, ADAPTER in names) else CONFIG
    if config not in names:
        raise WildmergeError(
            f"A {config} was expected in {where}, but there is none. Choose another checkpoint."
        )
    headers = Headers(parsed(config), tensors, None, any(name in names for name in TOKENIZERS))
    if is_base:
        headers = headers_after(headers, headers, plan_base_conversions(headers, same_head=True))
    tokenizer = "tokenizer.json"
    tokens = (lambda: read_tokens(whole(tokenizer), where)) if tokenizer in names else None
    return Preview(names, headers, tokens)


def judge(seen: Preview, base: Preview, is_base: bool, admit: str) -> tuple[str, list[str]]:
    """Say from previews what a checkpoint's verdict will be.

    Args:
        seen: the checkpoint's preview.
        base: its base's.
        is_base: whether it is the base itself.
        admit: the sheet's reason to use it in spite of a doubt, or "".

    Returns:
        `USABLE`, `CONVERTED`, `ADMITTED` or `UNUSABLE`, and sentences on it.
    """
    if any(name.endswith(".bin") for name in seen.names):
        return ADMITTED, ["pickled weights, whose shapes are seen after the download"]
    if is_adapter(seen.headers.tensors, ADAPTER in seen.names):
        return _judge_adapter(seen.headers, base.headers)
    if is_base:
        if seen.headers.tokenizer:
            return USABLE, []
        return UNUSABLE, ["a base needs a tokenizer, it has none"]
    return _judge_expert(seen, base, admit)


def _judge_adapter(adapter: Headers, base: Headers) -> tuple[str, list[str]]:
    try:
        updates = plan_adapter(base, adapter.tensors, adapter.config).changed(base)
    except (ValueError, KeyError) as error:
        return UNUSABLE, [f"an adapter that cannot be merged: {error}"]
    return CONVERTED, [f"an adapter, to be merged into the base ({len(updates)} tensors)"]


def _judge_expert(seen: Preview, base: Preview, admit: str) -> tuple[str, list[str]]:
    ours, theirs = base.headers, seen.headers
    rows = [headers.tensors.get(EMBEDDING, ("", (0,)))[1][0] for headers in (ours, theirs)]
    if rows[0] != rows[1]:  # only now the tokenizers are worth their megabytes
        ours, theirs = base.with_tokens(), seen.with_tokens()
    todo = plan_conversions(ours, theirs)
    findings = find_differences(ours, headers_after(ours, theirs, todo))
    doubts = findings.doubts + todo.doubts
    notes = []
    if HEAD in todo.drop:
        notes.append(f"if {HEAD} equals the embedding, which is seen after the download")
    notes += findings.refusals + doubts + todo.said + findings.warnings
    if findings.refusals or (doubts and not admit):
        return UNUSABLE, notes
    if doubts:
        return ADMITTED, [*notes, f"admitted: {admit}"]
    return CONVERTED if todo.said else USABLE, notes
