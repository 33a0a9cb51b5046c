"""`make env` chooses a locked build of torch that fits the machine, says which, and can be told."""

import importlib.util
import os
import subprocess
import sys

import pytest
from project import ROOT

PATH = ROOT / "envs/choose_torch.py"
SPEC = importlib.util.spec_from_file_location("choose_torch", PATH)
assert SPEC and SPEC.loader
choose_torch = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(choose_torch)

SMI = """#!/bin/sh
echo "{}"
"""


def run(*words, path=None, **env):
    """Run the script as make does; `path` goes before all that is on PATH."""
    env = os.environ | env | ({"PATH": f"{path}:{os.environ['PATH']}"} if path else {})
    return subprocess.run(
        [sys.executable, PATH, *words], capture_output=True, text=True, env=env, timeout=100
    )


@pytest.mark.parametrize(
    ("cards", "build"),
    [
        ([], "cpu"),
        ([("NVIDIA H100 80GB HBM3", 580.65, 9.0)], "cu130"),
        ([("NVIDIA B200", 580.65, 10.0)], "cu130"),
        ([("Tesla T4", 580.65, 7.5)], "cu130"),
        ([("NVIDIA H100 80GB HBM3", 535.12, 9.0)], "cu126"),  # an older driver
        ([("Tesla V100-SXM2-32GB", 580.65, 7.0)], "cu126"),  # a card that CUDA 13 has dropped
        ([("Tesla V100-SXM2-32GB", 580.65, 7.0), ("Tesla T4", 580.65, 7.5)], "cu126"),
        ([("Tesla K80", 470.82, 3.7)], "cpu"),
        ([("NVIDIA B200", 570.86, 10.0)], "cpu"),  # neither: its driver has to be raised
        ([("NVIDIA B200", 580.65, 10.0), ("Tesla V100", 580.65, 7.0)], "cpu"),
    ],
)
def test_the_newest_build_that_works_on_all_cards(cards, build):
    chosen, why = choose_torch.choose(cards)
    assert chosen == build
    assert all(card[0] in why for card in cards) and (cards or "no NVIDIA card" in why)


def test_what_nvidia_smi_prints_is_read(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text(SMI.format("Tesla V100-SXM2-32GB, 535.129.03, 7.0"))
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert choose_torch.cards() == [("Tesla V100-SXM2-32GB", 535.129, 7.0)]
    assert choose_torch.choose(choose_torch.cards())[0] == "cu126"


def test_a_local_build_is_taken_where_an_index_has_it():
    take = choose_torch.requirement
    assert take("cu126", "9.9", {"9.9", "9.9+cu126"}) == ("torch==9.9+cu126", "")
    assert take("cpu", "9.9", {"9.9", "9.9+cpu"}) == ("torch==9.9+cpu", "")
    # Not `==`, which a build for the CPU of the same version would satisfy, too.
    assert take("cu130", "9.9", {"9.9", "9.9+cpu"}) == ("torch===9.9", "")
    with pytest.raises(SystemExit, match=r"no index that pip knows.*WILDMERGE_TORCH_INDEX"):
        take("cu126", "9.9", {"9.9"})


def test_it_says_which_and_why_and_can_be_told():
    told = run("cpu")
    assert told.returncode == 0 and "TORCH=cpu was asked for" in told.stderr
    assert told.stdout.startswith("torch==")
    wrong = run("rocm")
    assert wrong.returncode == 1 and "one of cu130, cu126, cpu was expected" in wrong.stderr
    assert wrong.stdout == ""


def test_make_hands_the_choice_on():
    command = ["make", "-n", "-B", "env", "TORCH=cpu", "PYTHON=python3"]
    planned = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    assert "envs/choose_torch.py cpu" in planned
    assert '--requirement requirements.lock "$build"' in planned


def test_no_address_is_written_down():
    assert "://" not in PATH.read_text() and "://" not in (ROOT / "Makefile").read_text()
