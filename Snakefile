# wildmerge: what happens when fine-tuned checkpoints of one base are merged in the wild.
# Every rule, in the order of the paper's Figure 1:
# download -> task vectors -> merge -> evaluate -> aggregate.

from snakemake.utils import min_version

min_version("9.27")


include: "workflow/rules/common.smk"


wildcard_constraints:
    base="[a-z0-9._-]+",
    model="[a-z0-9._-]+",
    subset="[a-z0-9._-]+",
    recipe="[a-z0-9._-]+",
    suite="[a-z0-9_]+",
    study="[a-z0-9_]+",


localrules:
    all,
    admit,
    aggregate,
    figure,
    table,
    report,


onstart:
    refuse_missing()


onerror:
    logger.error(summary(log))


rule all:
    input:
        [
            NEEDS.study_files(study)
            for study in NEEDS.chosen(config["studies"], f"{CONFIG}/config.yaml")
        ],


# A study is a target: `snakemake demo`, `snakemake wild`, and any other file of config/studies/.
for study in STUDIES:

    rule:
        name:
            study
        input:
            NEEDS.study_files(study),
        localrule: True


# Any other word on the command line: what studies there are.
rule no_such_study:
    input:
        lambda w: NEEDS.study(w.word),
    output:
        "{word}",
    wildcard_constraints:
        word=r"[^/.]+",


# --- Download: checkpoints at a pinned revision, questions of a suite --------------------------


rule download:
    input:
        base=lambda w: [] if w.model == BASE else paths.checkpoint(w.base, BASE),
    output:
        directory("resources/checkpoints/{base}/{model}"),
    log:
        "logs/download/{base}/{model}.log",
    benchmark:
        "benchmarks/download/{base}/{model}.tsv"
    # Everything waits for checkpoints.
    priority: 1
    conda:
        "envs/wildmerge.yaml"
    resources:
        mem_mb=4000,
        runtime=by_size(30, 10),
    params:
        repo=lambda w: NEEDS.row(w.base, w.model)["repo"],
        revision=lambda w: present(w.base, w.model),
        files=lambda w: locked_files(NEEDS.row(w.base, w.model), SHEETS.lock),
        pickles=lambda w: takes_pickles(NEEDS.row(w.base, w.model)),
        base=lambda w: None if w.model == BASE else reference(w.base, BASE),
    script:
        "workflow/scripts/download.py"


# The examples' checkpoints are fine-tuned here, and not downloaded; no part of the paper's study.
ruleorder: finetune > download


rule fetch_training:
    output:
        directory("resources/training/{set}"),
    log:
        "logs/fetch_training/{set}.log",
    conda:
        "envs/wildmerge.yaml"
    params:
        package=EXPERTS.package,
        sources=lambda w: EXPERTS.sources(w.set),
        unseen=lambda w: EXPERTS.unseen[w.set],
    script:
        "workflow/scripts/fetch_training.py"


rule finetune:
    input:
        base=lambda w: paths.checkpoint(w.trained.split("/")[0], BASE),
        training=lambda w: f"resources/training/{EXPERTS.trained[w.trained].set}",
    output:
        checkpoint=directory("resources/checkpoints/{trained}"),
        learned="results/task_vectors/{trained}.learned.json",
    log:
        "logs/finetune/{trained}.log",
    benchmark:
        "benchmarks/finetune/{trained}.tsv"
    wildcard_constraints:
        # Just these: a checkpoint of the same name of another base is downloaded.
        trained="|".join(map(re.escape, EXPERTS.trained)) or "none",
    conda:
        "envs/wildmerge.yaml"
    resources:
        gpu=lambda w: int(not EXPERTS.trained[w.trained].training.get("portable", False)),
        mem_mb=8000,
        runtime=60,
    params:
        expert=lambda w: EXPERTS.trained[w.trained].how(),
    script:
        "workflow/scripts/finetune.py"


rule preflight:
    output:
        "results/studies/{study}/preflight.json",
    log:
        "logs/preflight/{study}.log",
    conda:
        "envs/wildmerge.yaml"
    params:
        rows=lambda w: NEEDS.study_models(w.study),
    script:
        "workflow/scripts/preflight.py"


rule fetch_suite:
    input:
        # Questions of one's own; those of the hub and of packages are none of this machine's files.
        lambda w: own_files(SHEETS.suites[w.suite]),
    output:
        directory("resources/suites/{suite}"),
    log:
        "logs/fetch_suite/{suite}.log",
    conda:
        "envs/wildmerge.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        suite=lambda w: SHEETS.suites[w.suite],
        pins=lambda w: pins_of(w.suite, DATASETS),
        lm_eval=version("lm_eval"),
    script:
        "workflow/scripts/fetch_suite.py"


