"""A method, a figure, a table and a benchmark are one file or one entry each.

They are added to a copy of the project, which is then run through Snakemake. A source of
checkpoints in one file has its own test in tests/sources.
"""

import json
import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import yaml
from project import EXPERTS, ROOT, make_project

METHOD = '''
"""Half of the mean of the task vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import task_arithmetic
from ._method import Method, Parameter

if TYPE_CHECKING:
    import torch


def update(
    base: torch.Tensor, experts: Sequence[torch.Tensor], *, share: float
) -> torch.Tensor:
    """The share of the mean."""
    return task_arithmetic.update(base, experts, combine="mean", lambda_=share)


METHOD = Method(
    name="halved",
    label="A half",
    reference="none",
    update=update,
    family="weight interpolation",
    parameters={"share": Parameter("The share; 0 to 1.", minimum=0, maximum=1, default=0.5)},
    gpu=False,
)
'''
FIGURE = '''
"""The norm of every merge, a mark a merge."""

from matplotlib.figure import Figure

from wildmerge.reporting.inputs import Inputs

INPUTS = ("merges", "intervals")
CAPTION = "Norms, a mark a merge."


def draw(inputs: Inputs) -> Figure:
    """Marks at the methods' labels."""
    figure = Figure()
    axes = figure.subplots()
    merges = inputs.merges.dropna(subset="norm")
    merges = merges[merges["recipe"] != "identity"]
    assert len(inputs.intervals)
    axes.plot([inputs.looks.label(name) for name in merges["recipe"]], merges["norm"], "o")
    return figure
'''
TABLE = '''
"""How many merges of each method there are."""

import pandas as pd

from wildmerge.reporting.inputs import Inputs

INPUTS = ("merges",)
CAPTION = "Merges by method."


def make(inputs: Inputs) -> tuple[pd.DataFrame, str, str]:
    """A row a label."""
    merges = inputs.merges
    labels = merges["recipe"].map(inputs.looks.label)
    cells = labels.value_counts().rename_axis("label").reset_index(name="merges")
    return cells, cells.to_latex(), cells.to_html()
'''
PACKAGE = "workflow/src/wildmerge"


def test_one_file_or_entry_each(tmp_path, pico_family):
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(ROOT / "Snakefile", copy)
    for name in ("workflow", "config", "envs", "profiles"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    added = {
        "methods/halved.py": METHOD,
        "reporting/figures/norms.py": FIGURE,
        "reporting/tables/count.py": TABLE,
    }
    for path, text in added.items():
        assert not (copy / PACKAGE / path).exists()
        (copy / PACKAGE / path).write_text(text)
    project = make_project(tmp_path / "project", *pico_family)
    suites = yaml.safe_load((project.folder / "config/suites.yaml").read_text())
    demo = yaml.safe_load((ROOT / "config/suites.yaml").read_text())["demo"]
    suites["few"]["tasks"]["openbookqa"] = demo["tasks"]["openbookqa"] | {"questions": 4}
    project.write("config/suites.yaml", suites)
    study = {
        "description": "What was added.",
        "bases": ["pico"],
        "pool": "wild",
        "sizes": [2],
        "draws": 1,
        "recipes": ["halved", "task_arithmetic"],
        "suites": ["few"],
        "figures": ["norms"],
        "tables": ["count"],
    }
    project.write("config/studies/pico.yaml", study)
    command = [part.replace(f"{ROOT}/", f"{copy}/") for part in project.command("pico")]
    command[0] = sys.executable
    environment = os.environ | {"PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr

    results = project.folder / "results"
    norms = {}
    for recipe in ("halved", "task_arithmetic"):
        summary = json.loads((results / f"merges/pico/n02-01/{recipe}/summary.json").read_text())
        norms[recipe] = summary["norm"]
    assert norms["halved"] == pytest.approx(norms["task_arithmetic"] / 2, rel=1e-6)
    scores = json.loads((results / "scores/pico/n02-01/halved/few.json").read_text())
    assert scores["tasks"]["openbookqa"]["questions"] == 4
    page = (results / "studies/pico/report.html").read_text()
    assert "A half" in page and "Norms, a mark a merge." in page
    counted = pd.read_csv(results / "studies/pico/tables/count.csv").set_index("label")["merges"]
    assert counted.to_dict() == {"checkpoint": 1 + len(EXPERTS), "A half": 1, "TA": 1}
    assert (results / "studies/pico/figures/norms.pdf").stat().st_size > 0
