"""Make the examples' checkpoints by fine-tuning. No part of the paper's study."""

SHEET = sheets.read_yaml(CONFIG / "experts.yaml")
sheets.validate(
    SHEET,
    sheets.read_yaml(HOME / "workflow/schemas/experts.schema.yaml"),
    str(CONFIG / "experts.yaml"),
)
# Expert -> what it is trained on, and how.
EXPERTS = {
    name: {"set": of, "sources": sources, "training": found["training"]}
    for of, found in SHEET["sets"].items()
    for name, sources in found["experts"].items()
}
TRAINED = [m for (_, m), r in SHEETS.models.items() if r["repo"] == f"trained:{m}"]
for name in TRAINED:
    if name not in EXPERTS:
        raise WorkflowError(
            f"{CONFIG}/models.tsv: an expert of {CONFIG}/experts.yaml was expected, found "
            f"trained:{name}. Known are {', '.join(EXPERTS)}."
        )


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
        base="resources/checkpoints/{base}/base",
        training=lambda w: f"resources/training/{EXPERTS[w.expert]['set']}",
    output:
        directory("resources/checkpoints/{base}/{expert}"),
    log:
        "logs/finetune/{base}/{expert}.log",
    benchmark:
        "benchmarks/finetune/{base}/{expert}.tsv"
    wildcard_constraints:
        expert="|".join(TRAINED) or "none",
    conda:
        "../../envs/wildmerge.yaml"
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=60,
    params:
        sources=lambda w: EXPERTS[w.expert]["sources"],
        training=lambda w: EXPERTS[w.expert]["training"],
    script:
        "../scripts/finetune.py"