# --- Task vectors: what each checkpoint changed, and whether it can be merged ------------------


rule task_vector:
    input:
        base="resources/checkpoints/{base}/base",
        expert="resources/checkpoints/{base}/{model}",
    output:
        verdict="results/task_vectors/{base}/{model}.json",
    log:
        "logs/task_vector/{base}/{model}.log",
    benchmark:
        "benchmarks/task_vector/{base}/{model}.tsv"
    conda:
        "envs/wildmerge.yaml"
    resources:
        mem_mb=by_size(3000, 1000),
        runtime=TIMES.asked("task_vector"),
    params:
        # What its file says of it; a note or an `admit` in the sheet measures nothing anew.
        row=lambda w: {
            key: NEEDS.row(w.base, w.model)[key] for key in ("base", "model", "repo", "revision")
        },
    script:
        "workflow/scripts/task_vector.py"


rule similarity:
    input:
        base="resources/checkpoints/{base}/base",
        experts=checkpoints(compared),
    output:
        "results/task_vectors/{base}/similarity.npz",
    log:
        "logs/similarity/{base}.log",
    benchmark:
        "benchmarks/similarity/{base}.tsv"
    conda:
        "envs/wildmerge.yaml"
    resources:
        mem_mb=by_size(4000, 1000),
        runtime=by_size(20, 20),
    params:
        models=compared,
    script:
        "workflow/scripts/similarity.py"


rule families:
    input:
        verdicts=lambda w: NEEDS.study_verdicts(w.study),
    output:
        "results/studies/{study}/checkpoints.csv",
    log:
        "logs/families/{study}.log",
    conda:
        "envs/wildmerge.yaml"
    params:
        admitted=lambda w: {
            f"{r['base']}/{r['model']}": r["admit"] for r in NEEDS.study_models(w.study)
        },
        refuse_copies=lambda w: NEEDS.study(w.study).get("duplicates") == "refuse",
    script:
        "workflow/scripts/families.py"


rule admit:
    input:
        verdict="results/task_vectors/{base}/{model}.json",
    output:
        verdict="results/admitted/{base}/{model}.json",
    log:
        "logs/admit/{base}/{model}.log",
    conda:
        "envs/wildmerge.yaml"
    params:
        admit=lambda w: NEEDS.row(w.base, w.model)["admit"],
    script:
        "workflow/scripts/admit.py"


# Singular value decompositions that several merges share; gone when the last of them is done.
rule factorize:
    input:
        base="resources/checkpoints/{base}/base",
        experts=["resources/checkpoints/{base}/{model}"],
        verdicts=["results/admitted/{base}/{model}.json"],
    output:
        temp(directory("results/task_vectors/{base}/{model}.factors")),
    log:
        "logs/factorize/{base}/{model}.log",
    benchmark:
        "benchmarks/factorize/{base}/{model}.tsv"
    conda:
        "envs/wildmerge.yaml"
    resources:
        gpu=1,
        disk_mb=lambda w: int(0.4 * weights_mb(w)),
        mem_mb=by_size(4000, 500),
        runtime=TIMES.asked("factorize"),
    params:
        members=lambda w: [w.model],
        of="expert",
    script:
        "workflow/scripts/factorize.py"


rule factorize_sum:
    input:
        base="resources/checkpoints/{base}/base",
        experts=checkpoints(drawn),
        verdicts=admitted(drawn),
    output:
        temp(directory("results/merges/{base}/{subset}/factors")),
    log:
        "logs/factorize_sum/{base}/{subset}.log",
    benchmark:
        "benchmarks/factorize_sum/{base}/{subset}.tsv"
    conda:
        "envs/wildmerge.yaml"
    resources:
        gpu=1,
        disk_mb=lambda w: int(2.6 * weights_mb(w)),
        mem_mb=by_size(4000, 2500),
        runtime=TIMES.asked("factorize_sum"),
    params:
        members=drawn,
        of="sum",
    script:
        "workflow/scripts/factorize.py"


