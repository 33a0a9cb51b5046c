"""The shared store: made once, by whoever comes first; never stale; never half."""

import json
import multiprocessing
import subprocess
import time

import pytest
from project import make_project
from wildmerge.run import store as sharing
from wildmerge.run.store import content, once

ROOMS = ("evaluation",)


def maker(folder, text="weights", seconds=0.0):
    """make() that writes a file and a folder below `folder`, and counts its calls."""
    calls = []

    def make():
        calls.append(text)
        time.sleep(seconds)
        (folder / "model/parts").mkdir(parents=True)
        (folder / "model/parts/a").write_text(text)
        (folder / "model/config").write_text("config")
        (folder / "scores.json").write_text(text)

    return make, calls


def share(store, folder, key, **options):
    folder.mkdir()
    make, calls = maker(folder, **options)
    once(store, key, [folder / "model", folder / "scores.json"], make, ROOMS)
    return calls


def test_the_second_finds_what_the_first_made(tmp_path):
    store = tmp_path / "store"
    assert share(store, tmp_path / "a", {"model": "x"}, text="first") == ["first"]
    assert share(store, tmp_path / "b", {"model": "x"}, text="second") == []
    for name in "ab":
        assert (tmp_path / name / "model/parts/a").read_text() == "first"
        assert (tmp_path / name / "model/parts/a").is_symlink()
        assert (tmp_path / name / "scores.json").read_text() == "first"
        assert not (tmp_path / name / "scores.json").is_symlink()
    assert content(tmp_path / "a/model") == content(tmp_path / "b/model")


def test_another_key_or_another_source_is_another_entry(tmp_path, monkeypatch):
    store = tmp_path / "store"
    share(store, tmp_path / "a", {"model": "x"})
    assert share(store, tmp_path / "b", {"model": "y"}, text="other") == ["other"]
    monkeypatch.setattr(sharing, "source", lambda rooms: ["edited"])
    assert share(store, tmp_path / "c", {"model": "x"}, text="new") == ["new"]
    assert (tmp_path / "a/scores.json").read_text() == "weights"


def test_a_source_counts_for_the_rooms_that_it_is_in():
    """Nobody downloads again because a figure's code has changed."""
    assert sharing.source(("reporting",)) != sharing.source(("tensors",))
    assert set(sharing.source(("tensors",))) < set(sharing.source(("sources", "tensors")))


def test_an_input_of_other_bytes_is_another_entry(tmp_path):
    store, given, made = tmp_path / "store", tmp_path / "in", tmp_path / "out"
    for text in ("one", "two", "one"):
        given.write_text(text)
        once(store, {"in": content(given)}, [made], lambda t=text: made.write_text(t), ROOMS)
        assert made.read_text() == text


def test_nothing_is_kept_of_a_failure(tmp_path):
    def fail():
        (tmp_path / "out").write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        once(tmp_path / "store", {}, [tmp_path / "out"], fail, ROOMS)
    out = tmp_path / "out"
    once(tmp_path / "store", {}, [out], lambda: out.write_text("all"), ROOMS)
    assert (tmp_path / "out").read_text() == "all"


def test_without_a_store_outputs_are_just_made(tmp_path):
    assert share(None, tmp_path / "a", {}) == ["weights"]
    assert not (tmp_path / "a/model/config").is_symlink()


def _one_of_many(folder, store, queue):
    queue.put(len(share(store, folder, {"model": "x"}, seconds=0.3)))


def test_four_at_a_time_make_it_once(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    arguments = [(tmp_path / name, tmp_path / "store", queue) for name in "abcd"]
    processes = [context.Process(target=_one_of_many, args=a) for a in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert sorted(queue.get() for _ in processes) == [0, 0, 0, 1]
    assert {(tmp_path / name / "model/parts/a").read_text() for name in "abcd"} == {"weights"}


def test_content_sees_names_and_bytes_alone(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("same")
    (tmp_path / "b/.snakemake_timestamp").touch()
    assert content(tmp_path / "a") == content(tmp_path / "b")
    (tmp_path / "b/file").rename(tmp_path / "b/other")
    assert content(tmp_path / "a") != content(tmp_path / "b")


def test_two_clones_at_a_time_make_each_thing_once(tmp_path, pico_family):
    base, experts = pico_family
    clones = [make_project(tmp_path / name, base, experts) for name in ("one", "two")]
    targets = [
        "results/task_vectors/pico/ann.json",
        *(f"results/scores/pico/{model}/identity/few.json" for model in ("base", "ann")),
    ]
    shared = f"shared={tmp_path / 'store'}"
    running = [
        subprocess.Popen(
            clone.command(*targets, "--config", shared),
            env=clone.env(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for clone in clones
    ]
    assert [process.wait(600) for process in running] == [0, 0]
    entries = [path for path in (tmp_path / "store").glob("*/*") if path.suffix != ".lock"]
    assert len(entries) == len(targets)
    found = [
        path
        for clone in clones
        for path in (clone.folder / "logs").rglob("*.log")
        if "Found in the shared store" in path.read_text()
    ]
    assert len(found) == len(targets)
    for target in targets:
        one, two = (json.loads((clone.folder / target).read_text()) for clone in clones)
        assert one == two
