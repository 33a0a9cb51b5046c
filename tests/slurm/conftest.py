"""Fixtures: a real Slurm, and a toy workflow to run on it."""

import json
import shutil
from pathlib import Path

import pytest
from cluster import Cluster
from runs import ROOT, Workflow, require


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """Two nodes of two GPUs, no accounting."""
    require()
    with Cluster(tmp_path_factory.mktemp("slurm")) as one:
        yield one


@pytest.fixture(scope="session")
def accounting_cluster(tmp_path_factory):
    """Two nodes of two GPUs; sacct answers. Remembers a finished job too briefly for squeue."""
    require(accounting=True)
    with Cluster(tmp_path_factory.mktemp("slurm"), accounting=True, min_job_age=20) as one:
        yield one


@pytest.fixture
def toy(tmp_path):
    """Make the toy workflow: toy(cluster, merges=2, recipes=("ties",), suites=("paper",), ...)."""
    made = []

    def make(
        cluster, merges=2, recipes=("ties",), suites=("paper",), seconds=0.1, minutes=20
    ) -> Workflow:
        folder = tmp_path / f"toy{len(made)}"
        shutil.copytree(Path(__file__).parent / "toy", folder)
        shutil.copytree(ROOT / "profiles", folder / "profiles")
        (folder / "slurm").symlink_to("profiles/slurm")
        settings = {
            "merges": merges,
            "recipes": list(recipes),
            "suites": list(suites),
            "seconds": seconds,
            "minutes": minutes,
        }
        (folder / "config.yaml").write_text(json.dumps(settings))
        (folder / "resources/checkpoints/toy/base").mkdir(parents=True)
        made.append(Workflow(folder, cluster))
        return made[-1]

    yield make
    for workflow in made:
        if workflow.cluster.daemons:
            workflow.cluster.cancel_all()
