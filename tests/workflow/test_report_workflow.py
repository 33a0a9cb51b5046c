"""The rules from scores to the report, run by Snakemake on simulated scores."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest
import simulate
import yaml
from project import ROOT, Project, models_sheet
from wildmerge.files import write_json
from wildmerge.study import plan as planning, sheets

pytestmark = pytest.mark.slow  # some thirty jobs, seconds each; the demo runs most of them
RULES = ["aggregate", "compare", "figure", "table", "report", "keep"]
KEPT = "results/studies/main/kept/sim/n05-01/iso_c/README.md"
MODELS = ["ann", "bob", "cat", "dan", "eve"]
DOMAIN = dict(zip(MODELS, ["medical", "medical", "medical", "math", "math"], strict=True))
COMMON = {"bases": ["sim"], "pool": "wild", "tables": []}
STUDIES = {
    "main": COMMON
    | {
        "description": "Draws.",
        "sizes": [2, 3, 5],
        "draws": 5,
        "recipes": ["task_arithmetic", "iso_c"],
        "suites": ["medical"],
        "figures": ["gain_by_method", "accuracy_by_n", "gain_by_merge", "task_gains",
                    "gain_by_norm", "norm_by_n", "membership", "task_accuracy"],
        "tables": ["success_rate", "significance", "best_checkpoint"],
    },
    "sweeps": COMMON
    | {
        "description": "Sweeps.",
        "sizes": [5],
        "draws": 1,
        "singles": False,
        "sweeps": [
            {"recipe": "task_arithmetic", "parameters": {"combine": ["mean", "sum"],
                                                         "lambda": [0.5, 1.0]}},
            {"recipe": "ties", "parameters": {"density": [0.1, 1.0], "lambda": [0.1, 1.0]}},
            {"recipe": "task_arithmetic_sb", "parameters": {"beta": [0, 0.2]}},
        ],
        "suites": ["medical"],
        "figures": ["lambda_sweep", "ties_grid", "density_sweep", "beta_sweep"],
    },
    "domains": COMMON
    | {
        "description": "Groups.",
        "groups": {
            "medical": {"domains": ["medical"], "suites": ["medical"]},
            "both": {"domains": ["medical", "math"], "suites": ["medical", "math"]},
        },
        "recipes": ["ties"],
        "suites": ["medical", "math"],
        "figures": ["gain_by_method", "homogeneous", "task_gains"],
    },
    "lies": COMMON | {"description": "Task vectors.", "figures": ["cosines", "signs"]},
}  # fmt: skip


def fill(project):
    """Put simulated results of all studies where evaluations and merges would."""
    schemas = ROOT / "workflow/schemas"
    found = sheets.load(project.folder / "config", schemas)
    tasks = {"piqa": 60, "boolq": 40}
    rng = np.random.default_rng(0)
    task = np.repeat(np.arange(2), list(tasks.values()))
    chance = np.full(task.size, 0.5)
    right = rng.random(task.size) < chance
    results = project.folder / "results"
    seen = set()
    for evaluations in found.evaluations.values():
        for e in evaluations:
            key = (e.subset, e.recipe, e.suite)
            if key in seen:
                continue
            seen.add(key)
            row = dict(base=e.base, subset=e.subset, n=e.n, draw=e.draw, members=list(e.members),
                       recipe=e.recipe, suite=e.suite)  # fmt: skip
            correct = simulate.outcomes(rng, right, chance, 0, 0.2) if e.n else right
            paths = simulate.write(results / "scores", row, correct, tasks, task, 0.2, rng)
            if paths["summary"]:
                target = results / "merges" / e.base / e.subset / e.recipe / "summary.json"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(paths["summary"], target)
                target.with_name("mergekit.yaml").write_text(
                    "# By hand\nbase_model: b\nmodels: [{model: x}]\n"
                )
    for model in MODELS:
        verdict = {"base": "sim", "model": model, "compatible": True, "digest": "c" * 64,
                   "reasons": [], "conversions": [], "warnings": [],
                   "relative_norm": 0.01}  # fmt: skip
        write_json(results / f"task_vectors/sim/{model}.json", verdict)
    np.savez(results / "task_vectors/sim/similarity.npz", **simulate.similarity(MODELS))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("report") / "project")
    shutil.copytree(ROOT / "config", project.folder / "config")
    shutil.rmtree(project.folder / "config/studies")
    rows = [{"base": "sim", "model": "base", "repo": "dir:/nowhere", "gb": "0.01"}]
    rows += [
        {"base": "sim", "model": model, "repo": "dir:/nowhere", "pool": "wild", "domain": domain}
        for model, domain in DOMAIN.items()
    ]
    project.write("config/models.tsv", models_sheet(rows))
    for name, study in STUDIES.items():
        project.write(f"config/studies/{name}.yaml", study)
    choices = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    project.write("config/config.yaml", choices | {"studies": [*STUDIES]})
    fill(project)
    model = project.folder / "results/merges/sim/n05-01/iso_c/model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    reports = [f"results/studies/{name}/report.html" for name in ("main", "sweeps", "domains")]
    figures = [f"results/studies/lies/figures/{name}.png" for name in ("cosines", "signs")]
    wanted = [*reports, *figures, KEPT]
    project.snakemake(*wanted, "--allowed-rules", *RULES)
    return project


@pytest.mark.parametrize("study", STUDIES)
def test_every_figure_and_table_of_a_study_is_made(project, study):
    folder = project.folder / "results/studies" / study
    for figure in STUDIES[study]["figures"]:
        assert (folder / f"figures/{figure}.png").stat().st_size > 5000
        assert (folder / f"figures/{figure}.pdf").read_bytes().startswith(b"%PDF")
    for table in STUDIES[study]["tables"]:
        assert len(pd.read_csv(folder / f"tables/{table}.csv"))
        assert "toprule" in (folder / f"tables/{table}.tex").read_text()
    if STUDIES[study].get("suites"):
        page = (folder / "report.html").read_text()
        assert page.count("data:image/png") == len(STUDIES[study]["figures"])
        rows = pd.read_csv(folder / "merges.csv")
        assert rows["accuracy"].notna().all()


def test_a_kept_merge_has_its_weights_and_a_model_card(project):
    folder = (project.folder / KEPT).parent
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    card = (folder / "README.md").read_text()
    assert "Merge of 5 checkpoints by `iso_c`" in card
    assert "| medical | the base (`base`) |" in card
    assert (folder / "summary.json").exists()
    assert (folder / "mergekit.yaml").exists()


def test_an_edited_note_and_a_benchmark_make_nothing_again(project):
    """What report and keep read without declaring it, deliberately."""
    models = project.folder / "config/models.tsv"
    before = models.read_text()
    header, *rows = before.splitlines()
    note = header.split("\t").index("note")
    cells = [row.split("\t") for row in rows]
    edited = [[*row[:note], "a new note", *row[note + 1 :]] for row in cells]
    models.write_text("\n".join([header, *map("\t".join, edited)]) + "\n")
    benchmark = project.folder / "benchmarks/merge/sim/n05-01/iso_c.tsv"
    benchmark.parent.mkdir(parents=True, exist_ok=True)
    benchmark.write_text("s\th:m:s\n1.0\t0:00:01\n")
    report = "results/studies/main/report.html"
    try:
        assert "keep" not in project.jobs(KEPT, "--allowed-rules", *RULES)
    finally:
        models.write_text(before)
    assert project.jobs(report, "--allowed-rules", *RULES) == {}


@pytest.mark.parametrize(
    ("rule", "target", "read"),
    [
        ("aggregate", "scores.csv", "merges/sim/n05-01/iso_c/summary.json"),
        ("compare", "comparisons.csv", "scores/sim/n05-01/iso_c/medical.items.parquet"),
        ("report", "report.html", "merges/sim/n05-01/iso_c/summary.json"),
    ],
)
def test_what_is_read_is_an_input(project, rule, target, read):
    """A summary or an items file that has changed makes its readers' outputs again."""
    path = project.folder / "results" / read
    before, stamp = path.read_bytes(), path.stat()
    path.write_bytes(before + b" ")  # Snakemake passes over a small file that was only touched
    try:
        jobs = project.jobs(f"results/studies/main/{target}", "--allowed-rules", *RULES)
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert rule in jobs


def test_sweep_points_are_those_of_the_plan(project):
    recipes = yaml.safe_load((ROOT / "config/recipes.yaml").read_text())
    points = planning.study_recipes(STUDIES["sweeps"], recipes, "sweeps")
    merges = pd.read_csv(project.folder / "results/studies/sweeps/merges.csv")
    assert set(merges["recipe"]) == {*points, "identity"}
