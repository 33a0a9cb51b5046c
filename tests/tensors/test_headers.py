"""The one reader of safetensors headers: places by hand, and files that are none."""

import json

import pytest
import torch
from safetensors.torch import save_file
from wildmerge.tensors.headers import Place, parse_header, read_header


def content(header, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def parse(file: bytes, spans: list | None = None) -> dict[str, Place]:
    def read(first: int, last: int) -> bytes:
        if spans is not None:
            spans.append((first, last))
        return file[first:last]

    return parse_header(read, len(file))


def test_places(tmp_path):
    tensors = {"b": torch.zeros(2, 3, dtype=torch.bfloat16), "a": torch.zeros(4)}
    save_file(tensors, tmp_path / "it.safetensors", metadata={"format": "pt"})
    size = (tmp_path / "it.safetensors").stat().st_size
    places = read_header(tmp_path / "it.safetensors")
    assert {n: (p.dtype, p.shape, p.last - p.first) for n, p in places.items()} == {
        "a": ("F32", (4,), 16),
        "b": ("BF16", (2, 3), 12),
    }
    assert max(p.last for p in places.values()) == size
    assert min(p.first for p in places.values()) == size - 28


def test_a_long_header_takes_a_second_read_and_a_short_one_does_not():
    entry = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}
    spans = []
    assert parse(content({"a": entry}, b"x"), spans)["a"].shape == (1,)
    assert len(spans) == 1
    spans.clear()
    file = content({"__metadata__": {"long": "x" * (1 << 18)}, "a": entry}, b"x")
    assert parse(file, spans)["a"] == Place("U8", (1,), len(file) - 1, len(file))
    assert [first for first, _ in spans] == [0, spans[0][1]] and spans[1][1] == len(file) - 1


GOOD = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (b"", "the file has 0"),
        (b"<html>not found</html>", "its header should have"),
        (content({"a": GOOD}, b"x"), "it should have .* bytes, it has"),
        (content({"a": GOOD}, b"xyz"), "it should have .* bytes, it has"),
        (content({"a": GOOD | {"data_offsets": [-1, 2]}}, b"xy"), "no whole number from 0"),
        (content({"a": {"dtype": "U8"}}), "another form"),
        (content(["a"]), "another form"),
        (content({"a": 1}), "another form"),
        ((5).to_bytes(8, "little") + b"{nono", "Expecting"),
        (content({"a": GOOD | {"shape": [-2]}}, b"xy"), "no whole number from 0"),
        (content({"a": GOOD | {"shape": [2.0]}}, b"xy"), "no whole number from 0"),
        (content({"a": GOOD | {"shape": [2**40, 2**40]}}, b"xy"), "which its shape does not"),
        (content({"a": GOOD | {"shape": [2**64, 0]}}, b"xy"), "no whole number from 0"),
        (content({"a": GOOD | {"shape": [3]}}, b"xy"), "takes 2 bytes, which its shape does not"),
        (content({"a": GOOD | {"data_offsets": [2, 0]}}, b"xy"), "takes -2 bytes"),
        (content({"a": GOOD, "b": GOOD}, b"xy"), "overlap"),
        (content({"a": GOOD | {"data_offsets": [1, 3]}}, b"xyz"), "gap"),
        (content({"a\0": GOOD}, b"xy"), "no text, or too long"),
        (content({"a" * 2000: GOOD}, b"xy"), "no text, or too long"),
        (content({"a": GOOD | {"dtype": 8}}, b"xy"), "another form"),
    ],
)
def test_what_is_no_whole_file(file, said):
    with pytest.raises(ValueError, match=said):
        parse(file)
