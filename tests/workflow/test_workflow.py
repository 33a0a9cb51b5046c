"""The workflow as a person runs it: counts of jobs, a study on pico checkpoints, accidents."""

import json
import os
import shutil
import signal
import subprocess
import time

import pandas as pd
import pico
import pytest
import yaml
from project import EXPERTS, ROOT, STUDY, Project, counts, make_project, models_sheet
from wildmerge.merging import streaming as merging
from wildmerge.tensors.weights import Weights

SCORE = "results/scores/pico/{}/{}/few.json"


# --- Looking before leaping ---------------------------------------------------------


@pytest.mark.parametrize(
    ("study", "expected"),
    [
        ("demo", {"merge": 14, "evaluate": 19, "finetune": 4, "factorize": 0}),
        ("small", {"merge": 182, "evaluate": 195, "finetune": 12, "factorize": 12}),
        ("twelve", {"merge": 112, "evaluate": 125, "finetune": 12, "factorize": 12}),
        ("wild", {"merge": 2128, "evaluate": 2180, "download": 52, "factorize": 48}),
        ("homogeneous", {"merge": 42, "evaluate": 84, "download": 14, "fetch_suite": 2}),
        ("ablation", {"merge": 4 * 74, "evaluate": 4 * 75, "factorize_sum": 4, "update": 28}),
        pytest.param(
            "combine",
            {"merge": 8 * 4 * 76, "evaluate": 8 * 4 * 76 + 52},
            marks=pytest.mark.slow,
        ),
        ("diagnostics", {"download": 52, "similarity": 4, "figure": 2}),
    ],
)
def test_dry_run_of_a_study_counts_its_jobs(tmp_path, study, expected):
    jobs = Project(tmp_path).jobs(study)
    assert {rule: jobs.get(rule, 0) for rule in expected} == expected


def test_dry_run_of_everything_shares_what_studies_share(tmp_path):
    # The ablation's default points are merges of `wild`: TA, TIES and TA + SB, for four bases.
    jobs = Project(tmp_path).jobs("all")
    assert jobs["merge"] == 2128 + 4 * (74 - 3) + 42
    assert jobs["download"] == 4 + 48 + 12 - 2


def test_the_rule_graph_is_drawn(tmp_path):
    done = Project(tmp_path).snakemake("wild", "--rulegraph")
    assert done.stdout.count("->") >= 8


# --- A whole study ------------------------------------------------------------------


def test_a_study_ends_in_tables_and_figures(finished):
    study = finished.folder / "results/studies/pico"
    scores, merges = pd.read_csv(study / "scores.csv"), pd.read_csv(study / "merges.csv")
    models = 1 + len(EXPERTS) + 2 * len(STUDY["recipes"])
    assert len(merges) == models
    assert len(scores) == 2 * models
    assert set(scores["questions"]) == {6}
    assert scores["value"].between(0, 1).all()
    made = merges[merges["recipe"] != "identity"]
    assert (made["norm"] > 0).all()
    for file in (
        "figures/accuracy_by_n.pdf",
        "figures/accuracy_by_n.png",
        "tables/success_rate.csv",
    ):
        assert (study / file).stat().st_size > 0


def test_the_weights_of_merges_are_not_kept_but_their_recipe_is(finished):
    merges = finished.folder / "results/merges/pico"
    assert not list(merges.glob("*/*/model"))
    assert len(list(merges.glob("*/*/mergekit.yaml"))) == 2 * len(STUDY["recipes"])
    # What mergekit cannot load by its origin stands there as a folder.
    text = next(merges.glob("n02-01/ties/mergekit.yaml")).read_text()
    there = "../../../../../resources/checkpoints/pico/base"
    assert f"base_model: {there}" in text and "is dir:" in text
    score = json.loads((finished.folder / SCORE.format("n02-01", "ties")).read_text())
    weights = json.loads(next(merges.glob("n02-01/ties/summary.json")).read_text())
    assert score["model_digest"] == weights["output_digest"]
    summary = json.loads((merges / "n02-01/ties/summary.json").read_text())
    assert set(summary["inputs"]) == {"base", *summary["members"]}


def test_a_finished_study_has_nothing_to_do(finished):
    assert finished.jobs("pico") == {}


