"""Make the demo's checkpoints by fine-tuning. No part of the study's own DAG."""

EXPERTS = sheets.read_yaml(CONFIG / "experts.yaml")
sheets.validate(
    EXPERTS,
    sheets.read_yaml(HOME / "workflow/schemas/experts.schema.yaml"),
    str(CONFIG / "experts.yaml"),
)
TRAINED = [m for (_, m), r in SHEETS.models.items() if r["repo"] == f"demo:{m}"]


# A checkpoint that is fine-tuned here is not downloaded.
ruleorder: finetune > download


rule fetch_training:
    output:
        directory("resources/training"),
    log:
        "logs/fetch_training.log",
    conda:
        "../../envs/wildmerge.yaml"
    params:
        package=EXPERTS["package"],
        sources=sorted({source for found in EXPERTS["experts"].values() for source in found}),
    script:
        "../scripts/fetch_training.py"


rule finetune:
    input:
        base="resources/checkpoints/{base}/base",
        training="resources/training",
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
        sources=lambda w: EXPERTS["experts"][w.expert],
        training=EXPERTS["training"],
    script:
        "../scripts/finetune.py"
