"""What a study will cost, from a dry run."""

import pytest
from project import wildmerge
from wildmerge.run import cost

DRY_RUN = """\
rule download:
    output: resources/checkpoints/b/base
    jobid: 2
    wildcards: base=b, model=base
    resources: tmpdir=/tmp, mem_mb=4000

rule merge:
    input: resources/checkpoints/b/base
    jobid: 3
    wildcards: base=b, subset=n02-01, recipe=ties
    threads: 2
    resources: tmpdir=<TBD>, gpu=1, disk_mb=2000

rule evaluate:
    jobid: 4
    wildcards: base=b, subset=n02-01, recipe=ties, suite=paper
    resources: gpu=1

localrule aggregate:
    jobid: 1
    wildcards: study=s
"""
GB = {"b": 2.0}
METHODS = {"ties": "ties_hashed", "iso": "iso_c"}
MEMBERS = {("b", "n02-01"): ("x", "y")}


def rows(measured=None, backend="shared-prefix"):
    jobs = cost.read_dry_run(DRY_RUN)
    times = cost.Times(GB, MEMBERS, METHODS, backend, measured or {})
    return {r.rule: r for r in cost.estimate(jobs, times)}


def test_jobs_of_a_dry_run_are_read_whole():
    download, merge, *_ = cost.read_dry_run(DRY_RUN)
    assert (download.rule, download.wildcards) == ("download", {"base": "b", "model": "base"})
    assert (merge.threads, merge.resources) == (2, {"gpu": 1, "disk_mb": 2000})


def test_assumptions_by_hand():
    found = rows()
    assert found["download"].seconds == pytest.approx(2.0 / cost.NETWORK)
    # 60 s to start, four checkpoints of 2 GB read and written.
    assert found["merge"].seconds == pytest.approx(60 + 4 * 2.0)
    (spectral,) = cost.read_dry_run(DRY_RUN.replace("recipe=ties", "recipe=iso"))[1:2]
    assert cost.assumed_seconds(spectral, 2.0, 2, "iso_c", "hf") == 60 + 4 * 2.0 + 20 * 2.0
    assert found["merge"].gpu_hours == pytest.approx(found["merge"].seconds / 3600)
    assert found["merge"].cpu_hours == pytest.approx(2 * found["merge"].seconds / 3600)
    tokens = 2.0e9 * 7.3e6 / cost.FLOPS
    assert found["evaluate"].seconds == pytest.approx(60 + 2 + tokens)
    assert rows(backend="hf")["evaluate"].seconds == pytest.approx(60 + 2 + 5 * tokens)
    assert found["aggregate"].gpu_hours == 0


def test_measured_times_take_the_place_of_assumed_ones(tmp_path):
    for name, seconds in (("a", 10.0), ("b", 30.0), ("c", 20.0)):
        file = tmp_path / f"merge/b/{name}/ties.tsv"
        file.parent.mkdir(parents=True)
        file.write_text(f"s\tcpu_time\n{seconds}\t1\n")
    found = rows(cost.read_benchmarks(tmp_path))
    assert (found["merge"].seconds, found["merge"].measured) == (20.0, 1)
    assert found["evaluate"].measured == 0


def test_a_job_asks_for_three_times_its_plan_and_five_minutes(project):
    """So that Slurm can fit it between others; a measured time counts for more than an assumed."""
    merges = "benchmarks/merge/pico/n02-00"
    project.write(f"{merges}/ties.tsv", "s\tcpu_time\n600\t1\n")
    project.write(f"{merges}/iso_c.tsv", "s\tcpu_time\n120\t1\n")
    jobs = cost.read_dry_run(project.snakemake("-n", "pico").stdout)
    asked = {}
    for job in jobs:
        asked.setdefault(job.rule, set()).add(job.resources.get("runtime"))
    # The longest of the measured merges; a minute to start and a few seconds of work.
    assert asked["merge"] == {5 + 3 * 10}
    assert asked["evaluate"] == {5 + 4}


def test_an_8b_merge_and_its_evaluation_ask_for_four_times_their_plan_at_most():
    draws = {("b", "n12-00"): tuple("abcdefghijkl")}
    times = cost.Times({"b": 16.0}, draws, METHODS, "shared-prefix", {})
    wildcards = {"base": "b", "subset": "n12-00", "recipe": "ties", "suite": "paper"}
    rules = ("merge", "evaluate")
    plan = sum(times.seconds(cost.Job(rule, wildcards)) for rule in rules) / 60
    first, third = (
        sum(times.asked(rule)(wildcards, attempt) for rule in rules) for attempt in (1, 3)
    )
    assert 3 * plan < first < 4 * plan
    assert third == 3 * first


def test_the_plan_says_what_is_measured_and_what_assumed():
    jobs = cost.read_dry_run(DRY_RUN)
    times = cost.Times(GB, MEMBERS, METHODS, "hf", {("merge", "b"): 20.0})
    found = cost.estimate(jobs, times)
    text = cost.render("s", found, jobs, GB, limit=1.0)
    assert "Still to do for s" in text
    assert "1 measured" in text
    assert "1 assumed" in text
    assert "Downloads: 2.0 GB" in text
    assert "at most 1.0 GB of them lie on disk" in text
    assert "Peak disk: 3.0 GB" in text


def test_make_plan_prints_a_whole_study(tmp_path):
    done = wildmerge("plan", "diagnostics", cwd=tmp_path)
    assert "similarity" in done.stdout
    assert "Peak disk" in done.stdout
    assert "Licences: not known (" in done.stdout  # no lock here


def test_an_unknown_study_is_said(tmp_path):
    done = wildmerge("plan", "nosuch", cwd=tmp_path, code=1)
    assert "expected as the target, found 'nosuch'. Known are" in done.stderr
