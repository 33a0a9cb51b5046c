"""Load and check config/, and answer what each rule asks of it. No torch, no science."""

import hashlib
import os
import re
import sys
from collections import Counter
from functools import cache
from importlib.metadata import version
from pathlib import Path
from threading import Timer

HOME = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parents[1]
SOURCE = HOME / "workflow" / "src"
sys.path.insert(0, str(SOURCE))
# Jobs find the package without an installation, on Slurm and in conda too.
os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, [str(SOURCE), os.getenv("PYTHONPATH")])))

from snakemake.scheduling.job_scheduler import JobScheduler

from wildmerge.study import catalogue, sheets
from wildmerge.sources.lock import is_hub, locked_files, takes_pickles
from wildmerge.study.plan import BASE, IDENTITY, pool, sweep_name


def look_again(scheduler, delay):
    """Let the scheduler look for jobs again after `delay` seconds, unless it is about to anyway.

    Snakemake 9.27 starts a timer at every look and every timer makes it look: each job that ends
    adds one more for ever, and after a thousand jobs the scheduler alone keeps a core busy.
    """

    def look():
        PENDING.clear()
        scheduler._open_jobs.release()

    if not PENDING:
        PENDING.append(Timer(delay, look))
        PENDING[0].start()


PENDING = []  # the timer that runs
JobScheduler._schedule_reevalutation = look_again

# A working folder with a config/ of its own is a project of its own.
CONFIG = Path("config") if Path("config").is_dir() else HOME / "config"


configfile: CONFIG / "config.yaml"


sheets.validate(
    config,
    sheets.read_yaml(HOME / "workflow/schemas/config.schema.yaml"),
    str(CONFIG / "config.yaml"),
)
SHEETS = sheets.load(CONFIG, HOME / "workflow/schemas")
STUDIES = SHEETS.studies

# Merged weights, until they are evaluated: among the results, or on a site's scratch, where every
# clone has a folder of its own.
MERGED = "results/merges/{base}/{subset}/{recipe}/model"
if "scratch" in config:
    clone = hashlib.sha256(os.getcwd().encode()).hexdigest()[:8]
    scratch = os.path.expandvars(config["scratch"])
    MERGED = f"{scratch}/wildmerge-{clone}/{{base}}/{{subset}}/{{recipe}}/model"


def row(base, model):
    """The row of config/models.tsv; a name that is not there is reported by Snakemake's own words."""
    try:
        return SHEETS.models[base, model]
    except KeyError:
        raise WorkflowError(f"config/models.tsv has no row {base}/{model}.") from None


def checkpoint(base, model):
    return f"resources/checkpoints/{base}/{model}"


def admitted(base, model):
    """The verdict on a checkpoint, passed on by the gate only where it can be merged."""
    return f"results/admitted/{base}/{model}.json"


def members(wildcards):
    """The checkpoints in a subset: none for the base, itself for a checkpoint, else the draw's."""
    base, subset = wildcards.base, wildcards.subset
    if wildcards.get("recipe", IDENTITY) == IDENTITY:
        return [] if subset == BASE else [subset]
    return drawn(wildcards)


def drawn(wildcards):
    """The checkpoints of a draw."""
    try:
        return list(SHEETS.members[wildcards.base, wildcards.subset])
    except KeyError:
        raise WorkflowError(
            f"No study of config/studies/ has a subset {wildcards.subset} of {wildcards.base}."
        ) from None


def recipe(wildcards):
    try:
        return SHEETS.recipes[wildcards.recipe]
    except KeyError:
        raise WorkflowError(
            f"No study of config/studies/ uses a recipe {wildcards.recipe}."
        ) from None


# A merge computes for itself what few others need. The factors of an expert take 0.4 of its
# 16-bit weights on disk, those of a sum 2.6 models (17 GB for a 3B model): from this many merges on,
# another job, its writing and everybody's reading cost less than factorising again. An update in
# float32 takes 2 models and replaces the reading of all experts.
SHARED_BY = 5
SUM_METHODS = ("iso_c", "task_arithmetic_sb")
# The parameters that are but a factor of the update, by method.
SCALES = {"task_arithmetic": {"lambda", "combine"}, "ties": {"lambda"}}


