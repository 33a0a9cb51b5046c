"""Merged weights on a disk: what the dead left goes, what is needed stays, a full disk waits."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from project import Project
from wildmerge import WildmergeError
from wildmerge.run import settle

NOT_ENDED = 60


def weights(scratch: Path, clone: str, recipe: str) -> Path:
    """The folder of a merge's weights, as the workflow has it."""
    return scratch / f"wildmerge-{clone}/pico/n02-00/{recipe}/model"


def half_written(scratch, model, queue):
    """A merge on its way, for ever."""
    settle(str(scratch), model, patience=1)
    part = model.with_name(".model.part")
    part.mkdir()
    (part / "model.safetensors").write_bytes(b"x" * 1000)
    queue.put("begun")
    time.sleep(NOT_ENDED)


@pytest.fixture
def running():
    """Start `half_written` in a process of its own; all end with the test."""
    context = multiprocessing.get_context("fork")
    queue, processes = context.Queue(), []

    def start(scratch, model):
        processes.append(context.Process(target=half_written, args=(scratch, model, queue)))
        processes[-1].start()
        queue.get(timeout=60)
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.join()


def test_half_written_weights_go_with_their_process(tmp_path, running):
    dead, alive, mine = (weights(tmp_path, "aa", name) for name in ("dead", "alive", "mine"))
    other = weights(tmp_path, "bb", "other-clone")
    for model in (dead, other):
        process = running(tmp_path, model)
        process.kill()
        process.join()
    running(tmp_path, alive)
    # What is whole waits for its evaluation, whoever made it; what says nothing is nobody's.
    whole, unknown = weights(tmp_path, "aa", "whole"), weights(tmp_path, "aa", "unknown")
    settle(str(tmp_path), mine, patience=1)
    assert not dead.parent.exists() and not other.parent.exists()
    assert alive.with_name(".model.part").exists()
    process = running(tmp_path, whole)
    whole.with_name(".model.part").rename(whole)
    process.kill()
    process.join()
    unknown.mkdir(parents=True)
    settle(str(tmp_path), mine, patience=1)
    assert whole.exists() and unknown.exists()


def test_weights_of_another_machine_stay(tmp_path):
    model = weights(tmp_path, "aa", "elsewhere")
    settle(str(tmp_path), model, patience=1)
    (model.parent / "owner.json").write_text(json.dumps({"host": "another"}))
    settle(str(tmp_path), weights(tmp_path, "aa", "mine"), patience=1)
    assert (model.parent / "owner.json").exists()


DISK = 8_000_000
ON_A_SMALL_DISK = """
import shutil, sys, threading, time
from pathlib import Path
from wildmerge.run import settle
root, how = Path(sys.argv[1]), sys.argv[2]
full = root / "another's"
full.write_bytes(b"x" * 6_000_000)
threading.Timer(1.5, full.unlink).start()
output = root / "wildmerge-aa/pico/n02-00/ties/model"
room = settle(str(root), output, patience=0.5 if how == "short" else 60)
room(4_000_000, root, "Merge of a, b by ties")
print("room after", full.exists())
if how == "two":  # of which one has been promised the disk
    part = output.with_name(".model.part")
    part.mkdir()
    other = settle(str(root), root / "wildmerge-aa/pico/n02-00/iso_c/model", patience=0.5)
    other(5_000_000, root, "Another merge")
"""


def on_a_small_disk(folder: Path, how: str) -> str:
    """What ON_A_SMALL_DISK prints, on a disk of 8 MB that no other process sees."""
    mount = f'mount -t tmpfs -o size={DISK} tmpfs {folder} && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-c"]
    command += [ON_A_SMALL_DISK, str(folder), how]
    done = subprocess.run(command, capture_output=True, text=True, env=Project.env())
    return done.stdout + done.stderr


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root, to mount a small disk"
)
def test_a_full_disk_is_waited_for_and_not_for_ever(tmp_path):
    said = on_a_small_disk(tmp_path, "long")
    assert "waiting for other merges to be evaluated and removed, 60 s at most" in said
    assert "room after False" in said
    said = on_a_small_disk(tmp_path, "short")
    assert "left for them after 0.5 s. Make room, or run fewer jobs at a time" in said
    # Two that begin at a time don't take the same room.
    said = on_a_small_disk(tmp_path, "two")
    assert "room after False" in said and "Another merge: 0.01 GB" in said
    assert "WildmergeError" in said


def test_without_a_scratch_a_full_disk_is_refused(tmp_path):
    room = settle(None, tmp_path / "model", patience=0.1)
    room(1000, tmp_path, "A merge")
    with pytest.raises(WildmergeError, match=r"A merge: .* GB are to be written, but the disk of"):
        room(10**18, tmp_path, "A merge")
    assert not list(tmp_path.iterdir())