def test_one_deleted_score_is_one_merge_and_one_evaluation(finished):
    target = SCORE.format("n02-01", "iso_c")
    (finished.folder / target).unlink()
    done = finished.snakemake(target)
    assert counts(done.stdout + done.stderr) == {"merge": 1, "evaluate": 1}
    finished.snakemake("pico")


def test_the_report_is_one_file_that_needs_no_network(finished):
    report = finished.folder / "report.html"
    finished.snakemake("pico", "--report", report)
    assert report.stat().st_size > 10_000
    assert 'src="http' not in report.read_text()


# --- Accidents ----------------------------------------------------------------------


def test_a_broken_shard_stops_the_merges_that_read_it_and_no_other(finished):
    """Members of the pair are broken one; the all-expert merges are done already."""
    pair = json.loads(
        (finished.folder / "results/merges/pico/n02-01/ties/summary.json").read_text()
    )
    victim = pair["members"][0]
    shard = finished.folder / f"resources/checkpoints/pico/{victim}/model.safetensors"
    whole, link = shard.read_bytes(), shard.readlink()
    doomed, other = SCORE.format("n02-01", "ties"), SCORE.format("base", "identity")
    for target in (doomed, other):
        (finished.folder / target).unlink()
    # The workflow's own copy: a shard that breaks in its source folder is refused at its download.
    shard.unlink()
    shard.write_bytes(whole[: len(whole) // 2])
    try:
        done = finished.snakemake(doomed, other, check=False)
    finally:
        shard.unlink()
        shard.symlink_to(link)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert (finished.folder / other).exists()
    assert "merge pico/n02-01/ties" in said
    assert "model.safetensors" in said
    assert "logs/merge/pico/n02-01/ties.log" in said
    assert not (finished.folder / "results/merges/pico/n02-01/ties/model").exists()

    again = finished.snakemake(doomed)
    assert counts(again.stdout + again.stderr) == {"merge": 1, "evaluate": 1}
    finished.snakemake("pico")


def test_a_merge_killed_in_the_middle_leaves_nothing_half_written(tmp_path):
    size = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 8, "head_dim": 64}
    base = pico.llama(tmp_path / "base", **size)
    experts = {n: pico.expert(base, tmp_path / n, seed=i) for i, n in enumerate(EXPERTS, 1)}
    project = make_project(tmp_path / "project", base, experts)
    folder = project.folder / "results/merges/pico/n04-01/tsv_m"
    target = "results/merges/pico/n04-01/tsv_m/summary.json"
    project.snakemake(target, "--until", "admit")
    process = subprocess.Popen(
        project.command(target, "--notemp"), env=project.env(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (folder / ".model.part").exists():
        assert process.poll() is None, "the merge ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "model").exists()
    assert not (folder / "summary.json").exists()

    project.snakemake("--unlock")
    project.snakemake(target, "--notemp")
    assert len(Weights(folder / "model")) == len(Weights(base))
    assert not (folder / ".model.part").exists()


def test_a_nan_in_an_expert_stops_its_merges_before_they_start(tmp_path, pico_family):
    import torch
    from safetensors.torch import load_file, save_file

    base, experts = pico_family
    bad = tmp_path / "bad"
    shutil.copytree(experts["ann"], bad)
    weights = load_file(bad / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name][3, 4] = torch.nan
    save_file(weights, bad / "model.safetensors", metadata={"format": "pt"})
    project = make_project(tmp_path / "project", base, experts | {"ann": bad})
    target = "results/merges/pico/n04-01/ties/summary.json"
    done = project.snakemake(target, check=False)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "admit pico/ann" in said
    assert name in said
    assert "rule merge:" not in said
    assert (project.folder / "results/task_vectors/pico/ann.json").exists()


def test_points_of_a_sweep_share_one_update(project, pico_family):
    sweep = {"recipe": "ties", "parameters": {"lambda": [0.1, 0.5, 1.0, 1.5, 2.0]}}
    study = {key: STUDY[key] for key in STUDY if key != "recipes"} | {"sweeps": [sweep]}
    project.write("config/studies/pico.yaml", study | {"sizes": [4]})
    points = ["ties", *(f"ties-lambda{x:g}" for x in (0.5, 1.0, 1.5, 2.0))]
    wanted = [f"results/merges/pico/n04-01/{point}/summary.json" for point in points]
    assert project.jobs(*wanted) | {"update": 1, "merge": 5} == project.jobs(*wanted)
    project.snakemake(*wanted)
    base, experts = pico_family
    recipe = yaml.safe_load((ROOT / "config/recipes.yaml").read_text())["ties"] | {"name": "x"}
    for path, scale in zip(wanted, (0.1, 0.5, 1.0, 1.5, 2.0), strict=True):
        point = recipe | {"parameters": recipe["parameters"] | {"lambda": scale}}
        alone = merging.merge(base, experts, point, project.folder / "alone")
        summary = json.loads((project.folder / path).read_text())
        assert summary["output_digest"] == alone["output_digest"]
        assert summary["bytes_read"] < alone["bytes_read"]
    assert not list(project.folder.glob("results/merges/pico/n04-01/unscaled/*"))


def test_merges_share_the_factors_of_their_experts(project, pico_family):
    study = STUDY | {"sizes": [2, 3], "draws": 6, "recipes": ["tsv_m"]}
    project.write("config/studies/pico.yaml", study)
    names = ["n03-01", "n03-02"]
    wanted = [f"results/merges/pico/{name}/tsv_m/summary.json" for name in names]
    project.snakemake(*wanted)
    base, experts = pico_family
    recipe = yaml.safe_load((ROOT / "config/recipes.yaml").read_text())["tsv_m"] | {"name": "x"}
    for path in wanted:
        summary = json.loads((project.folder / path).read_text())
        members = {name: experts[name] for name in summary["members"]}
        alone = merging.merge(base, members, recipe, project.folder / "alone")
        assert summary["norm"] == pytest.approx(alone["norm"], rel=1e-5)
        assert summary["bytes_read"] > alone["bytes_read"]  # a third of the directions, too
    assert (project.folder / "logs/factorize/pico").exists()
    assert not list(project.folder.glob("results/task_vectors/pico/*.factors"))


def test_only_trained_rows_are_fine_tuned(project):
    rows = [{"base": "pico", "model": "base", "repo": "dir:/nowhere", "gb": "0.01"}]
    code = {"base": "pico", "model": "code", "repo": "dir:/mine", "pool": "wild"}
    mine = {"base": "pico", "model": "mine", "repo": "trained:code", "pool": "wild"}
    project.write("config/studies/pico.yaml", STUDY | {"sizes": [2]})
    project.write("config/models.tsv", models_sheet([*rows, code, mine]))
    assert project.jobs("resources/checkpoints/pico/code") == {"download": 2}
    jobs = project.jobs("resources/checkpoints/pico/mine")
    assert jobs == {"download": 1, "fetch_training": 1, "finetune": 1}
    project.write("config/models.tsv", models_sheet([*rows, code, mine | {"repo": "trained:x"}]))
    done = project.snakemake("pico", "-n", check=False)
    assert done.returncode and "found trained:x. Known are" in done.stdout + done.stderr


# --- Wrong sheets, as the command line tells them -----------------------------------


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("config/config.yaml", "batchsize: 3\n", "'batchsize' was unexpected"),
        ("config/studies/pico.yaml", "bases: [pico]\n", "is a required property"),
        ("config/studies/pico.yaml", STUDY | {"pool": "x"}, "checkpoints of pico in pool 'x'"),
        ("config/studies/pico.yaml", STUDY | {"sizes": [5]}, "sizes up to 4 were expected"),
        ("config/studies/pico.yaml", STUDY | {"suites": ["many"]}, "found 'many'"),
        ("config/studies/pico.yaml", STUDY | {"recipes": ["tie"]}, "found 'tie'"),
        (
            "config/recipes.yaml",
            "ties: {merge_method: ties_hashed, densty: 1}\n",
            "densty",
        ),
    ],
)
def test_a_wrong_sheet_is_told_before_any_job(project, file, text, expected):
    if file == "config/config.yaml":
        text = (project.folder / file).read_text() + text
    project.write(file, text)
    done = project.snakemake("pico", "-n", check=False)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "WildmergeError" in said
    assert expected in said
    assert file in said


def test_the_environment_for_conda_has_the_pins_of_the_lock():
    import yaml

    environment = yaml.safe_load((ROOT / "envs/wildmerge.yaml").read_text())
    pins = environment["dependencies"][-1]["pip"]
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    assert pins == [line for line in lock if not line.startswith("#")]