@cache
def shared_factors():
    """How many merges of all studies use the factors of (base, model) and of (base, subset)."""
    every = {(e.base, e.subset, e.recipe): e for es in SHEETS.evaluations.values() for e in es}
    experts, sums = Counter(), Counter()
    for e in every.values():
        method = SHEETS.recipes[e.recipe]["merge_method"] if e.is_merge else None
        if method == "tsv_m" and len(e.members) > 1:
            experts.update((e.base, model) for model in e.members)
        if method in SUM_METHODS:
            sums[e.base, e.subset] += 1
    return experts, sums


def factors(wildcards):
    """The factorisations that a merge shares with enough others: of its experts, or their sum."""
    base, method, models = wildcards.base, recipe(wildcards)["merge_method"], members(wildcards)
    experts, sums = shared_factors()
    if method == "tsv_m" and min(experts[base, model] for model in models) >= SHARED_BY:
        return [f"results/task_vectors/{base}/{model}.factors" for model in models]
    if method in SUM_METHODS and sums[base, wildcards.subset] >= SHARED_BY:
        return [f"results/merges/{base}/{wildcards.subset}/factors"]
    return []


@cache
def same_but_for_scale():
    """The merges of all studies whose updates differ by a factor, (base, subset, name of the update
    before it) -> recipes."""
    found = {}
    for e in (e for es in SHEETS.evaluations.values() for e in es if e.is_merge):
        if name := before_scale(e.recipe):
            found.setdefault((e.base, e.subset, name), {})[e.recipe] = None
    return found


def before_scale(name):
    """A name for a recipe's update before its scale; None where the method has no such factor."""
    found = SHEETS.recipes[name]
    method, parameters = found["merge_method"], found["parameters"]
    if method not in SCALES:
        return None
    rest = {k: v for k, v in parameters.items() if k not in SCALES[method]}
    return sweep_name(f"{method}.v{found['version']}", rest)


def unscaled(wildcards):
    """The update before its scale, where enough merges share it."""
    recipe(wildcards)  # a name that no study uses is refused
    base, subset, name = wildcards.base, wildcards.subset, before_scale(wildcards.recipe)
    if len(same_but_for_scale().get((base, subset, name), ())) < SHARED_BY:
        return []
    return f"results/merges/{base}/{subset}/unscaled/{name}"


def any_scaled(wildcards):
    """One of the recipes that share an update."""
    key = wildcards.base, wildcards.subset, wildcards.unscaled
    return SHEETS.recipes[next(iter(same_but_for_scale()[key]))]


# Checkpoints of the hub that are to be downloaded without a revision.
UNLOCKED = set()


def revision(wildcards):
    """The revision to download; a dry run goes on without one, a run does not."""
    found = row(wildcards.base, wildcards.model)
    if is_hub(found) and not found["revision"]:
        if not UNLOCKED:
            logger.warning(
                "Some checkpoints of config/models.tsv have no revision yet. Planning goes on "
                "without; before the run type `make lock`."
            )
        UNLOCKED.add(f"{wildcards.base}/{wildcards.model}")
    return found["revision"]


def refuse_unlocked():
    """Stop a run before its first job where a download has no revision."""
    if UNLOCKED:
        raise WorkflowError(
            f"A revision was expected for every checkpoint of the hub, found none for "
            f"{', '.join(sorted(UNLOCKED))}. Type `make lock`, look at config/models.lock.json, "
            "commit it, and run again."
        )


def reference(base, model):
    """Where the weights come from, repo@revision."""
    found = row(base, model)
    return f"{found['repo']}@{found['revision'] or 'unlocked'}"


def scored_model(wildcards):
    """The folder of weights that an evaluation reads."""
    if wildcards.recipe == IDENTITY:
        return checkpoint(wildcards.base, wildcards.subset)
    return MERGED.format(**dict(wildcards.items()))


