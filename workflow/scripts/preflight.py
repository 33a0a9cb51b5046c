"""Check all checkpoints of a study before anything is downloaded, and print one table."""

from dataclasses import asdict

from wildmerge import WildmergeError
from wildmerge.files import write_json
from wildmerge.run.jobs import job
from wildmerge.sources.preflight import UNUSABLE, check, table


def main(rows: list[dict], output: str) -> None:
    """Print the table and keep the reports as JSON; raise WildmergeError if any is unusable.

    rows: of models.tsv, the study's checkpoints and their bases.
    """
    reports = check(rows)
    print(table(reports), end="", flush=True)
    if bad := [f"{r.base}/{r.model}" for r in reports if r.verdict == UNUSABLE]:
        raise WildmergeError(
            f"Checkpoints that can be merged with their bases were expected, but {len(bad)} of "
            f"{len(reports)} cannot be used: {', '.join(bad)}. The table above says why of each. "
            "Correct their rows in config/models.tsv, admit them there with a reason where the "
            "table leaves it open, or take them out of the pool."
        )
    write_json(output, [asdict(r) for r in reports])


if __name__ == "__main__":
    with job(snakemake.log[0], "preflight {study}".format(**snakemake.wildcards)):
        main(snakemake.params.rows, snakemake.output[0])
