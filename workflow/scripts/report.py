"""Make a study's report: one HTML file that opens offline."""

from pathlib import Path

from wildmerge.analysis import read_table
from wildmerge.files import atomic_file
from wildmerge.reporting import build_page
from wildmerge.run import job, spent
from wildmerge.study import CSV

if __name__ == "__main__":
    with job(snakemake.log[0], f"report {snakemake.wildcards.study}"):
        page = build_page(
            name=snakemake.wildcards.study,
            study=snakemake.params.study,
            frames={name: read_table(snakemake.input[name]) for name in CSV},
            figures=[Path(path) for path in snakemake.input.figures],
            tables=[Path(path) for path in snakemake.input.tables],
            verdicts=snakemake.input.verdicts,
            sheet=snakemake.params.models,
            plan=snakemake.params.plan,
            recipes=snakemake.params.recipes,
            jobs=spent(Path("benchmarks"), snakemake.params.study["bases"]),
        )
        with atomic_file(snakemake.output[0]) as part:
            part.write_text(page, encoding="utf-8")
