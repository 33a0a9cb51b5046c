"""Check all checkpoints of a study before anything is downloaded, and print one table."""

from dataclasses import asdict

from wildmerge import WildmergeError
from wildmerge.files import write_json
from wildmerge.run import job
from wildmerge.sources import UNUSABLE, as_table, judge_rows
from wildmerge.study import ways_on


def main(rows: list[dict], output: str, study: str) -> None:
    """Print the table and keep the judgements as JSON.

    Args:
        rows: of models.tsv, the study's checkpoints and their bases.
        output: path of the JSON file.
        study: its name.

    Raises:
        WildmergeError: one of them is unusable.
    """
    judgements = judge_rows(rows)
    print(as_table(judgements), end="", flush=True)
    if bad := [f"{j.base}/{j.model}" for j in judgements if j.verdict == UNUSABLE]:
        raise WildmergeError(
            f"Checkpoints that can be merged with their bases were expected, but {len(bad)} of "
            f"{len(judgements)} cannot be used: {', '.join(bad)}. The table above says why of "
            "each. Correct their rows in config/models.tsv, or admit them there with a reason "
            f"where the table leaves it open. {ways_on(bad, study)}"
        )
    write_json(output, [asdict(j) for j in judgements])


if __name__ == "__main__":
    with job(snakemake.log[0], "preflight {study}".format(**snakemake.wildcards)):
        main(snakemake.params.rows, snakemake.output[0], snakemake.wildcards.study)