# What the points of a sweep over lambda share: the update before that factor; gone with the last.
rule update:
    input:
        base="resources/checkpoints/{base}/base",
        experts=checkpoints(drawn),
        verdicts=admitted(drawn),
    output:
        temp(directory("results/merges/{base}/{subset}/unscaled/{unscaled}")),
    log:
        "logs/update/{base}/{subset}/{unscaled}.log",
    benchmark:
        "benchmarks/update/{base}/{subset}/{unscaled}.tsv"
    wildcard_constraints:
        unscaled="[a-z0-9._-]+",
    conda:
        "envs/wildmerge.yaml"
    resources:
        disk_mb=lambda w: 2 * weights_mb(w),
        mem_mb=by_size(4000, 2500),
        runtime=TIMES.asked("update"),
    params:
        members=drawn,
        recipe=lambda w: NEEDS.recipe_of_update(w.base, w.subset, w.unscaled),
    script:
        "workflow/scripts/update.py"


# --- Merge: base + subset + recipe -> a model ---------------------------------------------------


rule merge:
    input:
        base="resources/checkpoints/{base}/base",
        experts=checkpoints(drawn),
        verdicts=admitted(drawn),
        factors=of_merge(NEEDS.factors),
        unscaled=of_merge(NEEDS.update),
    output:
        model=temp(directory(MERGED)),
        yaml="results/merges/{base}/{subset}/{recipe}/mergekit.yaml",
        summary="results/merges/{base}/{subset}/{recipe}/summary.json",
    log:
        "logs/merge/{base}/{subset}/{recipe}.log",
    benchmark:
        "benchmarks/merge/{base}/{subset}/{recipe}.tsv"
    conda:
        "envs/wildmerge.yaml"
    resources:
        # Its evaluation's. Where jobs run side by side, no more weights then lie on disk than GPUs
        # are there to evaluate them.
        gpu=1,
        disk_mb=weights_mb,
        mem_mb=by_size(4000, 2500),
        runtime=TIMES.asked("merge"),
    params:
        members=drawn,
        recipe=lambda w: NEEDS.recipe(w.recipe),
        references=lambda w: {m: reference(w.base, m) for m in [BASE, *drawn(w)]},
        dtype=config["merge_dtype"],
    script:
        "workflow/scripts/merge.py"


# --- Evaluate: a model on a suite of benchmarks -------------------------------------------------


rule tokenize:
    input:
        tokenizer="resources/checkpoints/{base}/base",
        suite="resources/suites/{suite}",
    output:
        directory("resources/prompts/{base}/{suite}"),
    log:
        "logs/tokenize/{base}/{suite}.log",
    conda:
        "envs/wildmerge.yaml"
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        lm_eval=version("lm_eval"),
    script:
        "workflow/scripts/tokenize_prompts.py"


rule evaluate:
    input:
        model=weights,
        # Comes with the weights; names their digest.
        summary=of_merge(NEEDS.summary),
        suite="resources/suites/{suite}",
        prompts="resources/prompts/{base}/{suite}",
    output:
        scores="results/scores/{base}/{subset}/{recipe}/{suite}.json",
        questions="results/scores/{base}/{subset}/{recipe}/{suite}.items.parquet",
    log:
        "logs/evaluate/{base}/{subset}/{recipe}/{suite}.log",
    benchmark:
        "benchmarks/evaluate/{base}/{subset}/{recipe}/{suite}.tsv"
    # Before more is merged, what lies merged is evaluated and removed.
    priority: 1
    conda:
        "envs/wildmerge.yaml"
    resources:
        gpu=1,
        mem_mb=by_size(6000, 1500),
        runtime=TIMES.asked("evaluate"),
    params:
        members=members,
        suite=lambda w: SHEETS.suites[w.suite],
        backend=config["backend"],
        generation_backend=config.get("generation_backend"),
        batch_size=config["batch_size"],
    script:
        "workflow/scripts/evaluate.py"


# --- Aggregate: tidy tables, figures ------------------------------------------------------------


rule aggregate:
    input:
        scores=lambda w: NEEDS.outcomes(w.study, "scores"),
        summaries=lambda w: NEEDS.outcomes(w.study, "summary"),
    output:
        scores="results/studies/{study}/scores.csv",
        merges="results/studies/{study}/merges.csv",
    log:
        "logs/aggregate/{study}.log",
    conda:
        "envs/wildmerge.yaml"
    params:
        plan=lambda w: NEEDS.planned(w.study),
    script:
        "workflow/scripts/aggregate.py"


rule compare:
    input:
        lambda w: NEEDS.outcomes(w.study, "items"),
    output:
        outcomes="results/studies/{study}/outcomes.parquet",
        comparisons="results/studies/{study}/comparisons.csv",
        intervals="results/studies/{study}/intervals.csv",
        answers="results/studies/{study}/answers.csv",
        methods="results/studies/{study}/methods.csv",
        best="results/studies/{study}/best.csv",
    log:
        "logs/compare/{study}.log",
    conda:
        "envs/wildmerge.yaml"
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        plan=lambda w: NEEDS.planned(w.study),
        facts=lambda w: NEEDS.declared(w.study),
    script:
        "workflow/scripts/compare.py"


