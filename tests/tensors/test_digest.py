"""The digest of weights: what it is taken of, and when it is taken again."""

import json
import os
import shutil
import time

import pico
import pytest
from wildmerge import WildmergeError
from wildmerge.tensors import (
    Weights,
    folder_digest,
    known_digest,
    told_digest,
    unchanged,
    weights_digest,
)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two checkpoints of one size."""
    folder = tmp_path_factory.mktemp("weights")
    base = pico.llama(folder / "base")
    return base, pico.expert(base, folder / "expert")


@pytest.fixture
def model(two, tmp_path):
    return shutil.copytree(two[0], tmp_path / "model")


def replace(model, other):
    """Other bytes of the same size, at the same time as before."""
    file, times = model / "model.safetensors", os.stat(model / "model.safetensors")
    file.write_bytes((other / "model.safetensors").read_bytes())
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_weights_are_read_again_only_where_their_files_changed(two, model):
    first = Weights(model)
    assert known_digest(first) == folder_digest(model) == weights_digest(first)
    record = model.with_name(".model.digest.json")
    kept = json.loads(record.read_text())
    record.write_text(json.dumps(kept | {"digest": "as told"}))
    assert known_digest(Weights(model)) == "as told"
    (model / "model.safetensors").touch()
    assert known_digest(Weights(model)) == kept["digest"]
    replace(model, two[1])
    assert known_digest(Weights(model)) == folder_digest(two[1]) != kept["digest"]
    record.write_text("{")
    assert known_digest(Weights(model)) == folder_digest(two[1])


def test_shards_and_their_index_count(two, model):
    pico.transformers.AutoModelForCausalLM.from_pretrained(model).save_pretrained(
        model, max_shard_size="20KB"
    )
    (model / "model.safetensors").unlink()
    weights = Weights(model)
    assert len(weights.files) > 2 and all(path.exists() for path in weights.files.values())
    with unchanged([weights], "here"):
        pass
    for name in weights.files:
        said = pytest.raises(WildmergeError, match=f"here: weights .* in {model}")
        with said, unchanged([weights], "here"):
            (model / name).touch()


def test_what_changes_while_it_is_read_is_refused(two, model):
    weights = Weights(model)
    digest = folder_digest(model)
    with unchanged([weights], "here", [digest]) as (stamps,):
        assert list(stamps) == ["model.safetensors"]
    for change in (replace, lambda model, other: (model / "model.safetensors").unlink()):
        said = pytest.raises(WildmergeError, match="written or replaced while they were read")
        with said, unchanged([weights], "here"):
            change(model, two[1])


def test_what_a_file_tells_of_older_weights_is_believed(two, model, tmp_path):
    told = tmp_path / "summary.json"
    time.sleep(0.05)  # more than a tick of the file system's clock
    told.write_text("{}")
    assert told_digest(Weights(model), "as told", told) == "as told"
    time.sleep(0.05)
    (model / "model.safetensors").touch()
    digest = folder_digest(model)
    assert told_digest(Weights(model), digest, told) == digest
    with pytest.raises(WildmergeError, match=r"should have the digest as told, which .*summary"):
        told_digest(Weights(model), "as told", told)
