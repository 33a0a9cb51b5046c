"""Patches of other packages: each still has its place, and says so where it does not fit."""

import importlib
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import gguf
import pytest
from wildmerge import patches
from wildmerge.patches import SNAKEMAKE as PATCHES, gguf_parsed_once, one_timer


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.path)
def test_a_patch_fits_the_installed_version(patch, monkeypatch):
    monkeypatch.setattr(patches, "_WRAPPED", set())
    place = importlib.import_module(patch.module)
    *parents, name = patch.path.split(".")
    for parent in parents:
        place = getattr(place, parent)
    original = getattr(place, name)
    monkeypatch.setattr(place, name, original)  # put back after the test
    assert patch.apply() is None
    put = getattr(place, name)
    assert put is patch.replacement if not patch.wraps else put is not original
    assert patch.apply() is None and getattr(place, name) is put


def test_a_version_that_was_not_tested_is_said_and_left_alone():
    other = replace(PATCHES[0], versions="<1")
    said = []
    other_patches = (other, replace(PATCHES[0], path="JobScheduler.gone"))
    for patch in other_patches:
        said.append(patch.apply())
    assert "was written for <1" in said[0] and "not applied" in said[0]
    assert "JobScheduler.gone, which is not there" in said[1]
    assert all(PATCHES[0].issue in warning for warning in said)


def test_a_package_that_is_not_there_needs_no_patch():
    assert replace(PATCHES[0], package="no-such-package").apply() is None


def test_the_scheduler_looks_again_once():
    """Of Snakemake's own timers every one starts another, and every job that ends adds one."""
    schedule = one_timer()
    scheduler = SimpleNamespace(_open_jobs=threading.Semaphore(0))
    for _ in range(2):
        for _ in range(50):
            schedule(scheduler, 0.05)
        assert scheduler._open_jobs.acquire(timeout=10)
        time.sleep(0.2)
        assert not scheduler._open_jobs.acquire(blocking=False)


@pytest.mark.parametrize(
    ("stderr", "code", "expected"),
    [
        ("Slurm accounting storage is disabled", 1, False),
        ("sacct: error: Connection refused", 1, True),
        ("", 0, True),
    ],
)
def test_sacct_without_accounts(tmp_path, monkeypatch, stderr, code, expected):
    tool = tmp_path / "sacct"
    tool.write_text(f"#!/bin/sh\necho '{stderr}' >&2\nexit {code}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    patches.can_be_asked.cache_clear()
    assert patches.can_be_asked("sacct") == expected
    patches.can_be_asked.cache_clear()


def test_a_gguf_file_is_parsed_once(tmp_path):
    path = tmp_path / "it.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    original, said = gguf.GGUFReader, []
    with gguf_parsed_once(original).applied(said.append):
        assert gguf.GGUFReader(path) is gguf.GGUFReader(path)
    assert gguf.GGUFReader is original and not said
    with replace(gguf_parsed_once(original), versions="<1").applied(said.append):
        assert gguf.GGUFReader is original
    assert "not applied" in said[0]
