"""Make the examples' checkpoints by fine-tuning. No part of the paper's study."""

import re

SHEET = read_yaml(CONFIG / "experts.yaml")
validate(
    SHEET,
    read_yaml(HOME / "workflow/schemas/experts.schema.yaml"),
    str(CONFIG / "experts.yaml"),
)
# Expert -> what it is trained on, and how.
EXPERTS = {}
for name, found in SHEET["sets"].items():
    for expert, sources in found["experts"].items():
        if expert in EXPERTS:
            raise WorkflowError(
                f"{CONFIG}/experts.yaml: a name of its own was expected for each expert, found "
                f"{expert} in two sets. Rename one of the two."
            )
        EXPERTS[expert] = {"set": name, "sources": sources, "training": found["training"]}
# Checkpoint -> how it is trained.
TRAINED = {}
for (base, model), found in SHEETS.models.items():
    kind, _, name = found["repo"].partition(":")
    if kind == "trained":
        if name not in EXPERTS:
            raise WorkflowError(
                f"{CONFIG}/models.tsv, {base}/{model}: an expert of {CONFIG}/experts.yaml was "
                f"expected, found trained:{name}. Known are {', '.join(EXPERTS)}."
            )
        TRAINED[f"{base}/{model}"] = EXPERTS[name]


# A checkpoint that is fine-tuned here is not downloaded.
ruleorder: finetune > download


rule fetch_training:
    output:
        directory("resources/training/{set}"),
    log:
        "logs/fetch_training/{set}.log",
    conda:
        "../../envs/wildmerge.yaml"
    params:
        package=SHEET["package"],
        sources=lambda w: sorted(
            {s for e in EXPERTS.values() if e["set"] == w.set for s in e["sources"]}
        ),
    script:
        "../scripts/fetch_training.py"


rule finetune:
    input:
        base=lambda w: paths.checkpoint(w.trained.split("/")[0], BASE),
        training=lambda w: f"resources/training/{TRAINED[w.trained]['set']}",
    output:
        directory("resources/checkpoints/{trained}"),
    log:
        "logs/finetune/{trained}.log",
    benchmark:
        "benchmarks/finetune/{trained}.tsv"
    wildcard_constraints:
        # Just these: a checkpoint of the same name of another base is downloaded.
        trained="|".join(map(re.escape, TRAINED)) or "none",
    conda:
        "../../envs/wildmerge.yaml"
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=60,
    params:
        sources=lambda w: TRAINED[w.trained]["sources"],
        training=lambda w: TRAINED[w.trained]["training"],
    script:
        "../scripts/finetune.py"
