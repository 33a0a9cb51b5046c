"""The header of a safetensors file, read from wherever the file is; needs no torch.

The format (https://github.com/huggingface/safetensors): 8 bytes with the length of the header as a
little-endian integer, the header in JSON, then the tensors without gaps.
"""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

# Of a number, in the format's names; others are not checked.
BITS = {
    **dict.fromkeys(["BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"], 8),
    **dict.fromkeys(["U16", "I16", "F16", "BF16"], 16),
    **dict.fromkeys(["U32", "I32", "F32"], 32),
    **dict.fromkeys(["U64", "I64", "F64", "C64"], 64),
}

# Bytes. safetensors allows 100 MB, which take a gigabyte to read here; the longest of real
# checkpoints have some MB, and this is room for 200,000 tensors.
LARGEST_HEADER = 25_000_000
_LONGEST_NAME = 1000  # characters; the longest of real checkpoints have some hundred
_LARGEST = 2**63 - 1  # bytes of a tensor, and each of its sizes

# Bytes of the first read; nearly every header is shorter, and then the first read is the only one.
_FIRST_READ = 1 << 17


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies in its file.

    Attributes:
        dtype: as the format names it, such as `BF16`.
        shape: its sizes.
        first: the first of its bytes, counted from the start of the file.
        last: the byte after the last of its own.
    """

    dtype: str
    shape: tuple[int, ...]
    first: int
    last: int


def parse_header(read: Callable[[int, int], bytes], size: int) -> dict[str, Place]:
    """Read the header of a safetensors file by one or two short reads.

    Args:
        read: (first, last) -> the bytes [first, last) of the file.
        size: bytes of the whole file, against which the header is checked.

    Returns:
        The places of its tensors by name, in the header's order.

    Raises:
        ValueError: in words, if it is no safetensors file, or a truncated one.
    """
    start = read(0, min(size, _FIRST_READ))
    length = int.from_bytes(start[:8], "little")
    if size < 8 or length > size - 8:
        raise ValueError(f"its header should have {length} bytes, the file has {size}")
    if length > LARGEST_HEADER:
        raise ValueError(f"its header has {length} bytes, more than {LARGEST_HEADER}")
    text = start[8 : 8 + length]
    if len(text) < length:
        text += read(8 + len(text), 8 + length)
    begin = 8 + length
    # A tensor has three brackets in 48 bytes or more; nothing else has as many.
    if text.count(b"[") + text.count(b"{") > 8 + length // 12:
        raise ValueError("its header has another form (it is nested)")
    try:
        # Every entry becomes a place as soon as it is read: a long header takes little memory.
        header = json.loads(text, object_pairs_hook=_places)
        header.pop("__metadata__", None)
        for name, place in header.items():
            _check_place(name, place)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its header has another form ({error!r:.200})") from error
    end = 0
    for place in sorted(header.values(), key=lambda place: (place.first, place.last)):
        if place.first != end:
            raise ValueError("its header lets tensors overlap, or leaves a gap between them")
        end = place.last
    if begin + end != size:
        raise ValueError(f"it should have {begin + end} bytes, it has {size}")
    return {
        name: Place(place.dtype, place.shape, begin + place.first, begin + place.last)
        for name, place in header.items()
    }


def _places(pairs: list[tuple[str, Any]]) -> Any:
    """An object of the header: an entry as its place, counted from the first byte behind it."""
    found = dict(pairs)
    if found.keys() != {"dtype", "shape", "data_offsets"}:
        return found
    first, last = found["data_offsets"]
    return Place(sys.intern(found["dtype"]), tuple(found["shape"]), first, last)


def _check_place(name: str, place: Any) -> None:
    """Raise ValueError or TypeError unless a tensor has a name, sizes and a place of its own."""
    if not isinstance(place, Place):
        raise TypeError(f"the entry {name[:100]!r} is no tensor")
    if not name.isprintable() or len(name) > _LONGEST_NAME:
        raise ValueError(f"a tensor's name is no text, or too long: {name[:100]!r}")
    numbers = (place.first, place.last, *place.shape)
    if any(type(number) is not int or not 0 <= number <= _LARGEST for number in numbers):
        raise ValueError(f"a size or an offset of the tensor {name!r} is no whole number from 0")
    count, width = math.prod(place.shape), place.last - place.first
    bits = BITS.get(place.dtype)
    if count > _LARGEST or width < 0 or (bits is not None and count * bits != 8 * width):
        raise ValueError(f"the tensor {name!r} takes {width} bytes, which its shape does not")


def read_header(path: Path) -> dict[str, Place]:
    """Read the header of a safetensors file on this machine.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no safetensors file, or a truncated one.
    """
    with open(path, "rb") as file:

        def read(first: int, last: int) -> bytes:
            file.seek(first)
            return file.read(last - first)

        return parse_header(read, path.stat().st_size)