def scores(study):
    """One dict an evaluation of the study: what it is, and the files that hold its outcome."""
    found = []
    for e in SHEETS.evaluations[study]:
        name = f"{e.base}/{e.subset}/{e.recipe}"
        found.append(
            {
                "base": e.base,
                "subset": e.subset,
                "n": e.n,
                "draw": e.draw,
                "members": list(e.members),
                # How many checkpoints it was drawn from.
                "pool": len(study_checkpoints(study)[e.base]),
                "recipe": e.recipe,
                "suite": e.suite,
                "scores": f"results/scores/{name}/{e.suite}.json",
                "items": f"results/scores/{name}/{e.suite}.items.parquet",
                "summary": f"results/merges/{name}/summary.json" if e.is_merge else None,
            }
        )
    return found


def outcomes(study, kind, model=None):
    """The files of one kind that a study's evaluations leave: `scores`, `items` or `summary`.

    Of all models, or of one, (base, subset, recipe).
    """
    rows = [s for s in scores(study) if model in (None, (s["base"], s["subset"], s["recipe"]))]
    return list(dict.fromkeys(s[kind] for s in rows if s[kind]))


def chosen_studies():
    """The studies of the target `all`."""
    for study in config["studies"]:
        if study not in STUDIES:
            raise WorkflowError(
                f"{CONFIG}/config.yaml: a file of {CONFIG}/studies/ was expected in `studies`, "
                f"found {study!r}. Known are {', '.join(STUDIES)}."
            )
    return config["studies"]


def study_files(study):
    """Everything that a study ends in."""
    folder = f"results/studies/{study}"
    names = ["scores.csv", "merges.csv", "report.html"] if SHEETS.evaluations[study] else []
    return [
        f"{folder}/checkpoints.csv",
        *(f"{folder}/{name}" for name in names),
        *study_outputs(study, "figures", "pdf"),
        *study_outputs(study, "tables", "csv"),
        *(kept(study) if STUDIES[study].get("keep") else []),
    ]


def kept(study):
    """The folders of a study's merges that are kept with their weights."""
    merges = [e for e in SHEETS.evaluations[study] if e.is_merge]
    folder = f"results/studies/{study}/kept"
    return dict.fromkeys(f"{folder}/{e.base}/{e.subset}/{e.recipe}" for e in merges)


def study_outputs(study, kind, suffix):
    """A study's figures or tables in one format."""
    return [f"results/studies/{study}/{kind}/{name}.{suffix}" for name in STUDIES[study][kind]]


@cache
def study_checkpoints(study):
    """The checkpoints that a study draws from, by base, in the sheet's order."""
    rows = list(SHEETS.models.values())
    return {base: list(pool(STUDIES[study], rows, base, study)) for base in STUDIES[study]["bases"]}


def study_models(study):
    """The rows of config/models.tsv that a study is about."""
    found = study_checkpoints(study)
    return [row(base, model) for base, models in found.items() for model in [BASE, *models]]


def study_verdicts(study):
    """The verdicts on the checkpoints that a study merges, or looks at if it merges none."""
    merged = {(e.base, m) for e in SHEETS.evaluations[study] if e.is_merge for m in e.members}
    looked_at = {(base, m) for base, models in study_checkpoints(study).items() for m in models}
    found = sorted(merged or looked_at)
    return [f"results/task_vectors/{base}/{model}.json" for base, model in found]


def made_from(kind, name, study):
    """The files that a figure or table of a study is made from."""
    return catalogue.files(kind, name, study, STUDIES[study]["bases"], HOME)


def drawn_from(base):
    """The checkpoints of a base whose task vectors a study looks at, in the sheet's order."""
    looking = [n for n, study in STUDIES.items() if catalogue.asks_for(study, catalogue.SIMILARITY)]
    drawn = {model for study in looking for model in study_checkpoints(study).get(base, [])}
    return [model for b, model in SHEETS.models if b == base and model in drawn]


def by_size(fixed, per_gb):
    """A resource that grows with the model (GB of 16-bit weights) and with the attempt."""

    def amount(wildcards, attempt):
        return int((fixed + per_gb * float(row(wildcards.base, BASE)["gb"])) * attempt)

    return amount


def weights_mb(wildcards):
    """MB of a model's 16-bit weights: what a merge keeps on disk until it is evaluated."""
    return int(1000 * float(row(wildcards.base, BASE)["gb"]))
