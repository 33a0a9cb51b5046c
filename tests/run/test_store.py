"""The shared store: made once, by whoever comes first; never stale; never half."""

import json
import multiprocessing
import os
import shutil
import stat
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from project import make_project
from wildmerge import WildmergeError
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


def _one_of_many(folder, store, queue, seconds=0.3):
    queue.put(len(share(store, folder, {"model": "x"}, seconds=seconds)))


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


def _by_user(user, umask, store, folder, text, queue):
    """Share as another user of one group would, and say what happened."""
    os.setgroups([GROUP])
    os.setgid(GROUP)
    os.setuid(user)
    os.umask(umask)
    try:
        calls = share(store, folder, {"model": "x"}, text=text)
        queue.put((calls, (folder / "model/parts/a").read_text()))
    except WildmergeError as error:
        queue.put(str(error))


GROUP, FIRST, SECOND = 64001, 64002, 64003


@pytest.fixture
def open_folder():
    """A folder that every user can enter, which those of pytest are not."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def as_user(user, umask, store, folder, text):
    """What `_by_user` says, run in a process of its own."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    arguments = (user, umask, store, folder, text, queue)
    process = context.Process(target=_by_user, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    return queue.get(timeout=5)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two other users")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_two_users_of_a_group_share(open_folder, umask):
    """Whatever their umask: the store's folder says who may."""
    sharing.source(ROOMS)  # read before: the others may not enter this package
    store = open_folder / "store"
    store.mkdir()
    os.chown(store, 0, GROUP)
    store.chmod(0o2770)
    first = as_user(FIRST, umask, store, open_folder / "a", "first")
    assert first == (["first"], "first")
    assert as_user(SECOND, umask, store, open_folder / "b", "second") == ([], "first")
    entries = [path for path in store.rglob("*") if path.is_dir()]
    assert {path.stat().st_gid for path in store.rglob("*")} == {GROUP}
    assert {stat.S_IMODE(path.stat().st_mode) for path in entries} == {0o2770}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_a_store_that_one_may_not_write_to_is_said(open_folder):
    sharing.source(ROOMS)
    store = open_folder / "store"
    store.mkdir(mode=0o755)
    assert "chmod -R g+rwX" in as_user(SECOND, 0o022, store, open_folder / "b", "second")


def test_who_waits_too_long_makes_its_own(tmp_path, capfd):
    context = multiprocessing.get_context("fork")
    arguments = (tmp_path / "a", tmp_path / "store", context.Queue(), 5.0)
    slow = context.Process(target=_one_of_many, args=arguments)
    slow.start()
    while not list((tmp_path / "store").glob("*/*.lock")):
        time.sleep(0.05)
    time.sleep(0.2)
    (tmp_path / "b").mkdir()
    make, calls = maker(tmp_path / "b", text="second")
    outputs = [tmp_path / "b/model", tmp_path / "b/scores.json"]
    once(tmp_path / "store", {"model": "x"}, outputs, make, ROOMS, patience=0.5)
    assert calls == ["second"] and slow.is_alive()
    said = capfd.readouterr().out
    assert "Waiting for " in said and "0.5 s at most" in said and "for this study alone" in said
    slow.terminate()
    slow.join()


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