# A finer outcome than right or wrong, as a secondary endpoint.
rule calibrate:
    input:
        outcomes=lambda w: NEEDS.outcomes(w.study, "items"),
        scores=lambda w: NEEDS.outcomes(w.study, "scores"),
    output:
        "results/studies/{study}/calibrated.csv",
    log:
        "logs/calibrate/{study}.log",
    conda:
        "envs/wildmerge.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        plan=lambda w: NEEDS.planned(w.study),
    script:
        "workflow/scripts/calibrate.py"


rule figure:
    input:
        unpack(lambda w: NEEDS.made_from("figures", w.figure, w.study, HOME)),
    output:
        pdf="results/studies/{study}/figures/{figure}.pdf",
        png=report(
            "results/studies/{study}/figures/{figure}.png",
            caption="workflow/report/caption.jinja",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        "logs/figure/{study}/{figure}.log",
    conda:
        "envs/wildmerge.yaml"
    params:
        caption=lambda w: catalogue.declaration("figures", w.figure).caption,
        study=lambda w: NEEDS.study(w.study),
        checkpoints=lambda w: NEEDS.study_checkpoints(w.study),
        recipes=lambda w: SHEETS.study_recipes[w.study],
    script:
        "workflow/scripts/figure.py"


rule table:
    input:
        unpack(lambda w: NEEDS.made_from("tables", w.table, w.study, HOME)),
    output:
        csv="results/studies/{study}/tables/{table}.csv",
        tex="results/studies/{study}/tables/{table}.tex",
        html=report(
            "results/studies/{study}/tables/{table}.html",
            caption="workflow/report/caption.jinja",
            category="Tables",
            labels={"table": "{table}"},
        ),
    log:
        "logs/table/{study}/{table}.log",
    conda:
        "envs/wildmerge.yaml"
    params:
        caption=lambda w: catalogue.declaration("tables", w.table).caption,
        study=lambda w: NEEDS.study(w.study),
        checkpoints=lambda w: NEEDS.study_checkpoints(w.study),
        recipes=lambda w: SHEETS.study_recipes[w.study],
    script:
        "workflow/scripts/table.py"


# It also adds up the benchmarks of all jobs so far, deliberately no inputs: a job that is timed again
# must not make every report again, and one that ran elsewhere has left none.
rule report:
    input:
        **{name: f"results/studies/{{study}}/{name}.csv" for name in catalogue.CSV},
        figures=lambda w: NEEDS.study_outputs(w.study, "figures", "png"),
        tables=lambda w: NEEDS.study_outputs(w.study, "tables", "html"),
        verdicts=lambda w: NEEDS.study_verdicts(w.study),
        outcomes=lambda w: NEEDS.outcomes(w.study, "scores"),
        summaries=lambda w: NEEDS.outcomes(w.study, "summary"),
    output:
        "results/studies/{study}/report.html",
    log:
        "logs/report/{study}.log",
    conda:
        "envs/wildmerge.yaml"
    params:
        study=lambda w: NEEDS.study(w.study),
        plan=lambda w: NEEDS.planned(w.study),
        models=lambda w: NEEDS.study_models(w.study),
        recipes=lambda w: SHEETS.study_recipes[w.study],
    script:
        "workflow/scripts/report.py"


# Asked for by name, or for all merges of a study by its key `keep`. It reads models.tsv and the lock,
# deliberately no inputs: a note that is edited must not make all kept merges again.
rule keep:
    input:
        model=weights,
        yaml="results/merges/{base}/{subset}/{recipe}/mergekit.yaml",
        summary="results/merges/{base}/{subset}/{recipe}/summary.json",
        # As they are when it is kept: a recipe more in the study makes no merge again.
        comparisons=ancient("results/studies/{study}/comparisons.csv"),
        scores=ancient(lambda w: NEEDS.outcomes(w.study, "scores", (w.base, w.subset, w.recipe))),
    output:
        # The card, last of a folder of weights: Snakemake would put a mark of its own into a folder.
        "results/studies/{study}/kept/{base}/{subset}/{recipe}/README.md",
    log:
        "logs/keep/{study}/{base}/{subset}/{recipe}.log",
    conda:
        "envs/wildmerge.yaml"
    resources:
        disk_mb=weights_mb,
        runtime=30,
    params:
        config=str(CONFIG),
    script:
        "workflow/scripts/keep.py"
