"""The paper's other studies, whole: their own files and rules, on pico checkpoints."""

import pandas as pd
import pico
import pytest
import yaml
from project import ROOT, counts, make_project, models_sheet

pytestmark = pytest.mark.slow

DOMAINS = ["medical", "medical", "math", "math"]
# What a study must say otherwise where there are four experts and little time.
FITTED = {
    "ablation": {
        "bases": ["ape"],
        "sizes": [4],
        "sweeps": [
            {
                "recipe": "task_arithmetic",
                "parameters": {"combine": ["mean", "sum"], "lambda": [0.1, 1.0, 10]},
            },
            {"recipe": "ties", "parameters": {"density": [0.1, 1.0], "lambda": [0.1, 1.0]}},
            {"recipe": "task_arithmetic_sb", "parameters": {"beta": [0, 0.1, 0.2, 0.3, 0.5]}},
        ],
    },
    "diagnostics": {"bases": ["ape", "bee"]},
    "combine": {"bases": ["ape"], "sizes": [2, 4], "draws": 1},
    "homogeneous": {"bases": ["bee"]},
}


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """A project with the four studies over two pico bases of four experts each."""
    folder = tmp_path_factory.mktemp("studies")
    families, rows = [("ape", pico.llama), ("bee", pico.qwen3)], []
    for name, make in families:
        base = make(folder / name / "base")
        rows.append({"base": name, "model": "base", "repo": f"dir:{base}", "gb": "0.01"})
        for i, domain in enumerate(DOMAINS):
            expert = pico.expert(base, folder / name / f"e{i}", seed=i + 1, scale=0.3)
            found = {"base": name, "model": f"e{i}", "repo": f"dir:{expert}", "domain": domain}
            rows.append(found | {"pool": "wild;homogeneous"})
    project = make_project(folder / "project", base, {})
    project.write("config/models.tsv", models_sheet(rows))
    (project.folder / "config/studies/pico.yaml").unlink()
    few = yaml.safe_load((project.folder / "config/suites.yaml").read_text())["few"]
    tasks = few["tasks"]
    suites = {
        "paper": few,
        "medical": few | {"tasks": {"arc_easy": tasks["arc_easy"]}},
        "math": few | {"tasks": {"piqa": tasks["piqa"]}},
    }
    project.write("config/suites.yaml", suites)
    for name, fitted in FITTED.items():
        study = yaml.safe_load((ROOT / f"config/studies/{name}.yaml").read_text())
        assert fitted.keys() <= study.keys()
        project.write(f"config/studies/{name}.yaml", study | fitted)
    choices = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    project.write("config/config.yaml", choices | {"studies": list(FITTED)})
    return project


@pytest.mark.parametrize("name", FITTED)
def test_a_study_of_the_paper_runs_whole(studies, name):
    study = yaml.safe_load((studies.folder / f"config/studies/{name}.yaml").read_text())
    planned = studies.jobs(name)
    done = studies.snakemake(name)
    assert counts(done.stdout + done.stderr) == planned
    folder = studies.folder / "results/studies" / name
    for figure in study["figures"]:
        assert (folder / f"figures/{figure}.pdf").stat().st_size > 5_000
        assert (folder / f"figures/{figure}.png").stat().st_size > 5_000
    for table in study["tables"]:
        assert len(pd.read_csv(folder / f"tables/{table}.csv"))
    if planned.get("evaluate"):
        assert (folder / "report.html").exists()
        merges = pd.read_csv(folder / "merges.csv")
        assert merges["accuracy"].notna().all()
        assert (merges.loc[merges["n"] > 1, "norm"] > 0).all()
    assert studies.jobs(name) == {}


def test_points_that_two_studies_share_run_once(studies):
    """TA on the mean of all four is a point of `ablation` and of `combine`."""
    scores = studies.folder / "results/scores"
    merged = {p.relative_to(scores).parts[:3] for p in scores.glob("*/*/*/paper.json")}
    tables = [
        pd.read_csv(studies.folder / f"results/studies/{name}/merges.csv")
        for name in ("ablation", "combine")
    ]
    tables = [table[table["n"] > 1] for table in tables]
    keys = [set(zip(t["base"], t["subset"], t["recipe"], strict=True)) for t in tables]
    assert keys[0] & keys[1]
    assert {key for key in merged if key[2] != "identity"} == keys[0] | keys[1]


def test_a_sweep_shares_the_factors_of_its_sum(studies):
    logs = studies.folder / "logs/factorize_sum"
    assert [p.relative_to(logs).as_posix() for p in logs.glob("*/*.log")] == ["ape/n04-01.log"]
    assert not list((studies.folder / "results").glob("merges/*/*/factors"))
