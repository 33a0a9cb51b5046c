"""Patches of other packages: they work, end with their block, and say when they are of no use."""

import gguf
from wildmerge.patches import gguf_parsed_once


def test_a_gguf_file_is_parsed_once(tmp_path, capsys):
    path = tmp_path / "it.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    original = gguf.GGUFReader
    with gguf_parsed_once():
        assert gguf.GGUFReader(path) is gguf.GGUFReader(path)
    assert gguf.GGUFReader is original
    assert gguf.GGUFReader(path) is not gguf.GGUFReader(path)
    assert capsys.readouterr().err == ""


def test_a_patch_that_no_longer_fits_says_so(capsys):
    original = gguf.GGUFReader
    with gguf_parsed_once():
        pass
    assert gguf.GGUFReader is original
    assert "WARNING: transformers was expected" in capsys.readouterr().err
