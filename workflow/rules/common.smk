"""Load and check config/, and turn wildcards into the names that `study.Needs` knows."""

import os
import re
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

HOME = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parents[1]
# In a checkout the package lies here; in a wheel it is found already.
sys.path.insert(0, str(HOME / "workflow/src"))

from snakemake.io import sourcecache_entry
from wildmerge import patches
from wildmerge.home import config_folder, search_path
from wildmerge.run import cost, summary
from wildmerge.sources import DATASETS_LOCK, pins_of, read_lock
from wildmerge.sources import locked_files, source_of, takes_pickles
from wildmerge.study import BASE, Needs, catalogue, check_tasks, load_experts
from wildmerge.study import own_files, paths, sheets, ways_on
from wildmerge.validation import read_yaml, validate

# Jobs find the package without an installation, on Slurm and in conda too.
SOURCE = str(search_path(Path.cwd()))
os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, [SOURCE, os.getenv("PYTHONPATH")])))
patches.apply(logger.warning)
CONFIG = config_folder()
# Snakemake reads this sheet by itself, keys that stand twice and all.
sheets.check_folder(CONFIG)
read_yaml(CONFIG / "config.yaml")


configfile: CONFIG / "config.yaml"


validate(
    config,
    read_yaml(HOME / "workflow/schemas/config.schema.yaml"),
    str(CONFIG / "config.yaml"),
)
SHEETS = sheets.load(CONFIG, HOME / "workflow/schemas")
if workflow.is_main_process:
    check_tasks(SHEETS.suites, str(CONFIG / "suites.yaml"))
NEEDS = Needs(SHEETS, paths.Scratch(config.get("scratch"), os.getcwd()))
STUDIES = SHEETS.studies
# How long jobs take: where one was measured, as the longest of its kind. Jobs need not know.
TIMES = cost.times(SHEETS, config["backend"], max if workflow.is_main_process else None)
# The commits of the benchmarks' data sets.
DATASETS = read_lock(CONFIG / DATASETS_LOCK)
# Checkpoints that are fine-tuned here, for the examples.
EXPERTS = load_experts(CONFIG, HOME / "workflow/schemas", SHEETS.models)
# Merged weights, until they are evaluated: among the results, or on a site's scratch.
MERGED = NEEDS.scratch.model("{base}", "{subset}", "{recipe}")


def of_merge(answer):
    """An input function of a rule with wildcards base, subset, recipe."""
    return lambda w: answer(w.base, w.subset, w.recipe)


def weights(wildcards):
    """A model's folder; Snakemake records it as one among the results, wherever it waits."""
    folder, home = (of_merge(answer)(wildcards) for answer in (NEEDS.model, NEEDS.home))
    return folder if folder == home else sourcecache_entry(folder, home)


members = of_merge(NEEDS.members)


def drawn(wildcards):
    """The checkpoints of a draw."""
    return NEEDS.drawn(wildcards.base, wildcards.subset)


def compared(wildcards):
    """The checkpoints of a base whose task vectors a study compares."""
    return NEEDS.compared(wildcards.base)


def checkpoints(names):
    """The folders of the checkpoints that `names` gives for wildcards."""
    return lambda w: [paths.checkpoint(w.base, model) for model in names(w)]


def admitted(names):
    """Their verdicts, each passed on only where the checkpoint can be merged."""
    return lambda w: [paths.admitted(w.base, model) for model in names(w)]


def reference(base, model):
    """Where the weights come from, repo@revision."""
    row = NEEDS.row(base, model)
    return f"{row['repo']}@{row['revision'] or 'unlocked'}"


def lacks(base, model):
    """What is known to be missing before a checkpoint can be brought, in words."""
    row = NEEDS.row(base, model)
    return source_of(row["repo"]).lacks(row)


say_once = cache(logger.warning)


@cache
def present(base, model):
    """The revision to download; a dry run goes on without one, a run does not."""
    if lack := lacks(base, model):
        say_once(f"A checkpoint of config/models.tsv has {lack}. A plan goes on; a run does not.")
    row, folder = NEEDS.row(base, model), Path(paths.checkpoint(base, model))
    return source_of(row["repo"]).present(row, folder, say_once)


def refuse_missing():
    """Stop a run before its first job where a checkpoint can't be had."""
    downloads = (job for job in workflow.dag.needrun_jobs() if job.rule.name == "download")
    names = sorted({(job.wildcards.base, job.wildcards.model) for job in downloads})
    lacking = {}
    for base, model in names:
        if lack := lacks(base, model):
            lacking.setdefault(lack, []).append(f"{base}/{model}")
    if lacking:
        said = "; ".join(f"{', '.join(who)}: {lack}" for lack, who in lacking.items())
        raise WorkflowError(
            f"Checkpoints that can be had were expected in config/models.tsv, found {said}. Then "
            f"run again. {ways_on(n for names in lacking.values() for n in names)}"
        )
    jobs = (job for job in workflow.dag.needrun_jobs() if job.rule.name == "fetch_suite")
    fetched = {job.wildcards.suite: SHEETS.suites[job.wildcards.suite] for job in jobs}
    check_tasks(fetched, str(CONFIG / "suites.yaml"), packages=True)
    if names := sorted(
        s for s in fetched if fetched[s].get("source") == "hub" and not pins_of(s, DATASETS)
    ):
        raise WorkflowError(
            "A commit was expected for every data set of the hub, found none for those of suite "
            f"{', '.join(names)}. Type `make lock`, look at config/{DATASETS_LOCK}, commit it, and "
            "run again."
        )


def by_size(fixed, per_gb):
    """A resource that grows with the model (GB of 16-bit weights) and with the attempt."""
    return lambda w, attempt: int((fixed + per_gb * NEEDS.gb(w.base)) * attempt)


def weights_mb(wildcards):
    """MB of a model's 16-bit weights: what a merge keeps on disk until it is evaluated."""
    return int(1000 * NEEDS.gb(wildcards.base))
