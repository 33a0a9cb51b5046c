"""The header of a safetensors file, read from wherever the file is; needs no torch.

The format (https://github.com/huggingface/safetensors): 8 bytes with the length of the header as a
little-endian integer, the header in JSON, then the tensors without gaps.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

# Bytes of the first read; nearly every header is shorter, and then the first read is the only one.
_FIRST_READ = 1 << 17


@dataclass(frozen=True)
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
    if len(start) < 8 + length:
        start += read(len(start), 8 + length)
    try:
        header = json.loads(start[8 : 8 + length])
        header.pop("__metadata__", None)
        places = {
            name: Place(
                info["dtype"],
                tuple(info["shape"]),
                *(8 + length + offset for offset in info["data_offsets"]),
            )
            for name, info in header.items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"its header has another form ({error!r})") from error
    if any(place.first < 8 + length for place in places.values()):
        raise ValueError("its header places a tensor before the first one's place")
    end = max((place.last for place in places.values()), default=8 + length)
    if end != size:
        raise ValueError(f"it should have {end} bytes, it has {size}")
    return places


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
