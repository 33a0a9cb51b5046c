"""Fixtures: a pico family of checkpoints, a project over it, a study that has been run."""

import os

import pico
import pytest
from project import EXPERTS, SOURCE, Project, make_project

# What a test starts in a process of its own finds the package, too.
os.environ["PYTHONPATH"] = str(SOURCE)


@pytest.fixture(scope="session")
def pico_family(tmp_path_factory):
    """A pico Llama and four experts of it: (base, {name: folder}). Read only."""
    folder = tmp_path_factory.mktemp("family")
    base = pico.llama(folder / "base")
    experts = {
        name: pico.expert(base, folder / name, seed=i, scale=0.3)
        for i, name in enumerate(EXPERTS, start=1)
    }
    return base, experts


@pytest.fixture
def project(tmp_path, pico_family) -> Project:
    """A fresh project, nothing run yet."""
    return make_project(tmp_path / "project", *pico_family)


@pytest.fixture(scope="session")
def finished(tmp_path_factory, pico_family) -> Project:
    """A project whose study has been run. Tests that use it leave it finished."""
    project = make_project(tmp_path_factory.mktemp("finished") / "project", *pico_family)
    project.snakemake("pico")
    return project
